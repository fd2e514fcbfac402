"""Samplers by name, and the one that a configuration store changes while the application runs."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.backoff import NONE, Backoff
from .._core.logs import logger, repeated
from .._core.threads import Background, Changes
from .._native import telemetry as kernel
from ..config import unknown
from ..errors import ClosedError, CloudRuntimesError, InvalidArgumentError

if TYPE_CHECKING:
    from .._service import ClientContext

SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "parentbased_rate_limited",
)
"""The names of ``OTEL_TRACES_SAMPLER``, and one of ours."""
_RETRIES: Final = Backoff(0.5, 30.0, jitter=NONE)

Sampling = tuple[float, float, bool]
"""Arguments of the kernel's `Sampler`: ratio, traces per second, whether the parent decides."""


def sampling(name: str, argument: float | None) -> Sampling:
    """Return the arguments of the kernel's `Sampler`. The argument is a ratio, by default 1, or traces per second, by default 100."""
    parent_based = name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    if kind == "rate_limited":
        return 1.0, 100.0 if argument is None else argument, parent_based
    if kind == "traceidratio":
        return 1.0 if argument is None else argument, 0.0, parent_based
    return float(kind == "always_on"), 0.0, parent_based


def parse(text: str) -> Sampling:
    """Read a sampler from a value of a configuration store: ``name`` or ``name:argument``, such as ``parentbased_traceidratio:0.25``. Raises `InvalidArgumentError`: no such sampler, an argument that is none, or one for a sampler that takes none."""
    name, colon, rest = text.strip().partition(":")
    name = name.strip()
    if name not in SAMPLERS:
        raise InvalidArgumentError(unknown("sampler", name, SAMPLERS))
    argument: float | None = None
    if colon:
        if name.endswith(("always_on", "always_off")):
            raise InvalidArgumentError(f"{name} takes no argument")
        try:
            argument = float(rest)
        except ValueError:
            raise InvalidArgumentError(f"{name}: the argument is a number") from None
    sampler = sampling(name, argument)
    kernel.Sampler(*sampler)  # refuses what is out of range
    return sampler


class LiveSampler:
    """Follows a key of a configuration store; begun by the first tracer, in a thread of its own, so that nobody waits for the store.

    A value that is none keeps the sampler that there is, and is told in a log. Where there is no value, or no store, the sampler of the settings, `settled`, holds.
    """

    def __init__(self, context: ClientContext, traces: kernel.Traces, settled: Sampling, store: str, key: str) -> None:
        self._context = weakref.ref(context)
        self._traces = traces
        self._settled = self._current = settled
        self._store = store
        self._key = key
        self._ending = False
        self._begin()
        fork.register(self)

    def _begin(self) -> None:
        self._changes = Changes()
        self._thread = Background(self._run, "cloud-runtimes-sampler")

    def start(self) -> None:
        """Begin to follow; again does nothing."""
        if not self._ending:
            try:
                self._thread.start()
            except RuntimeError:
                pass  # the interpreter ends: no more threads

    def forked(self) -> None:
        """In a forked child: the subscription is the parent's. The sampler stays as it was."""
        self._begins_anew = self._thread.started
        self._begin()

    def revived(self) -> None:
        """Follow by a subscription of its own, now that the child is whole."""
        if self._begins_anew:
            self.start()

    def close(self) -> None:
        """End; the client closes the subscription."""
        self._ending = True
        self._changes.announce()

    # -- the thread --

    def _run(self) -> None:
        failures = 0
        while not self._ending:
            ticket = self._changes.ticket()
            try:
                self._follow()
                return  # closed
            except ClosedError:
                return
            except CloudRuntimesError as error:
                if isinstance(error, (LookupError, NotImplementedError, ValueError)):
                    logger().warning("telemetry: sampler_store %r is not followed: %s", self._store, error)
                    return
                repeated(f"telemetry-sampler-{self._store}", "telemetry: sampler_store %r: %s", self._store, error)
            if not self._ending:
                failures += 1
                self._changes.wait(ticket, _RETRIES.after(failures))

    def _follow(self) -> None:
        context = self._context()
        if context is None:
            return
        configuration = context.service("configuration")
        with configuration.subscribe_configuration(self._store, (self._key,)) as subscription:
            for items in subscription:
                self._take(items.get(self._key))

    def _take(self, item: Any) -> None:
        settings = self._settled
        if item is not None and not item.deleted:
            try:
                settings = parse(item.value)
            except InvalidArgumentError as error:
                repeated(
                    f"telemetry-sampler-{self._store}-{self._key}",
                    "telemetry: %s of the configuration store %r is no sampler, the last one stays: %s",
                    self._key,
                    self._store,
                    error,
                )
                return
        if settings != self._current:  # an equal one would forget how many it let through this second
            self._current = settings
            self._traces.sampler = kernel.Sampler(*settings)
