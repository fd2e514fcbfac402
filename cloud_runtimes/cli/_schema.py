"""JSON schema (draft-07) of the configuration, made of the settings of all that is installed here.

A table that names its component is described twice. Language servers complete from its ``anyOf``, which refuses nothing. Its ``then`` has a condition for each component, so that an error names the wrong key and not the whole table.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from .. import __version__, config, registry
from .._service.requirements import features_of
from ..admin.settings import AdminSettings
from ..client import SERVICES
from ..errors import CloudRuntimesError
from ..resiliency.settings import DEFAULT, ResiliencySettings, TargetSettings
from ..runtimes.capa import RpcTable
from ..runtimes.capa.homes import SERVICES as AT_HOME
from ..spi.component import Component
from ..spi.relay import SpoolSettings
from ..telemetry.settings import TelemetrySettings

Schema: TypeAlias = dict[str, Any]

_SCHEMA_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}
_SECONDS: Final[Schema] = {"type": ["number", "string"], "pattern": r"^[0-9]{1,15}(\.[0-9]+)?(ms|s|m|h|d)$"}
DURATIONS: Final[Mapping[Any, Schema]] = {
    config.duration: {**_SECONDS, "minimum": 0},
    config.period: {**_SECONDS, "exclusiveMinimum": 0},
}
"""Readers of durations → their schemas."""
_FALSE: Final[Schema] = {"type": "boolean", "not": {"const": True}}


def config_schema() -> Schema:
    """Return the schema of a configuration file; its components and runtimes are those that are installed."""
    components = {name: _found(registry.COMPONENTS, name) for name in registry.names(registry.COMPONENTS)}
    definitions = {"target": _target()}
    for name, component in components.items():
        definitions |= _variants(name, component)
    words = attributes(config.ClientSettings)
    properties: Schema = {
        "$schema": {"type": "string", "description": "address of this schema, for editors"},
        "runtime": {"enum": registry.names(registry.RUNTIMES)},
        "fallback": {"const": "capa"},
        "endpoint": {"type": "string"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "default": config.DEFAULT_TIMEOUT},
        "app_id": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
    }
    for key in properties.keys() & words.keys():
        properties[key]["description"] = words[key]
    for name in registry.names(registry.RUNTIMES):
        settings = getattr(_found(registry.RUNTIMES, name), "Settings", None)
        properties[name] = {"type": "object"} if settings is None else table(settings)
    _describe_homes(properties["capa"]["properties"], components)
    for service in sorted({*SERVICES} - {"rpc", "telemetry"}):
        properties[service] = {
            "description": f"components of client.{service}, each in a table of its name",
            "type": "object",
            "additionalProperties": {"type": "object", **_component(components, service)},
        }
    properties["rpc"] = {
        "description": "addresses of services that no registry knows",
        "type": "object",
        "additionalProperties": {**table(RpcTable), "required": ["address"]},
    }
    properties["telemetry"] = table(TelemetrySettings)
    _narrow(properties["telemetry"], "spool", _spool())
    properties["resiliency"] = _resiliency()
    properties["admin"] = table(AdminSettings)
    properties["requires"] = _closed(
        {
            service: {"additionalProperties": {"type": "array", "items": {"enum": sorted(features_of(service))}}}
            for service in sorted({*SERVICES} - {"telemetry"})
        },
        description="features that the code needs, by service and name",
    )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": f"written by cloud-runtimes config schema, {__version__}",
        "title": "configuration of Cloud Runtimes",
        **_closed(properties),
        "definitions": definitions,
    }


def schema_text() -> str:
    """Return `config_schema` as a file."""
    return json.dumps(config_schema(), ensure_ascii=False, indent=1) + "\n"


def table(settings: type[Any], **more: Schema) -> Schema:
    """Return the schema of a table with the settings of a dataclass, and ``more`` keys."""
    words, hints = attributes(settings), typing.get_type_hints(settings)
    properties = {
        field.name: {
            "description": words.get(field.name) or field.metadata.get("help", ""),
            **_value(hints[field.name], field.default, field.metadata.get("parse")),
        }
        for field in dataclasses.fields(settings)
    }
    return _closed({**more, **properties}, description=_summary(settings))


def attributes(cls: type[Any]) -> dict[str, str]:
    """Return the section ``Attributes:`` of a docstring, one line for each attribute, as Markdown."""
    _, _, section = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+)$", section, re.MULTILINE)
    return {name: _markdown(text) for name, text in entries}


def duration_text(seconds: float) -> str:
    """Return a duration as people write it."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0 and (seconds > size or (unit in "hm" and seconds)):
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _closed(properties: Schema, **more: Any) -> Schema:
    return {**more, "type": "object", "additionalProperties": False, "properties": properties}


def _value(hint: Any, default: Any, parse: Any) -> Schema:
    """Return the schema of a setting. Where its default is text that has yet to be read, text is taken."""
    if parse in DURATIONS:
        schema = dict(DURATIONS[parse])
        default = None if default is None else duration_text(default)
    else:
        hints = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        schemas = [_of(each) for each in hints if each is not type(None)]
        schema = _union([*schemas, _of(str)] if isinstance(default, str) and hint is int else schemas)
    return schema if default is None or default == () else {**schema, "default": default}


