"""JSON schema (draft-07) of the resource files that `load` reads, made of what it accepts.

It writes keys as Dapr's documentation does. The reader minds no case there, as Go does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Final, TypeAlias

from ...protocols.dapr.documents import BREAKER, DURATION_PART, KINDS, POLICIES, RETRY
from .components import ITEM, SPEC, TIMER, accepted, offered
from .engines import CRON, component_type, known_types
from .subscriptions import BULK, ROUTES
from .subscriptions import SPEC as SUBSCRIPTION

Schema: TypeAlias = dict[str, Any]

_TEXT: Final[Schema] = {"type": ["string", "number", "boolean"]}
"""Values that daprd reads as text."""
_NAME: Final[Schema] = {"type": ["string", "number", "boolean"], "pattern": "^[^/]+$"}
_TEXTS: Final[Schema] = {"type": ["array", "null"], "items": _TEXT}
_WHOLE: Final[Schema] = {"type": "integer"}
_DURATION: Final[Schema] = {
    "type": ["string", "integer"],
    "pattern": f"^(0|({DURATION_PART.pattern.replace('(?:', '(')})+)$",
    "maximum": 0,  # a number without a unit
}
_VALUES: Final[dict[str, Schema]] = {
    "duration": _DURATION,
    "enabled": {"type": "boolean"},
    "ignoreErrors": {"type": "boolean"},
    "interval": _DURATION,
    "maxAwaitDurationMs": {**_WHOLE, "minimum": 0},
    "maxInterval": _DURATION,
    "maxMessagesCount": {**_WHOLE, "minimum": 0},
    "maxRequests": _WHOLE,
    "maxRetries": _WHOLE,
    "policy": {"type": "string", "enum": ["constant", "exponential"]},
    "timeout": _DURATION,
}
"""Values of keys that are not text, wherever they stand."""


def resource_schema() -> Schema:
    """Return the schema of one document; its types of components are those that are installed."""
    specs = {"Component": _component(), "Resiliency": _resiliency(), "Subscription": {"type": "object"}}
    conditions = [_if("kind", kind, {"apiVersion": {"enum": [*KINDS[kind]]}, "spec": specs[kind]}) for kind in KINDS]
    conditions += [
        {
            "if": {"properties": {"apiVersion": {"const": version}, "kind": {"const": "Subscription"}}},
            "then": {"properties": {"spec": _subscription(key)}},
        }
        for version, key in zip(KINDS["Subscription"], ("route", "routes"), strict=True)
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "resource of Dapr, as cloud-runtimes serve reads it",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"enum": [*KINDS, "Configuration", "HTTPEndpoint"]},
            "metadata": {"type": "object", "required": ["name"], "properties": {"name": _NAME, "namespace": _TEXT}},
            "spec": {"type": "object"},
            "auth": {"type": "object", "properties": {"secretStore": _TEXT}},
            "scopes": _TEXTS,
        },
        "allOf": conditions,
    }


def resource_schema_text() -> str:
    """Return `resource_schema` as a file."""
    return json.dumps(resource_schema(), ensure_ascii=False, indent=1) + "\n"


def _component() -> Schema:
    types = known_types()
    fields = {name: _names(accepted(kind), offered(kind)) for name in types if (kind := component_type(name))}
    fields[CRON] = _names(TIMER, TIMER)
    items = [
        _if("type", name, {"metadata": {"type": ["array", "null"], "items": {"properties": {"name": names}}}})
        for name, names in fields.items()
    ]
    entry = _closed(
        ITEM,
        envRef=_TEXT,
        value=_TEXT,
        secretKeyRef={"type": "object", "required": ["name"], "properties": {"name": _TEXT, "key": _TEXT}},
        required=["name"],
    )
    return _closed(
        SPEC,
        type={"enum": types},
        metadata={"type": ["array", "null"], "items": entry},
        initTimeout=_TEXT,
        version=_TEXT,
        required=["type"],
        allOf=items,
    )


def _names(taken: Iterable[str], wanted: Iterable[str]) -> Schema:
    """Return the schema of names in any case, with or without underscores; editors offer those that are wanted."""
    some = "|".join("_?".join(_either(letter) for letter in name) for name in sorted(taken))
    return {"anyOf": [{"enum": sorted(wanted)}, {"type": "string", "pattern": f"^({some})$"}]}


def _either(letter: str) -> str:
    return f"[{letter}{letter.upper()}]" if letter.isalpha() else re.escape(letter)


def _subscription(route: str) -> Schema:
    rule = {"type": "object", "required": ["path"], "properties": {"match": _TEXT, "path": _TEXT}}
    routes = _closed(ROUTES, default=_TEXT, rules={"type": ["array", "null"], "items": rule})
    values = {
        "bulkSubscribe": _closed(BULK),
        "metadata": {"type": ["object", "null"]},
        "route": {"type": _TEXT["type"], "minLength": 1},
        "routes": {**routes, "anyOf": [{"required": ["default"]}, {"required": ["rules"]}]},
    }
    names = SUBSCRIPTION | {route}
    properties = {name: values.get(name, _TEXT) for name in sorted(names)}
    return {"type": "object", "required": ["pubsubname", "topic", route], "properties": properties}


def _resiliency() -> Schema:
    matching = _closed(("gRPCStatusCodes", "httpStatusCodes"))
    kinds = {"timeouts": _DURATION, "retries": _closed(RETRY, matching=matching), "circuitBreakers": _closed(BREAKER)}
    policies: Any = {name: _each(value) for name, value in kinds.items()}
    chosen = _closed(POLICIES, timeout=_TEXT)
    targets: Any = {
        "actors": _each({"type": "object"}),
        "apps": _each(_closed((*POLICIES, "circuitBreakerCacheSize"), timeout=_TEXT)),
        "components": _each({**_closed(("inbound", "outbound"), inbound=chosen, outbound=chosen), "minProperties": 1}),
    }
    return _closed(("policies", "targets"), policies=_closed(policies, **policies), targets=_closed(targets, **targets))


def _each(value: Schema) -> Schema:
    return {"type": ["object", "null"], "additionalProperties": value}


def _closed(
    names: Collection[str], *, required: Collection[str] = (), allOf: Collection[Schema] = (), **values: Schema
) -> Schema:
    """Return the schema of a table with these keys and no others."""
    properties = {name: values.get(name) or _VALUES.get(name, _TEXT) for name in sorted(names)}
    more = {key: list(value) for key, value in (("required", required), ("allOf", allOf)) if value}
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _if(key: str, value: str, properties: Schema) -> Schema:
    return {"if": {"required": [key], "properties": {key: {"const": value}}}, "then": {"properties": properties}}
