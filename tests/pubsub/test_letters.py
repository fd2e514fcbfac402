"""What a dead letter says, and what it keeps."""

from __future__ import annotations

import pytest

from cloud_runtimes._native import events
from cloud_runtimes.spi.events import cause_of, dead_letter
from cloud_runtimes.spi.pubsub import Cause, OutgoingBatch


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
    found = cause_of("dropped", ValueError("é" * 5000)).error
    assert found is not None
    assert 1022 <= len(found.encode()) <= 1024
    assert set(found.removeprefix("ValueError: ")) == {"é"}


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
