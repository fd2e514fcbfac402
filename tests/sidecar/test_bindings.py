"""Bindings to files and SQL, and ``bindings.cron``."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.bindings.sql import named
from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.dapr_server.settings import CronBinding
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.testing.sidecar import serve
from tests.sidecar.official import Sdk
from tests.sidecar.raw import Answer, call, send
from tests.sidecar.test_resources import component, refusal, write
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.running import BINDINGS, declared, serving
from tests.support.waiting import until


@pytest.fixture
def binding(sidecars: Any) -> Sidecar:
    """The sidecar that has them, its stores empty."""
    one: Sidecar = sidecars("declared")
    for info in one.context.client.file.list_files("store"):
        one.context.client.file.delete_file("store", info.name)
    return one


def http(sidecar: Sidecar, name: str, operation: str, data: Any = None, **metadata: str) -> Answer:
    body = {"operation": operation, "data": data, "metadata": metadata}
    return send(sidecar.http_address, "POST", f"/v1.0/bindings/{name}", body)


def rpc(sidecar: Sidecar, name: str, operation: str, data: bytes = b"", **metadata: str) -> Answer:
    request = messages().InvokeBindingRequest(name=name, operation=operation, data=data, metadata=metadata)
    return call(sidecar.grpc_address, "InvokeBinding", request, "InvokeBindingResponse")


def test_files(binding: Sidecar) -> None:
    content = bytes(range(256))
    answer = http(binding, "files", "create", base64.b64encode(content).decode(), fileName="a/b.bin")
    assert (answer.status, answer.json) == (200, {"fileName": "a/b.bin"})
    assert binding.context.client.file.get_file("store", "a/b.bin") == content
    reply = http(binding, "files", "get", fileName="a/b.bin")
    assert (reply.status, reply.body) == (200, content)
    assert rpc(binding, "files", "get", fileName="a/b.bin").message.data == content
    assert http(binding, "files", "get", key="a/b.bin").body == content  # as bindings.aws.s3 has it
    rpc(binding, "files", "create", b"plain text", fileName="c")
    assert http(binding, "files", "list").json == ["a/b.bin", "c"]
    assert http(binding, "files", "list", fileName="a").json == ["a/b.bin"]
    assert rpc(binding, "files", "list", fileName="/a/").message.data == b'["a/b.bin"]'
    assert "not a directory" in http(binding, "files", "list", fileName="c").json["message"]
    gone = http(binding, "files", "delete", fileName="a/b.bin")
    assert (gone.status, gone.body) == (204, b"")
    assert rpc(binding, "files", "delete", fileName="c").message.data == b""
    assert http(binding, "files", "list").json == []


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"plain text", b"plain text"),
        (b"", b""),
        (b"abcd", base64.b64decode("abcd")),
        (b"YWJj\r\nZA==", b"abcd"),
        (b"YWJjZA", b"YWJjZA"),
        (b'"YWJjZA=="', b"abcd"),
        (b'"text \\u00fc"', "text ü".encode()),
        (b'"unfinished', b'"unfinished'),
        (b'{"a":1}', b'{"a":1}'),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_what_is_stored(binding: Sidecar, sent: bytes, stored: bytes) -> None:
    """A string of JSON is its text, what is base64 by chance is decoded: Dapr's component does so."""
    assert rpc(binding, "files", "create", sent, fileName="f").code == "OK"
    assert binding.context.client.file.get_file("store", "f") == stored


def test_json_data_over_http(binding: Sidecar) -> None:
    for data, stored in (({"a": 1}, b'{"a":1}'), ("some text", b"some text"), (None, b""), (7, b"7")):
        assert http(binding, "files", "create", data, fileName="f").status == 200
        assert binding.context.client.file.get_file("store", "f") == stored


def test_names_of_files(binding: Sidecar) -> None:
    """None leaves the store's root; without one there is a new one."""
    for name, stored in (("/a//b", "a/b"), ("../../x", "x"), ("a/../y", "y"), ("./z", "z")):
        assert http(binding, "files", "create", "x", fileName=name).json == {"fileName": stored}
    names = {http(binding, "files", "create", "x").json["fileName"] for _ in range(2)}
    assert len(names) == 2
    assert http(binding, "files", "get", fileName="..").error == "ERR_INVOKE_OUTPUT_BINDING"


