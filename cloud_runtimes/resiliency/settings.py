"""The table ``[resiliency]`` of the configuration → one `Policy` for each target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .. import config
from ..config import build, setting, suggest, unknown, without_values
from ..errors import GRPC_CODES, InvalidArgumentError
from .policies import BreakerPolicy, Counts, Policy, Ranges, Resiliency, Retries, code_ranges

DEFAULT: Final = "default"
_KINDS: Final[Mapping[str, str]] = {
    "configuration": "Configuration",
    "database": "Binding",
    "file": "Binding",
    "lock": "Lock",
    "pubsub": "Pubsub",
    "secret": "Secretstore",
    "state": "Statestore",
}
"""Services whose names are stores → kind of component in the names of Dapr's default policies."""


def _number(least: float, maximum: float = float("inf")) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= maximum:
            raise ValueError(
                f"expected a number from {least:g}" + (f" to {maximum:g}" if maximum < float("inf") else " on")
            )
        return value

    return parse


def _codes(text: str | None) -> Ranges:
    ranges: list[tuple[int, int]] = []
    for name in (text or "").split(","):
        name = name.strip().upper()
        if name and (name not in GRPC_CODES or name == "OK"):
            raise ValueError(f"codes: {unknown('code', name, set(GRPC_CODES) - {'OK'})}")
        if name:
            ranges.append((GRPC_CODES[name], GRPC_CODES[name]))
    return tuple(ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """The table ``retry`` of a target.

    Attributes:
        policy: `exponential`: each interval is twice the one before, and what is waited is a random part of it; `constant`: always the same.
        duration: the first interval, or the one there is.
        max_interval: the longest one.
        max_retries: attempts after the first one; -1: as many as the call's timeout has room for.
        codes: which errors are tried again, by the names of gRPC, as `UNAVAILABLE,ABORTED`; without it those that are transient, and attempts that took too long and changed nothing. Conflicts never are.
        http: which replies of `rpc` are, as `429,500-599`; without it 429, 502, 503 and 504.
        repeat: `idempotent`: only calls that may be repeated without harm; `all`: every call whose data is not a stream.
        budget: retries for each call that succeeded in the last seconds.
        budget_reserve: retries that are there besides, for programs that call seldom; what is used of them comes back by calls that succeed.
    """

    policy: Literal["constant", "exponential"] = setting("exponential")
    duration: float = setting(0.1, parse=config.duration)
    max_interval: float = setting(2.0, parse=config.duration)
    max_retries: int = setting(2, parse=_number(-1))
    codes: str | None = setting(None)
    http: str | None = setting(None)
    repeat: Literal["idempotent", "all"] = setting("idempotent")
    budget: float = setting(0.1, parse=_number(0))
    budget_reserve: int = setting(2, parse=_number(0))

    def build(self) -> Retries:
        """Return the policy; `ValueError`: codes that there are not."""
        max_retries = None if self.max_retries < 0 else self.max_retries
        growth = 2.0 if self.policy == "exponential" else None
        codes, again, budget = (code_ranges(self.http), _codes(self.codes)), self.repeat == "all", self.budget
        return Retries(
            max_retries, self.duration, False, self.max_interval, *codes, growth, again, budget, self.budget_reserve
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """The table ``breaker`` of a target.

    Attributes:
        consecutive_failures: it opens after so many failures in a row.
        failure_ratio: and where this share of the calls has failed, from 0 to 1; without it never for that.
        requests: of so many calls at least.
        interval: after which a closed one counts anew, `0`: never; with a `failure_ratio` and without this after 10 s.
        timeout: from open to half open.
        probes: calls let through at once while it is half open; so many successes in a row close it.
    """

    consecutive_failures: int = setting(5, parse=_number(1))
    failure_ratio: float | None = setting(None, parse=_number(0, 1))
    requests: int = setting(10, parse=_number(1))
    interval: float | None = setting(None, parse=config.duration)
    timeout: float = setting(30.0, parse=config.period)
    probes: int = setting(1, parse=_number(1))

    def build(self) -> BreakerPolicy:
        """Return the policy."""

        def trip(counts: Counts) -> bool:
            ratio, calls = self.failure_ratio, counts.requests
            often = ratio is not None and calls >= self.requests and counts.total_failures / calls >= ratio
            return often or counts.consecutive_failures >= self.consecutive_failures

        interval = self.interval
        if interval is None:
            interval = 0.0 if self.failure_ratio is None else 10.0
        return BreakerPolicy(trip, self.probes, interval, self.timeout)


def _table(kind: Any, name: str) -> Callable[[Any], Any]:
    """Return what reads a table or ``false``."""

    def parse(value: Any) -> Any:
        if value is False or value is None:
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a table or false, got {type(value).__name__}")
        settings = build(kind, value, name)
        settings.build()
        return settings

    return parse


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """A table of ``[resiliency.targets]``.

    Attributes:
        timeout: of one attempt, in seconds or as text such as `500ms`; never longer than what is left of the call's own; `false`: none.
        retry: a table, see below; `false`: no retries.
        breaker: a table, see below; `false`: no circuit breaker.
    """

    timeout: float | Literal[False] | None = setting(
        None, parse=lambda value: value is not False and config.period(value)
    )
    retry: RetrySettings | Literal[False] | None = setting(None, parse=_table(RetrySettings, "retry"))
    breaker: BreakerSettings | Literal[False] | None = setting(None, parse=_table(BreakerSettings, "breaker"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResiliencySettings:
    """The table ``[resiliency]``.

    Attributes:
        file: file or folder of Dapr's resources `Resiliency`.
        targets: tables by target.
    """

    file: str | None = setting(None)
    targets: Mapping[str, Any] | None = setting(None)


_FRAME: Final = RetrySettings().build()
"""What holds where nothing is said: as without ``[resiliency]``, but for the budget."""


class Policies:
    """Policies by target, each of the three looked up separately.

    Our tables come first: ``<service>.<name>``, then ``<service>``, then ``default``. Dapr's resources follow."""

    def __init__(self, targets: Mapping[str, Mapping[str, Any]], resources: Resiliency | None, origin: str) -> None:
        self._targets = targets
        self._resources = resources
        self._origin = origin

    def check(self, stores: Mapping[str, Collection[str]] | None) -> None:
        """Refuse targets that are no stores (service → names; ``None``: any name is one). Dapr's resources are of several applications, so theirs are not looked at."""
        for target, service, name in self.named():
            if stores is None or name in stores.get(service, ()):
                continue
            there = sorted(stores.get(service, ()))
            raise InvalidArgumentError(
                f'{self._origin}: [resiliency.targets."{target}"]: there is no {service} {name!r}: '
                + (suggest(name, there) if there else f"there is no component of {service}")
            )

    def named(self) -> Iterator[tuple[str, str, str]]:
        """Yield our targets that name a store: target, service, name."""
        for target in self._targets:
            service, _, name = target.partition(".")
            if name and service in _KINDS:
                yield target, service, name

    def of(self, service: str, name: str) -> Policy:
        """Return the policy of one target; its ``retries`` are never ``None``."""
        said: dict[str, Any] = {}
        for target in (f"{service}.{name}", service, DEFAULT):
            for key, value in self._targets.get(target, {}).items():
                said.setdefault(key, value)
        theirs = Policy()
        if self._resources is not None and service == "rpc":
            theirs = self._resources.app(name)
        elif self._resources is not None and service in _KINDS:
            theirs = self._resources.component(name, _KINDS[service], inbound=False)
        return Policy(
            said.get("timeout", theirs.timeout) or None,
            said.get("retries", theirs.retries) or _FRAME,
            said.get("breaker", theirs.breaker),
        )


@without_values
def load(
    table: Mapping[str, Any], origin: str, services: Iterable[str], read_file: Callable[[str, str], Resiliency]
) -> Policies:
    """Read ``[resiliency]``, which came from ``origin``; ``read_file`` reads the resources of ``file``, given its path and the place of the setting."""
    where = f"{origin}: [resiliency]"
    settings = build(ResiliencySettings, table, where)
    targets = {
        str(name): _target(number, str(name), value, origin, services)
        for number, (name, value) in enumerate((settings.targets or {}).items(), 1)
    }
    return Policies(targets, None if settings.file is None else read_file(settings.file, where), origin)


def _target(number: int, name: str, table: Any, origin: str, services: Iterable[str]) -> dict[str, Any]:
    targets = f"{origin}: [resiliency.targets"
    service, _, component = name.partition(".")
    known = sorted({*services} - {"telemetry"})
    if name != DEFAULT and (service not in known or ("." in name and not component)):
        raise InvalidArgumentError(
            f'{targets}]: give "{DEFAULT}", a service or "<service>.<name>" in quotation marks; '
            + unknown("target", service, [*known, DEFAULT], number)
        )
    where = f"{targets}.{name if '.' not in name else repr(name)}]"
    if not isinstance(table, Mapping):
        raise InvalidArgumentError(
            f"{targets}]: {service!r}, key {number} of the table, must be a table, not {type(table).__name__}; "
            f'put a target with a dot in quotation marks: "{service}.orders"'
        )
    nested = any(isinstance(value, Mapping) for key, value in table.items() if key not in ("retry", "breaker"))
    if service in known and not component and nested:
        raise InvalidArgumentError(
            f'{where}: only retry and breaker are tables; for a store write [resiliency.targets."{service}.<name>"]'
        )
    settings = build(TargetSettings, table, where)
    said: dict[str, Any] = {}
    if settings.timeout is not None:
        said["timeout"] = settings.timeout
    if settings.retry is not None:
        said["retries"] = (settings.retry or RetrySettings(max_retries=0)).build()
    if settings.breaker is not None:
        said["breaker"] = settings.breaker.build() if settings.breaker else None
    return said
