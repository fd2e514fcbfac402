"""Structured JSON: what we render is read by the CloudEvents SDK and back, what is malformed is refused by both twins alike."""

from __future__ import annotations

import base64
import json
import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes._native import cloudevents_py
from cloud_runtimes.errors import InvalidArgumentError, PayloadError

MINIMAL: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
FULL = (
    ' {"specversion" : "1.0", "id":"a-\\u0031", "source":"/s", "type":"t", "subject":"sub",'
    ' "time":"2024-05-06T07:08:09.25+02:00", "dataschema":"https://x/s", "partitionkey":"k\\ud83d\\ude00",'
    ' "traceparent":"00-ab", "expirytime":"2030-01-01T00:00:00Z", "ext1":"\\"q\\"", "ext2":-7, "ext3":true, "unset":null,\r\n'
    ' "datacontenttype":"application/vnd.x+json", "data": {"a" : [1.5e3, "\\u00e9 }", null, {}, []]} }\t'
)


def event(**members: Any) -> str:
    return json.dumps({**MINIMAL, **members})


def parse(events: ModuleType, text: Any, topic: str = "top") -> Any:
    return events.Frame(events.parse_cloudevent(text, topic))[0]


def test_everything(events: ModuleType) -> None:
    record = parse(events, FULL)
    assert (record.id, record.source, record.type, record.topic) == ("a-1", "/s", "t", "top")
    assert record.subject == "sub"
    assert record.time_text == "2024-05-06T07:08:09.25+02:00"
    assert record.key == "k😀"
    assert record.traceparent == "00-ab"
    assert record.expires_us == 1_893_456_000_000_000
    assert record.extensions == {"dataschema": "https://x/s", "ext1": '"q"', "ext2": -7, "ext3": True}
    assert record.content_type == "application/vnd.x+json"
    assert record.payload == b'{"a" : [1.5e3, "\\u00e9 }", null, {}, []]}'
    assert record.raw is False
    assert record.metadata == {}
    assert record.to_json().decode() == (
        '{"specversion":"1.0","id":"a-1","source":"/s","type":"t","subject":"sub","time":"2024-05-06T07:08:09.25+02:00",'
        '"datacontenttype":"application/vnd.x+json","partitionkey":"k😀","traceparent":"00-ab","expirytime":"2030-01-01T00:00:00Z",'
        '"dataschema":"https://x/s","ext1":"\\"q\\"","ext2":-7,"ext3":true,"data":{"a" : [1.5e3, "\\u00e9 }", null, {}, []]}}'
    )


def test_a_frame_of_several_documents(both: tuple[ModuleType, ModuleType], events: ModuleType, same: Any) -> None:
    time = "2024-05-06T07:08:09Z"
    texts = [
        "no event",
        event(time=time, data={"n": 1}),
        event(time=time, id='a"b', source="/other", type="u", data='\u00e9"', subject="s", partitionkey="k"),
        FULL,
        event(time=time, source="/other"),
        "{}",
        event(time=time, type="u", ext=7),
    ]
    documents = [text.encode() for text in texts] + [b"\xff", b"CRF\x01"]
    body, bad = same(both, "pack_cloudevents", documents, "top")[1]
    assert bad == [0, 5, 7, 8]
    frame = events.Frame(body)
    assert (frame.source, frame.type, frame.topic, len(frame)) == ("/s", "t", "top", 5)
    alone = [parse(events, text) for index, text in enumerate(texts) if index not in bad]
    assert [record.to_json() for record in frame] == [record.to_json() for record in alone]
    assert events.Frame(frame.select([1]))[0].source == "/other"
    assert same(both, "pack_cloudevents", [b"{}"], "top") == ("value", (None, [0]))
    assert same(both, "pack_cloudevents", [])[1] == (None, [])
    assert same(both, "pack_cloudevents", [event()], "a\x00")[1] is InvalidArgumentError
    assert same(both, "pack_cloudevents", [5])[1] == (None, [0])


