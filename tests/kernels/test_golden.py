"""Golden files pin the format: both twins must write these bytes and read them back.

`tests/golden/*.hex` hold one frame or event each, 32 bytes a line. They change only with the version of the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
V7 = "01890a5d-ac96-774b-bcce-b302099a8057"
NOW = 1_714_979_289_123_456
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def plain(events: ModuleType) -> bytes:
    """What a publisher writes most: JSON with key and trace context, and one record of each numbered type."""
    from cloud_runtimes._native.record_py import CONTENT_TYPES

    first = events.encode_record(b'{"a":1}', "application/json", id=V7, time=NOW, key="customer-17", traceparent=TRACE)
    others = [events.encode_record(b"1", name, id=V7, time=NOW + number) for number, name in enumerate(CONTENT_TYPES)]
    return bytes(events.build_frame("shop", "cloud_runtimes.event", "orders", [first, *others]))


def every_flag(events: ModuleType) -> bytes:
    """One record for each flag alone, one with all of them."""
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
