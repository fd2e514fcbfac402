"""Dapr's resource files → documents, and those of the kind Resiliency → `Resiliency` (Dapr, "Resiliency policies")."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..._core.config_formats import load_parser, read_documents
from ..._core.logs import logger
from ...config import unknown
from ...errors import InvalidArgumentError
from ...resiliency.policies import BreakerPolicy, Policy, Ranges, Resiliency, Retries, code_ranges, read_trip

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Component": ("dapr.io/v1alpha1",),
    "Resiliency": ("dapr.io/v1alpha1",),
    "Subscription": ("dapr.io/v1alpha1", "dapr.io/v2alpha1"),
}
"""The kinds that are understood → their versions."""
_OTHERS: Final = ("Configuration", "HTTPEndpoint")
"""The kinds that daprd knows besides."""
_SUFFIXES: Final = (".yaml", ".yml")
_AT_TOP: Final = {key.lower(): key for key in ("apiVersion", "auth", "kind", "metadata", "scopes", "spec")}
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
POLICIES: Final = {"timeout": "timeout", "retry": "retries", "circuitBreaker": "breaker"}
"""Kind of a policy in a document → field of `Policy`."""
RETRY: Final = frozenset(["duration", "matching", "maxInterval", "maxRetries", "policy"])
BREAKER: Final = frozenset(["interval", "maxRequests", "timeout", "trip"])


class Problems:
    """Collector of problems, so that one run reports all of them."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note what is refused."""
        self.errors.append(f"{where}: {what}")

    def warn(self, where: str, what: str) -> None:
        """Note what has no effect."""
        self.warnings.append(f"{where}: {what}")

    def unknown(self, where: str, table: Mapping[str, Any], known: Collection[str], *, refuse: bool = True) -> None:
        """Note the keys of a table that are not known: they are refused, or have no effect."""
        note = self.add if refuse else self.warn
        for number, key in enumerate(table, 1):
            if key not in known:
                note(where, unknown("key", key, known, number))

    def finish(self) -> None:
        """Raise all that was noted as `InvalidArgumentError`."""
        if self.errors:
            raise InvalidArgumentError("; ".join(self.errors))


@dataclass(frozen=True, slots=True)
class Document:
    """Resource of a file."""

    where: str  # file and name, for messages
    kind: str
    version: str  # the part of ``apiVersion`` behind ``/``
    name: str
    spec: Mapping[str, Any]  # secrets may be in it
    scopes: tuple[str, ...]
    namespace: str  # "": none is given
    secret_store: str | None

    def __repr__(self) -> str:
        return f"<{self.kind} {self.where}>"


def read_all(
    paths: Sequence[str | os.PathLike[str]],
    app_id: str,
    problems: Problems,
    namespace: str = "",
    kinds: Mapping[str, tuple[str, ...]] = KINDS,
) -> list[Document]:
    """Return the resources of folders (all ``*.yaml`` and ``*.yml`` in them, in the order of their names) and files.

    ``kinds`` are those that count. Those whose ``scopes`` leave the application out are left out, and where a ``namespace`` is given those of another. What is wrong inside of files goes to ``problems``.
    """
    selected: list[Document] = []
    for file in _files(paths):
        load_parser("yaml", file)
        try:
            documents = read_documents(file.read_bytes(), partial(problems.warn, str(file)))
        except OSError as error:
            problems.add(str(file), f"cannot be read: {error.strerror}")
            continue
        if isinstance(documents, str):
            problems.add(str(file), documents)
            continue
        for number, each in enumerate(documents, 1):
            if each is None:  # nothing between two separators
                continue
            location = str(file) if len(documents) == 1 else f"{file}, document {number}"
            document = _document(location, each, problems, kinds)
            if document is None or (document.scopes and app_id not in document.scopes):
                continue
            if not (namespace and document.namespace) or document.namespace == namespace:
                selected.append(document)
    return selected


def _files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from (each for each in sorted(path.iterdir()) if each.suffix.lower() in _SUFFIXES and each.is_file())
        elif path.is_file():
            yield path
        else:
            raise InvalidArgumentError(f"the resources path {path} does not exist: give a folder of component files")


