"""The payload rules: which bytes a value becomes under a content type, and what comes back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cloud_runtimes.codec import msgpack
from cloud_runtimes.codec.payload import decode_payload, encode_payload
from cloud_runtimes.errors import InvalidArgumentError, PayloadError

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"


@dataclasses.dataclass
class Order:
    id: int


def test_in(subtests: pytest.Subtests) -> None:
    for data, content_type, expected in (
        (b"\xff", None, (b"\xff", OCTETS)),
        (b"\xff", JSON, (b"\xff", JSON)),
        (b"<a/>", "application/xml", (b"<a/>", "application/xml")),
        (bytearray(b"x"), None, (b"x", OCTETS)),
        (memoryview(b"abcd")[::2], "image/png", (b"ac", "image/png")),
        ("é", "text/plain", ("é".encode(), "text/plain")),
        ("é", "Text/HTML; charset=utf-8", ("é".encode(), "Text/HTML; charset=utf-8")),
        ("é", None, ('"é"'.encode(), JSON)),
        ("a", JSON, (b'"a"', JSON)),
        (None, None, (b"null", JSON)),
        ({"a": [1]}, None, (b'{"a":[1]}', JSON)),
        ([1], "Application/JSON; Charset=UTF-8", (b"[1]", "Application/JSON; Charset=UTF-8")),
        ({"a": 1}, "application/cloudevents+json", (b'{"a":1}', "application/cloudevents+json")),
        (1, "application/vnd.x+JSON;v=1", (b"1", "application/vnd.x+JSON;v=1")),
        (Order(1), None, (b'{"id":1}', JSON)),
        (Order(1), MSGPACK, (msgpack.encode({"id": 1}), MSGPACK)),
        ("<é/>", "application/xml", ("<é/>".encode(), "application/xml")),
        ("<a/>", "application/atom+xml;v=1", (b"<a/>", "application/atom+xml;v=1")),
        ("a", "application/x-msgpack", (b"\xa1a", "application/x-msgpack")),
        ({}, 'application/json;a="b;c\\"d"', (b"{}", 'application/json;a="b;c\\"d"')),
    ):
        with subtests.test(data=data, content_type=content_type):
            encoded = encode_payload(data, content_type)
            assert encoded == expected
            assert type(encoded[0]) is bytes


def test_bytes_are_copied_from_what_may_change() -> None:
    source = bytearray(b"ab")
    encoded, _ = encode_payload(source, None)
    source[0] = 0
    assert encoded == b"ab"


def test_values_that_do_not_fit(subtests: pytest.Subtests) -> None:
    for data, content_type, match in (
        ({"a": 1}, "text/plain", "does not encode a value of type dict.*bytes pass as they are"),
        (1, "text/plain", "type int"),
        ("a", "application/pdf", "type str"),
        ({}, "application/xml", "type dict"),
        ({}, OCTETS, "type dict"),
        (None, "image/png", "type NoneType"),
        ("\ud800", "text/plain", "lone surrogate"),
        ({"a": float("nan")}, None, r"\$\.a: NaN"),
        ({"a": {1j}}, MSGPACK, r"\$\.a\[0\]: an instance of complex"),
    ):
        with subtests.test(data=data, content_type=content_type), pytest.raises(PayloadError, match=match):
            encode_payload(data, content_type)


BAD_TYPES = [
    "",
    "json",
    "/",
    "a/",
    "/b",
    "a/b/c",
    "application/json\r\nX: y",
    "application/json\n",
    "text/plain; a=\x00",
    "text/plän",
    "text /plain",
    "text/plain; =x",
    "text/plain; a=b c",
    'text/plain; a="b',
    " text/plain",
    "text/" + "x" * 251,
    "application/json;" + " " * 300,
    5,
    b"text/plain",
    ["text/plain"],
]


def test_no_media_type(subtests: pytest.Subtests) -> None:
    for content_type in BAD_TYPES:
        with subtests.test(content_type=content_type):
            for data in (b"", {}, "a"):
                with pytest.raises(InvalidArgumentError, match="content_type") as caught:
                    encode_payload(data, content_type)
                assert not isinstance(caught.value, PayloadError)
            with pytest.raises(InvalidArgumentError, match="content_type"):
                decode_payload(b"1", content_type)


def test_the_longest_media_type() -> None:
    longest = "text/" + "x" * 250
    assert encode_payload("a", longest) == (b"a", longest)


def test_out(subtests: pytest.Subtests) -> None:
    for data, content_type, type_, expected in (
        (b'{"a":1}', JSON, None, {"a": 1}),
        (b"[1]", "application/vnd.a+json; x=y", None, [1]),
        (b'{"id":1}', JSON, Order, Order(1)),
        (b"[1]", JSON, bytes, b"[1]"),
        (b"null", JSON, None, None),
        (b"null", JSON, Order | None, None),
        (b"\x91\x01", MSGPACK, None, [1]),
        (b"\x81\xa2id\x01", "APPLICATION/x-msgpack", Order, Order(1)),
        ("é".encode(), "text/plain", None, "é"),
        (b"\xff", "text/plain", bytes, b"\xff"),
        (b"a", "text/plain", str, "a"),
        ("<é/>".encode(), "application/xml", None, "<é/>"),
        (b"<a/>", "image/svg+XML; charset=utf-8", str, "<a/>"),
        (b"\xfe\xff", "application/xml", None, b"\xfe\xff"),
        (b"\xff", "application/atom+xml", bytes, b"\xff"),
        (b"\xff", OCTETS, None, b"\xff"),
        (b"\xff", OCTETS, bytes, b"\xff"),
        (b"\xff", OCTETS, Any, b"\xff"),
        (b"1", None, None, b"1"),
        (b"1", "image/png", None, b"1"),
    ):
        with subtests.test(data=data, content_type=content_type):
            assert decode_payload(data, content_type, type_) == expected


def test_out_refused(subtests: pytest.Subtests) -> None:
    for data, content_type, type_, match in (
        (b"{", JSON, None, "not JSON"),
        (b"\xc1", MSGPACK, None, "not MessagePack"),
        (b"\xff", "text/plain", None, "not valid UTF-8"),
        (b"\xff", "text/xml", None, "not valid UTF-8"),
        (b"\xff", "application/xml", str, "not valid UTF-8"),
        (b'{"id":"1"}', JSON, Order, r"\$\.id: expected int, got str"),
        (b"\x81\xa2id\xa11", MSGPACK, Order, r"\$\.id: expected int, got str"),
        (b"1", "text/plain", int, "expected int, got str"),
        (b"1", OCTETS, int, "stands for bytes.*expected int, got bytes.*give type=bytes"),
        (b"1", None, str, "stands for bytes"),
    ):
        with subtests.test(data=data, content_type=content_type), pytest.raises(PayloadError, match=match):
            decode_payload(data, content_type, type_)


def test_kinds_are_not_remembered_without_end() -> None:
    from cloud_runtimes.codec import payload

    for i in range(1000):
        assert decode_payload(b"1", f"application/json; v={i}") == 1
    assert len(payload._kinds) <= payload._TOO_MANY_KINDS
