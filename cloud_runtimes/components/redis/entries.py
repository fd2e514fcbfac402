"""Entries of streams: what a member reads of them, and what it writes of events that were not acknowledged."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from json import dumps
from typing import Any, Final

from ..._native import events as kernel
from ...codec import json
from ...errors import CloudRuntimesError
from ...spi.broker.in_flight import InFlight, Unacked
from ...spi.broker.policy import LATEST, NO_HISTORY
from ...spi.broker.reading import LaterVersionError, read_message
from ...spi.broker.redelivery import read_history, write_history
from ...spi.events import changed
from .resp import Value

NOTE: Final = b"metadata"
_OWN: Final = "cloudRuntimes"
"""Beginning of names that only our sidecars write, for themselves."""


def encode_note(metadata: Mapping[str, str]) -> bytes:
    """Return the field of an event's metadata, ``b""`` where there is none."""
    fields = {name: value for name, value in metadata.items() if not name.startswith(_OWN)}
    return json.encode(fields) if fields else b""


def with_note(message: bytes, note: bytes, topic: str, id: str) -> bytes:
    """Return a message with the metadata beside it, as a frame; one without metadata that can be read as it is.

    Args:
        message: an event in structured mode, else a payload without an envelope.
        note: the field.
        topic: it was first published to.
        id: of a payload.
    """
    try:
        fields = json.decode(note)
        metadata = (
            {name: text for name, text in fields.items() if isinstance(text, str)} if isinstance(fields, dict) else {}
        )
        if not metadata:
            return message
        frame = kernel.Frame(read_message(message, None, {}, topic=topic, id=id, prefix="ce-"))
        record = changed(frame[0], metadata=metadata)
        packed: bytes = kernel.build_frame(frame.source, frame.type, frame.topic, (record,))
    except (CloudRuntimesError, LaterVersionError):  # of another program, or more than an event can have
        return message
    return packed


STREAM, RETRY = 1, 2
"""Where an entry came from, as the scripts have it."""
_DATA: Final = b"data"


def take_in(in_flight: InFlight, origin: int, entries: Sequence[Any], deliveries: int) -> tuple[int, bool]:
    """Take in entries; returns how many events they have, and whether a bell was among them."""
    plain = entries and origin == STREAM and deliveries == 1
    if plain and not [1 for _, each in entries if len(each) != 2 or each[0] != _DATA]:
        return in_flight.add(origin, [id for id, _ in entries], [fields[1] for _, fields in entries]), False
    count, bell = 0, False
    for id, pairs in entries:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
        before, past = 0, NO_HISTORY
        if origin == RETRY:
            if b"bell" in fields:
                in_flight.done.setdefault(origin, []).append(id)
                bell = True
                continue
            before, past = read_history(_text(fields.get(b"past", b"")))
        data, kind, topic = fields.get(_DATA), _text(fields.get(b"datacontenttype", b"")), fields.get(b"topic")
        first = in_flight.topic if topic is None else _text(topic)
        if data is None:  # of another program: its fields are the event
            data, kind = dumps(dict(map(_member, fields.items()))).encode(), "application/json"
        elif NOTE in fields and not kind:
            data = with_note(data, fields[NOTE], first, _text(id))
        count += in_flight.add_message(origin, id, data, {"content-type": kind}, before + deliveries, past, first)
    return count, bell


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _member(field: tuple[bytes, bytes]) -> tuple[str, str]:
    """Return a field of another program as a member of JSON: what is no text as base64, as CloudEvents has ``data_base64``."""
    name, value = field
    try:
        return _text(name), value.decode()
    except UnicodeDecodeError:
        return f"{_text(name)}_base64", b2a_base64(value, newline=False).decode()


def id_before(begins: int | None) -> str:
    """Return the id that a group which begins at a time has read last; ids are milliseconds of the server's clock, and a number."""
    if begins == LATEST:
        return "$"
    return f"{begins - 1}-{2**64 - 1}" if begins else "0"


def part_arguments(parts: Iterable[Unacked], letters: Callable[[bytes], list[bytes]]) -> list[Value]:
    """Return parts as the scripts that settle have them; ``letters`` puts dead letters into their layout."""
    arguments: list[Value] = []
    for part in parts:
        origin: Any = part.held.origin
        for what, count, data, done in _becomes(part, letters):
            past = write_history(part.deliveries, part.history).encode() if what == "again" else b""
            topic = kernel.Frame(part.frame).topic if what == "dead" and part.frame is not None else ""
            delay = part.delay_ms or 0
            arguments += (what, origin, int(done), count, delay, past or topic, data, len(part.tokens))
            arguments += part.tokens
    return arguments


def _becomes(part: Unacked, letters: Callable[[bytes], list[bytes]]) -> list[tuple[str, int, bytes, bool]]:
    if part.frame is None:
        return [("drop" if part.events else "done", part.events, b"", part.done)]
    if part.delay_ms is not None:
        return [("again", part.events, part.frame, part.done)]
    dead = letters(part.frame)
    each = part.events // len(dead)
    return [("dead", each, data, part.done and number == len(dead)) for number, data in enumerate(dead, start=1)]
