"""JSON and CloudEvents around it, and the way into the buffer that `Publisher.send` is: each body on both twins."""

from __future__ import annotations

import enum
import importlib
import json as standard
import random
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.codec import json, msgpack
from cloud_runtimes.codec._json_std import default
from cloud_runtimes.codec.payload import encode_payload
from cloud_runtimes.errors import InvalidArgumentError, PayloadError, ResourceExhaustedError

orjson = pytest.importorskip("orjson")
NAN = float("nan")
INFINITY = float("inf")


class Colour(enum.Enum):
    WARM = NAN
    COLD = 1.5


class Text(str):
    pass


@dataclass
class Point:
    x: int
    y: int


def load(twin: str) -> ModuleType:
    return importlib.import_module("cloud_runtimes._native." + {"native": "_payload", "python": "payload_py"}[twin])


@pytest.fixture
def payload(twin: str) -> ModuleType:
    module = load(twin)
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    module.use(orjson.dumps, default, options, json._explain, orjson.loads)
    return module


GOOD = [
    {"a": None},
    {"a": "null", "b": 1.5},
    {"null": None, "b": [None, None, 0.0]},
    [None, "null null null", [], {}, True, False],
    (1.5, None, (None,)),
    {"a": Text("null"), "b": None},
    {"a": Colour.COLD, "b": None},
    "n" * 70 + "null" + "n" * 70,
    {"x": "nul" * 40, "y": None},
    None,
    "null",
    1.5,
    2**64 - 1,
    -(2**63),
]
BAD = [
    NAN,
    [None, NAN],
    {"a": None, "b": {"c": [1, (INFINITY,)]}},
    {"a": "null", "b": -INFINITY},
    {"a": "null null", "b": None, "c": NAN},
    {"a": None, "c": [[[[NAN]]]]},
    {"a": Colour.WARM},
    {"a": None, "b": Text("x"), "c": NAN},
    {"a": "\ud800"},
    2**64,
    -(2**63) - 1,
    {1: 2},
    b"x",
    {"a": {1j}},
]


def test_json(payload: ModuleType, subtests: pytest.Subtests) -> None:
    for value in GOOD:
        with subtests.test(value=value):
            assert payload.encode_json(value) == orjson.dumps(value, default)


def test_json_refusals(payload: ModuleType, subtests: pytest.Subtests) -> None:
    for value in BAD:
        with subtests.test(value=value), pytest.raises(PayloadError):
            payload.encode_json(value)


@pytest.mark.promise("G5")
def test_nan_at_every_place_is_found(payload: ModuleType) -> None:
    """Nulls, texts that look like them, and one NaN somewhere among them, at every offset of what is looked through in blocks."""
    seeded = random.Random(5)
    for size in range(1, 150):
        value: list[Any] = [
            seeded.choice([None, "null", "nul", 0.5, 7, "x" * seeded.randrange(70)]) for _ in range(size)
        ]
        assert payload.encode_json(value) == orjson.dumps(value)
        value[seeded.randrange(size)] = seeded.choice([NAN, INFINITY, {"a": [None, NAN]}])
        with pytest.raises(PayloadError):
            payload.encode_json(value)


def test_a_result_holds_no_more_than_its_bytes(payload: ModuleType) -> None:
    value = {"a": 1}
    assert payload.encode_json(value).__sizeof__() == len(orjson.dumps(value)) + b"".__sizeof__()
    assert payload.encode_json(value) is not payload.encode_json(value)


def test_what_user_code_raises_comes_out(payload: ModuleType) -> None:
    class Failing:
        def model_dump(self, mode: str) -> Any:
            raise LookupError("no")

    class Interrupting:
        def model_dump(self, mode: str) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(PayloadError) as caught:
        payload.encode_json({"a": [Failing()]})
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(KeyboardInterrupt):
        payload.encode_json({"a": Interrupting()})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return {"a": value}


@pytest.mark.native_only
@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({"a": 1, "b": None}, {}),
        ({"a": 'é\u2028\\"'}, {}),
        ({}, {}),
        (nested(127), {}),
        (nested(128), {}),
        (nested(129), {}),
        ({"a": "[" * 200}, {}),
        (None, {}),
        ([1, 2], {}),
        ("text", {}),
        (b"\x00\xff", {}),
        ({"a": 1}, {"subject": "s", "extensions": {"tenant": "x", "traceparent": "00-1"}}),
        ({"a": 1}, {"id": "mine", "time": "2024-05-06T07:08:09Z"}),
        ({"a": 1}, {"content_type": "application/msgpack"}),
        ({"a": NAN}, {}),
        ({"a": 1}, {"id": ""}),
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize(("source", "kind"), [("/s", "t"), ('/"é\\', "t t"), ("", "t"), ("/s", "a\x00"), (1, "t")])
def test_events_are_the_same_in_both(data: Any, options: Any, source: Any, kind: Any) -> None:
    results: list[Any] = []
    for name in ("native", "python"):
        module = load(name)
        try:
            text = standard.loads(module.encode_event(data, source, kind, **options))
        except Exception as error:
            results.append(type(error))
        else:
            assert len(text.pop("id")) in (36, 4)
            text.pop("time")
            results.append(text)
    assert results[0] == results[1]


