"""Records: every attribute there and back, every rule refused by both twins alike."""

from __future__ import annotations

import array
import datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes.errors import InvalidArgumentError, PayloadError

V7 = "01890a5d-ac96-774b-bcce-b302099a8057"
ALL: dict[str, Any] = {
    "id": "order-17",
    "time": "2024-05-06T07:08:09.5+02:00",
    "key": "customer",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "type": "com.example.placed",
    "source": "/shop",
    "subject": "orders/17 ✓",
    "extensions": {"dataschema": "https://example.com/s", "n": -5, "flag": True, "text": 'a "b" \\ é'},
    "metadata": {"ttl": "5", "any key\n": "\x00"},
    "expires": 1_800_000_000_000_000,
    "raw": True,
}


def read(events: ModuleType, record: bytes) -> Any:
    return events.Frame(events.build_frame("src", "typ", "top", [record]))[0]


def test_defaults(events: ModuleType) -> None:
    record = read(events, events.encode_record(b"{}", "application/json"))
    now = datetime.datetime.now(datetime.UTC).timestamp()
    assert (record.source, record.type, record.topic) == ("src", "typ", "top")
    assert record.subject is record.key is record.traceparent is record.expires_us is None
    assert record.extensions == record.metadata == {}
    assert record.raw is False
    assert abs(record.time_us / 1e6 - now) < 5
    assert int(record.id[:8] + record.id[9:13], 16) == record.time_us // 1000
    assert (record.content_type, record.payload) == ("application/json", b"{}")


def test_everything(events: ModuleType) -> None:
    record = read(events, events.encode_record(b"\x00\xff", "application/vnd.x", **ALL))
    for name in ("id", "key", "traceparent", "type", "source", "subject", "extensions", "metadata", "raw"):
        assert getattr(record, name) == ALL[name], name
    assert list(record.extensions) == list(ALL["extensions"])
    assert type(record.extensions["flag"]) is bool
    assert record.time_text == ALL["time"]
    assert record.time_us == 1_714_972_089_500_000
    assert record.expires_us == ALL["expires"]
    assert (record.content_type, record.payload) == ("application/vnd.x", b"\x00\xff")


def test_ids(events: ModuleType, subtests: pytest.Subtests) -> None:
    for given_id, stored_raw in (
        (V7, True),
        (V7.upper(), False),
        (V7.replace("-7", "-4"), False),
        (V7[:-1], False),
        (V7.replace("-bcc", "-ccc"), False),
    ):
        with subtests.test(given_id=given_id, stored_raw=stored_raw):
            encoded = events.encode_record(b"", None, id=given_id)
            assert bool(encoded[4] & 1) is not stored_raw
            assert read(events, encoded).id == given_id


def test_content_types(events: ModuleType) -> None:
    from cloud_runtimes._native.record_py import CONTENT_TYPES

    assert len(CONTENT_TYPES) == 11
    for number, name in enumerate(CONTENT_TYPES):
        encoded = events.encode_record(b"x", name)
        assert encoded[6] == number
        assert read(events, encoded).content_type == name
        if name is not None:
            other = read(events, events.encode_record(b"x", name + ";a=b"))
            assert other.content_type == name + ";a=b"


