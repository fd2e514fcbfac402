"""Settings: arguments before environment before file, each table one frozen dataclass, unknown keys refused.

The grammar is in ``docs/explanation/configuration.md``: top-level keys for the client, ``[<runtime>]`` for the runtime, ``[<service>.<name>]`` for a component.

Any value may be a secret. So a message names the place and the type, never the value, and an error leaves by `without_values`. `unknown` has the rule for names.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from ._core.arguments import check_timeout
from ._core.config_discovery import PYPROJECT, beside, find, table_of
from ._core.config_formats import KINDS, load_parser, read_tables, without_values
from .errors import InvalidArgumentError

__all__ = [
    "DEFAULT_TIMEOUT",
    "SUFFIXES",
    "ClientSettings",
    "build",
    "duration",
    "load",
    "parse",
    "period",
    "read",
    "setting",
    "suggest",
    "typo",
    "unknown",
    "without_values",
]

S = TypeVar("S")

RUNTIMES: Final = ("capa", "dapr", "layotto")
_FALLBACKS: Final = ("capa",)
"""The runtimes that can have what a sidecar lacks."""


class _Default(float):
    """A float that is told from the same number given by the caller."""

    __slots__ = ()


DEFAULT_TIMEOUT: Final[float] = _Default(30.0)
"""Default of the client's ``timeout``: 30 seconds, unless the configuration says otherwise."""

_FOR_EDITORS: Final = ".schema.json"
"""End of the name of a schema that lies beside a file."""
_TOP_LEVEL: Final = ("runtime", "fallback", "endpoint", "timeout", "app_id")
SUFFIXES: Final = tuple(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ClientSettings:
    """Settings of a client, merged from arguments, environment and file.

    Attributes:
        runtime: name of the runtime.
        endpoint: address of a sidecar, if there is one.
        timeout: seconds for a call, ``None``: no limit.
        app_id: the application's name: the default consumer group and event source.
        runtime_settings: the table of the runtime.
        fallback: the runtime for services that ``runtime`` lacks; ``None``: such services are refused.
        fallback_settings: the table of the fallback.
        components: service → name → table.
        addresses: the tables ``[rpc.<service>]``: addresses of services, not components.
        telemetry: the table ``[telemetry]``, which is not a component.
        resiliency: the table ``[resiliency]``, which is not a component; ``None``: it is absent.
        admin: the table ``[admin]``, which is not a component.
        requires: the table ``[requires]``: service → name → features that the code needs.
        origin: where the configuration came from, for messages.
    """

    runtime: str
    endpoint: str | None
    timeout: float | None
    app_id: str
    api_token: str | None = None
    runtime_settings: Mapping[str, Any] = field(default_factory=dict)
    fallback: str | None = None
    fallback_settings: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    addresses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    resiliency: Mapping[str, Any] | None = None
    admin: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "no configuration"

    def __repr__(self) -> str:
        return f"<ClientSettings of {self.origin}>"  # any of its values may be a secret


def setting(default: Any, *, parse: Callable[[Any], Any] | None = None, help: str = "") -> Any:
    """Declare one setting of a component: its default, what reads it, one line for people. No ``repr`` shows it."""
    metadata: dict[str, Any] = {"parse": parse, "help": help}
    if isinstance(default, (dict, list)):
        raise TypeError("give an immutable default")
    return field(default=default, repr=False, metadata=metadata)


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: Any) -> float:
    """Read seconds: a number, or text such as ``"500ms"``, ``"24h"``, ``"7d"``; `ValueError`: anything else, or negative."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)(ms|s|m|h|d)", value.strip())
        if match:
            return float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise ValueError('expected seconds or text such as "500ms", "30s", "24h", "7d"')


def period(value: Any) -> float:
    """Read seconds as `duration`, but more than 0."""
    seconds = duration(value)
    if not seconds:
        raise ValueError("must be more than 0")
    return seconds


def suggest(name: object, known: Iterable[str]) -> str:
    """Return the rest of a message about an unknown name: the known one that is near, else all of them."""
    known = sorted(known)
    if close := _near(name, known):
        return f"did you mean {close!r}?"
    return f"known: {', '.join(known)}" if known else "none is known here"


def typo(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that another one is probably meant to be. Names that differ in digits alone are meant as they are."""
    close = next(iter(difflib.get_close_matches(name, known, 1, 0.8)), None)
    return close if close is not None and re.sub(r"\d", "", close) != re.sub(r"\d", "", name) else None


