"""Spans of our own calls (``instrument = true``): names and attributes are checked against OpenTelemetry's own constants."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc
from opentelemetry.semconv.attributes import db_attributes as db
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    BulkError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from cloud_runtimes.pubsub import DropEvent, Event
from cloud_runtimes.rpc.host import hosts
from cloud_runtimes.schedule import JobRun, Retry
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.waiting import in_threads
from tests.telemetry.otlp_receiver import Receiver

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(1, 6)
UNSET, ERROR = 0, 2
SECRET = "correct horse battery staple"


class Spans:
    """A client whose calls have spans, and what of them a real endpoint received."""

    def __init__(self, client: CloudRuntimesClient, receiver: Receiver) -> None:
        self.client = client
        self._receiver = receiver

    def all(self) -> list[Any]:
        assert self.client.telemetry.flush(30)
        return self._receiver.spans()

    def one(self, name: str) -> Any:
        (span,) = [span for span in self.all() if span.name == name]
        return span

    def texts(self) -> bytes:
        """Everything that was sent."""
        self.client.telemetry.flush(30)
        return b"".join(body for _, _, body in self._receiver.requests)


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture
def spans(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spans]:
    settings = getattr(request, "param", {})
    with Receiver() as receiver:
        table = {"endpoint": receiver.url, "instrument": True, "flush_on_sigterm": False, **settings}
        client = CloudRuntimesClient(
            app_id="shop", config={"capa": {"home": str(tmp_path / "home")}, "telemetry": table}
        )
        yield Spans(client, receiver)
        client.close(timeout=5)


def test_off_by_default(client: Make) -> None:
    instance = client(home=":memory:")
    instance.state.save("s", "k", 1)
    assert instance.state._frame.interceptors == ()
    assert "telemetry" not in instance._context._services


def test_a_wrong_setting_is_refused(client: Make) -> None:
    instance = client(home=":memory:", instrument="yes please")
    with pytest.raises(ValueError, match="instrument"):
        instance.state.get("s", "k")


def test_scopes_have_a_version_and_a_schema(spans: Spans) -> None:
    telemetry = spans.client.telemetry
    scope = ("app", "1.2", "https://opentelemetry.io/schemas/1.44.0")
    with telemetry.tracer(*scope).span("s"):
        telemetry.logger(*scope).info("said")
    telemetry.meter(*scope).counter("requests").add(1)
    assert telemetry.meter(*scope) is telemetry.meter(*scope)
    assert telemetry.meter("app", "1.3") is not telemetry.meter(*scope)
    assert telemetry.flush(30)
    for name in scope:
        assert sum(name.encode() in body for _, _, body in spans._receiver.requests) == 3
    for make in (telemetry.tracer, telemetry.meter, telemetry.logger):
        with pytest.raises(InvalidArgumentError, match="schema_url is text"):
            make("app", schema_url=1)  # type: ignore[arg-type]


def test_calls_without_a_convention(spans: Spans, api: Api) -> None:
    client, call = spans.client, api.call
    with client.telemetry.tracer("app").span("above") as above:
        call(client.state, "save", "orders", f"key-{SECRET}", {"value": SECRET})
        call(client.configuration, "save_configuration", "conf", {f"key-{SECRET}": SECRET})
        call(client.file, "put_file", "files", f"{SECRET}.txt", SECRET.encode())
        assert call(client.lock, "try_lock", "locks", SECRET) is not None
        call(client.schedule, "list_jobs")
        with pytest.raises(NotFoundError):
            call(client.secret, "get_secret", "vault", SECRET.replace(" ", "-"))
    for name, component in {
        "state.save": "orders",
        "configuration.save_configuration": "conf",
        "file.put_file": "files",
        "lock.try_lock": "locks",
        "secret.get_secret": "vault",
    }.items():
        span = spans.one(name)
        service, _, operation = name.partition(".")
        recorded = attributes(span)
        assert recorded.pop("error.type", None) == (
            "cloud_runtimes.errors.NotFoundError" if service == "secret" else None
        )
        assert recorded == {
            "cloud_runtimes.service": service,
            "cloud_runtimes.operation": operation,
            "cloud_runtimes.component": component,
        }
        assert (span.kind, span.status.code) == (CLIENT, ERROR if service == "secret" else 0)
        assert span.trace_id.hex() == above.context.trace_id
        assert span.parent_span_id.hex() == above.context.span_id
    assert spans.one("schedule.list_jobs").kind == CLIENT
    for text in (SECRET, SECRET.replace(" ", "-")):
        assert text.encode() not in spans.texts()


def test_an_error_is_told_by_its_type_alone(spans: Spans, api: Api) -> None:
    api.fails(ConflictError)(spans.client.state, "save", "orders", SECRET, 1, etag="stale")
    span = spans.one("state.save")
    assert (span.status.code, span.status.message, list(span.events)) == (ERROR, "", [])
    assert attributes(span)[ERROR_TYPE] == "cloud_runtimes.errors.ConflictError"
    assert SECRET.encode() not in spans.texts()


def test_a_retry_is_an_event(spans: Spans, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    state = spans.client.state
    driver = state._frame.driver("orders")
    fails = iter([True, True, False])

    def flaky(original: Any) -> Any:
        def run(op: Operation, *args: Any) -> Any:
            if next(fails):
                raise UnavailableError(SECRET, retryable=True)
            return original(op, *args)

        return run

    monkeypatch.setattr(driver, "get", flaky(driver.get))
    monkeypatch.setattr(driver, "get_async", flaky(driver.get_async))
    assert api.call(state, "get", "orders", "k") is None
    span = spans.one("state.get")
    assert span.status.code == 0
    assert [(event.name, attributes(event)) for event in span.events] == [
        ("cloud_runtimes.retry", {ERROR_TYPE: "cloud_runtimes.errors.UnavailableError", "cloud_runtimes.attempt": n})
        for n in (2, 3)
    ]
    assert SECRET.encode() not in spans.texts()


# -- RPC ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["process", "http"])
def test_rpc(spans: Spans, api: Api, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = spans.client

    @client.rpc.method("orders/get")
    def get(data: Any) -> Any:
        client.state.save("inside", "k", 1)
        return data

    @client.rpc.method("fails")
    async def fails() -> None:
        raise NotFoundError(SECRET)

    @client.rpc.method("breaks")
    def breaks() -> None:
        raise LookupError(SECRET)

    def call(method: str) -> Any:
        return api.call(client.rpc, "invoke_method", "shop", method, {"secret": SECRET})

    if way == "http":
        monkeypatch.setattr(hosts, "find", lambda app_id: None)
    with client.rpc.serving():
        assert call("orders/get") == {"secret": SECRET}
        with pytest.raises(NotFoundError):
            call("fails")
        with pytest.raises(InternalError):
            call("breaks")
    exported = {(span.name, span.kind): span for span in spans.all()}
    caller, server = exported["shop/orders/get", CLIENT], exported["shop/orders/get", SERVER]
    names = {rpc.RPC_SYSTEM_NAME: "cloud_runtimes", rpc.RPC_METHOD: "shop/orders/get"}
    assert attributes(caller) == {**names, rpc.RPC_RESPONSE_STATUS_CODE: "200"}
    assert attributes(server) == names
    assert (server.trace_id, server.parent_span_id) == (caller.trace_id, caller.span_id)
    assert exported["state.save", CLIENT].parent_span_id == server.span_id
    # what its caller did wrong is no error of the server (RPC conventions)
    assert (exported["shop/fails", CLIENT].status.code, exported["shop/fails", SERVER].status.code) == (ERROR, 0)
    assert attributes(exported["shop/fails", CLIENT])[ERROR_TYPE] == "NotFoundError"
    assert attributes(exported["shop/fails", SERVER])["cloud_runtimes.error.code"] == "NOT_FOUND"
    assert (exported["shop/breaks", CLIENT].status.code, exported["shop/breaks", SERVER].status.code) == (ERROR, ERROR)
    assert attributes(exported["shop/breaks", CLIENT])[ERROR_TYPE] == "500"
    assert attributes(exported["shop/breaks", SERVER])[ERROR_TYPE] == "LookupError"
    assert SECRET.encode() not in spans.texts()


def test_a_traceparent_given_by_hand_stays(spans: Spans) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    spans.client.rpc.register_method("m", lambda data, request: request.traceparent)
    assert spans.client.rpc.invoke_method("shop", "m", headers={"traceparent": given}) == given


# -- pub/sub ------------------------------------------------------------------


def test_publish_and_process(spans: Spans, api: Api) -> None:
    client = spans.client
    handled: queue.Queue[str] = queue.Queue()

    def handle(event: Any) -> None:
        client.state.save("inside", "k", 1)
        handled.put(event.id)

    with client.pubsub.subscribe("bus", "orders", api.handler(handle), group="billing"):
        id = api.call(client.pubsub, "publish", "bus", "orders", SECRET, key=SECRET)
        assert handled.get(timeout=30) == id
    exported = spans.all()
    publish = next(
        s for s in exported if attributes(s).get(messaging.MESSAGING_MESSAGE_ID) == id and s.kind == PRODUCER
    )
    process = next(
        s for s in exported if attributes(s).get(messaging.MESSAGING_MESSAGE_ID) == id and s.kind == CONSUMER
    )
    assert (publish.name, process.name) == ("publish orders", "process orders")
    common = {
        messaging.MESSAGING_SYSTEM: "sqlite",
        messaging.MESSAGING_DESTINATION_NAME: "orders",
        messaging.MESSAGING_MESSAGE_ID: id,
        "cloud_runtimes.component": "bus",
    }
    assert attributes(publish) == {
        **common,
        messaging.MESSAGING_OPERATION_NAME: "publish",
        messaging.MESSAGING_OPERATION_TYPE: messaging.MessagingOperationTypeValues.SEND.value,
    }
    assert attributes(process) == {
        **common,
        messaging.MESSAGING_OPERATION_NAME: "process",
        messaging.MESSAGING_OPERATION_TYPE: messaging.MessagingOperationTypeValues.PROCESS.value,
        messaging.MESSAGING_CONSUMER_GROUP_NAME: "billing",
    }
    assert (process.trace_id, process.parent_span_id) == (publish.trace_id, publish.span_id)
    assert process.span_id in {span.parent_span_id for span in exported if span.name == "state.save"}
    assert SECRET.encode() not in spans.texts()


def test_a_handler_that_fails(spans: Spans) -> None:
    seen: queue.Queue[int | None] = queue.Queue()

    def handle(event: Any) -> None:
        seen.put(event.delivery_count)
        if event.delivery_count == 1:
            raise LookupError(SECRET)

    with spans.client.pubsub.subscribe("bus", "t", handle):
        spans.client.pubsub.publish("bus", "t", 1)
        assert [seen.get(timeout=30), seen.get(timeout=30)] == [1, 2]
    first, second = (span for span in spans.all() if span.kind == CONSUMER)
    assert (first.status.code, attributes(first)[ERROR_TYPE], second.status.code) == (ERROR, "LookupError", 0)
    assert SECRET.encode() not in spans.texts()


def test_a_run_of_a_job(spans: Spans, api: Api) -> None:
    """Each try begins a trace, of which the calls of the handler are a part."""
    client = spans.client
    ended = threading.Event()

    def work(run: JobRun) -> None:
        client.state.save("s", "k", SECRET)
        if run.attempt == 1:
            raise LookupError(SECRET)
        ended.set()

    async def work_async(run: JobRun) -> None:
        work(run)

    client.schedule.job("report")(work if api.name == "sync" else work_async)
    client.schedule.schedule_job("report", due_time=0, failure_policy=Retry(1, 0.0))
    with client.schedule.running():
        assert ended.wait(30)
    first, second = (span for span in spans.all() if span.name == "run report")
    assert (first.kind, first.status.code, attributes(first)[ERROR_TYPE]) == (INTERNAL, ERROR, "LookupError")
    assert (second.status.code, second.parent_span_id) == (UNSET, b"")
    (record,) = client.schedule.list_runs("report")
    assert attributes(second) == {
        "cloud_runtimes.service": "schedule",
        "cloud_runtimes.operation": "run",
        "cloud_runtimes.job.name": "report",
        "cloud_runtimes.job.run.id": record.run_id,
        "cloud_runtimes.job.run.attempt": 2,
    }
    saves = {(span.trace_id, span.parent_span_id) for span in spans.all() if span.name == "state.save"}
    assert saves == {(span.trace_id, span.span_id) for span in (first, second)}
    assert SECRET.encode() not in spans.texts()


def test_batches_have_links(spans: Spans, api: Api) -> None:
    client = spans.client
    handled: queue.Queue[int] = queue.Queue()
    api.call(client.pubsub, "publish_bulk", "bus", "t", [1, 2, 3])
    with client.pubsub.subscribe("bus", "t", lambda events: handled.put(len(events)), batch=10):
        assert handled.get(timeout=30) == 3
    publish, process = spans.one("publish t"), spans.one("process t")
    assert attributes(publish)[messaging.MESSAGING_BATCH_MESSAGE_COUNT] == 3
    assert attributes(process)[messaging.MESSAGING_BATCH_MESSAGE_COUNT] == 3
    assert process.parent_span_id == b""
    assert [(link.trace_id, link.span_id) for link in process.links] == [(publish.trace_id, publish.span_id)] * 3


def test_a_publisher_s_batch_is_linked_to_where_its_events_were_made(spans: Spans) -> None:
    client = spans.client
    contexts = []
    with client.pubsub.publisher("bus", "t", linger=60) as publisher:
        for _ in range(2):
            with client.telemetry.tracer("app").span("made") as span:
                contexts.append((span.context.trace_id, span.context.span_id))
                publisher.send({"secret": SECRET})
                publisher.send({"secret": SECRET}, key=SECRET)
        publisher.send({})
    span = spans.one("publish t")
    assert span.kind == PRODUCER
    assert attributes(span)[messaging.MESSAGING_BATCH_MESSAGE_COUNT] == 5
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == contexts
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == contexts[0]
    assert SECRET.encode() not in spans.texts()


def test_a_publisher_s_batch_of_events_made_in_no_span_is_no_trace_of_its_own(spans: Spans) -> None:
    with spans.client.pubsub.publisher("bus", "t") as publisher:
        publisher.send({})
    spans.client.pubsub.publish("bus", "other", {})
    assert [span.name for span in spans.all()] == ["publish other"]


def test_dropping_an_event_is_no_failure(spans: Spans) -> None:
    done = queue.Queue[None]()

    def handle(event: Event) -> None:
        done.put(None)
        raise DropEvent

    spans.client.pubsub.publish("bus", "t", {})
    with spans.client.pubsub.subscribe("bus", "t", handle):
        done.get(timeout=30)
    span = spans.one("process t")
    assert (span.status.code, ERROR_TYPE in attributes(span)) == (UNSET, False)


def test_what_failed_of_many_is_an_error(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = spans.client.pubsub._frame.driver("bus")
    monkeypatch.setattr(driver, "publish", lambda *_: {1: UnavailableError(SECRET)})
    with pytest.raises(BulkError):
        spans.client.pubsub.publish_bulk("bus", "t", [1, 2])
    span = spans.one("publish t")
    assert (span.status.code, attributes(span)[ERROR_TYPE]) == (ERROR, "cloud_runtimes.errors.UnavailableError")


# -- databases ----------------------------------------------------------------


def test_database(spans: Spans, api: Api) -> None:
    def call(name: str, *args: Any) -> Any:
        return api.call(spans.client.database, name, *args)

    call("execute", "main", "CREATE TABLE people (name TEXT)")
    call("insert", "main", "people", {"name": SECRET})
    rows = [{"name": SECRET}, {"name": "b"}]
    call("execute_many", "main", "-- comment\n insert into people VALUES (:name)", rows)
    result = call("query", "main", f"/* {SECRET} */ select name from people where name = '{SECRET}'")
    assert len(result) == 2
    with pytest.raises(NotFoundError):
        call("query", "main", f"select '{SECRET}' from nobody")
    call("query", "main", "select 1")
    exported = [span for span in spans.all() if db.DB_SYSTEM_NAME in attributes(span)]
    assert {span.kind for span in exported} == {CLIENT}
    common = {db.DB_SYSTEM_NAME: "sqlite", "cloud_runtimes.component": "main"}
    assert [(span.name, attributes(span)) for span in exported] == [
        ("CREATE people", {**common, db.DB_OPERATION_NAME: "CREATE", db.DB_QUERY_SUMMARY: "CREATE people"}),
        ("INSERT people", {**common, db.DB_OPERATION_NAME: "INSERT", db.DB_COLLECTION_NAME: "people"}),
        (
            "INSERT people",
            {
                **common,
                db.DB_OPERATION_NAME: "INSERT",
                db.DB_OPERATION_BATCH_SIZE: 2,
                db.DB_QUERY_SUMMARY: "INSERT people",
            },
        ),
        ("SELECT people", {**common, db.DB_OPERATION_NAME: "SELECT", db.DB_QUERY_SUMMARY: "SELECT people"}),
        (
            "SELECT nobody",
            {
                **common,
                db.DB_OPERATION_NAME: "SELECT",
                db.DB_QUERY_SUMMARY: "SELECT nobody",
                ERROR_TYPE: "cloud_runtimes.errors.NotFoundError",
            },
        ),
        ("SELECT", {**common, db.DB_OPERATION_NAME: "SELECT", db.DB_QUERY_SUMMARY: "SELECT"}),
    ]
    assert SECRET.encode() not in spans.texts()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"component": "redis", "url": "redis://user:pass@127.0.0.1:1/0"}, ("127.0.0.1", 1)),
        ({"component": "redis", "url": "unix:///run/redis.sock"}, ("/run/redis.sock", None)),
        ({"component": "nats", "url": "nats://token@[::1]:1,b:2"}, ("::1", 1)),
        ({"component": "postgres", "url": "postgresql://user@127.0.0.1:1,b/shop"}, ("127.0.0.1", 1)),
    ],
)
def test_where_the_server_is(spans: Spans, table: dict[str, Any], expected: tuple[str, int | None]) -> None:
    telemetry = {"endpoint": spans._receiver.url, "instrument": True, "flush_on_sigterm": False}
    config = {"state": {"s": table}, "telemetry": telemetry}
    with CloudRuntimesClient(app_id="shop", config=config, timeout=1) as client:
        with pytest.raises(UnavailableError):
            client.state.get("s", "k")
        assert client.telemetry.flush(30)
    recorded = attributes(spans.one("state.get"))
    assert (recorded["server.address"], recorded.get("server.port")) == expected


def test_where_a_database_and_a_sidecar_are(spans: Spans) -> None:
    telemetry = {"endpoint": spans._receiver.url, "instrument": True, "flush_on_sigterm": False}
    url = "postgresql+psycopg://user@127.0.0.1:1/shop"
    config = {"database": {"d": {"component": "sqlalchemy", "url": url}}, "telemetry": telemetry}
    with CloudRuntimesClient(app_id="shop", config=config, timeout=1) as client:
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            client.database.query("d", "SELECT 1")
        assert client.telemetry.flush(30)
    with CloudRuntimesClient("http://127.0.0.1:2", config={"telemetry": telemetry}, timeout=1) as client:
        with pytest.raises(UnavailableError):
            client.state.get("s", "k")
        assert client.telemetry.flush(30)
    for name, port in (("SELECT shop", 1), ("state.get", 2)):
        recorded = attributes(spans.one(name))
        assert (recorded["server.address"], recorded["server.port"]) == ("127.0.0.1", port)


def test_a_database_s_name_is_its_namespace() -> None:
    from cloud_runtimes.components.sqlalchemy.driver import SqlDatabase

    def store() -> Any:
        raise AssertionError("no I/O")

    for url, system, namespace in (
        ("postgresql+psycopg://user:secret@host:5432/shop%20one?sslmode=require", "postgresql", "shop one"),
        ("mysql+pymysql://host/shop", "mysql", "shop"),
        ("mariadb://host/shop", "mariadb", "shop"),
        ("mssql+pyodbc://host/shop", "microsoft.sql_server", "shop"),
        ("oracle://host/shop", "oracle.db", "shop"),
        ("postgresql://host", "postgresql", None),
        ("sqlite:////home/someone/shop.db", "sqlite", None),
    ):
        driver = SqlDatabase(store, url)
        assert (driver.system, driver.namespace) == (system, namespace)
    for value in db.DbSystemNameValues:
        assert value.value in ("postgresql", "mysql", "mariadb", "microsoft.sql_server")


def test_a_stream_has_no_span_for_each_piece(spans: Spans) -> None:
    client = spans.client
    client.file.put_file("files", "a", b"x" * 100_000)
    with client.file.open_file("files", "a") as file:
        while file.read(1000):
            pass
    client.database.execute("main", "CREATE TABLE t (n INTEGER)")
    client.database.execute_many("main", "INSERT INTO t VALUES (:n)", [{"n": n} for n in range(5000)])
    with client.database.stream("main", "SELECT n FROM t") as rows:
        assert sum(1 for _ in rows) == 5000
    names = [span.name for span in spans.all()]
    assert names.count("file.open_file") == 1
    assert names.count("STREAM t") + names.count("SELECT t") == 1


def test_a_file_s_pieces_have_none_and_its_commit_has_one(spans: Spans) -> None:
    with spans.client.file.open_file("files", "a", "wb") as file:
        for _ in range(50):
            file.write(b"x" * 10_000)
    assert spans.client.file.get_file("files", "a") == b"x" * 500_000
    assert 1 <= [span.name for span in spans.all()].count("file.open_file") <= 2  # opening and storing


def test_a_handler_that_outlives_its_client_s_drivers(spans: Spans) -> None:
    client = spans.client
    begun, go = threading.Event(), threading.Event()
    seen: queue.Queue[Any] = queue.Queue()

    def handle(event: Any) -> None:
        begun.set()
        assert go.wait(30)
        seen.put(event)

    client.pubsub.subscribe("bus", "t", handle)
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    assert begun.wait(30)
    closing = threading.Thread(target=client.close)
    closing.start()
    while client.pubsub._frame.drivers:
        threading.Event().wait(0.01)
    go.set()
    closing.join(60)
    exported = [span for span in spans._receiver.spans() if span.kind == CONSUMER]
    assert exported
    assert {attributes(span)[messaging.MESSAGING_SYSTEM] for span in exported} == {"sqlite"}


def test_transactions(spans: Spans) -> None:
    client = spans.client
    client.database.execute("main", "CREATE TABLE t (n INTEGER)")
    with client.telemetry.tracer("app").span("above") as above, client.database.transaction("main") as tx:
        tx.execute("INSERT INTO t VALUES (1)")
    with client.state.transaction("orders") as state:
        state.save("a", 1)
    exported = {span.name: span for span in spans.all()}
    assert exported["state.transaction"].kind == CLIENT
    for name in ("TRANSACTION", "INSERT t", "COMMIT"):
        assert exported[name].parent_span_id.hex() == above.context.span_id
        assert attributes(exported[name])[db.DB_SYSTEM_NAME] == "sqlite"


# -- sampling and cost --------------------------------------------------------


@pytest.mark.parametrize("spans", [{"sampler": "parentbased_always_off"}], indirect=True)
def test_what_is_not_sampled_is_not_recorded(spans: Spans) -> None:
    spans.client.state.save("orders", "k", 1)
    spans.client.pubsub.publish("bus", "t", 1)
    assert spans.all() == []
    assert spans.client.telemetry.stats().spans.recorded == 0


def test_a_call_inside_of_a_call_has_its_own(spans: Spans) -> None:
    """Threads and tasks at once: every span has the parent of its own context."""
    client = spans.client
    client.state.save("orders", "k", 1)
    wanted: dict[str, str] = {}

    def work(number: int) -> None:
        with client.telemetry.tracer("app").span(f"above-{number}") as above:
            for _ in range(20):
                client.state.get("orders", "k")
            wanted[above.context.trace_id] = above.context.span_id

    in_threads(*[threading.Thread(target=work, args=(number,)) for number in range(4)])
    gets = [span for span in spans.all() if span.name == "state.get"]
    assert len(gets) == 80
    for span in gets:
        assert wanted[span.trace_id.hex()] == span.parent_span_id.hex()
