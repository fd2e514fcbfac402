"""Typed reads, arguments of handlers, and the error of any method for a wrong type."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import BulkError, CloudRuntimesError, InternalError, InvalidArgumentError, PayloadError
from cloud_runtimes.pubsub import Event
from cloud_runtimes.schedule import JobRun
from cloud_runtimes.testing import Api, SyncApi
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites._pubsub_answers import collect, data
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows


@dataclass
class Order:
    id: int
    tags: list[str]
    note: str | None = None


class Line(TypedDict):
    sku: str
    qty: int


@dataclass
class Item:
    id: int
    name: str
    qty: int


class ItemDict(TypedDict):
    id: int
    name: str
    qty: int


class ItemTuple(NamedTuple):
    id: int
    name: str
    qty: int


class InMemory(Suite):
    harness = rows({MemoryHarness.name: MemoryHarness})


class TestState(InMemory):
    service = "state"

    def test_typed(self, call: Call) -> None:
        call("save", "o", Order(7, ["a"]))
        assert call("get", "o", type=Order) == Order(7, ["a"])
        assert call("get", "o") == {"id": 7, "tags": ["a"], "note": None}
        call("save", "l", [{"sku": "s", "qty": 2}], content_type="application/json")
        assert call("get", "l", type=list[Line]) == call("get", "l") == [{"sku": "s", "qty": 2}]
        assert call("get_item", "o", type=Order).value == Order(7, ["a"])
        assert call("get_bulk", ["o"], type=Order)["o"].value == Order(7, ["a"])
        call("save", "bad", {"id": "seven", "tags": []})
        call.fails(PayloadError, match=r"\$\.id")("get", "bad", type=Order)
        caught = call.fails(BulkError)("get_bulk", ["o", "bad"], type=Order)
        assert list(caught.failed) == ["bad"]
        assert caught.result["o"].value == Order(7, ["a"])
        assert call("get", "absent", type=Order) is None


class TestPubSub(InMemory):
    service = "pubsub"

    def test_events(self, call: Call, api: Api) -> None:
        with call.opened("subscribe", "t") as sub:
            id = call("publish", "t", {"n": [1, None]}, attributes={"tenant": "blue"})
            (event,) = collect(api, sub, 1)
        envelope = json.loads(event.to_json())
        assert (envelope["specversion"], envelope["id"], envelope["tenant"]) == ("1.0", id, "blue")
        assert envelope["data"] == {"n": [1, None]}
        for bad in (-1, float("nan"), float("inf")):
            with pytest.raises(InvalidArgumentError, match="delay"):
                event.retry(bad)
        with call.opened("subscribe", "t", type=Order) as sub:
            call("publish", "t", Order(1, ["a"]))
            assert data(api, sub, 1) == [Order(1, ["a"])]

    def test_async_handler_of_a_sync_subscription(self, call: Call) -> None:
        got: list[tuple[Any, str]] = []
        came = threading.Event()

        async def handler(event: Event[Any]) -> None:
            got.append((event.data, threading.current_thread().name))
            came.set()

        with call.plain("subscribe", "t", handler):
            call.plain("publish", "t", 1)
            assert came.wait(10)
        assert got == [(1, "cloud-runtimes-loop")]


class TestDatabase(InMemory):
    service = "database"

    @pytest.fixture
    def items(self, call: Call) -> None:
        call("execute", "CREATE TABLE item (id INTEGER, name TEXT, qty INTEGER)")
        call("execute", "INSERT INTO item VALUES (1, 'bolt', 10), (2, 'nut', 20)")

    def test_typed_rows(self, call: Call, items: None) -> None:
        def get(type: Any, columns: str = "id, name, qty") -> Any:
            return call("query", f"SELECT {columns} FROM item WHERE id = :id", {"id": 1}, type=type)

        assert get(Item) == [Item(1, "bolt", 10)]
        assert get(ItemDict) == [{"id": 1, "name": "bolt", "qty": 10}]
        assert type(get(ItemDict)[0]) is dict
        assert get(ItemTuple) == [ItemTuple(1, "bolt", 10)]
        assert get(dict[str, Any]) == [{"id": 1, "name": "bolt", "qty": 10}]
        assert get(tuple[int, str, int]) == [(1, "bolt", 10)]
        assert get(int, "qty") == [10]
        assert get(str | None, "name") == ["bolt"]
        with pytest.raises(PayloadError, match=r"row 0: \$\.qty: expected int, got str"):
            get(Item, "id, name, 'many' AS qty")
        with pytest.raises(PayloadError, match="row 0"):
            get(Item, "id, name")
        with pytest.raises(InvalidArgumentError, match="made of one column, and the rows have 3"):
            get(int)

    def test_pydantic(self, call: Call, items: None) -> None:
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Model", id=(int, ...), name=(str, ...), qty=(int, ...))
        rows = call("query", "SELECT * FROM item WHERE id = 2", type=model)
        assert rows == [model(id=2, name="nut", qty=20)]


class TestSchedule(InMemory):
    service = "schedule"

    @pytest.fixture
    def call(self, client: Any, api: Api) -> Call:
        return Call(api, client, "schedule")

    def test_what_handlers_take(self, call: Call, api: Api) -> None:
        seen: dict[str, Any] = {}
        call.plain("job", "none")(lambda: seen.update(none=None))
        call.plain("job", "data")(lambda data: seen.update(data=data))

        @call.plain("job", "async")
        async def handler(data: Any, run: JobRun) -> None:
            seen["async"] = data, run.name

        @call.plain("job", "run")
        def about(run: JobRun) -> None:
            seen["run"] = run.name

        with call.opened("running"):
            for name in ("none", "data", "async", "run"):
                call("schedule_job", name, due_time=0, data=[name])
            assert api.until(lambda: len(seen) == 4)
        assert seen == {"none": None, "data": ["data"], "async": (["async"], "async"), "run": "run"}


# -- every public method, given what is of the wrong type in the place of each argument in turn: a refusal of ours, or it takes it

WRONG = (7, 1.5, float("nan"), True, None, b"\xff", "\ud800", [1], {1: 2}, {1}, object())
RIGHT: dict[str, Any] = {
    "columns": {"a": "int"},
    "events": ["x"],
    "headers": {},
    "items": {"k": "v"},
    "keys": ["k"],
    "rows": [{"a": 1}],
    "sql": "SELECT 1",
    "values": {"a": 1},
}
NOT_CALLED = {"serve", "run", "serving", "running"}
"""They go on until they are ended."""


@pytest.fixture(scope="module")
def client() -> Iterator[CloudRuntimesClient]:
    pytest.importorskip("sqlalchemy")
    with CloudRuntimesClient(app_id="types", timeout=5, config={"capa": {"home": ":memory:types"}}) as instance:
        yield instance


def methods(client: CloudRuntimesClient) -> Iterator[tuple[Any, str, list[inspect.Parameter]]]:
    for service in (getattr(client, name) for name in SERVICES):
        for name, method in inspect.getmembers(service, inspect.ismethod):
            if not name.startswith("_") and not name.endswith("_async") and name not in NOT_CALLED:
                yield service, name, list(inspect.signature(method).parameters.values())


def test_what_is_of_the_wrong_type(client: CloudRuntimesClient, api: Api, subtests: pytest.Subtests) -> None:
    for service, name, parameters in methods(client):
        own = api if hasattr(service, f"{name}_async") else SyncApi()
        given = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        right = {each.name: RIGHT.get(each.name, "x") for each in given if each.default is each.empty}
        for argument in given:
            with subtests.test(method=f"{type(service).__name__}.{name}", argument=argument.name):
                for wrong in WRONG:
                    try:
                        result = own.call(service, name, **{**right, argument.name: wrong})
                    except InternalError:
                        raise  # what nobody thought of
                    except CloudRuntimesError:
                        continue
                    if hasattr(result, "_close_by_client"):
                        result._close_by_client(0.0)


def test_the_errors_name_what_is_wrong(client: CloudRuntimesClient) -> None:
    for call, said in (
        (lambda: client.state.get([1], "k"), "name of a component"),  # type: ignore[arg-type]
        (lambda: client.state.get_bulk("s", 1), "keys must be several"),  # type: ignore[arg-type]
        (lambda: client.state.save_bulk("s", None), "items must be several"),  # type: ignore[arg-type]
        (lambda: client.configuration.get_configuration("a", None), "keys must be several"),  # type: ignore[arg-type]
        (lambda: client.pubsub.publish("b", "t", 1, attributes=1), "attributes must be a mapping"),  # type: ignore[arg-type]
        (lambda: client.pubsub.publish_bulk("b", "t", 1), "events must be several"),  # type: ignore[arg-type]
        (lambda: client.rpc.invoke_method("s", [1]), "method"),  # type: ignore[arg-type]
        (lambda: client.telemetry.extract(None), "headers must be a mapping"),
        (lambda: client.telemetry.extract_baggage(3), "headers must be a mapping"),
        (lambda: client.telemetry.logging_handler(None), "level must be a level"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgumentError, match=said):
            call()