def test_sql(binding: Sidecar) -> None:
    assert http(binding, "sql", "exec", sql="DROP TABLE IF EXISTS people").status == 200
    assert (
        http(binding, "sql", "exec", sql="CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, data BLOB)").status
        == 200
    )
    answer = http(
        binding, "sql", "exec", sql="INSERT INTO people (id, name) VALUES ($1, $2), ($3, $2)", params='[1, "Zoë :x", 2]'
    )
    assert (answer.status, answer.body, answer.headers["metadata.rows-affected"]) == (200, b"", "2")
    reply = http(
        binding, "sql", "query", sql="SELECT id, name, data FROM people WHERE id < ? ORDER BY id", params="[10]"
    )
    assert reply.json == [[1, "Zoë :x", None], [2, "Zoë :x", None]]
    assert reply.headers["metadata.operation"] == "query"
    assert reply.headers["metadata.duration"].endswith("ms")
    over = rpc(binding, "sql", "query", sql="SELECT name FROM people\nWHERE id = ?1 OR id = ?1", params="[2]").message
    assert json.loads(over.data) == [["Zoë :x"]]
    assert set(over.metadata) == {"operation", "sql", "start-time", "end-time", "duration", "columns"}
    assert over.metadata["columns"] == '["name"]'
    assert over.metadata["sql"] == "SELECT name FROM people\nWHERE id = ?1 OR id = ?1"


def test_sql_in_headers(binding: Sidecar) -> None:
    """A statement of several lines, or of none of ASCII, is no header of its own; a long one is left out."""
    answer = http(binding, "sql", "query", sql="SELECT 'ü'\r\nAS x")
    assert answer.json == [["ü"]]
    assert answer.headers["metadata.sql"].encode("latin-1").decode() == "SELECT 'ü'  AS x"
    assert "metadata.sql" not in http(binding, "sql", "query", sql=f"SELECT '{'x' * 9000}'").headers


def test_values_of_sql(binding: Sidecar) -> None:
    rows = http(binding, "sql", "query", sql="SELECT x'ff00', 1.5, 9007199254740993, NULL, 'a'").json
    assert rows == [["/wA=", 1.5, 9007199254740993, None, "a"]]


@pytest.mark.process
def test_values_of_postgresql(postgres_url: str) -> None:
    """As ``bindings.postgresql`` writes them, but for UUIDs, which it writes as arrays of numbers."""
    config = {"capa": {"home": ":memory:pg"}, "database": {"store": {"component": "sqlalchemy", "url": postgres_url}}}
    with serving(config, bindings={"sql": ("database", "store")}) as one:
        table = "sidecar_bindings"
        http(one, "sql", "exec", sql=f"DROP TABLE IF EXISTS {table}")
        columns = "id INT, n NUMERIC(10,2), d TIMESTAMPTZ, b BYTEA, j JSONB, u UUID, t TEXT"
        assert http(one, "sql", "exec", sql=f"CREATE TABLE {table} ({columns})").status == 200
        id = "00000000-0000-0000-0000-000000000001"
        sql = (
            f"INSERT INTO {table} VALUES ($1, 1.50, '2020-01-01T00:00:00Z', '\\x00ff', '{{\"a\":1}}', '{id}', $2::text)"
        )
        inserted = http(one, "sql", "exec", sql=sql, params='[1, "x:y ?"]')
        assert inserted.headers["metadata.rows-affected"] == "1"
        reply = http(one, "sql", "query", sql=f"SELECT * FROM {table} WHERE j ? 'a' AND id = $1", params="[1]")
        assert reply.json == [[1, 1.5, "2020-01-01T00:00:00Z", "AP8=", {"a": 1}, id, "x:y ?"]]
        http(one, "sql", "exec", sql=f"DROP TABLE {table}")


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"sql": "SELECT $2", "params": "[1]"}, "the statement has a parameter 2, but there are 1 params"),
        ({"sql": "SELECT 1", "params": "{}"}, "invalid metadata property params"),
        ({"sql": "SELECT 1", "params": "["}, "invalid metadata property params"),
        ({"sql": "SELECT 1; SELECT 2"}, "more than one statement"),
        ({}, "required metadata not set: sql"),
    ],
)
def test_refused_statements(binding: Sidecar, metadata: dict[str, str], text: str) -> None:
    answer = http(binding, "sql", "query", **metadata)
    assert (answer.status, answer.error) == (500, "ERR_INVOKE_OUTPUT_BINDING")
    assert answer.json["message"].startswith("error invoking output binding sql: ")
    assert text in answer.json["message"]


