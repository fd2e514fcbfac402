"""Messages of a broker as records: binary mode, dead letters, and frames that are damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events
from cloud_runtimes._native import events as chosen
from cloud_runtimes._native import events_py as twin
from cloud_runtimes.errors import PayloadError
from cloud_runtimes.spi.broker import reading
from cloud_runtimes.spi.broker.policy import NO_HISTORY, DeliveryHistory
from cloud_runtimes.spi.broker.reading import LaterVersionError, read_count, read_message
from cloud_runtimes.spi.broker.redelivery import read_history, write_history
from cloud_runtimes.spi.events import cause_of, dead_letter, make_event, read_binary, to_binary
from cloud_runtimes.spi.pubsub import Cause, OutgoingBatch
from tests.support.odd_messages import LATER, ODD, Odd, with_frame_header
from tests.support.waiting import until


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


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**15), st.integers(0, 10**15), st.text(), st.booleans())
def test_a_past_survives_its_header(deliveries: int, first: int, last: int, error: str, redriven: bool) -> None:
    history = DeliveryHistory(first or None, last or None, error or None, redriven)
    count, parsed = read_history(write_history(deliveries, history))
    assert (count, parsed[:2], parsed.redriven) == (deliveries, history[:2], redriven)


@pytest.mark.parametrize("text", ["", "x", "² 0 0 ", "-1 0 0 x", "1 2", "7" * 5000 + " 0 0 ", "1 " + "9" * 18 + " 0 "])
def test_a_past_of_another_program_is_none(text: str) -> None:
    assert read_history(text) == (0, NO_HISTORY)


def test_counts_of_other_programs() -> None:
    assert [read_count(each) for each in ("0", "17", 17, "9" * 13)] == [0, 17, 17, 10**13 - 1]
    for odd in ("²", "9" * 14, "7" * 5000, "-5", "1e3", "", " 7", None, -5, 2**62, 1.5, [1], {"a": 1}):
        assert read_count(odd) == 0, odd


# -- cloudEvents in binary mode, for drivers whose broker has headers


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "cloudEvents:"])
def test_an_event_survives_as_headers_and_payload(prefix: str) -> None:
    event = make_event(
        b'{"n":1}',
        "application/json",
        "orders",
        id="e-1",
        type="order.placed",
        subject="o/1",
        time="2026-11-27T10:00:00Z",
        key="k",
        extensions={"priority": 7, "urgent": True},
    )
    headers, payload = to_binary(event, prefix=prefix)
    assert (headers[f"{prefix}specversion"], headers[f"{prefix}partitionkey"]) == ("1.0", "k")
    assert (headers[f"{prefix}priority"], headers[f"{prefix}urgent"]) == ("7", "true")
    back = read_binary(headers, payload, "orders", prefix=prefix)
    for name in ("id", "source", "type", "subject", "time_text", "key", "content_type", "payload"):
        assert getattr(back, name) == getattr(event, name), name


def test_a_message_without_attributes_is_refused() -> None:
    with pytest.raises(PayloadError, match="ce-specversion"):
        read_binary({"content-type": "text/plain"}, b"x", "orders")


# -- what a dead letter says, and what it keeps


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\nlines\x00\ud800\uffff end"), "ValueError: two lines    end"),
        (KeyError(), "KeyError"),
        (Mute(), "Mute"),
    ],
)
def test_an_error_as_an_attribute(error: Exception, text: str) -> None:
    assert cause_of("deliveries", error) == Cause("deliveries", text)


def test_a_long_error_is_cut_between_characters() -> None:
    message = cause_of("dropped", ValueError("é" * 5000)).error
    assert message is not None
    assert 1022 <= len(message.encode()) <= 1024
    assert set(message.removeprefix("ValueError: ")) == {"é"}


@pytest.mark.parametrize("raw", [False, True])
def test_the_event_stays_what_it_was(raw: bool) -> None:
    given = {
        "id": "one",
        "time": "2026-01-02T03:04:05.678901Z",
        "key": "k",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "type": "a.b",
        "source": "/here",
        "subject": "s",
        "metadata": {"m": "1"},
        "expires": 1_900_000_000_000_000,
        "raw": raw,
    }
    record = events.encode_record(b"\x00\xff", "application/x", extensions={"level": 2}, **given)
    read = events.Frame(events.build_frame("src", "t", "topic", [record]))[0]
    letter = dead_letter(read, Cause("dropped"), topic="t", group="g")
    says = {"level": 2, "dlreason": "dropped", "dltopic": "t", "dlgroup": "g"}
    encoded = events.encode_record(b"\x00\xff", "application/x", extensions=says, **given)
    batch = OutgoingBatch.of("dead", [letter])
    assert (batch.raw, len(batch), [events.Frame(frame).record_bytes(0) for frame in batch.frames]) == (
        raw,
        1,
        [encoded],
    )
    assert [(each.id, each.source, each.topic, each.extensions) for each in batch] == [("one", "/here", "dead", says)]
    # a dead letter that is dropped once more tells of that alone
    second = dead_letter(
        letter, Cause("deliveries", "E: no"), topic="dead", group="g", count=3, first_us=0, last_us=1_500_000
    )
    assert second.extensions == {
        "level": 2,
        "dlreason": "deliveries",
        "dlerror": "E: no",
        "dlcount": 3,
        "dlfirst": "1970-01-01T00:00:00.000000Z",
        "dllast": "1970-01-01T00:00:01.500000Z",
        "dltopic": "dead",
        "dlgroup": "g",
    }


# -- frames of the log that cannot be read, by a flipped byte on the disk or by a later version: neither their group nor others stop for them

SOON = 30.0


class _Sqlite:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._home: Path = request.getfixturevalue("home")
        self.client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(self._home)}})

    def spoil(self, body: bytes) -> bytes:
        """Change the bytes of the first frame; return those that it had."""
        (path,) = self._home.glob("*.db")
        with sqlite3.connect(path, timeout=30) as connection:
            ((id, before),) = connection.execute("SELECT id, body FROM frames ORDER BY id LIMIT 1").fetchall()
            connection.execute("UPDATE frames SET body = ? WHERE id = ?", (body, id))
        connection.close()
        return bytes(before)

    def close(self) -> None:
        self.client.close()


class _Postgres:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        from tests.support.harnesses.postgres import PostgresHome

        self._home = PostgresHome(request.getfixturevalue("postgres_url"))
        self.client = self._home.client()

    def spoil(self, body: bytes) -> bytes:
        """Change the bytes of the first frame; return those that it had."""
        frames, run = f"{self._home.schema}.frames", self._home._connection.execute
        ((id, before),) = run(f"SELECT id, body FROM {frames} ORDER BY id LIMIT 1").fetchall()
        run(f"UPDATE {frames} SET body = %s WHERE id = %s", (body, id))
        return bytes(before)

    def close(self) -> None:
        self._home.close()


LOGS: dict[str, Any] = {"sqlite": _Sqlite, "postgres": _Postgres}


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> Iterator[Any]:
    harness = LOGS[request.param](request)
    yield harness
    harness.close()


def spoiled(log: Any, body: bytes) -> tuple[Any, bytes]:
    """Publish three events, of which the frame of the first two cannot be read; return the service and what the frame had."""
    pubsub = log.client.pubsub
    pubsub.publish_bulk("bus", "t", [1, 2])
    before = log.spoil(body)
    pubsub.publish("bus", "t", 3)
    return pubsub, before


@pytest.mark.parametrize("body", [b"CRF\x01\x02damaged", LATER], ids=["damaged", "later"])
def test_it_becomes_a_dead_letter(log: Any, body: bytes) -> None:
    pubsub, _ = spoiled(log, body)
    with pubsub.subscribe("bus", "dead") as letters, pubsub.subscribe("bus", "t", dead_letter_topic="dead") as sub:
        event = sub.receive(SOON)
        assert event.data == 3
        event.ack()
        letter = letters.receive(SOON)
        assert letter.data == body
        assert (letter.extensions["dlreason"], letter.extensions["dltopic"]) == ("undecodable", "t")
        letter.ack()
        assert letters.receive(0.1) is None
    with pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(0.1) is None


def test_without_a_dead_letter_topic_it_is_tried_again(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    pubsub, _ = spoiled(log, b"CRF\x01\x02damaged")
    with pubsub.subscribe("bus", "t", max_deliveries=2) as sub:
        event = sub.receive(SOON)
        assert event.data == 3
        event.ack()
        until(lambda: "1 events are lost, since they cannot be read" in caplog.text)
        assert sub.receive(0.1) is None
    assert "2 events cannot be read" in caplog.text


def test_what_is_mended_is_delivered(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    pubsub, before = spoiled(log, LATER)
    with pubsub.subscribe("bus", "t") as sub:
        assert sub.receive(SOON).data == 3
        assert "2 events cannot be read: frame: version 2" in caplog.text
        log.spoil(before)
        events = [sub.receive(SOON), sub.receive(SOON)]
        assert {(event.data, event.delivery_count) for event in events} == {(1, 2), (2, 2)}
