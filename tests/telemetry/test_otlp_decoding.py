"""OTLP in protobuf and JSON, read by us and by opentelemetry-proto, which knows the messages from elsewhere; and what is no OTLP."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cloud_runtimes.dashboard import otlp_json, rows
from cloud_runtimes.errors import PayloadError, ResourceExhaustedError
from cloud_runtimes.telemetry import json_records
from cloud_runtimes.telemetry.json_records import MAX_DEPTH, records

REQUESTS: dict[str, type[Message]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
# of profiles alone, and not stable: not read
ABSENT = {"string_value_strindex", "key_strindex", "entity_refs"}
IDS = {"traceId", "spanId", "parentSpanId"}
TEXTS = ["", "a", "ä€😀", "<script>", "x" * 200, "\0\n"]
DOUBLES = [0.0, -0.0, 1.5, -1e300, float("inf"), float("-inf"), float("nan")]


def fill(message: Message, chance: random.Random, depth: int = 0) -> None:
    """Give a message fields at random."""
    for field in message.DESCRIPTOR.fields:
        # on the way to the records nothing may be missing, else most requests would be empty
        if field.name in ABSENT or (depth > 2 and chance.random() < 0.4):
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE and depth > 9:
            continue
        count = chance.randrange(4) if field.is_repeated else 1
        for _ in range(count):
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                fill(inner, chance, depth + 1)
            elif field.is_repeated:
                getattr(message, field.name).append(value(field, chance))
            else:
                setattr(message, field.name, value(field, chance))


def value(field: FieldDescriptor, chance: random.Random) -> Any:
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if kind == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.choice([0, 1, 8, 16, 300]))
    if kind == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return chance.choice(DOUBLES)
    if kind == FieldDescriptor.TYPE_ENUM:
        return chance.choice([each.number for each in field.enum_type.values])
    bits = 64 if "64" in _KINDS[kind] else 32
    if "u" in _KINDS[kind] or _KINDS[kind].startswith("fixed"):
        return chance.choice([0, 1, 127, 128, (1 << bits) - 1, chance.getrandbits(bits)])
    top = 1 << bits - 1
    return chance.choice([0, 1, -1, top - 1, -top, chance.getrandbits(bits) - top])


_KINDS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def oracle(message: Message) -> dict[str, Any]:
    """Return what protobuf's own JSON is, with ids as OTLP has them."""

    def ids(value: Any) -> Any:
        if isinstance(value, list):
            return [ids(each) for each in value]
        if isinstance(value, dict):
            return {
                key: base64.b64decode(each).hex() if key in IDS and isinstance(each, str) else ids(each)
                for key, each in value.items()
            }
        return value

    known: dict[str, Any] = ids(json_format.MessageToDict(message, use_integers_for_enums=True))
    return known


def same(ours: Any, theirs: Any) -> bool:
    """Compare, with -0.0 unlike 0.0."""
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


@pytest.mark.promise("F4")
@pytest.mark.parametrize("signal", REQUESTS)
def test_random_requests_are_read_as_opentelemetry_reads_them(signal: str, rounds: Any) -> None:
    chance = random.Random(signal)
    seen = 0
    for _ in range(rounds(60, 3_000)):
        message = REQUESTS[signal]()
        fill(message, chance)
        body = message.SerializeToString()
        expected = oracle(message)
        decoded = records(signal, body)
        assert same(decoded, expected)
        assert same(otlp_json.decode(signal, json.dumps(expected).encode()), expected)
        seen += len(rows.read(signal, decoded).rows) + rows.read(signal, decoded).rejected
    assert seen > 100