def unknown(what: str, name: object, known: Iterable[str], number: int | None = None) -> str:
    """Return a message about an unknown name.

    It tells the name only where a known one is near. Else the name may be a secret in a wrong place: YAML reads ``home: {hunter2}`` as a table with that key. So ``number`` counts the keys of the table.
    """
    known = sorted(known)
    if _near(name, known):
        what = f"{what} {name!r}"
    elif number is not None:
        what = f"{what}, key {number} of the table"
    return f"unknown {what}; {suggest(name, known)}"


def _near(name: object, known: list[str]) -> str | None:
    if not isinstance(name, str) or len(name) > 64:
        return None
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


@without_values
def build(cls: type[S], table: Mapping[str, Any], where: str, *, beside: str | None = None) -> S:
    """Make a settings dataclass from a table, which stands ``where`` messages say; ``beside`` is a key of it that is no setting."""
    fields = {item.name: item for item in dataclasses.fields(typing.cast(Any, cls))}
    hints = typing.get_type_hints(cls)
    values = {}
    for number, (key, value) in enumerate(table.items(), 1):
        if key == beside:
            continue
        if key not in fields:
            raise InvalidArgumentError(f"{where}: {unknown('setting', key, fields, number)}")
        parse = fields[key].metadata.get("parse")
        try:
            if parse is not None and value is not None:
                value = parse(value)
            _check_type(value, hints[key])
        except ValueError as error:
            raise InvalidArgumentError(f"{where}: setting {key!r}: {error}") from None
        values[key] = value
    try:
        return cls(**values)
    except ValueError as error:  # from __post_init__
        raise InvalidArgumentError(f"{where}: {error}") from None


def _check_type(value: Any, hint: Any) -> None:
    """Refuse a value that is none of a hint's: classes, ``None``, ``Literal``, and unions of them."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    expected: list[str] = []
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            choices = typing.get_args(member)
            if value in choices:
                return
            expected += map(repr, choices)
        elif isinstance(value, bool):
            if member is bool:
                return
        elif (member is float and isinstance(value, int)) or isinstance(value, typing.get_origin(member) or member):
            return
        if typing.get_origin(member) is Mapping:
            expected.append("a table")
        elif isinstance(member, type) and member is not type(None):
            expected.append(member.__name__)
    raise ValueError(f"expected {' or '.join(expected)}, got {_kind(value, hint)}")


def _kind(value: Any, hint: Any) -> str:
    """Name what a value is, without the value."""
    if isinstance(value, str):
        return "other text" if "Literal" in str(hint) else "text"
    return "a table" if isinstance(value, Mapping) else type(value).__name__


@without_values
def read(source: str | os.PathLike[str] | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Return a configuration as nested dicts, and what to call it in messages; ``None``: of the file that `config_discovery.find` finds.

    Homes of a file that are relative, and the default home, are beside it.
    """
    if isinstance(source, Mapping):
        return dict(source), "the configuration"
    if (location := find(source)) is None:
        return {}, "no configuration"
    tables, origin = _tables_of(location.path, source is None)
    beside(tables, location.path)
    return tables, origin


def _tables_of(path: Path, searched: bool) -> tuple[dict[str, Any], str]:
    try:
        if searched and path.name == PYPROJECT:
            return table_of(path.read_bytes(), path) or {}, f"{path}: [tool.cloud-runtimes]"
        if path.is_dir():
            merged: dict[str, Any] = {}
            for file in sorted(path.iterdir()):
                if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.endswith(_FOR_EDITORS):
                    _merge(merged, _parse(file), file, ())
            return merged, str(path)
        return _parse(path), str(path)
    except FileNotFoundError:
        raise InvalidArgumentError(
            f"the configuration {path} does not exist; give a TOML or JSON file, or a folder"
        ) from None
    except OSError as error:
        raise InvalidArgumentError(f"the configuration {path} cannot be read: {error.strerror}") from error


def _parse(path: Path) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidArgumentError(
            f"{path}: unknown kind of configuration; name it {', '.join('*' + s for s in SUFFIXES)}"
        )
    tables = parse(path.read_bytes(), suffix, path)
    tables.pop("$schema", None)  # editors read it
    return tables


def parse(data: bytes, suffix: str, path: Path) -> dict[str, Any]:
    """Return the tables of a file's bytes; its kind is that of one of `SUFFIXES`."""
    kind = KINDS[suffix]
    load_parser(kind, path)
    tables = read_tables(data, kind)
    if isinstance(tables, str):
        raise InvalidArgumentError(f"{path}: {tables}")
    return tables


