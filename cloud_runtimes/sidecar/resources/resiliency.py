"""Resources of kind ``Resiliency`` as data (Dapr, "Resiliency policies"). What is held here, timeouts and retries of calls of the application beside the sidecar, is `Resiliency.app`; the rest is warned of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .documents import Document, Problems

__all__ = ["Policy", "Resiliency", "Retries", "resiliency"]

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_RETRY: Final = frozenset(["duration", "matching", "maxInterval", "maxRetries", "policy"])
_BREAKER: Final = frozenset(["interval", "maxRequests", "timeout", "trip"])


@dataclass(frozen=True, slots=True)
class Retries:
    """A policy of retries.

    Attributes:
        most: retries; ``None``: for ever.
        interval: seconds before the first one.
        exponential: each interval is 1.5 times the one before, give or take a half, up to ``max_interval`` seconds.
        http, grpc: ranges of status codes that are tried again; empty: all.
    """

    most: int | None = None
    interval: float = 5.0
    exponential: bool = False
    max_interval: float = 60.0
    http: tuple[tuple[int, int], ...] = ()
    grpc: tuple[tuple[int, int], ...] = ()

    def takes(self, status: int) -> bool:
        """Tell whether an HTTP status is tried again; a failure of transport always is."""
        return any(first <= status <= last for first, last in self.http) if self.http else status >= 400

    def delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each retry."""
        count, delay = 0, 0.5 if self.exponential else self.interval
        while self.most is None or count < self.most:
            count += 1
            yield delay * random.uniform(0.5, 1.5) if self.exponential else delay
            if self.exponential:
                delay = min(self.max_interval, delay * 1.5)


@dataclass(frozen=True, slots=True)
class Policy:
    """Of one target.

    Attributes:
        timeout: seconds of each attempt; ``None``: none of its own.
        retries: ``None``: none of their own.
    """

    timeout: float | None = None
    retries: Retries | None = None


@dataclass(frozen=True, slots=True)
class Resiliency:
    """Policies by target.

    Attributes:
        apps: app id → for calls of its methods.
        outbound, inbound: component → for calls of it, and for what it delivers to the application.
        defaults: name of a default policy, e.g. ``"ComponentInboundPubsub"`` → policy.
    """

    apps: Mapping[str, Policy] = field(default_factory=dict)
    outbound: Mapping[str, Policy] = field(default_factory=dict)
    inbound: Mapping[str, Policy] = field(default_factory=dict)
    defaults: Mapping[str, Policy] = field(default_factory=dict)

    def app(self, app_id: str) -> Policy:
        """Return the policy for calls of an application; what it does not say is said by the default."""
        return self._find(self.apps.get(app_id), "App")

    def component(self, name: str, kind: str, *, inbound: bool) -> Policy:
        """Return the policy of a component; ``kind`` is ``"Statestore"``, ``"Pubsub"``, ``"Binding"`` and so on."""
        way = "Inbound" if inbound else "Outbound"
        own = (self.inbound if inbound else self.outbound).get(name)
        return self._find(own, f"Component{way}{kind}", f"Component{way}", "Component")

    def _find(self, own: Policy | None, *names: str) -> Policy:
        tried = [own, *(self.defaults.get(name) for name in (*names, ""))]
        timeout = next((each.timeout for each in tried if each is not None and each.timeout is not None), None)
        retries = next((each.retries for each in tried if each is not None and each.retries is not None), None)
        return Policy(timeout, retries)


def resiliency(documents: list[Document], app_id: str, problems: Problems) -> Resiliency | None:
    """Return what all documents come to; of two policies of one target the first counts. ``None``: there are none."""
    if not documents:
        return None
    apps: dict[str, Policy] = {}
    outbound: dict[str, Policy] = {}
    inbound: dict[str, Policy] = {}
    defaults: dict[str, Policy] = {}
    unheld: list[str] = []
    for document in documents:
        _Reader(document, problems, unheld).read(apps, outbound, inbound, defaults)
    unheld += [f"calls of {name!r}, which is another application" for name in apps if name != app_id]
    unheld += [f"component {name!r}" for name in dict.fromkeys((*outbound, *inbound))]
    unheld += [f"default {name!r}" for name in defaults if name.startswith(("Actor", "Component"))]
    if unheld:
        problems.warn("resiliency", f"has no effect here: {'; '.join(dict.fromkeys(unheld))}")
    return Resiliency(apps, outbound, inbound, defaults)


