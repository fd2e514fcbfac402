"""Parts of groups with an order: who owns them, and how far the group is there. Keys of a bucket, each with the number of its last write as its fence.

A group has a key that says where it began. It expires when nobody has been a member for long, and another group of the name takes no notice of the parts of the first.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...spi.broker.ordered import PARTS, Progress
from .buckets import Bucket
from .entries import API, Entry, Put, decode, encode, read_leaders
from .failures import NO_STREAM, ServerError
from .requests import Batch, Flow, Request

if TYPE_CHECKING:
    from .engine import NatsEngine

_NOBODY: Final = "-"


class Place(NamedTuple):
    """A group with an order.

    Attributes:
        sequence: of its key.
        id: tells it from an earlier one of the name.
        parts: how many it has.
        start: the message behind which it began.
        log: names the subject of what was sent back to it; it stays where the group is moved, which changes ``id``.
    """

    sequence: int
    id: str
    parts: int
    start: int
    log: str


class Owned(NamedTuple):
    """State of a part: the number of its last write, its owner (or empty), and how far the group is."""

    sequence: int
    owner: str
    progress: Progress


class Survey(NamedTuple):
    """State of a group: its key, its live members, and its parts."""

    place: Place
    live: Collection[str]
    parts: Sequence[Owned]


class GroupParts:
    """Parts of one group; see the module."""

    def __init__(self, engine: NatsEngine, name: str, topic: str, group: str) -> None:
        self._bucket = bucket = Bucket(engine, "order", name)
        self._expiry_ms = int(engine.settings.group_expiry * 1000)
        key = encode(f"{group}\n{topic}")
        self._group = f"{bucket.root}g.{key}.0"
        self._root, self._members = f"{bucket.root}p.{key}.", f"{bucket.root}m.{key}."
        self._paused = f"{bucket.root}s.{key}.0"

    def find(self) -> Flow[Place | None]:
        """Return the group, if it is there; the bucket is not made."""
        bucket = self._bucket
        ask = json.dumps({"last_by_subj": self._group}).encode()
        ((message,),) = yield Batch(Request(f"{API}STREAM.MSG.GET.{bucket.stream}", ask))
        try:
            entry = read_leaders(message)
        except ServerError as error:
            if error.code == NO_STREAM:
                return None
            raise
        return _place(entry) if _is_there(entry, (yield from bucket.now_ms())) else None

    def make(self, start: int) -> Flow[Place]:
        """Make the group, unless it is there."""
        while True:
            entry, now = yield from self._bucket.read_now(self._group)
            if _is_there(entry, now):
                return _place(entry)
            id = secrets.token_hex(8)
            yield from self.keep(Place(entry.sequence, id, PARTS, start, id))

    def keep(self, place: Place) -> Flow[bool]:
        """Have the group not expire; return ``False`` where another does, or has changed it."""
        about = {"id": place.id, "parts": place.parts, "start": place.start, "log": place.log}
        put = Put(self._group, json.dumps(about).encode(), place.sequence, self._expiry_ms)
        (kept,) = yield from self._bucket.put([put])
        return not isinstance(kept, ServerError)

    def move(self, place: Place, start: int) -> Flow[bool]:
        """Move the group behind a message, unless somebody has changed it; what is known of its parts counts no more."""
        return self.keep(place._replace(id=secrets.token_hex(8), start=start))

    def delete(self, place: Place) -> Flow[bool]:
        """Delete the group, unless somebody has changed it."""
        (gone,) = yield from self._bucket.put([Put(self._group, None, place.sequence)])
        if isinstance(gone, ServerError):
            return False
        keys = [self._paused, *(f"{self._root}{part}" for part in range(place.parts))]
        yield from self._bucket.put([Put(key, None) for key in keys])
        return True

    def survey(self, place: Place) -> Flow[Survey | None]:
        """Return what is known of the group; ``None``: it has gone."""
        bucket = self._bucket
        # of keys that are just written anew it may miss some
        now, members = yield from bucket.since(f"{self._members}>", 0)
        live = {subject.removeprefix(self._members) for subject, entry in members if _is_there(entry, now)}
        subjects = [f"{self._root}{part}" for part in range(place.parts)]
        group, *entries = yield from bucket.read([self._group, *subjects])
        if not _is_there(group, now) or _place(group).id != place.id:
            return None
        parts = [_owned(place, entry) for entry in entries]
        missed = sorted({its.owner for its in parts}.difference(live, [""]))
        for name, entry in zip(
            missed, (yield from bucket.read([self._members + name for name in missed])), strict=True
        ):
            if _is_there(entry, now):
                live.add(name)
        return Survey(_place(group), live, parts)

    def part(self, place: Place, part: int, owned: Owned) -> Put:
        """Return what writes a part that nobody else has written since."""
        data = f"{place.id} {owned.owner or _NOBODY} {owned.progress.text()}"
        return Put(f"{self._root}{part}", data.encode(), owned.sequence)

    def member(self, name: str, lease_ms: int | None) -> Put:
        """Return what renews the lease of a member, or ends it."""
        return Put(f"{self._members}{name}", None if lease_ms is None else b"", None, lease_ms)

    def pause(self, paused: bool) -> Flow[None]:
        """Have the members of the group get nothing, or let them go on."""
        yield from self._bucket.put([Put(self._paused, b"" if paused else None, None)])

    def is_paused(self) -> Flow[bool]:
        """Return whether somebody has paused the group."""
        (entry,) = yield from self._bucket.read([self._paused])
        return not entry.deleted

    def write(self, puts: Sequence[Put]) -> Flow[list[int | ServerError]]:
        """Write some of these."""
        return self._bucket.put(puts)


def _there(bucket: Bucket, keys: str) -> Flow[tuple[int, list[tuple[str, Entry]]]]:
    """Return the server's time, and keys with what they hold; the bucket is not made."""
    try:
        yield from bucket.api("STREAM.INFO", None)
    except ServerError as error:
        if error.code == NO_STREAM:
            return 0, []
        raise
    return (yield from bucket.since(f"{bucket.root}{keys}", 0))


