"""Meters: instruments by name, and their collection."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

from .._core.logs import repeated
from .._core.threads import Mutex
from .._native import telemetry as kernel
from ..errors import InvalidArgumentError

# Metrics API, "Instrument name syntax"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,254}")
DEFAULT_BOUNDS: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
"""Of explicit buckets (Metrics SDK, "Explicit bucket histogram aggregation")."""

Observation = float | tuple[float, Mapping[str, Any]]
"""What a callback gives: a value, or a value and its attributes."""
Callback = Callable[[], Iterable[Observation]]
I = TypeVar("I")  # noqa: E741


class Meter:
    """Makes the instruments of one instrumentation scope; made by `TelemetryService.meter`.

    The same name gives the same instrument; with another kind, unit, description or bounds it is refused. Names have letters, digits, ``_``, ``.``, ``-`` and ``/``, a letter first, at most 255.

    Attributes:
        instruments: those made so far, by name.
        explicit: whether advised bounds of histograms hold, else they are exponential.
    """

    def __init__(
        self,
        scope: int,
        buffer: kernel.Buffer,
        watch: Callable[[], None],
        *,
        delta: bool,
        exemplars: int,
        explicit: bool,
    ) -> None:
        self._scope = scope
        self._buffer = buffer
        self._watch = watch
        self._delta = delta
        self._exemplars = exemplars
        self.explicit = explicit
        self._lock = Mutex()
        self.instruments: dict[Any, tuple[tuple[Any, ...], Any, Callback | None]] = {}

    def forked(self) -> None:
        """Begin anew in a forked child."""
        for _, instrument, _ in self.instruments.values():
            instrument.reset()

    def _make(
        self,
        kind: str,
        make: Callable[..., I],
        name: str,
        unit: str,
        description: str,
        *,
        bounds: Any = None,
        callback: Any = None,
        **options: Any,
    ) -> I:
        self._check(name, unit, description)
        identity = (kind, unit, description, bounds, callback)
        with self._lock:
            entry = self.instruments.get(name)
            if entry is None:
                instrument = make(self._buffer, name, unit, description, **options)
                entry = self.instruments[name] = (identity, instrument, callback)
            elif entry[0] != identity:
                raise InvalidArgumentError(
                    f"{name}: there is a {entry[0][0]} of this name with unit {entry[0][1]!r}; an instrument has one kind, unit, description and bounds"
                )
        self._watch()
        return cast(I, entry[1])

    @staticmethod
    def _check(name: str, unit: str, description: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"{name!r} is no name of an instrument: letters, digits, '_', '.', '-' and '/', a letter first, at most 255"
            )
        for what, text in (("unit", unit), ("description", description)):
            if not isinstance(text, str):
                raise InvalidArgumentError(f"{name}: {what} is text, not {type(text).__name__}")

    def counter(self, name: str, unit: str = "", description: str = "") -> kernel.Counter:
        """Return a sum that only grows: ``add(1, {"key": "value"})``.

        Raises:
            InvalidArgumentError: a name that is none, or that another instrument has.
        """
        options = {"delta": self._delta, "exemplars": self._exemplars}
        return self._make("counter", kernel.Counter, name, unit, description, **options)

    def up_down_counter(self, name: str, unit: str = "", description: str = "") -> kernel.UpDownCounter:
        """Return a sum that goes up and down; it is always cumulative."""
        make = kernel.UpDownCounter
        return self._make("up_down_counter", make, name, unit, description, exemplars=self._exemplars)

    def gauge(self, name: str, unit: str = "", description: str = "") -> kernel.Gauge:
        """Return a value of which the last counts: ``set(20.5)``."""
        return self._make("gauge", kernel.Gauge, name, unit, description, exemplars=self._exemplars)

    def histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        bounds: Sequence[float] | Literal["exponential"] | None = None,
    ) -> kernel.Histogram:
        """Return a distribution: ``record(0.3)``.

        Args:
            name, unit, description: as they are exported.
            bounds: upper bounds of explicit buckets, growing; ``"exponential"``: as many and as fine as 160 buckets allow; ``None``: as configured (``histograms``), by default explicit with the bounds of the specification.
        """
        chosen: tuple[float, ...] | None
        if bounds is None:
            chosen = DEFAULT_BOUNDS if self.explicit else None
        elif isinstance(bounds, str):
            if bounds != "exponential":
                raise InvalidArgumentError(f'{name}: bounds={bounds!r}: give numbers, or "exponential"')
            chosen = None
        else:
            try:
                chosen = tuple(float(bound) for bound in bounds)
            except (TypeError, ValueError):
                raise InvalidArgumentError(f'{name}: bounds are numbers, or "exponential"') from None
            if any(not low < high for low, high in itertools.pairwise(chosen)) or any(
                bound - bound != 0 for bound in chosen
            ):
                raise InvalidArgumentError(f"{name}: bounds must be finite, each higher than the one before")
        make = functools.partial(kernel.Histogram, delta=self._delta, exemplars=self._exemplars, bounds=chosen)
        return self._make("histogram", make, name, unit, description, bounds=chosen)

    def observable_counter(self, name: str, callback: Callback, unit: str = "", description: str = "") -> None:
        """Have a sum that only grows read at each collection.

        Args:
            name, unit, description: as they are exported.
            callback: gives values, or pairs of a value and attributes: totals since the start. It runs in the thread that sends, so it must not wait. An exception is logged, and the instrument left out this time.
        """
        self._observable("counter", name, callback, unit, description)

    def observable_up_down_counter(self, name: str, callback: Callback, unit: str = "", description: str = "") -> None:
        """Have a sum that goes up and down read at each collection; arguments as of `observable_counter`."""
        self._observable("up_down_counter", name, callback, unit, description)

    def observable_gauge(self, name: str, callback: Callback, unit: str = "", description: str = "") -> None:
        """Have a value read at each collection; arguments as of `observable_counter`."""
        self._observable("gauge", name, callback, unit, description)

    def _observable(self, kind: str, name: str, callback: Callback, unit: str, description: str) -> None:
        if not callable(callback):
            raise InvalidArgumentError(f"{name}: callback must be a function, not {type(callback).__name__}")
        make = functools.partial(kernel.Observable, kind=kind)
        self._make(f"observable_{kind}", make, name, unit, description, callback=callback)

    def collect(self, buffer: kernel.Buffer, now: int) -> None:
        """Write all instruments into a buffer; called by the pipeline."""
        for name, (_, instrument, callback) in list(self.instruments.items()):
            if callback is not None:
                instrument.begin()
                try:
                    for observation in callback():
                        if isinstance(observation, tuple):
                            instrument.observe(*observation)
                        else:
                            instrument.observe(observation)
                except Exception as error:
                    repeated(f"telemetry-callback-{name}", "telemetry: the callback of %s failed", name, exc_info=error)
                    continue
            data, points = instrument.collect(now)
            if points:
                buffer.add(self._scope, data, points)