@pytest.mark.parametrize("kind", [str, bytes, bytearray, memoryview])
def test_input_types(events: ModuleType, kind: Any) -> None:
    text = event()
    assert parse(events, text if kind is str else kind(text.encode())).id == "1"


def test_other_input(events: ModuleType) -> None:
    for data in (None, 5, [], "\ud800" + event()):
        with pytest.raises(PayloadError):
            events.parse_cloudevent(data)
    with pytest.raises(InvalidArgumentError):
        events.parse_cloudevent(event(), "a\x00")


@pytest.mark.parametrize(
    ("members", "payload", "content_type"),
    [
        ({}, b"", None),
        ({"datacontenttype": "text/plain"}, b"", None),
        ({"data": None}, b"null", "application/json"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", "text/plain"),
        (
            {"data": "a\n\u00e9\x00", "datacontenttype": "TEXT/Plain; charset=utf-8"},
            "a\n\u00e9\x00".encode(),
            "TEXT/Plain; charset=utf-8",
        ),
        ({"data": "<x/>", "datacontenttype": "application/xml"}, b"<x/>", "application/xml"),
        ({"data": {"a": 1}, "datacontenttype": "application/xml"}, b'{"a": 1}', "application/xml"),
        ({"data": "x", "datacontenttype": "text/json ; a=b"}, b'"x"', "text/json ; a=b"),
        ({"data": "x", "datacontenttype": "Application/VND.x+JSON"}, b'"x"', "Application/VND.x+JSON"),
        ({"data": "x", "datacontenttype": "json"}, b"x", "json"),
        ({"data_base64": "AAH/"}, b"\x00\x01\xff", None),
        ({"data_base64": "", "datacontenttype": "a/b"}, b"", "a/b"),
        ({"data_base64": "AA==", "datacontenttype": "application/json"}, b"\x00", "application/json"),
        ({"data_base64": None, "data": 5}, b"5", "application/json"),
    ],
)
def test_data(events: ModuleType, members: dict[str, Any], payload: bytes, content_type: str | None) -> None:
    record = parse(events, event(**members))
    assert (record.payload, record.content_type) == (payload, content_type)
    again = parse(events, record.to_json())
    assert (again.payload, again.content_type) == (payload, content_type)


@pytest.mark.parametrize(
    ("payload", "content_type", "tail"),
    [
        (b"", None, b"}"),
        (b"", "application/json", b'"datacontenttype":"application/json"}'),
        (b"", "text/plain", b',"data":""}'),
        (b"", "application/octet-stream", b',"data_base64":""}'),
        (b"x", None, b',"data_base64":"eA=="}'),
        (b" [1] ", "application/json", b',"data": [1] }'),
        (b'1,"id":"x"', "application/json", b',"data_base64":"MSwiaWQiOiJ4Ig=="}'),
        (b'"\xff"', "application/json", b',"data_base64":"Iv8i"}'),
        (b"NaN", "application/json", b',"data_base64":"TmFO"}'),
        (
            b"[" * 129 + b"]" * 129,
            "application/json",
            b',"data_base64":"' + base64.b64encode(b"[" * 129 + b"]" * 129) + b'"}',
        ),
        (b"\xff", "text/plain", b',"data_base64":"/w=="}'),
        (b'a"\\\x00\x1f\x7f\b\t\n\f\r/', "text/csv", b',"data":"a\\"\\\\\\u0000\\u001f\x7f\\b\\t\\n\\f\\r/"}'),
        (b"<x/>", "application/xml", b',"data_base64":"PHgvPg=="}'),
    ],
)
def test_rendered_data(events: ModuleType, payload: bytes, content_type: str | None, tail: bytes) -> None:
    record = events.encode_record(payload, content_type)
    rendered = events.render_cloudevent(record, "s", "t")
    assert rendered.endswith(tail)
    assert events.Frame(events.build_frame("s", "t", "x", [record]))[0].to_json() == rendered
    json.loads(rendered)
    assert parse(events, rendered).payload == payload.strip(b" ")


REFUSED = [
    "",
    " ",
    "null",
    "[]",
    "{}",
    '"x"',
    *(json.dumps({name: value for name, value in MINIMAL.items() if name != missing}) for missing in MINIMAL),
    *(event(**{name: value}) for name in MINIMAL for value in ("", None, 5, True, [], {}, "a\x00", "\ufffe")),
    event(specversion="0.3"),
    *(event(**{name: value}) for name in ("subject", "partitionkey", "datacontenttype", "traceparent", "dataschema") for value in ("", 5, [], "\n")),
    *(event(**{name: value}) for name in ("time", "expirytime") for value in ("", 5, "2024-05-06", "2024-02-30T00:00:00Z")),
    *(event(**{name: 1}) for name in ("", "A", "a_b", "a-b", "é", "x" * 101)),
    *(event(ext=value) for value in (1.5, 2**31, -(2**31) - 1, 10**30, [], {}, "\x00", "\x85", "x" * 65_537)),
    *(event(data_base64=value) for value in ("A", "AA", "AA=", "AAA", "A===", "AB==", "AAB=", "A A=", "AA==AA==", "AA-_", "AA==\n", 5, [], "=", "====")),
    event(data=1, data_base64="AA=="),
    event(**{f"e{n}": "x" * 10_000 for n in range(7)}),
    event()[:-1] + ',"id":"2"}',
    event()[:-1] + ',"ext":1,"ext":1}',
    event()[:-1] + ',"\\u0065xt":1,"ext":1}',
    event()[:-1] + ',"data":1,"data":1}',
    event()[:-1] + ',"x":null,"x":null}',
    event()[:-1] + ",}",
    event()[:-1] + ',"a" 1}',
    event()[:-1] + ',"a":-}',
    event()[:-1] + ',"a":01}',
    event()[:-1] + ',"a":1.}',
    event()[:-1] + ',"a":nul}',
    event()[:-1] + ',"a":truee}',
    event()[:-1] + ',"a":"\\ud800"}',
    event()[:-1] + ',"a":"\\x41"}',
    event()[:-1] + ',"a":"\\u12g4"}',
    event()[:-1] + ',"a":"\n"}',
    event()[:-1] + ',"data":"\\udc00","datacontenttype":"text/plain"}',
    event() + "x",
    event() + event(),
    "\ufeff" + event(),
    *(
        event()[:-1] + f',"data":{data}}}'
        for data in (
            "", "nul", "tru", "+1", ".5", "1.", "1e", "1e+", "01", "-", "--1", "0x1", "NaN", "Infinity", "'a'", '"a', '"\\q"', '"\\u12"',
            "[", "[1", "[1,", "[1,]", "[,]", "[1 2]", "[1}", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', "{1:2}", '{"a" 1}', "{]",
            '{"a":1]', "]", "}", "[1]]", '"\t"', "[" * 129 + "]" * 129, '{"a":' * 129 + "1" + "}" * 129,
        )
    ),
]  # fmt: skip


def test_refused(events: ModuleType, subtests: pytest.Subtests) -> None:
    for text in REFUSED:
        with subtests.test(text=ascii(text)[-40:]), pytest.raises(PayloadError):
            events.parse_cloudevent(text)


@pytest.mark.parametrize(
    "data",
    ["[" * 128 + "]" * 128, '{"a":' * 128 + "1" + "}" * 128, "-0", "0.5e-10", "1E5", '"\\ud800"', "[[],{},[{}]]", '{"":{"":[]}}', "-12.5e+7", '""', "true", "false", "null", '[1,"]}",{"]":"}"}]'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_data_kept_as_it_is(events: ModuleType, data: str) -> None:
    record = parse(events, event()[:-1] + f',"data": {data} ,"after":1}}')
    assert record.payload == data.encode()
    assert record.extensions == {"after": 1}
    assert record.to_json().endswith(b',"data":' + data.encode() + b"}")


def test_invalid_utf8(events: ModuleType) -> None:
    for broken in (
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
    ):
        for text in (event(subject="@"), event(data="@")):
            with pytest.raises(PayloadError, match="UTF-8 at byte"):
                events.parse_cloudevent(text.encode().replace(b"@", broken))


def test_truncation_at_every_byte(events: ModuleType) -> None:
    data = FULL.strip().encode()
    events.parse_cloudevent(data)
    for size in range(len(data)):
        with pytest.raises(PayloadError):
            events.parse_cloudevent(data[:size])


@pytest.mark.parametrize("special", ['"', "\\", "/", "\n", "\x1f", "\u00e9", "\U0001f388", "x"])
def test_specials_at_every_place(events: ModuleType, special: str) -> None:
    """Texts are looked through 16 and 8 bytes at a time."""
    for length in range(36):
        for at in range(length + 1):
            text = "x" * at + special + "y" * (length - at)
            data = json.dumps({text: [text], "z": text})
            assert parse(events, event(subject="s", data=json.loads(data))).payload == data.encode()
            record = parse(events, event(data=text, datacontenttype="text/plain"))
            assert record.payload == text.encode()
            assert json.loads(record.to_json())["data"] == text
            if special < " ":
                with pytest.raises(PayloadError):
                    parse(events, event(data="@").replace("@", text))


def test_missing_time_is_now(events: ModuleType) -> None:
    events._set_clock(lambda: 1_700_000_000_123)
    assert parse(events, event()).time_us == 1_700_000_000_123_000
    assert parse(events, event(expirytime="1960-01-01T00:00:00Z")).expires_us == 1


def test_many_names_cost_little(events: ModuleType) -> None:
    members = {f"x{number}": None for number in range(50_000)}
    assert parse(events, event(**members)).extensions == {}


def test_mutations(both: tuple[ModuleType, ModuleType], same: Any, same_frame: Any) -> None:
    data = FULL.encode()
    chance = random.Random(11)
    pieces = [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"1", b"e", b"\\u00e9", b"\\ud83d", b"\xff",
        b"\xc3\xa9", b" ", b"data", b"\x00",
    ]  # fmt: skip
    accepted = 0
    for _ in range(12_000):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at : at + chance.choice((0, 1))] = chance.choice(pieces)
            else:
                del changed[at : at + chance.choice((1, 1, 2, 9))]
        kind, result = same(both, "parse_cloudevent", bytes(changed))
        if kind == "value":
            accepted += 1
            assert same_frame(both, result)[0] == "value"
        else:
            assert result is PayloadError
    assert 500 < accepted < 11_000


attribute = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=20).filter(
    lambda text: text.isprintable()
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
extension_values = st.booleans() | st.integers(-(2**31), 2**31 - 1) | attribute


@given(
    members=st.dictionaries(
        st.sampled_from(["subject", "id", "partitionkey", "datacontenttype", "time", "dataschema", "data_base64"])
        | attribute,
        json_values | attribute,
        max_size=6,
    ),
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_twins_agree(
    both: tuple[ModuleType, ModuleType], same: Any, same_frame: Any, members: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps({**MINIMAL, **members}, ensure_ascii=ascii_only, indent=indent)
    kind, result = same(both, "parse_cloudevent", text)
    if kind == "value":
        assert same_frame(both, result)[0] == "value"


@given(
    given_id=attribute,
    source=attribute,
    type_=attribute,
    subject=st.none() | attribute,
    extensions=st.dictionaries(st.text("abcdefgh0123", min_size=5, max_size=20), extension_values, max_size=4),
    data=json_values,
    kind=st.sampled_from(["application/json", "text/plain", "application/octet-stream"]),
)
def test_sdk_reads_ours_and_we_read_its(
    both: tuple[ModuleType, ModuleType],
    same: Any,
    given_id: str,
    source: str,
    type_: str,
    subject: str | None,
    extensions: Any,
    data: Any,
    kind: str,
) -> None:
    formats = pytest.importorskip("cloudevents.core.formats.json")
    payload = {
        "application/json": json.dumps(data).encode(),
        "text/plain": str(data).encode(errors="replace"),
        "application/octet-stream": b"\x00\xff",
    }[kind]
    state, record = same(
        both,
        "encode_record",
        payload,
        kind,
        id=given_id,
        subject=subject,
        extensions=extensions,
        time="2024-05-06T07:08:09.25Z",
    )
    assert state == "value"
    ours = same(both, "render_cloudevent", record, source, type_)[1]
    theirs = formats.JSONFormat().read(None, ours)
    assert (theirs.get_id(), theirs.get_source(), theirs.get_type(), theirs.get_subject()) == (
        given_id,
        source,
        type_,
        subject,
    )
    assert {name: theirs.get_extension(name) for name in extensions} == extensions
    assert theirs.get_time().isoformat() == "2024-05-06T07:08:09.250000+00:00"
    assert (
        theirs.get_data()
        == {
            "application/json": data,
            "text/plain": payload.decode(errors="replace"),
            "application/octet-stream": payload,
        }[kind]
    )
    if kind == "application/json" and data is None:
        return  # the SDK does not tell null from absent
    back = both[0].Frame(same(both, "parse_cloudevent", formats.JSONFormat().write(theirs))[1])[0]
    assert (back.id, back.source, back.type, back.subject, back.extensions) == (
        given_id,
        source,
        type_,
        subject,
        extensions,
    )
    assert back.time_us == 1_714_979_289_250_000
    assert json.loads(back.payload) == data if kind == "application/json" else back.payload == payload


@pytest.mark.parametrize("more", ["", ',"datacontenttype":"application/json"', ',"datacontenttype":"text/plain"'])
def test_an_event_without_data_has_none(more: str) -> None:
    from cloud_runtimes.codec import cloudevents

    result = cloudevents.decode(f'{{"specversion":"1.0","id":"1","source":"s","type":"t"{more}}}')
    assert result.data is None
    assert cloudevents.decode(cloudevents.encode(None, "s", "t")).data is None
    assert cloudevents.decode(cloudevents.encode("", "s", "t", content_type="text/plain")).data == ""


def test_codec_there_and_back() -> None:
    import datetime

    from cloud_runtimes.codec import cloudevents

    zone = datetime.timezone(datetime.timedelta(hours=2))
    encoded = cloudevents.encode(
        {"a": 1},
        "/s",
        "t",
        id="1",
        time=datetime.datetime(2024, 5, 6, 7, 8, 9, 5, zone),
        subject="x",
        extensions={"n": 5},
    )
    assert json.loads(encoded) == {
        **MINIMAL,
        "time": "2024-05-06T05:08:09.000005Z",
        "subject": "x",
        "datacontenttype": "application/json",
        "n": 5,
        "data": {"a": 1},
    }
    result = cloudevents.decode(encoded)
    assert (result.id, result.source, result.type, result.subject, result.data) == ("1", "/s", "t", "x", {"a": 1})
    assert "data" not in json.loads(cloudevents.encode(None, "/s", "t"))
    assert json.loads(cloudevents.encode(b"\x00", "/s", "t"))["data_base64"] == "AA=="
    with pytest.raises(InvalidArgumentError, match="time zone"):
        cloudevents.encode(None, "/s", "t", time=datetime.datetime(2024, 1, 1))
    with pytest.raises(PayloadError):
        cloudevents.decode(b"{}")


def test_more_attributes_than_an_event_may_have(
    both: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading ends where they are too many, and not where they end."""
    text = event(**{f"a{number}": "v" for number in range(100_000)})
    read, names = cloudevents_py._read_member, []

    def counted(data: bytes, at: int, name: str, members: Any) -> int:
        names.append(name)
        return read(data, at, name, members)

    monkeypatch.setattr(cloudevents_py, "_read_member", counted)
    for events in both:
        with pytest.raises(PayloadError, match="extensions"):
            events.parse_cloudevent(text)
    assert 1000 < len(names) < 10_000
    limit = 65_536 - len('{"a":"","b":""}') - 65_000
    for events in both:
        parse(events, event(a="v" * 65_000, b="w" * limit))
        with pytest.raises(PayloadError, match="extensions"):
            parse(events, event(a="v" * 65_000, b="w" * (limit + 1)))
