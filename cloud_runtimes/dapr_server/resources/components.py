"""Resources of kind ``Component`` → tables of a configuration of ours."""

from __future__ import annotations

import os
import secrets
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from ... import registry
from ...components.config_file.secret import kind_of
from ...config import duration, unknown
from ...errors import CloudRuntimesError
from ...protocols.dapr.documents import Document, Problems, scalar
from ...schedule.times import occurrences
from ..jobs.job import zoned
from ..settings import ComponentInfo, CronBinding
from .engines import CRON, component_type, known_types
from .types import ComponentType, is_true, plain

ITEM: Final = frozenset(["envRef", "name", "secretKeyRef", "value"])
"""Keys of an entry of ``metadata``."""
SPEC: Final = frozenset(["ignoreErrors", "initTimeout", "metadata", "type", "version"])
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "actorstatestore": "there are no actors",
    "keyprefix": "keys are stored as they are: sidecars that share a file share its keys",
    **dict.fromkeys(
        ("outboxdiscardwhenmissingstate", "outboxpublishpubsub", "outboxpublishtopic", "outboxpubsub"),
        "transactions publish nothing: let the application publish, or use the outbox of client.state",
    ),
}
_OFF: Final = frozenset(["", "-1", "0", "f", "false", "n", "no", "off"])
"""Values of a field that is refused which ask for nothing."""
TIMER: Final = ("direction", "route", "schedule")
_CAPABILITIES: Final = {"etag": "ETAG", "transaction": "TRANSACTIONAL", "ttl": "TTL"}


