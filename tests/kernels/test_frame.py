"""Frames: reading and selecting, and the golden files in ``tests/golden`` that both twins must write and read back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.errors import InvalidArgumentError, PayloadError

V7 = "01890a5d-ac96-774b-bcce-b302099a8057"


def sample(events: ModuleType) -> bytes:
    """A small frame that uses every flag."""
    records = [
        events.encode_record(b'{"a":[1,true,"x"]}', "application/json", id=V7, time=1),
        events.encode_record(
            b"\xff\x00",
            "a/b",
            id="i",
            time="2024-05-06T07:08:09+02:00",
            key="k",
            traceparent="00-ab",
            type="t2",
            source="s2",
            subject="sub",
            extensions={"n": 7, "f": False, "s": 'x"é'},
            metadata={"m": "\n"},
            expires=99,
            raw=True,
        ),
        events.encode_record("tëxt".encode(), "text/plain", id=V7, time=-1),
    ]
    return bytes(events.build_frame("src", "typ", "töpic", records))


def test_sequence(events: ModuleType) -> None:
    frame = events.Frame(sample(events))
    assert len(frame) == 3
    assert [record.payload for record in frame] == [b'{"a":[1,true,"x"]}', b"\xff\x00", "tëxt".encode()]
    assert (frame.source, frame.type, frame.topic) == ("src", "typ", "töpic")
    assert [frame.expires(index) for index in range(3)] == [0, 99, 0]
    assert frame[0].topic is frame[1].topic
    for index in (3, -1, 100):
        for method in (frame.__getitem__, frame.record_bytes, frame.expires):
            with pytest.raises(IndexError):
                method(index)
        with pytest.raises(IndexError):
            frame.select([0, index])


def test_select(events: ModuleType) -> None:
    frame = events.Frame(sample(events))
    selected = events.Frame(frame.select([2, 0, 0]))
    assert [record.payload for record in selected] == [frame[index].payload for index in (2, 0, 0)]
    assert selected.topic == "töpic"
    assert frame.select(range(3)) == sample(events)
    assert len(events.Frame(frame.select([]))) == 0
    assert (
        b"".join(frame.record_bytes(index) for index in range(3))
        == sample(events)[-sum(map(len, (frame.record_bytes(index) for index in range(3)))) :]
    )


def test_records_outlive_their_frame(events: ModuleType) -> None:
    record = events.Frame(sample(events))[1]
    assert record.payload == b"\xff\x00"
    assert record.subject == "sub"


@pytest.mark.parametrize("body", [None, "CRF", bytearray(b"CRF\x01"), 5])
def test_other_types(events: ModuleType, body: Any) -> None:
    with pytest.raises(TypeError):
        events.Frame(body)
    with pytest.raises(TypeError):
        events.build_frame("s", "t", "", [body])
    with pytest.raises(TypeError):
        events.render_cloudevent(body, "s", "t")


def test_header_rules(events: ModuleType) -> None:
    assert events.Frame(events.build_frame("s", "t", "", [])).topic == ""
    for args in (("", "t", ""), ("s", "", ""), ("s", "t", "a\x00"), ("s\ud800", "t", ""), (5, "t", "")):
        with pytest.raises(InvalidArgumentError):
            events.build_frame(*args, [])
    record = events.encode_record(b"", None)
    for broken in (b"", record[:-1], record + b"x", record + record):
        with pytest.raises(PayloadError):
            events.build_frame("s", "t", "", [broken])
        with pytest.raises(PayloadError):
            events.render_cloudevent(broken, "s", "t")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: b"CRX" + body[3:], "CRF"),
        (lambda body: body[:3] + b"\x02" + body[4:], "version 2"),
        (lambda body: body[:4] + b"\x02" + body[5:], "behind"),
        (lambda body: body[:4] + b"\x04" + body[5:], "frame: "),
        (lambda body: body[:4] + b"\xff\xff\xff\xff" + body[8:], "4294967295 records"),
        (lambda body: body + b"\x00", "behind"),
        (lambda body: body[:8] + b"\x00" + body[8:], "source"),
        (lambda body: body[:8] + b"\x80\x00" + body[9:], "frame: "),
        (lambda body: body[:8] + b"\x83\x80\x80\x80\x10" + body[9:], "frame: "),
        (lambda body: body.replace(b"src", b"s\xffc", 1), "UTF-8"),
    ],
)
def test_header_refused(events: ModuleType, change: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        events.Frame(change(sample(events)))


@pytest.mark.parametrize(
    ("at", "byte", "message"),
    [(5, 0x10, "later version"), (6, 11, "content type"), (7, 1, "content type"), (14, 0x40, "id"), (31, 0x7F, "time")],
)
def test_record_refused(events: ModuleType, at: int, byte: int, message: str) -> None:
    record = bytearray(events.encode_record(b"{}", "application/json"))
    record[at] = byte
    head = events.build_frame("s", "t", "", [])
    with pytest.raises(PayloadError, match=message):
        events.Frame(head[:4] + b"\x01" + head[5:] + bytes(record))


def test_truncation_at_every_byte(events: ModuleType) -> None:
    body = sample(events)
    for size in range(len(body)):
        with pytest.raises(PayloadError):
            events.Frame(body[:size])


def test_broken_text_raises_when_touched(both: tuple[ModuleType, ModuleType], same_frame: Any) -> None:
    body = sample(both[1])
    for text, name in (
        (b"sub", "subject"),
        (b"00-ab", "traceparent"),
        (b"t2", "type"),
        (b'"n":7', "extensions"),
        (b'{"m"', "metadata"),
    ):
        changed = body.replace(text, b"\xff" + text[1:], 1)
        same_frame(both, changed)
        for module in both:
            with pytest.raises(PayloadError):
                getattr(module.Frame(changed)[1], name)
            if name != "metadata":
                with pytest.raises(PayloadError):
                    module.Frame(changed)[1].to_json()


@pytest.mark.parametrize(
    "text",
    [
        "{}", "{a:1}", '{"a":1,}', '{"a":1 }', '{"a" :1}', '{"a":01}', '{"a":1.0}', '{"a":1e2}', '{"a":null}',
        '{"a":[1]}', '{"a":2147483648}', '{"a":-0}', '{"a":"\\ud83d\\ude00\\n\\/"}', '{"a":"\\ud83d"}',
        '{"a":"\\x"}', '{"a":truex}', '{"a":"}', '["a":1]', '{"a":1}}', '{"a":12345678901}', '{"a":-}', '{"a":}',
        '{"a"}', '{"a":"b","a":true}', '{"":"b"}', '{"a":"\n"}',
    ],
)  # fmt: skip
def test_stored_objects(both: tuple[ModuleType, ModuleType], same_frame: Any, text: str) -> None:
    body = sample(both[1])
    old = b'{"n":7,"f":false,"s":"x\\"\xc3\xa9"}'
    at = body.index(old)
    padded = text.encode()
    grow = len(padded) - len(old)
    start = body.index(b"\x01i\x01k") - 40
    size = int.from_bytes(body[start : start + 4], "little") + grow
    changed = (
        body[:start]
        + size.to_bytes(4, "little")
        + body[start + 4 : at - 1]
        + bytes([len(padded)])
        + padded
        + body[at + len(old) :]
    )
    kind, _ = same_frame(both, changed)
    assert kind == "value"


def test_mutations(both: tuple[ModuleType, ModuleType], same_frame: Any) -> None:
    body = sample(both[1])
    chance = random.Random(7)
    read = 0
    for _ in range(20_000):
        changed = bytearray(body)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            at = chance.randrange(len(changed))
            what = chance.random()
            if what < 0.6:
                changed[at] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            elif what < 0.8:
                del changed[at : at + chance.choice((1, 1, 2, 8))]
            else:
                changed[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 1, 2, 8))))
        kind, result = same_frame(both, bytes(changed))
        if kind == "value":
            read += 1
            for record in result[3]:
                assert all(state == "value" or error is PayloadError for state, error in record[:16])
        else:
            assert result is PayloadError
    assert 1000 < read < 19_000


# -- golden files pin the format: `tests/golden/*.hex` hold a frame or event each, 32 bytes a line, and change only with its version

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NOW = 1_714_979_289_123_456
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def plain(events: ModuleType) -> bytes:
    """Typical frame of a publisher: JSON with key and trace context, and one record of each numbered type."""
    from cloud_runtimes._native.record_py import CONTENT_TYPES

    first = events.encode_record(b'{"a":1}', "application/json", id=V7, time=NOW, key="customer-17", traceparent=TRACE)
    others = [events.encode_record(b"1", name, id=V7, time=NOW + number) for number, name in enumerate(CONTENT_TYPES)]
    return bytes(events.build_frame("shop", "cloud_runtimes.event", "orders", [first, *others]))


def every_flag(events: ModuleType) -> bytes:
    """Frame with a record for each flag alone, and one record with all of them."""
    single: list[dict[str, Any]] = [
        {"id": "order-17"},
        {"key": "kéy"},
        {"traceparent": TRACE},
        {"type": "com.example.other"},
        {"source": "/other"},
        {"subject": "s" * 200},
        {"time": "2024-05-06T07:08:09.5+02:00"},
        {"extensions": {"dataschema": "https://example.com/s", "n": -2147483648, "flag": True, "text": 'a "b" \\ é'}},
        {"metadata": {"ttl": "5", "nul": "\x00"}},
        {"expires": NOW + 60_000_000},
        {"raw": True},
    ]
    fixed = {"id": V7, "time": NOW}
    records = [events.encode_record(b"payload", "text/plain", **{**fixed, **options}) for options in single]
    records.append(events.encode_record(b"\x00\xff", "application/vnd.example+json; v=1", **fixed))
    together = {name: value for options in single for name, value in options.items()}
    records.append(events.encode_record(bytes(range(256)), "application/vnd.example", **together))
    return bytes(events.build_frame("/source", "com.example.type", "", records))


def edges(events: ModuleType) -> bytes:
    """Empty payloads and the ends of time."""
    records = [
        events.encode_record(b"", None, id=V7, time=-62_135_596_800_000_000),
        events.encode_record(b"", "application/json", id=V7, time=253_402_300_799_999_999),
        events.encode_record(b"\n", "text/plain", id=V7, time=0, expires=1),
        events.encode_record(b"", None, id=V7, time="2016-12-31T23:59:60Z"),
    ]
    return bytes(events.build_frame("s", "t", "topic", records))


def parsed(events: ModuleType) -> bytes:
    """A frame made from a structured CloudEvent."""
    text = (
        '{"specversion":"1.0","id":"A-1","source":"/s","type":"t","time":"2018-04-05T17:31:00Z","comexampleextension1":"value",'
        '"comexampleothervalue":5,"unset":null,"datacontenttype":"application/xml","data":"<much wow=\\"xml\\"/>"}'
    )
    return bytes(events.parse_cloudevent(text, "in"))


def as_json(make: Callable[[ModuleType], bytes]) -> Callable[[ModuleType], bytes]:
    return lambda events: b"\n".join(record.to_json() for record in events.Frame(make(events)))


FILES: dict[str, Callable[[ModuleType], bytes]] = {
    "frame-plain.hex": plain,
    "frame-every-flag.hex": every_flag,
    "frame-edges.hex": edges,
    "frame-parsed.hex": parsed,
    "json-plain.hex": as_json(plain),
    "json-every-flag.hex": as_json(every_flag),
    "json-edges.hex": as_json(edges),
}


def load(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_written(events: ModuleType, name: str) -> None:
    assert FILES[name](events) == load(name)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("frame")])
def test_read(events: ModuleType, name: str) -> None:
    frame = events.Frame(load(name))
    assert frame.select(range(len(frame))) == load(name)
    for record in frame:
        assert json.loads(record.to_json())["specversion"] == "1.0"
    if name == "frame-plain.hex":
        first = frame[0]
        assert (first.id, first.key, first.traceparent, first.time_us) == (V7, "customer-17", TRACE, NOW)
        assert first.time_text == "2024-05-06T07:08:09.123456Z"
        assert [record.time_us - NOW for record in frame] == [0, *range(11)]


def test_every_flag_is_covered(events: ModuleType) -> None:
    frame = events.Frame(load("frame-every-flag.hex"))
    flags = [int.from_bytes(frame.record_bytes(index)[4:6], "little") for index in range(len(frame))]
    assert sorted(flags[:12]) == [1 << bit for bit in range(12)]
    assert flags[12] == 0xFFF