def _document(where: str, table: Any, problems: Problems, kinds: Mapping[str, tuple[str, ...]]) -> Document | None:
    if not isinstance(table, dict):
        problems.add(where, f"expected a resource (apiVersion, kind, metadata, spec), found {type(table).__name__}")
        return None
    table = {_AT_TOP.get(str(key).lower(), key): value for key, value in table.items()}  # Go does not mind case
    kind, version = str(table.get("kind")), str(table.get("apiVersion"))
    about = table.get("metadata")
    about = about if isinstance(about, dict) else {}
    name = scalar(about.get("name"))
    if not isinstance(name, str) or not name or "/" in name:
        problems.add(where, "metadata.name must be text without '/'")
        return None
    if kind not in kinds:
        reason = f"kind {kind!r}" if kind in _OTHERS else unknown("kind", kind, kinds)
        problems.warn(f"{where} ({name!r})", f"{reason}: the resource has no effect here")
        return None
    where = f"{where} ({kind} {name!r})"
    if version not in kinds[kind]:
        problems.add(where, unknown("apiVersion", version, kinds[kind]))
        return None
    problems.unknown(where, table, frozenset(_AT_TOP.values()), refuse=False)
    spec, auth = table.get("spec") or {}, table.get("auth") or {}
    scopes = texts(table.get("scopes"))
    store = auth.get("secretStore") if isinstance(auth, dict) else None
    if not isinstance(spec, dict):
        problems.add(where, f"spec must be a table, not {type(spec).__name__}")
        return None
    if scopes is None:
        problems.add(where, "scopes must be a list of app ids")
        return None
    space = str(about.get("namespace") or "")
    return Document(where, kind, version.partition("/")[2], name, spec, scopes, space, str(store) if store else None)