def messages(descriptor: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if descriptor.full_name not in seen:
        seen[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None and field.name not in ABSENT:
                messages(field.message_type, seen)
    return seen


def test_no_field_of_opentelemetry_is_unknown(subtests: pytest.Subtests) -> None:
    for signal in REQUESTS:
        with subtests.test(signal=signal):
            theirs = {
                field.json_name
                for descriptor in messages(REQUESTS[signal].DESCRIPTOR, {}).values()
                for field in descriptor.fields
                if field.name not in ABSENT
            }
            ours = {name for fields in json_records.MESSAGES.values() for name, _ in fields.values()}
            assert theirs <= ours


@pytest.mark.parametrize("signal", REQUESTS)
def test_what_is_cut_off_or_changed_is_refused_or_read_but_never_breaks(signal: str, rounds: Any) -> None:
    chance = random.Random(f"broken {signal}")
    refused = accepted = 0
    for _ in range(rounds(30, 1_000)):
        message = REQUESTS[signal]()
        fill(message, chance)
        body = bytearray(message.SerializeToString())
        if not body:
            continue
        for _ in range(30):
            broken = body[: chance.randrange(len(body))] if chance.random() < 0.5 else bytearray(body)
            for _ in range(chance.randrange(3)):
                if broken:
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
            try:
                decoded = records(signal, bytes(broken))
            except PayloadError:
                refused += 1
                continue
            accepted += 1
            rows.read(signal, decoded)
            try:
                theirs = oracle(REQUESTS[signal].FromString(bytes(broken)))
            except (DecodeError, UnicodeDecodeError):
                pytest.fail(f"refused by protobuf: {bytes(broken).hex()}")
            # a oneof within a repeated message may hold what only profiles know
            assert same(decoded, theirs) or b"trindex" in json.dumps(theirs).encode() or lost(decoded, theirs)
    assert refused > 100
    assert accepted > 10


def lost(ours: Any, theirs: Any) -> bool:
    """Return whether ours is theirs but for what stands in fields that are not read, or explicit defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(
            key in ("entityRefs", "keyStrindex", "stringValueStrindex")
            or (key in theirs and key in ours and lost(ours[key], theirs[key]))
            or (key not in theirs and ours[key] in (0, "0", 0.0, "", False, [], {}))
            for key in {*ours, *theirs}
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(lost, ours, theirs))
    return same(ours, theirs)


def nested(depth: int) -> bytes:
    """Return a request of logs whose body is arrays within arrays."""
    body = b""
    for _ in range(depth):
        body = field(5, field(1, body))
    return field(1, field(2, field(2, field(5, body))))


def field(number: int, data: bytes) -> bytes:
    size, out = len(data), bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + data


def test_what_is_no_protobuf(subtests: pytest.Subtests) -> None:
    for body, reason in (
        (b"\x0a", "ends in the middle"),
        (b"\x0a\x05\x0a", "ends in the middle"),
        (b"\x0a\xff\xff\xff\xff\x7f", "ends in the middle"),
        (b"\x0a" + b"\xff" * 11, "more than ten bytes"),
        (b"\x08\x01", "resourceLogs has another wire type"),
        (b"\x0d\0\0\0\0", "resourceLogs has another wire type"),
        (field(1, field(2, field(2, b"\x0a\x01a"))), "timeUnixNano has another wire type"),
        (b"\x0b\x0c", "without a number or type"),
        (b"\x0f", "without a number or type"),
        (b"\x02\x00", "without a number or type"),
        (b"\x7d\0\0", "ends in the middle"),
        (b"\x79\0\0\0\0\0\0\0", "ends in the middle"),
        (b"\x7a\x05abc", "ends in the middle"),
        (field(1, field(2, field(2, b"\x09\0\0\0"))), "ends in the middle"),
        (field(1, field(2, field(2, b"\x1a\x02\xc3\x28"))), "severityText is no UTF-8"),
        (nested(60), f"deeper than {MAX_DEPTH}"),
        (nested(20_000), f"deeper than {MAX_DEPTH}"),
        (b"GET / HTTP/1.1", "no OTLP"),
        (b'{"resourceLogs": []}', "no OTLP"),
    ):
        with subtests.test(body=body, reason=reason), pytest.raises(PayloadError, match=reason):
            records("logs", body)


def test_unknown_fields_are_skipped() -> None:
    record = b"\xf8\x07\x05" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4) + b"\xfa\x07\x03abc" + b"\x1a\x04INFO"
    decoded = records("logs", field(1, field(2, field(2, record))))
    assert decoded["resourceLogs"][0]["scopeLogs"][0]["logRecords"] == [{"severityText": "INFO"}]
    given = {"new": {"a": 1}, "resourceLogs": [{"scopeLogs": [{"logRecords": [{"x": 1, "severityText": None}]}]}]}
    assert otlp_json.decode("logs", json.dumps(given).encode())["resourceLogs"][0]["scopeLogs"] == [
        {"logRecords": [{}]}
    ]


def test_numbers_that_repeat_may_stand_one_by_one() -> None:
    packed = field(6, struct.pack("<2Q", 3, 4))
    single = b"\x31" + struct.pack("<Q", 3) + b"\x31" + struct.pack("<Q", 4)
    for body in (packed, single, b"\x31" + struct.pack("<Q", 3) + field(6, struct.pack("<Q", 4))):
        decoded = records("metrics", field(1, field(2, field(2, field(9, field(1, body))))))
        metric = decoded["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
        assert metric["histogram"]["dataPoints"] == [{"bucketCounts": ["3", "4"]}]


def test_a_message_that_comes_twice_is_merged_and_of_one_of_several_the_last_counts() -> None:
    twice = field(5, field(1, b"one")) + field(5, b"\x18\x07")  # a text, then an integer
    decoded = records("logs", field(1, field(2, field(2, twice))))
    theirs = oracle(ExportLogsServiceRequest.FromString(field(1, field(2, field(2, twice)))))
    assert decoded == theirs
    assert decoded["resourceLogs"][0]["scopeLogs"][0]["logRecords"] == [{"body": {"intValue": "7"}}]


def test_a_request_of_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_records, otlp_json):
        monkeypatch.setattr(module, "MAX_PARTS", 1_000)
    with pytest.raises(ResourceExhaustedError, match="more than 1,000 parts"):
        records("logs", b"\x0a\x00" * 1_001)
    with pytest.raises(ResourceExhaustedError, match="more than 1,000 parts"):
        records("metrics", field(1, field(2, field(2, field(9, field(1, field(6, bytes(8 * 1_001))))))))
    with pytest.raises(ResourceExhaustedError, match="more than 1,000 parts"):
        otlp_json.decode("logs", json.dumps({"resourceLogs": [{}] * 1_001}).encode())


def a_span(**fields: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()


def test_what_is_no_json_of_otlp(subtests: pytest.Subtests) -> None:
    for body, reason in (
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be an object"),
        (b'"text"', "must be an object"),
        (b'{"resourceSpans": {}}', "resourceSpans must be a list"),
        (b'{"resourceSpans": [1]}', "must be an object"),
        (b'{"resourceSpans": [null]}', "must be an object"),
        (a_span(name=1), "name must be text"),
        (a_span(traceId="xyz"), "traceId must be hexadecimal"),
        (a_span(traceId="abc"), "traceId must be hexadecimal"),
        (a_span(traceId="a b "), "traceId must be hexadecimal"),
        (a_span(startTimeUnixNano="1.5"), "startTimeUnixNano must be an integer"),
        (a_span(startTimeUnixNano=-1), "startTimeUnixNano must be an integer"),
        (a_span(startTimeUnixNano=True), "startTimeUnixNano must be an integer"),
        (a_span(startTimeUnixNano="9" * 30), "startTimeUnixNano must be an integer"),
        (a_span(kind="SPAN_KIND_SERVER"), "kind must be an integer"),
        (a_span(attributes=[{"key": "a", "value": {"boolValue": 1}}]), "boolValue must be true or false"),
        (a_span(attributes=[{"key": "a", "value": {"doubleValue": "x"}}]), "doubleValue must be a number"),
        (a_span(attributes=[{"key": "a", "value": {"bytesValue": "a"}}]), "bytesValue must be base64"),
        (a_span(attributes=[{"key": "a", "value": "x"}]), "must be an object"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "JSON"),
    ):
        with subtests.test(body=body, reason=reason), pytest.raises(PayloadError, match=reason):
            otlp_json.decode("traces", body)


def test_json_nested_too_deeply() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(60):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(PayloadError, match="nested deeper than"):
        otlp_json.decode("traces", a_span(attributes=[{"key": "a", "value": value}]))


def test_what_json_may_write_in_several_ways() -> None:
    (span,) = otlp_json.decode(
        "traces", a_span(traceId="ABCDEF", startTimeUnixNano=5, kind="2", attributes=[{"value": {"bytesValue": "_-8"}}])
    )["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span == {
        "traceId": "abcdef",
        "startTimeUnixNano": "5",
        "kind": 2,
        "attributes": [{"value": {"bytesValue": "/+8="}}],
    }