def test_closing_is_the_binding_s_alone(tmp_path: Any) -> None:
    with serving(declared(str(tmp_path)), bindings=BINDINGS) as one:
        for _ in range(2):
            assert http(one, "sql", "close").status == 204
        refused = http(one, "sql", "query", sql="SELECT 1")
        assert (refused.error, refused.json["message"]) == (
            "ERR_INVOKE_OUTPUT_BINDING",
            "error invoking output binding sql: component is closed",
        )
        assert one.context.client.database.query("store", "SELECT 1 AS x") == [{"x": 1}]


def test_texts_of_refusals(binding: Sidecar) -> None:
    for name, operation, text in (
        ("nope", "get", "couldn't find output binding nope"),
        ("files", "", "operation field is missing from request"),
        ("files", "exec", "binding files does not support operation exec. supported operations:create get delete list"),
        ("sql", "get", "binding sql does not support operation get. supported operations:exec query close"),
    ):
        message = f"error invoking output binding {name}: {text}"
        assert http(binding, name, operation).json == {"errorCode": "ERR_INVOKE_OUTPUT_BINDING", "message": message}
        assert rpc(binding, name, operation).text == message


def test_a_binding_to_a_store_that_is_not_there(tmp_path: Any) -> None:
    with serving(declared(str(tmp_path)), bindings={"files": ("file", "nope")}) as one:
        assert http(one, "files", "list").error == "ERR_INVOKE_OUTPUT_BINDING"


def test_numbered_parameters(subtests: pytest.Subtests) -> None:
    for sql, values, text in (
        ("SELECT $1, $2, $1", [1, 2], "SELECT :p1, :p2, :p1"),
        ("SELECT ?, ?", [1, 2], "SELECT :p1, :p2"),
        ("SELECT ?2, ?1", [1, 2], "SELECT :p2, :p1"),
        ("SELECT '?', \"$1\", `?` -- ?\n/* $1 */, ?", [1], "SELECT '?', \"$1\", `?` -- ?\n/* $1 */, :p1"),
        ("SELECT $$ $1 ? $$, $tag$ ' $1 $tag$, $1", [1], "SELECT $$ $1 ? $$, $tag$ ' $1 $tag$, :p1"),
        ("SELECT data ? 'key' FROM t", [], "SELECT data ? 'key' FROM t"),
        ("SELECT data ? $1 FROM t", ["key"], "SELECT data ? :p1 FROM t"),
        ("SELECT $1::text, a[1:2]", ["x"], "SELECT :p1::text, a[1:2]"),
        ("SELECT :name", [], "SELECT \\:name"),
        ("SELECT E'\\'?', ?", [1], "SELECT E'\\'?', :p1"),
        ("SELECT a$1 FROM t", [], "SELECT a$1 FROM t"),
    ):
        with subtests.test(sql=sql, values=values):
            assert named(sql, values) == (text, {f"p{at}": value for at, value in enumerate(values, 1)})


@given(st.lists(st.text()), st.text())
def test_values_are_bound_never_formatted(values: list[str], sql: str) -> None:
    """Whatever the statement and the values are, no value gets into the text."""
    try:
        text, given_values = named(sql, values)
    except ValueError:
        return
    assert list(given_values.values()) == values
    assert named(sql, ["other"] * len(values))[0] == text


def test_sdk_bindings(sdk: Sdk) -> None:
    data = base64.b64encode(b"by the SDK").decode()
    created = sdk.call("invoke_binding", "files", "create", data, {"fileName": "sdk/f"})
    assert created.json() == {"fileName": "sdk/f"}
    assert sdk.call("invoke_binding", "files", "get", binding_metadata={"fileName": "sdk/f"}).data == b"by the SDK"
    listed = sdk.call("invoke_binding", "files", "list", binding_metadata={"fileName": "sdk"})
    assert listed.json() == ["sdk/f"]
    assert sdk.call("invoke_binding", "files", "delete", binding_metadata={"fileName": "sdk/f"}).data == b""
    rows = sdk.call("invoke_binding", "sql", "query", binding_metadata={"sql": "SELECT $1", "params": '["x"]'})
    assert rows.json() == [["x"]]
    assert rows.binding_metadata["operation"] == "query"
    assert sdk.refused("invoke_binding", "nope", "get") == (
        "INTERNAL",
        "error invoking output binding nope: couldn't find output binding nope",
    )


# -- ``bindings.cron``: calls of the application at times