def groups_in_order(engine: NatsEngine, name: str) -> Flow[list[tuple[str, str]]]:
    """Return the groups with an order of a pub/sub name: topic and group."""
    bucket = Bucket(engine, "order", name)
    now, entries = yield from _there(bucket, "g.*.0")
    names = [decode(subject.split(".")[-2]).split("\n") for subject, entry in entries if _is_there(entry, now)]
    return sorted((topic, group) for group, topic in names)


def settled(engine: NatsEngine, name: str) -> Flow[int]:
    """Return up to which message all groups with an order of a pub/sub name have settled all."""
    bucket = Bucket(engine, "order", name)
    least: int = 2**63
    now, entries = yield from _there(bucket, "*.*.*")
    places: dict[str, Place] = {}
    parts: dict[str, dict[str, Progress]] = {}
    for subject, entry in entries:
        kind, key, part = subject.removeprefix(bucket.root).split(".")
        if not _is_there(entry, now):
            continue
        if kind == "g":
            places[key] = _place(entry)
        elif kind == "p":
            id, _, progress = entry.data.decode().split(" ", 2)
            parts.setdefault(f"{key} {id}", {})[part] = Progress.of(progress)
    for key, place in places.items():
        known = parts.get(f"{key} {place.id}", {})
        if len(known) < place.parts:
            least = min(least, place.start)
        least = min([least, *(progress.done for progress in known.values())])
    return least


def _is_there(entry: Entry, now_ms: int) -> bool:
    return not entry.deleted and (entry.expires_ms is None or entry.expires_ms > now_ms)


def _owned(place: Place, entry: Entry) -> Owned:
    if not entry.deleted:
        id, owner, progress = entry.data.decode().split(" ", 2)
        if id == place.id:
            return Owned(entry.sequence, "" if owner == _NOBODY else owner, Progress.of(progress))
    return Owned(entry.sequence, "", Progress(place.start, {}))


def _place(entry: Entry) -> Place:
    about: dict[str, Any] = json.loads(entry.data)
    return Place(entry.sequence, about["id"], about["parts"], about["start"], about.get("log", about["id"]))