def _merge(into: dict[str, Any], more: Mapping[str, Any], file: Path, where: tuple[str, ...]) -> None:
    for number, (key, value) in enumerate(more.items(), 1):
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict) and len(where) < 1:
            _merge(into[key], value, file, (*where, key))
        else:
            shows_name = isinstance(value, dict) or key in _TOP_LEVEL
            name = repr(".".join((*where, key))) if shows_name else f"key {number} of {'.'.join(where) or 'the file'}"
            raise InvalidArgumentError(f"{file}: {name} stands in another file of the folder too")


@without_values
def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | None,
    *,
    services: Iterable[str],
    endpoint: str | None,
    timeout: float | None,
    runtime: str | None,
    app_id: str | None,
    api_token: str | None,
) -> ClientSettings:
    """Merge arguments, environment and configuration into one `ClientSettings`."""
    services = tuple(services)
    table, origin = read(source)
    env = os.environ
    name = runtime or env.get("CLOUD_RUNTIMES_RUNTIME") or _text(table, "runtime", origin)
    endpoint = endpoint or _text(table, "endpoint", origin)
    if not name:
        if endpoint or any(
            env.get(f"DAPR_{kind}") for kind in ("HTTP_ENDPOINT", "GRPC_ENDPOINT", "HTTP_PORT", "GRPC_PORT")
        ):
            name = "dapr"
        elif env.get("LAYOTTO_GRPC_ENDPOINT"):
            name = "layotto"
        else:
            name = "capa"
    known = {*_TOP_LEVEL, *services, *RUNTIMES, "admin", "resiliency", "requires", name}
    for number, (key, value) in enumerate(table.items(), 1):
        if key not in known:
            choices = known - {name} | {*RUNTIMES}  # the runtime's name is a value
            raise InvalidArgumentError(f"{origin}: {unknown('key', key, choices, number)}")
        if key not in _TOP_LEVEL and not isinstance(value, Mapping):
            what = repr(key) if key != name or name in RUNTIMES else f"key {number}, that of the runtime,"
            raise InvalidArgumentError(f"{origin}: {what} must be a table, not {type(value).__name__}")
    if (fallback := _text(table, "fallback", origin)) is not None and fallback not in _FALLBACKS:
        raise InvalidArgumentError(f"{origin}: 'fallback': only 'capa' can have what a sidecar lacks")
    if timeout is DEFAULT_TIMEOUT:
        timeout = table.get("timeout", timeout)
    try:
        check_timeout(timeout)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{origin}: {error}") from None
    return ClientSettings(
        runtime=name,
        endpoint=endpoint,
        timeout=timeout,
        app_id=_app_id(app_id or env.get("APP_ID") or _text(table, "app_id", origin)),
        api_token=api_token or env.get("DAPR_API_TOKEN"),
        runtime_settings=table.get(name, {}),
        fallback=fallback,
        fallback_settings=table.get(fallback, {}) if fallback else {},
        components={
            service: _tables(table.get(service, {}), service, "component", origin)
            for service in services
            if service not in ("rpc", "telemetry")
        },
        addresses=_tables(table.get("rpc", {}), "rpc", "address", origin),
        telemetry=table.get("telemetry", {}),
        resiliency=table.get("resiliency"),
        admin=table.get("admin", {}),
        requires=table.get("requires", {}),
        origin=origin,
    )


def _tables(table: Mapping[str, Any], service: str, key: str, origin: str) -> dict[str, Mapping[str, Any]]:
    """Return the tables of a service; of one with components each names its own."""
    for number, (name, settings) in enumerate(table.items(), 1):
        if not isinstance(settings, Mapping):
            raise InvalidArgumentError(
                f"{origin}: [{service}]: key {number} must be a table with {key}=…, not {type(settings).__name__}"
            )
        if key == "component" and not isinstance(settings.get(key), str):
            raise InvalidArgumentError(f'{origin}: [{service}.{name}]: say which component, e.g. component = "sqlite"')
    return dict(table)


def _text(table: Mapping[str, Any], key: str, origin: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError(f"{origin}: {key!r} must be text, not {type(value).__name__}")
    return value or None


def _app_id(given: str | None) -> str:
    """Return the application's name; without one given, the main program's file name."""
    if given is None:
        import sys

        main = sys.modules.get("__main__")
        path = getattr(main, "__file__", None) or ""
        stem = Path(path).stem
        if stem == "__main__":
            stem = Path(path).parent.name
        given = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-") or "python"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", given):
        raise InvalidArgumentError(
            "app_id: use letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
        )
    return given
