"""What is read as a type, and what handlers are given: the services do that, the same for every component."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import pytest

from cloud_runtimes.errors import BulkError, InvalidArgumentError, PayloadError
from cloud_runtimes.pubsub import Event
from cloud_runtimes.schedule import JobRun
from cloud_runtimes.testing import Api
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
        found = call("query", "SELECT * FROM item WHERE id = 2", type=model)
        assert found == [model(id=2, name="nut", qty=20)]


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