TIMES = [
    ("2024-05-06T07:08:09Z", 1_714_979_289_000_000, True),
    ("2024-05-06T07:08:09.000001Z", 1_714_979_289_000_001, True),
    ("2024-05-06T07:08:09.100000Z", 1_714_979_289_100_000, True),
    ("2024-05-06T07:08:09.1Z", 1_714_979_289_100_000, False),
    ("2024-05-06T07:08:09.000000Z", 1_714_979_289_000_000, False),
    ("2024-05-06T07:08:09.1234567899Z", 1_714_979_289_123_456, False),
    ("2024-05-06t07:08:09z", 1_714_979_289_000_000, False),
    ("2024-05-06T07:08:09+00:00", 1_714_979_289_000_000, False),
    ("2024-05-06T07:08:09-23:59", 1_715_065_629_000_000, False),
    ("2016-12-31T23:59:60Z", 1_483_228_800_000_000, False),
    ("2017-01-01T00:59:60.5+01:00", 1_483_228_800_500_000, False),
    ("1970-01-01T00:00:00Z", 0, True),
    ("1969-12-31T23:59:59.999999Z", -1, True),
    ("2000-02-29T00:00:00Z", 951_782_400_000_000, True),
    ("0001-01-01T00:00:00Z", -62_135_596_800_000_000, True),
    ("0000-01-01T00:00:00Z", -62_135_596_800_000_000, False),
    ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999, True),
    ("9999-12-31T23:59:59-01:00", 253_402_300_799_999_999, False),
]


BAD_TIMES = [
    "", "2024-05-06", "2024-05-06 07:08:09Z", "2024-05-06T07:08:09", "2024-05-06T07:08Z", "2024-05-06T07:08:09.Z",
    "2024-05-06T07:08:09,5Z", "2024-05-06T24:00:00Z", "2024-05-06T07:60:00Z", "2024-05-06T07:08:61Z",
    "2024-05-06T07:08:60Z", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-04-31T00:00:00Z",
    "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-05-06T07:08:09+24:00",
    "2024-05-06T07:08:09+01:60", "2024-05-06T07:08:09+0100", "2024-05-06T07:08:09Z\n", "2024-05-06T07:08:09ZZ",
    "٢٠٢٤-05-06T07:08:09Z", "-024-05-06T07:08:09Z", "2024-05-06T07:08:09.5",
]  # fmt: skip


def test_times(events: ModuleType, subtests: pytest.Subtests) -> None:
    for text, us, numeric in TIMES:
        with subtests.test(text=text):
            encoded = events.encode_record(b"", None, time=text)
            assert (not encoded[4] & 0x80) is numeric
            record = read(events, encoded)
            assert (record.time_us, record.time_text) == (us, text)
            if numeric:
                assert read(events, events.encode_record(b"", None, time=us)).time_text == text
    for text in BAD_TIMES:
        with subtests.test(text=text), pytest.raises(InvalidArgumentError, match="time must be"):
            events.encode_record(b"", None, time=text)


@given(us=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_every_time_is_that_of_datetime(both: tuple[ModuleType, ModuleType], us: int) -> None:
    expected = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=us)).isoformat() + "Z"
    for module in both:
        assert read(module, module.encode_record(b"", None, time=us)).time_text == expected
        assert read(module, module.encode_record(b"", None, time=expected)).time_us == us


LONG = "x" * 65_537
REFUSED: list[dict[str, Any]] = [
    *({name: ""} for name in ("id", "key", "traceparent", "type", "source", "subject")),
    *({name: 5} for name in ("id", "key", "traceparent", "type", "source", "subject", "extensions", "metadata")),
    *({name: LONG} for name in ("id", "key", "traceparent", "type", "source", "subject")),
    *({"subject": f"a{char}b"} for char in "\x00\x1f\x7f\x85\x9f\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0010ffff\ud800"),
    {"id": "\ud800"},
    {"traceparent": "é"},
    {"traceparent": "a\n"},
    {"traceparent": "x" * 513},
    {"time": 1.5},
    {"time": 253_402_300_800_000_000},
    {"time": -62_135_596_800_000_001},
    {"time": 2**70},
    {"expires": 0},
    {"expires": -1},
    {"expires": 2**63},
    {"expires": "x"},
    *({"extensions": {name: "x"}} for name in ("", "A", "a_b", "é", "a\n", "x" * 101)),
    *({"extensions": {name: "x"}} for name in ("id", "source", "type", "subject", "time", "specversion", "data")),
    *({"extensions": {name: "x"}} for name in ("datacontenttype", "data_base64", "partitionkey", "expirytime")),
    {"extensions": {5: "x"}},
    *({"extensions": {"a": value}} for value in (None, 1.5, 2**31, -(2**31) - 1, "\x00", LONG, "\ud800", b"x", [])),
    {"extensions": {"dataschema": ""}},
    {"extensions": {"traceparent": ""}},
    {"extensions": {"traceparent": 5}},
    {"extensions": {"traceparent": "a"}, "traceparent": "b"},
    {"extensions": {f"a{n}": "x" * 10_000 for n in range(7)}},
    {"metadata": {"a": 5}},
    {"metadata": {5: "a"}},
    {"metadata": {"a": "\ud800"}},
    {"metadata": {"\ud800": "a"}},
    {"metadata": {"a": LONG}},
]