# -- the way into the buffer --------------------------------------------------


class Way:
    """An entry, its buffer, and what went the other way."""

    def __init__(
        self,
        module: ModuleType,
        content_type: str | None = None,
        kind: str = "json",
        constant: dict[str, Any] | None = None,
        **limits: int,
    ) -> None:
        settings = {"batch_events": 100, "batch_bytes": 1 << 16, "buffer_bytes": 1 << 20, **limits}
        self.woken = 0
        self.other: list[tuple[Any, dict[str, Any]]] = []
        self.failed: list[BaseException] = []
        self.buffer = module.BatchBuffer("/s", "t", "topic", ready=self._wake, **settings)
        encode = {"json": json.encode, "msgpack": msgpack.encode}.get(kind)
        self.entry = module.Entry(encode, self._other, self.failed.append, content_type, kind, constant)

    def _wake(self) -> None:
        self.woken += 1

    def _other(self, data: Any, **options: Any) -> int:
        self.other.append((data, options))
        return -7


def test_dicts_go_into_the_buffer(batch: ModuleType, events: ModuleType) -> None:
    way = Way(batch)
    way.entry.aim(way.buffer, 1000)
    assert [way.entry.send({"n": 1}), way.entry.send({"n": 2}, key="k"), way.entry.send({"n": 3}, timeout=1)] == [
        1,
        2,
        3,
    ]
    assert not way.other
    assert way.woken == 1
    way.buffer.seal()
    (chunk,) = way.buffer.take(1 << 20)
    frame = events.Frame(chunk.body)
    assert [frame[index].payload for index in range(3)] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert [frame[index].key for index in range(3)] == [None, "k", None]
    assert {frame[index].content_type for index in range(3)} == {"application/json"}
    assert frame[0].id < frame[1].id < frame[2].id


def test_events_go_into_the_buffer(batch: ModuleType, events: ModuleType, subtests: pytest.Subtests) -> None:
    for content_type, kind, taken in (
        (
            None,
            "json",
            [{"n": 1}, "text", [1], None, 1.5, Point(1, 2), b"\x00\xff", b"", bytearray(b"x"), memoryview(b"xyz")[::2]],
        ),
        ("application/json", "json", [{"n": 1}, "text", b"1", bytearray(b"1")]),
        ("application/vnd.x+json", "json", [{"n": 1}, [], b"1"]),
        ("text/plain", "text", ["text", "", "n\u00e4h", "\u65e5\u672c \U0001f388", b"raw", memoryview(b"raw")]),
        ("text/x; charset=utf-8", "text", ["text", "\u00e9", b"raw"]),
        ("application/msgpack", "msgpack", [{"n": 1}, "x", None, Point(1, 2), b"\x80"]),
        ("image/png", "bytes", [b"\x89PNG", bytearray(b"")]),
    ):
        with subtests.test(content_type=content_type, kind=kind):
            way = Way(batch, content_type, kind)
            way.entry.aim(way.buffer, 1000)
            for number, data in enumerate(taken):
                send = (way.entry.send, way.entry.offer)[number % 2]
                assert send(data, key=f"k{number}") == number + 1
            assert not way.other
            way.buffer.seal()
            (chunk,) = way.buffer.take(1 << 20)
            frame = events.Frame(chunk.body)
            for number, data in enumerate(taken):
                assert (frame[number].payload, frame[number].content_type) == encode_payload(data, content_type)
                assert frame[number].key == f"k{number}"


CONSTANT = {
    "type": "t.other",
    "source": "/other",
    "subject": "s" * 200,
    "extensions": {"tenant": "r\u00e9d", "n": 5, "flag": True},
}


