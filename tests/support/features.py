"""Features that the built-in components declare, and the documentation tables made from them.

Each folder of `cloud_runtimes.components` is one component. It is created with its default settings, and its drivers
report their ``features``, all without I/O. A table stands between two HTML comments, ``<!-- NAME:begin -->`` and
``<!-- NAME:end -->``; `rewrite` replaces the text between them.

Run as ``python -m tests.support.features [--write FILE …]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from cloud_runtimes import config, registry
from cloud_runtimes.cli._schema import DURATIONS, attributes, duration_text
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import UnsupportedError
from cloud_runtimes.spi.executor import Executor
from tests.support.engines import ENGINES

__all__ = [
    "BACKED", "DESCRIPTIONS", "constants", "declared", "feature_table", "main", "rewrite", "runtime_table",
    "runtimes", "settings_table",
]  # fmt: skip

BACKED: Final = tuple(sorted(set(SERVICES) - {"telemetry"}))
"""The services that stand on components."""

_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "config_file": {"path": "settings.json"},
    **{name: engine["settings"] for name, engine in ENGINES.items() if "settings" in engine},
}
"""Settings without which a component gives no driver."""
_ADDRESSES: Final[Mapping[str, Mapping[str, Any]]] = {
    "dapr": {"dapr": {"http_endpoint": "http://localhost:3500", "grpc_endpoint": "grpc://localhost:50001"}},
    "layotto": {"layotto": {"grpc_endpoint": "grpc://localhost:34904"}},
}
"""Configurations by which a runtime has all it can have, whatever the environment says."""

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "configuration": "`get_configuration`, `get_configuration_items`",
    "configuration.atomic": "a save or delete of several keys: all or nothing",
    "configuration.group": "`group=`: namespaces within a store",
    "configuration.label": "`label=`: variants of a value",
    "configuration.subscribe": "`subscribe_configuration`",
    "configuration.tags": "an item's tags are kept",
    "configuration.version": "items have a version",
    "configuration.write": "`save_configuration`, `delete_configuration`",
    "lock": "`try_lock`, `unlock`, `hold` with waiting, leases that end by themselves",
    "lock.break_lock": "`client.admin.break_lock`: a lease of another process ended",
    "lock.fair": "who waits is served in the order of coming, between processes too",
    "lock.locks": "`client.admin.locks`: the locks that are held, and by whom",
    "lock.renew": "`Lease.renew()`, and `hold` renews in the background",
    "lock.token": "`Lease.token`: a fencing token that only grows",
    "file": "put, get, open, stat, list and delete files",
    "file.content_type": "files keep their `content_type=`",
    "file.copy": "`copy_file`, inside the store",
    "file.etag": "`FileInfo.etag` names the version",
    "file.exclusive": "`overwrite=False`: only creates",
    "file.listed": "`list_files` tells what `stat_file` does: content types, metadata, etags",
    "file.metadata": "files keep `metadata=`",
    "file.move": "`move_file`, in one step",
    "file.range": "`start=`, `length=` and `seek`: a part alone",
    "file.sizes": "`list_files` tells sizes",
    "file.url": "`url`: a signed URL, for whoever has it",
    "database": "`query`, `execute`: SQL with bound parameters, typed rows",
    "database.cancel": "what is given up ends in the database too, and is not applied",
    "database.execute_many": "`execute_many`: one statement for many rows, all or none",
    "database.isolation": "`transaction(isolation)`",
    "database.schema": "`tables`, `table_schema`, `create_table`, `drop_table`, `insert`, `update`",
    "database.stream": "`stream`: rows in constant memory",
    "database.outbox": "`tx.publish`: events of the same commit",
    "database.transaction": "`transaction`: several statements, all or nothing",
    "schedule": "`schedule_job`, `get_job`, `delete_job`; `run`, `running` and `rpc.serve` run due jobs",
    "schedule.claims": "a run that is due waits for a process that has its handler, and several share the runs",
    "schedule.jobs": "`client.admin.jobs`: the jobs of all applications, and how their runs went",
    "schedule.list_jobs": "`list_jobs`",
    "schedule.list_runs": "`list_runs`: the history",
    "schedule.misfire": '`misfire="skip"` and `"all"`',
    "schedule.pause": "`client.admin.pause_job`, `resume_job`: a job without occurrences for a while",
    "schedule.progress": "where a job stands (`Job.next_run` …), and the same `JobRun.run_id` for every try",
    "schedule.retry_run": "`client.admin.retry_run`: a run that failed once more",
    "schedule.run_now": "`run_now`: a run beside the schedule",
    "pubsub": "publish one event or several, the batching publisher",
    "pubsub.ack_wait": "`ack_wait=`: when an unsettled event comes again",
    "pubsub.dead_letter": "`dead_letter_topic=`: where dropped events go",
    "pubsub.delay": "`publish(delay=)`: delivered later",
    "pubsub.delivery_count": "`Event.delivery_count` is known",
    "pubsub.delete_group": "`client.admin.delete_group`: a group that nobody uses goes, with what it has not settled",
    "pubsub.delete_topic": "`client.admin.delete_topic`: a topic goes, with its events and groups",
    "pubsub.discard": "`client.admin.discard`: dead letters removed",
    "pubsub.group": "`group=` other than the application's id",
    "pubsub.groups": "`client.admin.groups`: the groups of a topic, how far they are, their members",
    "pubsub.inbox": "`event.transaction`: settled in the commit of what came of it",
    "pubsub.key_order": "events of one key in order, also in a group of several members",
    "pubsub.lag": "`lag`: how many events a group has not settled",
    "pubsub.max_deliveries": "`max_deliveries=`: given up after so many",
    "pubsub.pause": "`client.admin.pause` and `resume`: a group gets nothing for a time",
    "pubsub.peek": "`client.admin.peek`, `dead_letters`: events without a trace",
    "pubsub.purge": "`client.admin.purge`: the events of a topic removed",
    "pubsub.raw": "`raw=True`: without an envelope",
    "pubsub.redrive": "`client.admin.redrive`: dead letters sent back, to the group that failed alone",
    "pubsub.retry_delay": "`retry(delay)`: the broker waits, not the consumer",
    "pubsub.seek": "`client.admin.seek`: a group moved within its topic",
    "pubsub.start": "`start=`: where a new group begins",
    "pubsub.start_time": "`start=` with a time: a new group begins with what was published since",
    "pubsub.subscribe": "`subscribe`, with `ack`, `retry`, `drop`",
    "pubsub.topics": "`client.admin.topics`: the topics there are",
    "pubsub.ttl": "`publish(ttl=)`: not delivered after it",
    "rpc": "`invoke_method`, `invoke`",
    "rpc.headers": "`headers=`, `query=`, and the headers that come back",
    "rpc.host": "`serve`, `serving`, `asgi_app`: others can call this application",
    "rpc.http_method": "`http_method=` other than POST",
    "rpc.services": "`client.admin.services`: the applications that can be called, their methods and processes",
    "rpc.status": "a failure arrives with its own status and body",
    "secret": "`get_secret`",
    "secret.bulk": "`get_bulk_secret`: all secrets of a store",
    "state": "`get`, `get_item`, `save`, `delete`, and their bulk forms",
    "state.consistency": "`consistency=` is honoured",
    "state.etag": "`get_item` gives etags, `etag=` makes a write conditional",
    "state.fence": "`fence=`: a lower token than the key has seen is refused",
    "state.first_write": '`concurrency="first-write"`: only creates',
    "state.list_keys": "`list_keys`: by prefix, in pages",
    "state.outbox": "`tx.publish`: events of the same commit",
    "state.transaction": "`transaction`: all or nothing",
    "state.transaction_etag": "conditions inside a transaction, with full rollback",
    "state.ttl": "`ttl=`: expires by itself",
}
"""One line for people, by service (what every driver can do) and by feature."""


def constants(service: str) -> list[str]:
    """Return the features that the SPI of a service has names for."""
    driver = import_module(f"cloud_runtimes.spi.{service}")
    return sorted(getattr(driver, name) for name in driver.__all__ if name.isupper())


def declared() -> dict[str, dict[str, frozenset[str]]]:
    """Return component → service → features, of all built-in components. Does no I/O."""
    plain = config.load(
        {}, services=SERVICES, endpoint=None, timeout=None, runtime="capa", app_id="features", api_token=None
    )
    features: dict[str, dict[str, frozenset[str]]] = {}
    for name in registry.built_in(registry.COMPONENTS):
        factory = registry.find(registry.COMPONENTS, name)
        component = factory(config.build(factory.Settings, _SETTINGS.get(name, {}), name), plain, Executor())
        try:
            features[name] = {service: component.driver(service, "features").features for service in factory.services}
        finally:
            component.close(None)
    return features


def feature_table() -> str:
    """Return the table of what works where, in Markdown: the built-in components, and the runtimes that are sidecars."""
    return _table(declared() | {name: services for name, services in runtimes().items() if name != "capa"})


def _table(features: Mapping[str, Mapping[str, frozenset[str]]]) -> str:
    rows = [["feature", "what it is", *(f"`{name}`" for name in features)], ["---", "---", *(":-:" for _ in features)]]
    for service in BACKED:
        has = {name: services.get(service) for name, services in features.items()}
        rows.append([f"`{service}`", DESCRIPTIONS[service], *_marks(each is not None for each in has.values())])
        for feature in constants(service):
            full = f"{service}.{feature}"
            rows.append([f"`{full}`", DESCRIPTIONS[full], *_marks(feature in (each or ()) for each in has.values())])
    return _markdown(rows)


def runtimes() -> dict[str, dict[str, frozenset[str]]]:
    """Return runtime → service → features, of all built-in runtimes: of sidecars that have both protocols, and of embedded defaults. Does no I/O."""
    features: dict[str, dict[str, frozenset[str]]] = {}
    for name in registry.built_in(registry.RUNTIMES):
        settings = config.load(
            _ADDRESSES.get(name, {}),
            services=SERVICES,
            endpoint=None,
            timeout=None,
            runtime=name,
            app_id="features",
            api_token=None,
        )
        runtime = registry.find(registry.RUNTIMES, name)(settings, Executor())
        features[name] = {}
        try:
            for service in BACKED:
                try:
                    features[name][service] = runtime.driver(service, "features").features
                except UnsupportedError:
                    pass
        finally:
            runtime.close(None)
    return features


def runtime_table() -> str:
    """Return the table of what each runtime has, in Markdown."""
    return _table(runtimes())


def _marks(values: Iterator[bool]) -> list[str]:
    return ["yes" if value else "–" for value in values]


def settings_table(settings: type[Any]) -> str:
    """Return a settings dataclass as a Markdown table: names, values, defaults, and its docstring's words."""
    words = attributes(settings)
    hints = typing.get_type_hints(settings)
    rows = [["setting", "value", "default", "meaning"], ["---", "---", "---", "---"]]
    for field in dataclasses.fields(settings):
        parse = field.metadata.get("parse")
        rows.append(
            [
                f"`{field.name}`",
                "seconds, or text such as `500ms`, `24h`" if parse in DURATIONS else _values(hints[field.name]),
                _default(field.default, parse),
                words[field.name],
            ]
        )
    return _markdown(rows)


