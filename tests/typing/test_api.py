"""The public API is the agreed one: its types by mypy, its signatures by a table."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.arguments import CLIENT_TIMEOUT
from cloud_runtimes.admin import AdminService
from cloud_runtimes.config import DEFAULT_TIMEOUT
from cloud_runtimes.database import DatabaseService, DatabaseTransaction, RowStream
from cloud_runtimes.file import FileService
from cloud_runtimes.pubsub import Event, EventBatch, Publisher, PubSubService, Subscription
from cloud_runtimes.pubsub._subscribing import SubscribeOptions
from cloud_runtimes.rpc import RpcServer, RpcService
from cloud_runtimes.secret import Secret, SecretService
from cloud_runtimes.state import StateService, StateTransaction
from cloud_runtimes.telemetry import Meter, TelemetryService

ROOT = Path(__file__).parent.parent.parent
CONTRACT = Path(__file__).parent / "api.py"

# The agreed signatures. `/` never; after `*` keyword-only; a name alone is required. Every I/O method also takes
# timeout= (the client's by default) and metadata=, marked `…` where both are keyword-only. A twin has the same.
_OUTBOX = "pubsub_name, topic, data, *, content_type=None, key=None, attributes=None, ttl=None, delay=None, raw=False, metadata=None"
DATABASE = {
    "query": "store_name, sql, params=None, *, type=None, …",
    "stream": "store_name, sql, params=None, *, type=None, …",
    "execute": "store_name, sql, params=None, *, …",
    "execute_many": "store_name, sql, rows, *, …",
    "transaction": "store_name, isolation=None, *, …",
    "tables": "store_name, *, …",
    "table_schema": "store_name, table, *, …",
    "create_table": "store_name, table, columns, *, …",
    "drop_table": "store_name, table, *, …",
    "insert": "store_name, table, values, *, …",
    "update": "store_name, table, values, where, *, …",
}
_LETTERS = "pubsub_name, topic, *, group=None, reason=None, error=None, ids=None, limit=None, "
ADMIN = {
    "topics": "pubsub_name, *, prefix='', limit=1000, …",
    "groups": "pubsub_name, topic, *, …",
    "peek": "pubsub_name, topic, *, group=None, start='earliest', limit=20, …",
    "dead_letters": "pubsub_name, topic, *, …",
    "redrive": f"{_LETTERS}to='group', dry_run=False, …",
    "discard": f"{_LETTERS}undo=None, dry_run=False, …",
    "purge": "pubsub_name, topic, *, before=None, undo=None, dry_run=False, …",
    "seek": "pubsub_name, topic, group, to, *, …",
    "pause": "pubsub_name, topic, group, *, …",
    "resume": "pubsub_name, topic, group, *, …",
    "delete_group": "pubsub_name, topic, group, *, dry_run=False, …",
    "delete_topic": "pubsub_name, topic, *, dry_run=False, …",
    "locks": "store_name, *, prefix='', limit=1000, …",
    "break_lock": "store_name, resource_id, token, *, …",
    "services": "*, prefix='', …",
    "jobs": "*, prefix='', limit=1000, …",
    "pause_job": "name, *, app_id=None, …",
    "resume_job": "name, *, app_id=None, …",
    "retry_run": "name, run_id, *, app_id=None, …",
    "stores": "*, …",
    "overview": "*, dead_letter_topics=(), limit=100, …",
}
DATABASE_TRANSACTION = {
    name: text.removeprefix("store_name, ") for name, text in DATABASE.items() if name != "transaction"
} | {"commit": "*, …", "rollback": "*, …", "publish": _OUTBOX}
ROWS = {"close": "*, timeout=<client>"}
STATE = {
    "get": "store_name, key, *, consistency=None, type=None, …",
    "get_item": "store_name, key, *, consistency=None, type=None, …",
    "get_bulk": "store_name, keys, *, consistency=None, type=None, …",
    "list_keys": "store_name, prefix='', *, limit=None, after=None, …",
    "save": "store_name, key, value, metadata=None, *, etag=None, ttl=None, concurrency=None, consistency=None, "
    "content_type=None, fence=None, timeout=<client>",
    "save_bulk": "store_name, items, *, …",
    "delete": "store_name, key, *, etag=None, fence=None, …",
    "delete_bulk": "store_name, keys, *, …",
    "transaction": "store_name, *, …",
}
FILE = {
    "put_file": "store_name, name, data, *, content_type=None, metadata=None, overwrite=True, timeout=<client>",
    "get_file": "store_name, name, *, start=0, length=None, …",
    "open_file": "store_name, name, mode='rb', *, content_type=None, overwrite=True, …",
    "stat_file": "store_name, name, *, …",
    "exists": "store_name, name, *, …",
    "list_files": "store_name, prefix='', *, recursive=True, limit=None, after=None, …",
    "delete_file": "store_name, name, *, …",
    "copy_file": "store_name, source, target, *, …",
    "move_file": "store_name, source, target, *, …",
    "url": "store_name, name, *, expires, method='GET', …",
}
TRANSACTION = {
    "save": "key, value, metadata=None, *, etag=None, ttl=None, concurrency=None, consistency=None, "
    "content_type=None, fence=None",
    "delete": "key, *, etag=None, fence=None",
    "publish": _OUTBOX,
}
SECRET = {"get_secret": "store_name, key, *, …", "get_bulk_secret": "store_name, *, …"}
METER = {
    **dict.fromkeys(("counter", "up_down_counter", "gauge"), "name, unit='', description=''"),
    "histogram": "name, unit='', description='', *, bounds=None",
    **{
        f"observable_{name}": "name, callback, unit='', description=''"
        for name in ("counter", "up_down_counter", "gauge")
    },
    "collect": "buffer, now",
}
TELEMETRY = {
    "tracer": "name, version=None, schema_url=None",
    "logger": "name, version=None, schema_url=None",
    "meter": "name, version=None, schema_url=None",
    "logging_handler": "level=0",
    "inject": "headers",
    "extract": "headers",
    "extract_baggage": "headers",
    "baggage": "",
    "use_baggage": "entries",
    **dict.fromkeys(("tracer_provider", "meter_provider", "logger_provider"), ""),
    "flush": "timeout=None",
    "spool": "*, timeout=<client>",
    "stats": "",
}
PUBSUB = {
    "publish": "pubsub_name, topic, data, *, content_type=None, key=None, attributes=None, ttl=None, delay=None, "
    "raw=False, …",
    "publish_bulk": "pubsub_name, topic, events, *, …",
    "publisher": "pubsub_name, topic, *, linger=0.005, batch_events=1000, batch_bytes=1048576, buffer_bytes=67108864, "
    "on_full='block', delivery_timeout=120.0, on_delivery=None, content_type=None, attributes=None, flush_on_sigterm=False",
    "subscribe": "pubsub_name, topic, handler=None, *, group=None, start=None, order=None, workers=1, max_in_flight=None, "
    "ack_wait=None, handler_timeout=None, rate=None, max_deliveries=None, dead_letter_topic=None, batch=None, raw=False, type=None, …",
    "subscription": "pubsub_name, topic, **options",
    "lag": "pubsub_name, topic, *, group=None, …",
    "spool": "pubsub_name, *, …",
}
PUBLISHER = {
    "send": "data, *, key=None, attributes=None, metadata=None, timeout=<client>",
    "flush": "timeout=None",
    "close": "*, timeout=<client>",
    "stats": "",
}
SUBSCRIPTION = {"receive": "timeout=None", "wait": "", "close": "*, timeout=<client>", "stats": ""}
_CALL = "service, method, data=None, *, http_method='POST', content_type=None, headers=None, query=None, "
_SERVE = "*, host='127.0.0.1', port=None, …"
RPC = {
    "invoke_method": f"{_CALL}type=None, …",
    "invoke": f"{_CALL}…",
    "register_method": "method, handler, *, type=None",
    "method": "name, *, type=None",
    "serve": _SERVE,
    "serving": _SERVE,
    "asgi_app": "",
}
RPC_SERVER = {"close": "*, timeout=<client>"}
EVENT = {
    "ack": "",
    "retry": "delay=None",
    "drop": "",
    "extend": "seconds=None",
    "transaction": "store_name, *, …",
    "to_json": "",
}
BATCH = {"ack": "", "retry": "delay=None", "drop": "", "extend": "seconds=None", "transaction": "store_name, *, …"}
_RUN = "*, host='127.0.0.1', port=None, timeout=<client>"
CLIENT = {
    "__init__": "endpoint=None, timeout=<30>, *, runtime=None, app_id=None, config=None, api_token=None, requires=None",
    "close": "*, timeout=<client>",
    "wait_ready": "*, timeout=<client>",
    "supports": "feature, component=None",
    "run": _RUN,
    "running": _RUN,
    "native": "service, name",
}
NO_TWIN = {
    "register_method", "method", "serving", "running", "subscription", "asgi_app", "open_file", "stream", "__init__",
    "native", "supports", "transaction", "publisher", "stats", "ack", "retry", "drop", "to_json",
}  # fmt: skip
CLASSES: dict[type[Any], dict[str, str]] = {
    CloudRuntimesClient: CLIENT,
    AdminService: ADMIN,
    DatabaseService: DATABASE,
    DatabaseTransaction: DATABASE_TRANSACTION,
    RowStream: ROWS,
    FileService: FILE,
    StateService: STATE,
    StateTransaction: TRANSACTION,
    SecretService: SECRET,
    PubSubService: PUBSUB,
    TelemetryService: TELEMETRY,
    Meter: METER,
    RpcService: RPC,
    RpcServer: RPC_SERVER,
    Publisher: PUBLISHER,
    Subscription: SUBSCRIPTION,
    Event: EVENT,
    EventBatch: BATCH,
}
# the attributes of an event
ATTRIBUTES = {
    "id", "source", "type", "subject", "time", "topic", "pubsub_name", "key", "content_type", "data", "extensions",
    "metadata", "traceparent", "delivery_count",
}  # fmt: skip


def signature(method: Callable[..., Any]) -> str:
    """Return names, order, kinds and defaults as the table has them."""
    parts: list[str] = []
    starred = False
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        assert parameter.kind is not parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        text = parameter.name if parameter.kind is not parameter.VAR_KEYWORD else f"**{parameter.name}"
        if parameter.default is CLIENT_TIMEOUT:
            text += "=<client>"
        elif parameter.default is DEFAULT_TIMEOUT:
            text += f"=<{parameter.default:g}>"
        elif parameter.default is not parameter.empty:
            text += f"={parameter.default!r}"
        parts.append(text)
    return ", ".join(parts)


@pytest.mark.promise("I1")
def test_signatures(subtests: pytest.Subtests) -> None:
    for cls, table in CLASSES.items():
        for name, given in table.items():
            with subtests.test(method=f"{cls.__name__}.{name}"):
                expected = given.replace("…", "timeout=<client>, metadata=None")
                assert signature(getattr(cls, name)) == expected
                waits_for_nothing = cls in (Meter, StateTransaction) or expected == _OUTBOX
                if name in NO_TWIN or waits_for_nothing or (cls is TelemetryService and name not in ("flush", "spool")):
                    assert not hasattr(cls, f"{name}_async")
                else:
                    twin = getattr(cls, f"{name}_async")
                    assert signature(twin) == expected
                    assert any(map(inspect.iscoroutinefunction, (twin, inspect.unwrap(twin))))
        with subtests.test("nothing public beyond the table", cls=cls.__name__):
            inherited = {name for base in (list, object) if issubclass(cls, base) for name in vars(base)}
            public = {
                name.removesuffix("_async")
                for name, value in inspect.getmembers(cls, callable)
                if not name.startswith("_") and name not in inherited
            }
            assert public - {"forked", "name"} == set(table) - {"__init__"}, "say it in the table, or hide it"


def test_a_secret_is_a_mapping_and_a_value() -> None:
    assert issubclass(Secret, Mapping)
    assert {name for name in dir(Secret) if not name.startswith("_")} - set(dir(Mapping)) == {"value"}


def test_options_of_subscribe() -> None:
    """The overloads name what the signature has."""
    options = inspect.signature(PubSubService.subscribe).parameters.values()
    mine = {each.name for each in options if each.kind is each.KEYWORD_ONLY}
    assert set(SubscribeOptions.__annotations__) == mine - {"type", "batch"}


def test_attributes_of_an_event() -> None:
    public = {name.removesuffix("_async") for name in dir(Event) if not name.startswith("_")} - set(EVENT)
    assert public == ATTRIBUTES


def test_services_of_the_client() -> None:
    with CloudRuntimesClient() as client:
        assert type(client.state) is StateService
        assert type(client.file) is FileService
        assert type(client.pubsub) is PubSubService
        assert type(client.database) is DatabaseService
        assert type(client.secret) is SecretService
        assert type(client.telemetry) is TelemetryService
        for absent in ("teleport", "no_such_service"):
            with pytest.raises(AttributeError, match=absent):
                getattr(client, absent)


# -- what a type checker sees -------------------------------------------------


WRONG = [
    ('state.get("s", "k", type=Order), Order | None', 'state.get("s", "k", type=Order), Order'),
    (
        'pubsub.subscribe("b", "t", batch=5), Subscription[EventBatch[Any]]',
        'pubsub.subscribe("b", "t", batch=5), Subscription[Event[Any]]',
    ),
    ("await publisher.send_async(1), int", "await publisher.send_async(1), str"),
]


@pytest.mark.promise("I1")
@pytest.mark.process
def test_types(tmp_path: Path) -> None:
    """And three wrong ones are found, so this check can fail; one run for all, since it takes long."""
    if importlib.util.find_spec("mypy") is None:
        pytest.fail("mypy is not installed: pip install -e '.[dev]'")
    lines = CONTRACT.read_text(encoding="utf-8").splitlines()
    expected = []
    for right, wrong in WRONG:
        (at,) = [number for number, line in enumerate(lines) if right in line]
        lines[at] = lines[at].replace(right, wrong)
        expected.append(at + 1)
    broken = tmp_path / "broken.py"
    broken.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        # what it learns of the package is kept for ``make types``
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir=.mypy_cache/{sys.platform}", CONTRACT, broken],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    errors = re.findall(r"^(.*):(\d+): error: .*\[(.*)\]$", done.stdout, re.MULTILINE)
    assert [(Path(file).name, int(line), kind) for file, line, kind in errors] == [
        ("broken.py", line, "assert-type") for line in sorted(expected)
    ], done.stdout