class _Reader:
    """Reads one document."""

    def __init__(self, document: Document, problems: Problems, unheld: list[str]) -> None:
        self._where = document.where
        self._spec = document.spec
        self._problems = problems
        self._unheld = unheld
        self._timeouts: dict[str, float | None] = {}
        self._retries: dict[str, Retries | None] = {}
        self._breakers: set[str] = set()

    def read(self, apps: Any, outbound: Any, inbound: Any, defaults: dict[str, Policy]) -> None:
        self._problems.unknown(self._where, self._spec, frozenset(["policies", "targets"]))
        policies = self._table(self._spec, "policies", "timeouts", "retries", "circuitBreakers")
        for name, value in self._table(policies, "timeouts").items():
            self._timeouts[name] = self._seconds(value, f"policies.timeouts.{name}")
        for name, value in self._table(policies, "retries").items():
            self._retries[name] = self._retry(value, f"policies.retries.{name}")
        for name, value in self._table(policies, "circuitBreakers").items():
            self._breakers.add(name)
            if isinstance(value, dict):
                self._problems.unknown(f"{self._where}, policies.circuitBreakers.{name}", value, _BREAKER)
            self._unheld.append(f"circuit breaker {name!r}")
        for kind, table in (("Timeout", self._timeouts), ("Retry", self._retries)):
            for name, value in table.items():
                match = re.fullmatch(rf"Default(.*){kind}Policy", name)
                if match:
                    old = defaults.get(match[1], Policy())
                    made: Any = (
                        Policy(value, old.retries) if kind == "Timeout" else Policy(old.timeout, value)  # type: ignore[arg-type]
                    )
                    defaults[match[1]] = made
        targets = self._table(self._spec, "targets", "actors", "apps", "components")
        for name, value in self._table(targets, "apps").items():
            apps.setdefault(name, self._policy(value, f"targets.apps.{name}", ("circuitBreakerCacheSize",)))
        self._unheld += [f"actor {name!r}" for name in self._table(targets, "actors")]
        for name, value in self._table(targets, "components").items():
            place = f"targets.components.{name}"
            both = value if isinstance(value, dict) else {}
            if not both:
                self._problems.add(self._where, f"{place} must have inbound or outbound")
            self._problems.unknown(f"{self._where}, {place}", both, frozenset(["inbound", "outbound"]))
            for way, into in (("inbound", inbound), ("outbound", outbound)):
                if way in both:
                    into.setdefault(name, self._policy(both[way], f"{place}.{way}", ()))

    def _table(self, table: Mapping[str, Any], key: str, *known: str) -> dict[str, Any]:
        found = table.get(key) or {}
        if not isinstance(found, dict):
            self._problems.add(self._where, f"{key} must be a table")
            return {}
        if known:
            self._problems.unknown(f"{self._where}, {key}", found, frozenset(known))
        return found

    def _policy(self, value: Any, place: str, more: tuple[str, ...]) -> Policy:
        if not isinstance(value, dict):
            self._problems.add(self._where, f"{place} must be a table of policies")
            return Policy()
        self._problems.unknown(
            f"{self._where}, {place}", value, frozenset(["circuitBreaker", "retry", "timeout", *more])
        )
        for key, there in (("timeout", self._timeouts), ("retry", self._retries), ("circuitBreaker", self._breakers)):
            if value.get(key) and value[key] not in there:
                self._problems.add(self._where, f"{place}.{key}: there is no policy {value[key]!r}")
        timeout, retry = value.get("timeout"), value.get("retry")
        return Policy(self._timeouts.get(str(timeout)), self._retries.get(str(retry)))

    def _seconds(self, value: Any, place: str) -> float | None:
        try:
            return go_duration(value)
        except ValueError as error:
            self._problems.add(self._where, f"{place}: {error}")
            return None

    def _retry(self, value: Any, place: str) -> Retries | None:
        if not isinstance(value, dict):
            self._problems.add(self._where, f"{place} must be a table")
            return None
        before = len(self._problems.errors)
        self._problems.unknown(f"{self._where}, {place}", value, _RETRY)
        policy = str(value.get("policy") or "constant").lower()
        if policy not in ("constant", "exponential"):
            self._problems.add(self._where, f"{place}.policy must be constant or exponential")
        most = value.get("maxRetries")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
            self._problems.add(self._where, f"{place}.maxRetries must be a whole number")
        interval = self._seconds(value.get("duration", "5s"), f"{place}.duration")
        longest = self._seconds(value.get("maxInterval", "60s"), f"{place}.maxInterval")
        matching = value.get("matching") or {}
        codes: dict[str, tuple[tuple[int, int], ...]] = {"httpStatusCodes": (), "gRPCStatusCodes": ()}
        if isinstance(matching, dict):
            self._problems.unknown(f"{self._where}, {place}.matching", matching, frozenset(codes))
            for key in codes:
                try:
                    codes[key] = _ranges(matching.get(key))
                except ValueError as error:
                    self._problems.add(self._where, f"{place}.matching.{key}: {error}")
        else:
            self._problems.add(self._where, f"{place}.matching must be a table")
        if len(self._problems.errors) > before or interval is None or longest is None:
            return None
        return Retries(
            None if most is None or most < 0 else most,
            interval,
            policy == "exponential",
            longest,
            codes["httpStatusCodes"],
            codes["gRPCStatusCodes"],
        )


def go_duration(value: Any) -> float:
    """Return the seconds of a duration as Go writes it, e.g. ``"1m30s"``.

    Raises:
        ValueError: it is none.
    """
    text = str(value)
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise ValueError(f"{text[:40]!r} is no duration such as 500ms, 5s, 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _ranges(value: Any) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for part in str(value).split(",") if value not in (None, "") else ():
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError("expected codes and ranges such as 429,500-599")
        found.append((int(match[1]), int(match[2] or match[1])))
    return tuple(found)