def scalar(value: Any) -> Any:
    """Return an unquoted number or truth value as its text, as daprd reads it where text is wanted; others as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).removesuffix(".0") if isinstance(value, (int, float)) else value


def texts(value: Any) -> tuple[str, ...] | None:
    """Return a list of text; ``None``: it is none."""
    if value is None:
        return ()
    items: list[Any] = [scalar(each) for each in value] if isinstance(value, list) else [None]
    return tuple(items) if all(isinstance(each, str) for each in items) else None


def read_resiliency(documents: list[Document], problems: Problems, actors: list[str]) -> Resiliency:
    """Return what all documents come to; of two policies of one target the first counts. The names of actors, which `Resiliency` does not hold, go to ``actors``."""
    apps: dict[str, Policy] = {}
    outbound: dict[str, Policy] = {}
    inbound: dict[str, Policy] = {}
    defaults: dict[str, Policy] = {}
    for document in documents:
        _Reader(document, problems, actors).read(apps, outbound, inbound, defaults)
    return Resiliency(apps, outbound, inbound, defaults)


def read_file(path: str, app_id: str, where: str) -> Resiliency:
    """Return what the documents of a file or folder come to for a client; ``where`` is the place of the setting, for messages."""
    problems, actors = Problems(), list[str]()
    if not os.path.exists(path):
        raise InvalidArgumentError(f"{where} file: it does not exist: give a file or folder of Dapr's resources")
    documents = [each for each in read_all([path], app_id, problems) if each.kind == "Resiliency"]
    resiliency = read_resiliency(documents, problems, actors)
    if not documents and not problems.errors:
        problems.add(f"{where} file", f"it has no resource of the kind Resiliency for {app_id!r}")
    problems.finish()
    unheld = [f"actor {name!r}" for name in actors]
    unheld += [f"what {name!r} delivers" for name in resiliency.inbound]
    unheld += [f"default {name!r}" for name in resiliency.defaults if name.startswith("Actor") or "Inbound" in name]
    if unheld:
        logger().warning("%s file: has no effect for a client: %s", where, "; ".join(unheld))
    return resiliency


class _Reader:
    """Reads one document."""

    def __init__(self, document: Document, problems: Problems, actors: list[str]) -> None:
        self._where = document.where
        self._spec = document.spec
        self._problems = problems
        self._actors = actors
        # kind of policy → name → what it says; ``None``: it is refused
        self._known: dict[str, dict[str, Any]] = {kind: {} for kind in POLICIES}

    def read(self, apps: Any, outbound: Any, inbound: Any, defaults: dict[str, Policy]) -> None:
        self._problems.unknown(self._where, self._spec, frozenset(["policies", "targets"]))
        policies = self._table(self._spec, "policies", "timeouts", "retries", "circuitBreakers")
        for number, (name, value) in enumerate(self._table(policies, "timeouts").items(), 1):
            if (seconds := self._seconds(value, f"policies.timeouts, key {number}")) is not None:
                self._known["timeout"][name] = seconds  # else the name may be a value
        for name, value, path in self._entries(policies, "retries", "policies"):
            self._known["retry"][name] = self._retry(value, path)
        for name, value, path in self._entries(policies, "circuitBreakers", "policies"):
            self._known["circuitBreaker"][name] = self._breaker(value, path)
        for kind, field in POLICIES.items():
            for name, value in self._known[kind].items():
                if match := re.fullmatch(rf"Default(.*){kind[0].upper()}{kind[1:]}Policy", name):
                    defaults[match[1]] = replace(defaults.get(match[1], Policy()), **{field: value})
        targets = self._table(self._spec, "targets", "actors", "apps", "components")
        for name, value, path in self._entries(targets, "apps", "targets"):
            apps.setdefault(name, self._policy(value, path, "circuitBreakerCacheSize"))
        self._actors += [name for name, _, _ in self._entries(targets, "actors", "targets")]
        for name, value, path in self._entries(targets, "components", "targets"):
            if not value:
                self._problems.add(self._where, f"{path} must have inbound or outbound")
            self._problems.unknown(f"{self._where}, {path}", value, frozenset(["inbound", "outbound"]))
            for way, into in (("inbound", inbound), ("outbound", outbound)):
                if way in value:
                    into.setdefault(name, self._policy(value[way], f"{path}.{way}"))

    def _table(self, table: Mapping[str, Any], key: str, *known: str) -> dict[str, Any]:
        section = table.get(key) or {}
        if not isinstance(section, dict):
            self._problems.add(self._where, f"{key} must be a table")
            return {}
        if known:
            self._problems.unknown(f"{self._where}, {key}", section, frozenset(known))
        return section

    def _entries(self, table: Mapping[str, Any], key: str, before: str) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Yield name, table and place; of what is no table the name is not told, since it may be a value."""
        for number, (name, value) in enumerate(self._table(table, key).items(), 1):
            if isinstance(value, dict):
                yield name, value, f"{before}.{key}.{name}"
            else:
                self._problems.add(self._where, f"{before}.{key}, key {number} must be a table")

    def _policy(self, value: Any, path: str, *more: str) -> Policy:
        if not isinstance(value, dict):
            self._problems.add(self._where, f"{path} must be a table of policies")
            return Policy()
        self._problems.unknown(f"{self._where}, {path}", value, frozenset([*POLICIES, *more]))
        for key, known in self._known.items():
            if value.get(key) and str(value[key]) not in known:
                self._problems.add(self._where, f"{path}.{key}: {unknown('policy', value[key], known)}")
        return Policy(**{field: self._known[key].get(str(value.get(key))) for key, field in POLICIES.items()})

    def _seconds(self, value: Any, path: str) -> float | None:
        try:
            return go_duration(value)
        except ValueError as error:
            self._problems.add(self._where, f"{path}: {error}")
            return None

    def _whole(self, value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            self._problems.add(self._where, f"{path} must be a whole number")

    def _retry(self, value: dict[str, Any], path: str) -> Retries | None:
        before = len(self._problems.errors)
        self._problems.unknown(f"{self._where}, {path}", value, RETRY)
        policy = str(value.get("policy") or "constant").lower()
        if policy not in ("constant", "exponential"):
            self._problems.add(self._where, f"{path}.policy must be constant or exponential")
        max_retries = value.get("maxRetries")
        if max_retries is not None:
            self._whole(max_retries, f"{path}.maxRetries")
        interval = self._seconds(value.get("duration", "5s"), f"{path}.duration")
        longest = self._seconds(value.get("maxInterval", "60s"), f"{path}.maxInterval")
        matching = value.get("matching") or {}
        codes: dict[str, Ranges] = {"httpStatusCodes": (), "gRPCStatusCodes": ()}
        if isinstance(matching, dict):
            self._problems.unknown(f"{self._where}, {path}.matching", matching, frozenset(codes))
            for key in codes:
                try:
                    codes[key] = code_ranges(matching.get(key))
                except ValueError as error:
                    self._problems.add(self._where, f"{path}.matching.{key}: {error}")
        else:
            self._problems.add(self._where, f"{path}.matching must be a table")
        if len(self._problems.errors) > before or interval is None or longest is None:
            return None
        max_retries = None if max_retries is None or max_retries < 0 else max_retries
        http, grpc = codes.values()
        return Retries(max_retries, interval, policy == "exponential", longest, http, grpc)

    def _breaker(self, value: dict[str, Any], path: str) -> BreakerPolicy | None:
        before = len(self._problems.errors)
        self._problems.unknown(f"{self._where}, {path}", value, BREAKER)
        probes = value.get("maxRequests", 1)
        self._whole(probes, f"{path}.maxRequests")
        interval = self._seconds(value.get("interval", "0s"), f"{path}.interval")
        timeout = self._seconds(value.get("timeout", "60s"), f"{path}.timeout")
        trip = BreakerPolicy().trip
        try:
            if value.get("trip"):
                trip = read_trip(str(value["trip"]))
        except ValueError as error:
            self._problems.add(self._where, f"{path}: {error}")
        if len(self._problems.errors) > before or interval is None or timeout is None:
            return None
        return BreakerPolicy(trip, max(1, probes), interval, timeout)


def go_duration(value: Any) -> float:
    """Return the seconds of a duration as Go writes it, e.g. ``"1m30s"``, or raise `ValueError`."""
    text = str(value)
    if text == "0":
        return 0.0
    parts = DURATION_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise ValueError("expected a duration such as 500ms, 5s, 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