_NAMES: Final = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true, false",
    list: "list of texts",
    tuple: "list of texts",
    dict: "table",
}


def _values(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return ", ".join(
            f"`{str(choice).lower() if isinstance(choice, bool) else choice}`" for choice in typing.get_args(hint)
        )
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_values(each) for each in typing.get_args(hint) if each is not type(None))
    if origin in (Mapping, tuple) or dataclasses.is_dataclass(hint):
        return "table"
    return _NAMES[hint]


def _default(value: Any, parse: Callable[[Any], Any] | None) -> str:
    if value is None or value == ():
        return "none"
    if value is dataclasses.MISSING:
        return "must be given"
    if parse in DURATIONS:
        return f"`{duration_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"  # as TOML, JSON and YAML write it
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _tables() -> dict[str, Callable[[], str]]:
    from cloud_runtimes.resiliency.settings import BreakerSettings, RetrySettings, TargetSettings
    from cloud_runtimes.spi.relay import SpoolSettings
    from cloud_runtimes.telemetry.settings import TelemetrySettings

    tables: dict[str, Callable[[], str]] = {
        "features": feature_table,
        "runtimes": runtime_table,
        "settings.resiliency.breaker": lambda: settings_table(BreakerSettings),
        "settings.resiliency.retry": lambda: settings_table(RetrySettings),
        "settings.resiliency.target": lambda: settings_table(TargetSettings),
        "settings.spool": lambda: settings_table(SpoolSettings),
        "settings.telemetry": lambda: settings_table(TelemetrySettings),
    }
    for group in (registry.COMPONENTS, registry.RUNTIMES):
        for name in registry.built_in(group):
            settings = _settings(registry.find(group, name))
            if settings is not None:
                tables[f"settings.{name}"] = lambda settings=settings: settings_table(settings)  # type: ignore[misc]
    return tables


