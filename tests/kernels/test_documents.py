"""A record that points into a CloudEvent's JSON: in both twins what the frame of the same document gives, whatever the input."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.errors import PayloadError
from cloud_runtimes.pubsub import Event
from tests.kernels.conftest import FIELDS, load, outcome, read_field
from tests.kernels.test_cloudevents import FULL, MINIMAL, REFUSED, event

BINARY = event(data_base64="AAECAwQF", datacontenttype="image/png", time="2024-05-06T07:08:09.123456Z")
TEXT = event(data='a "quoted" line\n€', datacontenttype="text/plain", subject="ü", ext="\\")
UUID = event(id="018f4e5c-7a1b-7c3d-8e4f-0123456789ab", data=[1, {"a": "b"}], time="2024-05-06T07:08:09Z")
DOCUMENTS = [FULL, BINARY, TEXT, UUID, event()]


@pytest.fixture
def module(twin: str) -> Iterator[ModuleType]:
    """The events kernel with a clock that stands."""
    found = load(twin, "events")
    found._set_clock(lambda: 1_700_000_000_000)
    yield found
    found._set_clock(None)


def said(function: Callable[[], Any]) -> tuple[str, Any]:
    """A value, or an error with its message."""
    try:
        return "value", function()
    except Exception as error:
        return type(error).__name__, str(error)


def values(record: Any) -> list[Any]:
    return [*(read_field(record, name) for name in FIELDS), outcome(record.to_json)]


def from_document(module: ModuleType, data: Any) -> tuple[str, Any]:
    return said(lambda: values(module.read_cloudevent(data)))


def from_frame(module: ModuleType, data: Any) -> tuple[str, Any]:
    return said(lambda: values(module.Frame(module.parse_cloudevent(data))[0]))


@pytest.mark.parametrize("text", DOCUMENTS, ids=["full", "binary", "text", "uuid", "minimal"])
@pytest.mark.parametrize("kind", [str, bytes, bytearray, memoryview])
def test_same_as_its_frame(module: ModuleType, text: str, kind: Any) -> None:
    data = text if kind is str else kind(text.encode())
    found = from_document(module, data)
    assert found[0] == "value"
    assert found == from_frame(module, data)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text)[-40:])
def test_refused_alike(module: ModuleType, text: str) -> None:
    found = from_document(module, text)
    assert found[0] == "PayloadError"
    assert found == from_frame(module, text)


@pytest.mark.parametrize(
    "data", [5, None, ["{}"], "\ud800", pytest.param(memoryview(b"ab")[::2], id="memoryview")], ids=ascii
)
def test_no_document(module: ModuleType, data: Any) -> None:
    found = from_document(module, data)
    assert found[0] == "PayloadError"
    assert found == from_frame(module, data)


@pytest.mark.parametrize("text", DOCUMENTS[:4], ids=["full", "binary", "text", "uuid"])
def test_truncation_raises_at_decode(module: ModuleType, text: str) -> None:
    data = text.strip().encode()
    for size in range(len(data)):
        with pytest.raises(PayloadError):
            module.read_cloudevent(data[:size])


def test_mutations(both: tuple[ModuleType, ModuleType], rounds: Any) -> None:
    chance = random.Random(23)
    pieces = [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"1", b"\\u00e9", b"\\ud83d", b"\xff", b"\xc3\xa9",
        b"\x00",
    ]  # fmt: skip
    accepted = 0
    count = rounds(3_000, 100_000)
    for number in range(count):
        changed = bytearray(DOCUMENTS[number % 4].encode())
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at : at + chance.choice((0, 1))] = chance.choice(pieces)
            else:
                del changed[at : at + chance.choice((1, 1, 2, 9))]
        ours, reference = (from_document(module, bytes(changed)) for module in both)
        assert ours[0] == reference[0], changed
        assert ours == from_frame(both[0], bytes(changed))
        if ours[0] == "value":
            accepted += 1
            assert ours == reference
    assert count * 0.05 < accepted < count * 0.95


def test_what_changes_is_copied(module: ModuleType) -> None:
    data = bytearray(UUID.encode())
    record = module.read_cloudevent(memoryview(data))
    expected = values(record)
    data[:] = b"x" * len(data)
    data.clear()
    assert values(record) == expected


@pytest.mark.parametrize("text", DOCUMENTS, ids=["full", "binary", "text", "uuid", "minimal"])
def test_it_holds_its_document(module: ModuleType, text: str) -> None:
    expected = from_frame(module, text)[1]
    for data in (text.encode() + b" " * 7, text + "\n"):
        record = module.read_cloudevent(data)
        del data
        gc.collect()
        [bytes(1000) for _ in range(100)]
        assert values(record) == expected


def test_only_documents_and_frames_make_records(module: ModuleType) -> None:
    kind = type(module.read_cloudevent(event()))
    with pytest.raises(TypeError):
        kind().id  # noqa: B018
    with pytest.raises(TypeError):
        kind().source  # noqa: B018
    with pytest.raises(TypeError):
        kind().to_json()


def test_data_is_decoded_when_touched() -> None:
    from cloud_runtimes.codec import cloudevents

    # as JSON the document is sound; that the text is none shows when it is touched
    found = cloudevents.decode(json.dumps(MINIMAL)[:-1] + ',"data":{"a":"\\ud800"}}')
    assert type(found) is Event
    assert (found.id, found.source, found.type, found.topic, found.pubsub_name) == ("1", "/s", "t", "", "")
    assert (found.delivery_count, found.subject, found.key, found.traceparent) == (None, None, None, None)
    with pytest.raises(PayloadError):
        found.data  # noqa: B018
    assert cloudevents.decode(UUID).data == [1, {"a": "b"}]
    found.ack()


def test_events_of_the_class_that_was_set(module: ModuleType) -> None:
    with pytest.raises(TypeError):
        module.receive_as(dict)
    found = module.decode_event(UUID)
    assert isinstance(found, module.ReceivedEvent)
    assert found.id == "018f4e5c-7a1b-7c3d-8e4f-0123456789ab"
    assert found._record.to_json() == module.read_cloudevent(UUID).to_json()