class Components:
    """Components read from the documents.

    Attributes:
        tables: service → name → table, for ``CloudRuntimesClient(config=…)``; secrets are in it.
        infos: of all components.
        bindings: name → service and store.
        timers: bindings that call the application at times.
    """

    def __init__(self, documents: list[Document], app_id: str, problems: Problems, namespace: str) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {}
        self.infos: list[ComponentInfo] = []
        self.bindings: dict[str, tuple[str, str]] = {}
        self.timers: list[CronBinding] = []
        self._app_id = app_id
        self._namespace = namespace
        self._problems = problems
        self._memory = f":memory:sidecar-{secrets.token_hex(8)}"
        self._names: dict[str, str] = {}
        self._client: Any = None
        # stores first: the others may refer to their secrets
        ordered = sorted(documents, key=lambda each: not str(each.spec.get("type")).startswith("secretstores."))
        try:
            for document in ordered:
                self._add(document)
        finally:
            self._forget_secrets()
        # jobs need no component in Dapr, and by this one there are no undeclared names, as in Dapr: none of the others is there
        homes = {table.get("home") for tables in self.tables.values() for table in tables.values()}
        jobs = {"component": "sqlite"} | ({"home": self._memory} if homes == {self._memory} else {})
        self.tables.setdefault("schedule", {})["jobs"] = jobs

    def __repr__(self) -> str:
        return f"<Components {', '.join(self._names)}>"

    def _add(self, document: Document) -> None:
        errors = self._problems.errors
        before = len(errors)
        self._take(document)
        if document.spec.get("ignoreErrors") is True and len(errors) > before:
            self._problems.warnings += [f"{each}: left out, since it has ignoreErrors" for each in errors[before:]]
            del errors[before:]

    def _take(self, document: Document) -> None:
        problems, where, spec = self._problems, document.where, document.spec
        before = len(problems.errors)
        problems.unknown(where, spec, SPEC)
        name = spec.get("type")
        kind = component_type(name) if isinstance(name, str) else None
        if kind is None and name != CRON:
            problems.add(where, f"spec.type: {unknown('type', name, known_types())}")
            return
        if document.name in self._names:
            problems.add(where, f"the name stands in {self._names[document.name]} too")
            return
        self._names[document.name] = where
        if "initTimeout" in spec:
            problems.warn(where, "initTimeout has no effect: components open with their first call")
        if kind is None:
            self._add_timer(document)
            return
        table, secret = self._table(document, kind)
        if len(problems.errors) == before:
            self._check(document, kind, table, secret)

    # -- settings ---------------------------------------------------------

    def _table(self, document: Document, kind: ComponentType) -> tuple[dict[str, Any], bool]:
        """Return the table, and whether a value of a secret store or of the environment is in it."""
        problems, where = self._problems, document.where
        settings: Any = registry.find(registry.COMPONENTS, kind.component).Settings
        hints = typing.get_type_hints(settings)
        fields = {plain(name): name for name in hints}
        table: dict[str, Any] = {"component": kind.component}
        parts: dict[str, str] = {}
        secret, taken = False, accepted(kind)
        without_effect = {**_WITHOUT_EFFECT, **kind.without_effect}
        items = document.spec.get("metadata") or []
        if not isinstance(items, list):
            problems.add(where, "spec.metadata must be a list of name and value")
            return table, secret
        known = offered(kind)
        for number, item in enumerate(items, 1):
            name = scalar(item.get("name")) if isinstance(item, dict) else None
            if not isinstance(name, str):
                problems.add(where, "an entry of spec.metadata must have a name")
                continue
            key = plain(name)
            if key not in taken:
                problems.add(where, unknown("metadata", name, known, number))
                continue
            problems.unknown(f"{where}, metadata {name!r}", item, ITEM)
            text = self._text(document, name, item)
            secret = secret or not {"envRef", "secretKeyRef"}.isdisjoint(item)
            if text is None:
                continue
            if key == "keyprefix":
                text = self._key_prefix(text)
            if key in kind.parts:
                parts[kind.parts[key]] = text
                continue
            if key in kind.fields:
                setting, convert = kind.fields[key]
            elif kind.memory and key in ("home", "path"):
                problems.add(where, f"metadata {name!r} has no meaning in memory")
                continue
            elif key in fields and key not in kind.without_effect:
                setting, convert = fields[key], str
            elif key in kind.refused:
                if text.lower() not in _OFF and text != self._app_id:
                    problems.add(where, f"metadata {name!r}: {kind.refused[key]}")
                continue
            else:
                problems.warn(where, f"metadata {name!r} has no effect: {without_effect[key]}")
                continue
            try:
                table[setting] = _typed(convert(text), hints[setting], _parser(settings, setting))
            except ValueError as error:  # which does not tell the text
                problems.add(where, f"metadata {name!r}: {error}")
        table = {**kind.settings, **table}
        if kind.url is not None and (parts or "url" not in table):
            try:
                if "url" in table:
                    raise ValueError("give url or Dapr's own fields, not both")
                table["url"] = kind.url(parts)
            except ValueError as error:  # which tells no value
                problems.add(where, str(error))
        if kind.note is not None and parts:
            problems.warn(where, kind.note)
        if kind.memory:
            table["home"] = self._memory
        if kind.format is not None and kind_of(table.get("path", "")) is None:
            table.setdefault("format", kind.format)
        if kind.component == "env" and "prefix" not in table:
            problems.add(
                where, "give metadata prefix, with which the names of the variables begin: a store is never all of them"
            )
        return table, secret

    def _add_timer(self, document: Document) -> None:
        """Take a binding that calls the application at times; it is no component of a client's."""
        problems, where = self._problems, document.where
        given: dict[str, str] = {}
        for number, item in enumerate(document.spec.get("metadata") or [], 1):
            name = str(scalar(item.get("name"))) if isinstance(item, dict) else ""
            if name.lower() not in TIMER:
                problems.add(where, unknown("metadata", name, TIMER, number))
            elif (text := self._text(document, name, item)) is not None:
                given[name.lower()] = text
        schedule, timezone = zoned(given.get("schedule", ""))
        try:
            occurrences(schedule, timezone)
        except CloudRuntimesError as error:
            problems.add(where, f"metadata 'schedule': {error.message}")
            return
        directions = [each.strip().lower() for each in given["direction"].split(",")] if "direction" in given else []
        if directions and "input" not in directions:
            problems.warn(where, "direction has no input: the binding calls nobody")
            return
        asks = "input" not in directions
        self.timers.append(CronBinding(document.name, schedule, timezone, given.get("route", ""), asks))
        version = str(scalar(document.spec.get("version") or ""))
        self.infos.append(ComponentInfo(document.name, CRON, version, ("INPUT_BINDING",)))

    def _text(self, document: Document, name: str, item: Mapping[str, Any]) -> str | None:
        if "secretKeyRef" in item:
            return self._secret(document, name, item["secretKeyRef"])
        if "envRef" in item:
            variable = str(item["envRef"])
            if variable.startswith(("APP_API_TOKEN", "DAPR_")):
                self._problems.add(
                    document.where, f"metadata {name!r}: envRef to a variable of Dapr's own is not allowed"
                )
                return None
            return os.environ.get(variable, "")
        text = scalar(item.get("value"))
        if not isinstance(text, str):
            self._problems.add(document.where, f"metadata {name!r}: the value must be text, a number, true or false")
            return None
        # so daprd reads it (dapr/dapr pkg/runtime/meta/meta.go)
        namespace = f"{self._namespace or 'default'}.{self._app_id}"
        text = text.replace("{appID}", self._app_id).replace("{namespace}", namespace)
        return text.replace("{uuid}", str(uuid.uuid4())) if "{uuid}" in text else text

    def _key_prefix(self, text: str) -> str:
        """Return what Dapr takes a ``keyPrefix`` for (dapr/dapr ``pkg/components/state/state_config.go``)."""
        lower = text.lower()
        if lower != "namespace":
            return lower
        return f"{self._namespace}.{self._app_id}" if self._namespace else "appid"

    # -- secrets ----------------------------------------------------------

    def _secret(self, document: Document, name: str, reference: Any) -> str | None:
        where, store = f"{document.where}, metadata {name!r}", document.secret_store
        wanted = scalar(reference.get("name")) if isinstance(reference, dict) else None
        if not isinstance(wanted, str):
            self._problems.add(where, "secretKeyRef must have a name")
            return None
        stores = self.tables.get("secret", {})
        if store not in stores:
            self._problems.add(
                where,
                (
                    f"auth.secretStore: {unknown('secret store', store, stores)}"
                    if store
                    else "secretKeyRef needs auth.secretStore, the name of a declared secret store"
                ),
            )
            return None
        try:
            secret = self._secrets().secret.get_secret(store, wanted)
        except CloudRuntimesError as error:
            # its message names the secret, which is a value too
            self._problems.add(where, f"secretKeyRef: the secret cannot be had: {type(error).__name__}")
            return None
        key = str(scalar(reference.get("key")) or wanted)
        if key in secret:
            text: str = secret[key]
            return text
        if "key" in reference and key != wanted and len(secret) == 1 and wanted in secret:
            self._problems.add(where, "secretKeyRef: the secret is one value, which has no such key")
            return None
        if len(secret) == 1 and key == wanted:
            return str(secret.value)
        self._problems.add(where, "secretKeyRef: the secret has no such key")
        return None

    def _secrets(self) -> Any:
        from ...client import CloudRuntimesClient

        if self._client is None:
            self._client = CloudRuntimesClient(
                runtime="capa", app_id=self._app_id, config={"secret": self.tables["secret"]}
            )
        return self._client

    def _forget_secrets(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- the component itself ---------------------------------------------

    def _check(self, document: Document, kind: ComponentType, table: dict[str, Any], secret: bool) -> None:
        """Have the component look at its settings, and take it."""
        from ...client import CloudRuntimesClient, context_of

        service, name = kind.service, document.name
        try:
            with CloudRuntimesClient(runtime="capa", app_id=self._app_id, config={service: {name: table}}) as client:
                features = context_of(client).runtime().driver(service, name).features  # without I/O
        except CloudRuntimesError as error:
            reason = error.message.rpartition("]: ")[2]
            self._problems.add(
                document.where,
                "a setting is refused; which is not told, as a secret may be in it" if secret else reason,
            )
            return
        self.tables.setdefault(service, {})[name] = table
        kind_name = str(document.spec["type"])
        if kind_name.startswith("bindings."):
            self.bindings[name] = (service, name)
        capabilities: tuple[str, ...] = ("OUTPUT_BINDING",) if name in self.bindings else ()
        if service == "state":
            capabilities = tuple(text for feature, text in _CAPABILITIES.items() if feature in features)
        self.infos.append(ComponentInfo(name, kind_name, str(scalar(document.spec.get("version") or "")), capabilities))


def offered(kind: ComponentType) -> set[str]:
    """Return the fields of a type that have a meaning, as `plain` makes Dapr's and as we write ours."""
    settings = registry.find(registry.COMPONENTS, kind.component).Settings
    ours = set(typing.get_type_hints(settings)) - ({"home", "path"} if kind.memory else set())
    return {*kind.fields, *kind.parts, *ours}


def accepted(kind: ComponentType) -> set[str]:
    """Return all fields that a type may have, as `plain` makes them: also those without effect, and those that only a value turns off."""
    ours = typing.get_type_hints(registry.find(registry.COMPONENTS, kind.component).Settings)
    return {*kind.fields, *kind.parts, *map(plain, ours), *kind.refused, *_WITHOUT_EFFECT, *kind.without_effect}


def _parser(settings: Any, name: str) -> Callable[[Any], Any] | None:
    parse: Callable[[Any], Any] | None = settings.__dataclass_fields__[name].metadata.get("parse")
    return parse


def _typed(text: str, hint: Any, parse: Callable[[Any], Any] | None) -> Any:
    """Return text as what a setting wants.

    Raises:
        ValueError: it is none; does not tell the text.
    """
    members = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    if parse is duration and text.replace(".", "", 1).isdecimal():
        return float(text)
    if str in members or parse is not None:
        return text
    if bool in members:
        return is_true(text)
    for number in (int, float):
        if number in members:
            try:
                return number(text)
            except ValueError:
                raise ValueError("expected a number") from None
    return text