def _settings(cls: type[Any]) -> type[Any] | None:
    """Return the settings class of a component or a runtime."""
    settings: type[Any] | None = getattr(cls, "Settings", None)
    return settings


def rewrite(text: str) -> str:
    """Return a document with every table that it has a place for made anew.

    Raises:
        ValueError: a place without an end, or for a table that there is not.
    """
    tables = _tables()

    def table(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise ValueError(f"there is no table {match['name']!r}; there are {', '.join(tables)}")
        return f"{match['begin']}\n{tables[match['name']]()}\n{match['end']}"

    pattern = r"(?P<begin><!-- (?P<name>[\w.]+):begin -->)\n(?:(?!<!-- ).*\n)*(?P<end><!-- (?P=name):end -->)"
    document, count = re.subn(pattern, table, text)
    if count != text.count(":begin -->"):
        raise ValueError("a place for a table begins and does not end")
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table of features to stdout, or the tables of the named files into them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.features", description="The tables of the documentation."
    )
    parser.add_argument("--write", metavar="FILE", nargs="+", type=Path, help="rewrite the tables in these files")
    given = parser.parse_args(argv)
    if given.write is None:
        sys.stdout.write(feature_table() + "\n")
    for path in given.write or ():
        old = path.read_text(encoding="utf-8")
        new = rewrite(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
