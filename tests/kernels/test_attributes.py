"""Attributes of one event on their way into the buffer: the compiled one takes text, and writes what the other writes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes._native.attributes import parse_object
from cloud_runtimes.codec import json
from cloud_runtimes.errors import CloudRuntimesError, PayloadError
from cloud_runtimes.pubsub.outgoing import event_attributes
from tests.kernels.conftest import load, load_native

ID = "019a5a3c-5b2e-7c3a-8b1d-0123456789ab"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = st.sampled_from(
    [
        "id",
        "type",
        "source",
        "subject",
        "time",
        "tenant",
        "x1",
        "Bad",
        "traceparent",
        "dataschema",
        "partitionkey",
        "expirytime",
        "data",
        "specversion",
        "grüße",
    ]
)
VALUES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [ID, TRACE, "/orders", "a b", "%2F", "2024-05-06T07:08:09Z", "\ud800", "x" * 65_536, None, True, 5]
    ),
)


def offered(
    batch: ModuleType, attributes: Any, key: str | None = None, constant: Any = None
) -> tuple[int, bytes | None]:
    """Return what `Entry.offer` says of an event with attributes, and the frame with it."""

    def unused(*args: Any, **options: Any) -> int:
        raise AssertionError("offer has no other way")

    buffer = batch.BatchBuffer(
        "/s", "t", "topic", batch_events=9, batch_bytes=1 << 20, buffer_bytes=1 << 21, ready=lambda: None
    )
    entry = batch.Entry(json.encode, unused, lambda error: None, None, "json", constant)
    entry.aim(buffer, 1 << 20)
    sequence = entry.offer({"n": 1}, key, attributes)
    if not buffer.seal():
        return sequence, None
    (chunk,) = buffer.take(1 << 21)
    return sequence, chunk.body


def expected(events: ModuleType, frame: bytes, attributes: dict[str, Any], key: str | None = None) -> bytes:
    """Return the frame of an event with attributes that went the other way at the same moment; an id that was drawn is given."""
    record = events.Frame(frame)[0]
    fields = {"id": record.id, **event_attributes(attributes)}
    encoded = events.encode_record(b'{"n":1}', "application/json", time=record.time_us, key=key, **fields)
    body: bytes = events.build_frame("/s", "t", "topic", [encoded])
    return body


@pytest.mark.native_only
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from([None, "k"]))
def test_attributes_are_written_as_the_other_way_writes_them(attributes: dict[str, Any], key: str | None) -> None:
    batch, events = load_native("batch"), load_native("events")
    sequence, frame = offered(batch, attributes, key)
    if frame is None:
        assert sequence == batch.ELSEWHERE
        return
    assert sequence == 1
    assert frame == expected(events, frame, attributes, key)


def test_which_attributes_go_the_short_way(twin: str, subtests: pytest.Subtests) -> None:
    batch, events = load(twin, "batch"), load(twin, "events")
    taken: list[dict[str, Any]] = [
        {},
        {"id": "own"},
        {"id": ID},
        {"type": "order.created", "source": "/orders?a=(b)&c=[d]", "subject": "Größe 42"},
        {"tenant": 'a "red" one', "empty": "", "x9": "日本\\"},
        {"id": "7", "tenant": "red", "subject": "s" * 65_536},
    ]
    elsewhere: list[Any] = [
        [("id", "own")], {"n": 5}, {"flag": True}, {"id": None}, {"id": ""}, {"Bad": "x"}, {"x" * 101: "x"},
        {"time": "2024-05-06T07:08:09Z"}, {"traceparent": TRACE}, {"dataschema": "/s"}, {"partitionkey": "k"},
        {"source": "a b"}, {"source": "%2F"}, {"subject": "\x00"}, {"tenant": "\ud800"}, {"tenant": "x" * 65_537},
        {"a": "x" * 40_000, "b": "x" * 40_000}, {5: "x"},
    ]  # fmt: skip
    for attributes in taken:
        with subtests.test(taken=repr(attributes)[:50]):
            sequence, frame = offered(batch, attributes)
            if twin == "python":
                assert (sequence, frame) == (batch.ELSEWHERE, None)
            else:
                assert (sequence, frame) == (1, expected(events, frame or b"", attributes))
    for attributes in elsewhere:
        with subtests.test(elsewhere=repr(attributes)[:50]):
            assert offered(batch, attributes) == (batch.ELSEWHERE, None)


@pytest.mark.native_only
def test_attributes_stand_over_what_all_events_have() -> None:
    batch, events = load_native("batch"), load_native("events")
    constant = {"type": "t.all", "subject": "all"}
    attributes = {"subject": "one", "tenant": "red"}
    _, frame = offered(batch, attributes, constant=constant)
    assert frame is not None
    assert frame == expected(events, frame, {**constant, **attributes})
    # the publisher brings both together where both have extensions
    assert offered(batch, attributes, constant={"extensions": {"a": "b"}}) == (batch.ELSEWHERE, None)


@pytest.mark.native_only
def test_attributes_that_encoding_the_data_changes() -> None:
    """Code that runs while data are encoded may change the mapping: the event has the attributes that were given."""
    batch, events = load_native("batch"), load_native("events")
    attributes = {"subject": "given " * 20, "tenant": "red " * 20}
    given = dict(attributes)

    def encode(data: Any) -> bytes:
        attributes.clear()
        return b"{}"

    buffer = batch.BatchBuffer("/s", "t", "o", batch_events=9, batch_bytes=9999, buffer_bytes=9999, ready=lambda: None)
    entry = batch.Entry(encode, print, lambda error: None, "application/msgpack", "msgpack")
    entry.aim(buffer, 1000)
    assert entry.send(1, attributes=attributes) == 1
    assert attributes == {}
    buffer.seal()
    (chunk,) = buffer.take(9999)
    record = events.Frame(chunk.body)[0]
    assert (record.subject, record.extensions) == (given["subject"], {"tenant": given["tenant"]})


@pytest.mark.native_only
def test_a_refusal_is_that_of_the_other_way() -> None:
    batch = load_native("batch")
    with pytest.raises(CloudRuntimesError, match="key must not be empty"):
        offered(batch, {"tenant": "red"}, "")


def outcome(read: Callable[[], Any]) -> Any:
    """Return what is read, or what an error says."""
    try:
        return read()
    except PayloadError as error:
        return str(error)


def test_extensions_are_read_as_json_reads_them(twin: str, subtests: pytest.Subtests) -> None:
    """Also those that another program wrote into a log."""
    events = load(twin, "events")
    texts = [
        b'{"a":"b"}', b'{"a":"b","c":"d"}', b'{"a":"b", "c":"d"}', b'{"a" :"b"}', b' {"a":"b"}', b'{"a":"b"} ', b'{"a":"b","a":"c"}',
        b'{"":""}', b'{"a":""}', '{"é":"日本"}'.encode(), rb'{"a":"\u0041\n\""}', rb'{"a":"b\\"}', rb'{"a\"":"b"}', b'{"a":1,"b":"c"}',
        b'{"b":"c","a":true}', b'{"a":-2147483648}', b'{"a":2147483648}', b'{"a":null}', b'{"a":{}}', b'{"a":"b"', b'{"a":"b}', b'{"a":"b",}',
        b'{"a":"b"}x', b'{"a":"b"}}', b'{"a":"b"},"c":"d"}', b'{"a":"b","c"}', b'{"a":"b"x"c":"d"}', b'{,"a":"b"}', b'["a":"b"]', b',"a":"b"}',
        b'{"a":"b"{"c":"d"}', b'{"a":"\xff"}', b'{"\xc3":"b"}', b'{"a":"\x01"}', rb'{"a":"\ud800"}', rb'{"a":"\x"}', b"{", b"x" * 17, b'{"a":"',
    ]  # fmt: skip
    for text in texts:
        with subtests.test(text=text):
            written = b'{"a":"%b"}' % (b"x" * 300)
            size = len(text) - len(written)
            record = events.encode_record(b"", None, extensions={"a": "x" * 300})
            shorter = (len(record) - 4 + size - 1).to_bytes(4, "little") + record[4:].replace(
                b"\xb4\x02" + written, bytes([len(text)]) + text
            )
            frame = events.build_frame("/s", "t", "topic", [shorter])
            said = outcome(lambda frame=frame: events.Frame(frame)[0].extensions)  # type: ignore[misc]
            assert said == outcome(lambda text=text: parse_object(text, "record: extensions"))  # type: ignore[misc]
