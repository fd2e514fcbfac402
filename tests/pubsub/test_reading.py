"""One message of a broker: whatever it is, reading it gives a frame, and on both cores the same one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes._native import events as chosen
from cloud_runtimes._native import events_py as twin
from cloud_runtimes.spi.broker import reading
from cloud_runtimes.spi.broker.policy import NO_HISTORY, DeliveryHistory
from cloud_runtimes.spi.broker.reading import LaterVersionError, read_count, read_message
from cloud_runtimes.spi.broker.redelivery import read_history, write_history
from tests.support.odd_messages import LATER, ODD, Odd, with_frame_header


def read(odd: Odd) -> Any:
    headers = {name.replace("ce:", "ce-"): value.decode(errors="replace") for name, value in odd.headers.items()}
    frame = read_message(odd.data, headers.get("content-type"), headers, topic="t", id="id-1", prefix="ce-")
    return chosen.Frame(frame)


@pytest.mark.parametrize("kernel", [chosen, twin], ids=["chosen", "python"])
def test_odd_messages_are_events(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> None:
    monkeypatch.setattr(reading, "kernel", kernel)
    for odd in ODD:
        (record,) = read(odd)
        assert record.payload == odd.data or not record.raw, odd.name
        assert record.content_type is None or record.content_type.isprintable(), odd.name
        if record.raw:
            assert record.id == "id-1", odd.name


def test_a_frame_of_a_later_version_is_told_from_text() -> None:
    with pytest.raises(LaterVersionError, match="version 2"):
        read_message(LATER, None, {}, topic="t", id="i", prefix="ce-")
    for data in (b"CRF\x02", b"CRF\x02\x01\x00\x00\x00\xff\xff", with_frame_header(0x2D), LATER[:12]):
        assert chosen.Frame(read_message(data, None, {}, topic="t", id="i", prefix="ce-"))[0].payload == data


@given(st.binary(max_size=64), st.dictionaries(st.sampled_from(["content-type", "ce-id", "ce-specversion"]), st.text()))
def test_any_message_is_read(data: bytes, headers: dict[str, str]) -> None:
    for body in (data, b"CRF\x01" + data, b'{"specversion":"1.0"' + data):
        frame = read_message(body, headers.get("content-type"), headers, topic="t", id="", prefix="ce-")
        assert len(chosen.Frame(frame)) >= 0


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**15), st.integers(0, 10**15), st.text())
def test_a_past_survives_its_header(deliveries: int, first: int, last: int, error: str) -> None:
    told = DeliveryHistory(first or None, last or None, error or None)
    count, found = read_history(write_history(deliveries, told))
    assert (count, found[:2]) == (deliveries, told[:2])


@pytest.mark.parametrize("text", ["", "x", "² 0 0 ", "-1 0 0 x", "1 2", "7" * 5000 + " 0 0 ", "1 " + "9" * 18 + " 0 "])
def test_a_past_of_another_program_is_none(text: str) -> None:
    assert read_history(text) == (0, NO_HISTORY)


def test_counts_of_other_programs() -> None:
    assert [read_count(each) for each in ("0", "17", 17, "9" * 13)] == [0, 17, 17, 10**13 - 1]
    for odd in ("²", "9" * 14, "7" * 5000, "-5", "1e3", "", " 7", None, -5, 2**62, 1.5, [1], {"a": 1}):
        assert read_count(odd) == 0, odd