def _of(hint: Any) -> Schema:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return _FALSE if arguments == (False,) else {"type": "string", "enum": list(arguments)}
    if dataclasses.is_dataclass(hint):
        return table(typing.cast("type[Any]", hint))
    if origin in (dict, Mapping) or (arguments and typing.get_origin(arguments[0]) is tuple):
        return {"type": "object", "additionalProperties": True}  # a tuple of pairs is read from a table
    if origin in (list, tuple):
        return {"type": "array", "items": {"type": "string"}}
    return {"type": _SCHEMA_TYPES[hint]}


def _union(schemas: Iterable[Schema]) -> Schema:
    """Return one schema for several of different types, none of which has a keyword that concerns another's values."""
    merged: Schema = {}
    names: list[str] = []
    for schema in schemas:
        merged.update(schema)
        names += [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return {**merged, "type": names if len(names) > 1 else names[0]}


def _narrow(owner: Schema, key: str, schema: Schema) -> None:
    """Replace the values of a setting by what its annotation cannot say."""
    owner["properties"][key] = {**schema, "description": owner["properties"][key]["description"]}


def _spool() -> Schema:
    spool = _union([{"type": "boolean"}, table(SpoolSettings)])
    return {**spool, "description": "keep events on this machine until the broker has them"}


def _found(group: str, name: str) -> type[Any] | None:
    """Return what a name stands for; ``None``: it cannot be loaded here, and any settings of it pass."""
    try:
        return registry.find(group, name)
    except CloudRuntimesError:
        return None


def _component(components: Mapping[str, type[Component] | None], service: str) -> Schema:
    """Return the schema of a table of a service: its ``component`` chooses the rest."""
    names = [name for name, each in components.items() if each is None or service in each.services]
    suffix = ".pubsub" if service == "pubsub" else ""
    choices = {name + (suffix if components[name] else ""): {"const": name} for name in names}
    return _chosen("component", choices, {"enum": names})


def _variants(name: str, component: type[Component] | None) -> Schema:
    """Return the definitions of a component: its tables, those of pub/sub, those of a home."""
    named: Schema = {"const": name}
    if component is None:
        return {name: {"properties": {"component": named}}}
    named["description"] = _summary(sys.modules[component.__module__])
    variants = {name: table(component.Settings, component=named)}
    if "pubsub" in component.services:
        variants[f"{name}.pubsub"] = table(component.Settings, component=named, spool=_spool())
    if component.home_schemes:
        variants[f"{name}.home"] = home = table(component.Settings)
        home["properties"]["url"] = {"description": "of the server", **_url(component.home_schemes)}
    return variants


def _url(schemes: Iterable[str]) -> Schema:
    return {"type": "string", "pattern": f"^({'|'.join(map(re.escape, sorted(schemes)))})://"}


def _describe_homes(capa: Schema, components: Mapping[str, type[Component] | None]) -> None:
    """Say what ``home``, and the ``homes`` of the services, take: text, or a table with a URL and settings of its component."""

    def home(service: str = "") -> Schema:
        urls: dict[str, Schema] = {}
        taken: set[str] = set()
        for name, component in components.items():
            if component is None or (service and service not in component.services):
                continue
            if schemes := [each for each in component.home_schemes if each not in taken]:
                urls[f"{name}.home"] = _url(schemes)
                taken.update(schemes)
        return {"type": ["string", "object"], **_chosen("url", urls, _url(taken))}

    capa["home"] |= home()
    homes = {service: home(service) for service in AT_HOME}
    for each in homes.values():
        del each["anyOf"]  # some editors offer all settings of nested tables at once: these would be hundreds
    capa["homes"] |= _closed(homes)


def _chosen(key: str, choices: Mapping[str, Schema], valid: Schema) -> Schema:
    """Return the schema of a table of which a key chooses the definition: ``choices`` have its value by definition, ``valid`` any value."""
    references = {name: {"$ref": f"#/definitions/{name}"} for name in choices}
    return {
        "additionalProperties": True,
        "required": [key],
        "anyOf": [*references.values(), {}],
        "if": True,
        "then": {
            "properties": {key: valid},
            "allOf": [
                {"if": {"type": "object", "required": [key], "properties": {key: choice}}, "then": references[name]}
                for name, choice in choices.items()
            ],
        },
    }


def _target() -> Schema:
    target = table(TargetSettings)
    _narrow(target, "timeout", _union([DURATIONS[config.period], _FALSE]))
    return target


def _resiliency() -> Schema:
    target = {"$ref": "#/definitions/target"}
    services = sorted({*SERVICES} - {"telemetry"})
    schema = table(ResiliencySettings)
    schema["properties"]["targets"] |= {
        **_closed({DEFAULT: target}),
        "patternProperties": {rf"^({'|'.join(services)})(\..+)?$": target},
    }
    return schema


def _summary(thing: object) -> str:
    return _markdown((inspect.getdoc(thing) or "").partition("\n")[0])


def _markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)
