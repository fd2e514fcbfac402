"""Views of a batch for drivers: parts by key, events as JSON and as bytes of a protocol; one body for both cores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes._native import events as kernel
from cloud_runtimes._native import events_py
from cloud_runtimes.spi.pubsub import OutgoingBatch

KEYS = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1))


def frame(*keys: str | None) -> bytes:
    records = [
        kernel.encode_record(
            b'{"n":%d}' % number, "application/json", key=key, id=None if number % 2 else f"id-{number}"
        )
        for number, key in enumerate(keys)
    ]
    return kernel.build_frame("shop", "made", "orders", records)


@given(st.lists(KEYS), st.integers(1, 9))
def test_partition(keys: list[Any], parts: int) -> None:
    body = frame(*keys)
    *keyed, keyless = kernel.Frame(body).partition(parts)
    assert len(keyed) == parts
    assert list(keyless) == [index for index, key in enumerate(keys) if key is None]
    assert sorted(index for part in keyed for index in part) == [n for n, key in enumerate(keys) if key is not None]
    homes: dict[str, int] = {}
    for number, part in enumerate(keyed):
        assert list(part) == sorted(part)
        for index in part:
            assert homes.setdefault(keys[index], number) == number
    assert list(map(list, events_py.Frame(body).partition(parts))) == [*map(list, keyed), list(keyless)]


def test_many_keys_are_spread() -> None:
    *keyed, _ = kernel.Frame(frame(*[f"user-{number}" for number in range(800)])).partition(8)
    assert all(60 < len(part) < 140 for part in keyed)


def test_structured() -> None:
    body = frame("a", None, "b")
    decoded = kernel.Frame(body)
    assert decoded.structured() == [decoded[index].to_json() for index in range(3)]
    other = frame(None)
    assert OutgoingBatch("orders", [body, other], 4).structured() == [
        *decoded.structured(),
        kernel.Frame(other)[0].to_json(),
    ]


def test_a_template() -> None:
    body = frame("a", None)
    result = kernel.Frame(body)
    template = [
        b"HPUB t ",
        range(5, 8),
        b" ",
        range(5, 9),
        b"\r\n",
        b"Nats-Msg-Id: ",
        "id",
        b"\r\n\r\n",
        "json",
        b"\r\n",
    ]
    wanted = b""
    for index in range(2):
        head = b"Nats-Msg-Id: " + result[index].id.encode() + b"\r\n\r\n"
        json = result[index].to_json()
        wanted += b"HPUB t %d %d\r\n" % (len(head), len(head) + len(json)) + head + json + b"\r\n"
    assert result.render(template) == wanted == OutgoingBatch("t", [body], 2).render(template)
    assert result.render([b"<", "key", b">"]) == b"<a><>"
    assert result.render(["time", b"|"]) == b"".join(b"%b|" % each.time_text.encode() for each in result)
    assert result.render([]) == b""
    part = next(number for number, places in enumerate(result.partition(7)) if 0 in places)
    assert result.render([(range(1, 2), 1), ("key", 7), b"|"]) == b"\x01%d|\0|" % part
    assert result.render([(range(1, 4), 2), (range(2, 3), 1), ("key", 7), b"|"]) == b"\0\3\1%d|\0\2\0|" % part
    sizes = [(range(5), size) for size in (1, 2, 4, 8)]
    with pytest.raises(OverflowError, match="302 bytes does not fit 1 bytes"):
        result.render([bytes(300), b"<", "key", b"", b"", sizes[0]])
    rest = [bytes(300), b"<", "key", b"", b"", *sizes[1:]]
    wanted = b"".join(
        bytes(300) + b"<" + key + b"".join((301 + len(key)).to_bytes(width, "big") for width in (2, 4, 8))
        for key in (b"a", b"")
    )
    assert result.render(rest) == wanted


@given(
    st.lists(KEYS, max_size=5),
    st.lists(
        st.sampled_from(
            [
                b"",
                b"xy",
                "json",
                "id",
                "key",
                "time",
                ("key", 5),
                ("key", 2**31 - 1),
                range(1),
                (range(1), 1),
                (range(1), 8),
            ]
        ),
        max_size=12,
    ),
)
def test_a_template_is_the_same_in_both_cores(keys: list[Any], tail: list[Any]) -> None:
    body, template = frame(*keys), [b"first", *tail]
    assert kernel.Frame(body).render(template) == events_py.Frame(body).render(template)


def test_what_is_no_template(subtests: pytest.Subtests) -> None:
    for template, message in (
        (["data"], "not 'data'"),
        ([1], "not 1"),
        ([range(2)], "part 0 of the template is the length of parts that are not there"),
        ([range(-1, 1)], "that are not there"),
        ([b"", range(1), range(1, 2)], "part 2 of the template is the length of a length"),
        ([b""] * 33, "at most 32"),
        ([b"", (range(1), 3)], "part 1 of the template: a binary length has 1, 2, 4 or 8 bytes"),
        ([(range(1), 2)], "part 0 of the template is the length of a length"),
        ([b"", (1, 2)], "not 1"),
        ([("key", 0)], "1, 2, 4 or 8"),
        ([("id", 2)], "not 'id'"),
    ):
        with subtests.test(template=template, message=message), pytest.raises(ValueError, match=message):
            kernel.Frame(frame("a")).render(template)