@pytest.mark.parametrize("own", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
@pytest.mark.parametrize("names", [(), ("subject",), ("source", "extensions"), tuple(CONSTANT)])
@pytest.mark.parametrize("content_type", [None, "application/vnd.x+json"])
def test_what_is_the_same_in_all_events(
    batch: ModuleType, events: ModuleType, names: tuple[str, ...], content_type: str | None, own: str | None
) -> None:
    constant: dict[str, Any] = {name: CONSTANT[name] for name in names}
    if own is not None:
        constant["extensions"] = {**constant.get("extensions", {}), "traceparent": own}
    way = Way(batch, content_type, "json", constant)
    way.entry.aim(way.buffer, 1000)
    for number in range(20):
        assert way.entry.send({"n": number}, key="k" if number % 2 else None) == number + 1
    assert not way.other
    way.buffer.seal()
    (chunk,) = way.buffer.take(1 << 20)
    frame = events.Frame(chunk.body)
    ids = set()
    for number in range(20):
        record = frame[number]
        ids.add(record.id)
        assert record.payload == b'{"n":%d}' % number
        assert (record.key, record.traceparent) == ("k" if number % 2 else None, own)
        assert record.content_type == (content_type or "application/json")
        assert record.type == constant.get("type", "t")
        assert record.source == constant.get("source", "/s")
        assert record.subject == constant.get("subject")
        extensions = dict(constant.get("extensions", {}))
        extensions.pop("traceparent", None)
        assert dict(record.extensions) == extensions
    assert len(ids) == 20


def test_what_is_the_same_is_checked_once(batch: ModuleType, subtests: pytest.Subtests) -> None:
    for constant in ({"type": ""}, {"subject": "\x00"}, {"extensions": {"Bad": 1}}, {"source": 1}):
        with subtests.test(constant=constant), pytest.raises(InvalidArgumentError):
            Way(batch, constant=constant)


class Octets(bytes):
    def __bytes__(self) -> bytes:
        return b"mine"


RELEASED = memoryview(b"x")
RELEASED.release()


def test_what_is_refused_or_large_goes_the_other_way(batch: ModuleType, subtests: pytest.Subtests) -> None:
    for content_type, kind, others in (
        (None, "json", [Octets(b"x"), RELEASED, b"x" * 1001, "x" * 1000]),
        (None, "", [{"n": 1}, b"x", "x"]),
        ("text/plain", "text", [{"n": 1}, "lone \ud800", "x" * 1001, "\u00e9" * 501, Octets(b"x")]),
        ("application/msgpack", "msgpack", ["x" * 1000]),
        ("image/png", "bytes", [{"n": 1}, "x", b"x" * 1001]),
    ):
        with subtests.test(content_type=content_type, kind=kind):
            way = Way(batch, content_type, kind)
            way.entry.aim(way.buffer, 1000)
            for data in others:
                assert way.entry.offer(data) == batch.ELSEWHERE
                assert way.entry.send(data) == -7
            assert [data for data, _ in way.other] == others
            assert not way.failed
            assert way.buffer.stats()[0] == 0


def test_the_rest_goes_the_other_way(batch: ModuleType) -> None:
    way = Way(batch, buffer_bytes=600)
    absent = {"key": None, "attributes": None, "metadata": None}
    assert way.entry.send({"n": 1}) == -7  # no buffer yet
    assert way.entry.offer({"n": 1}) == batch.ELSEWHERE
    way.entry.aim(way.buffer, 100)
    for data, options in (
        ([1] * 100, {}),
        (b"x" * 200, {}),
        ({"n": 1}, {"attributes": {"n": 1}}),
        ({"n": 1}, {"metadata": {}}),
        ({"n": "x" * 200}, {}),  # larger than max_event
        ([1] * 100, {"timeout": None}),
        ([1] * 100, {"timeout": 2.0, "key": "k"}),
    ):
        way.other.clear()
        assert way.entry.send(data, **options) == -7
        assert way.other == [(data, {**absent, **options})]
    while way.entry.send({"n": 1}) != -7:
        pass
    assert way.entry.offer({"n": 1}) == 0
    assert way.entry.offer({"n": "x" * 200}) == batch.ELSEWHERE
    way.entry.aim(None)
    assert way.buffer.stats()[0] > 1
    before = way.buffer.stats()[0]
    assert way.entry.send({"n": 1}) == -7
    assert way.buffer.stats()[0] == before


def test_errors_pass_by_failed(batch: ModuleType) -> None:
    way = Way(batch, buffer_bytes=200)
    way.entry.aim(way.buffer, 1000)
    for data, key, kind in (
        ({"n": NAN}, None, PayloadError),
        ({"n": {1j}}, None, PayloadError),
        ([NAN], None, PayloadError),
        ({1j}, None, PayloadError),
        ({"n": 1}, "", InvalidArgumentError),
        ({"n": 1}, "a\x00", InvalidArgumentError),
        ({"n": 1}, 5, InvalidArgumentError),
        ({"n": "x" * 400}, None, ResourceExhaustedError),
    ):
        way.failed.clear()
        with pytest.raises(kind) as caught:
            way.entry.send(data, key=key)
        assert way.failed == [caught.value]
        way.failed.clear()
        with pytest.raises(kind) as caught:
            way.entry.offer(data, key)
        assert way.failed == [caught.value]
    assert way.buffer.stats()[0] == 0
    assert not way.other