def test_refused(events: ModuleType, subtests: pytest.Subtests) -> None:
    for options in REFUSED:
        with subtests.test(options=ascii(options)[:60]):
            with pytest.raises(InvalidArgumentError) as caught:
                events.encode_record(b"", None, **options)
            assert type(caught.value) is InvalidArgumentError
    for content_type in ("", 5, "a\x00", LONG):
        with pytest.raises(InvalidArgumentError, match="content_type"):
            events.encode_record(b"", content_type)


def test_accepted_at_the_edge(events: ModuleType) -> None:
    longest = "x" * 65_536
    record = read(
        events,
        events.encode_record(
            b"",
            longest,
            id=longest,
            subject="\U0001fffd\ud7ff\ue000 \xa0",
            traceparent="t" * 512,
            extensions={"a": 2**31 - 1, "b": -(2**31), "c": "", "x" * 100: "y"},
        ),
    )
    assert record.content_type == record.id == longest
    assert record.subject == "\U0001fffd\ud7ff\ue000 \xa0"
    assert record.extensions == {"a": 2**31 - 1, "b": -(2**31), "c": "", "x" * 100: "y"}
    same = {"traceparent": "t", "extensions": {"traceparent": "t"}}
    assert read(events, events.encode_record(b"", None, **same)).traceparent == "t"
    assert read(events, events.encode_record(b"", None, extensions={}, metadata={})).extensions == {}


def test_payloads(events: ModuleType) -> None:
    view = memoryview(b"abcd")
    for payload in (bytearray(view), view, view.cast("I"), array.array("B", view)):
        assert read(events, events.encode_record(payload, None)).payload == b"abcd"
    for other in ("text", None, 5, [1], view[::2]):
        with pytest.raises(PayloadError, match="payload"):
            events.encode_record(other, None)


texts = st.text(min_size=1, max_size=40)
names = st.text("abcxyz0189", min_size=1, max_size=20) | texts
options = st.fixed_dictionaries(
    {"id": texts | st.just(V7)},
    optional={
        "time": st.sampled_from([text for text, _, _ in TIMES] + BAD_TIMES) | st.integers(-(10**16), 10**16),
        "key": texts,
        "traceparent": texts,
        "type": texts,
        "source": texts,
        "subject": texts,
        "extensions": st.dictionaries(
            names, st.booleans() | st.integers(-(2**32), 2**32) | st.text(max_size=20), max_size=5
        ),
        "metadata": st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4),
        "expires": st.integers(-1, 2**60),
        "raw": st.booleans(),
    },
)


@given(payload=st.binary(max_size=300), content_type=st.none() | texts | st.just("text/html"), given_options=options)
def test_twins_agree(
    both: tuple[ModuleType, ModuleType],
    same: Any,
    same_frame: Any,
    payload: bytes,
    content_type: str | None,
    given_options: Any,
) -> None:
    kind, record = same(both, "encode_record", payload, content_type, **given_options)
    if kind == "value":
        assert same_frame(both, both[1].build_frame("s", "t", "", [record]))[0] == "value"
        assert same(both, "render_cloudevent", record, "s", "t")[0] == "value"