def test_the_application_is_called_at_times() -> None:
    timers = (
        CronBinding("fast", "@every 50ms", asks=False),
        CronBinding("asked", "@every 50ms", route="/at/times"),
        CronBinding("unwanted", "@every 50ms"),
        CronBinding("never", "0 0 1 1 *", asks=False),
    )

    def answer(got: Got) -> Reply:
        return Reply({"/unwanted": 404, "/fast": 500}.get(got.path, 200))

    with App(answer=answer) as app, serving(declared(":memory:cron"), app_port=app.port, timers=timers):
        until(lambda: len(app.at("/fast")) >= 3 and len(app.at("/at/times")) >= 3)
    asked = [(got.method, got.path) for got in app.got if got.method == "OPTIONS"]
    assert sorted(asked) == [("OPTIONS", "/at/times"), ("OPTIONS", "/unwanted")]
    assert {got.path for got in app.got} == {"/fast", "/at/times", "/unwanted"}
    called = next(got for got in app.at("/fast"))
    assert (called.method, called.body, called.header("content-type")) == ("POST", b"", "application/json")
    assert called.header("timezone") == "UTC"
    assert str(called.header("readtimeutc")).endswith("+0000 UTC")


def test_calls_that_take_long_overlap_and_end_with_the_sidecar() -> None:
    hold, lock, under_way = threading.Event(), threading.Lock(), [0, 0]

    def answer(got: Got) -> Reply:
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
        hold.wait(30)
        with lock:
            under_way[0] -= 1
        return Reply()

    timers = (CronBinding("slow", "@every 50ms", asks=False),)
    with App(answer=answer) as app:
        with serving(declared(":memory:cron-slow"), app_port=app.port, timers=timers):
            until(lambda: under_way[1] >= 2)
            hold.set()
        count = len(app.got)
        time.sleep(0.2)  # nothing comes any more
        assert len(app.got) == count


def test_over_grpc() -> None:
    kinds = messages()

    def taken(request: Any, context: Any) -> Any:
        return kinds.BindingEventResponse()

    listed = "Empty", lambda request, context: kinds.ListInputBindingsResponse(bindings=["wanted"])
    app = GrpcApp(ListInputBindings=listed, OnBindingEvent=("BindingEventRequest", taken))
    timers = (CronBinding("wanted", "@every 50ms"), CronBinding("unwanted", "@every 50ms"))
    with serving_grpc(app):
        options: dict[str, Any] = {"app_port": app.port, "app_protocol": "grpc", "timers": timers}
        with serving(declared(":memory:cron-grpc"), **options):
            until(lambda: len(app.named("OnBindingEvent")) >= 3)
    assert {request.name for request in app.named("OnBindingEvent")} == {"wanted"}
    assert app.named("OnBindingEvent")[0].metadata["timeZone"] == "UTC"


def test_components(tmp_path: Path) -> None:
    loaded = load(
        write(
            tmp_path,
            component("a", "bindings.cron", '{name: schedule, value: "@every 1m30s"}'),
            component(
                "b",
                "bindings.cron",
                '{name: schedule, value: "CRON_TZ=Europe/Paris 0 30 9 * * *"}',
                "{name: route, value: /x}",
                "{name: direction, value: input}",
            ),
            component("c", "bindings.cron", '{name: schedule, value: "@daily"}', "{name: direction, value: output}"),
        ),
        "shop",
    )
    assert loaded.timers == (
        CronBinding("a", "@every 1m30s"),
        CronBinding("b", "0 30 9 * * *", "Europe/Paris", "/x", asks=False),
    )
    assert [(each.name, each.type, each.capabilities) for each in loaded.components] == [
        (name, "bindings.cron", ("INPUT_BINDING",)) for name in ("a", "b")
    ]
    assert [each.partition("): ")[2] for each in loaded.warnings] == [
        "direction has no input: the binding calls nobody"
    ]
    metadata = {"name": "a", "type": "bindings.cron", "version": "v1", "capabilities": ["INPUT_BINDING"]}
    (tmp_path / "all.yaml").write_text(component("a", "bindings.cron", '{name: schedule, value: "@every 50ms"}'))
    with App() as app, serve(app_id="shop", app_port=app.port, resources=tmp_path) as sidecar:
        assert send(sidecar.http_endpoint, "GET", "/v1.0/metadata").json["components"] == [metadata]
        until(lambda: [got for got in app.at("/a") if got.method == "POST"])


def test_components_that_are_none(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for metadata, said in (
        ([], "metadata 'schedule': "),
        (['{name: schedule, value: "every minute"}'], "metadata 'schedule': "),
        (['{name: schedule, value: "TZ=Nowhere/At 0 * * * *"}'], "timezone 'Nowhere/At' is not known"),
        (['{name: schedule, value: "@daily"}', "{name: url, value: x}"], "direction, route, schedule"),
    ):
        with subtests.test(metadata=metadata, said=said):
            assert said in refusal(tmp_path, component("a", "bindings.cron", *metadata))
