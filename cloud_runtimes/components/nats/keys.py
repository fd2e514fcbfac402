"""Buckets of very many keys, of which those with a prefix can be found. Flows without I/O."""

from __future__ import annotations

import json
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from .._unreadable import read_entries
from .buckets import Bucket, patient
from .entries import API, Entry, decode, encode, entry_of
from .protocol import Message
from .requests import Batch, Flow, Request

_STEP: Final = 5
"""Bytes of a key that are a part of a deep subject: as many as eight letters of base32hex are whole bytes."""
_DEPTH: Final = 4
"""Such parts that it has at most, before the rest."""
_PAGE: Final = 1000
"""Keys of a page that are looked at by name."""
_FILTERS: Final = 100
"""Keys that the server is asked for by name at once: it compares each with each."""


class _Listed(NamedTuple):
    """Keys as a page found them: encoded, in order, at a sequence of the stream."""

    pattern: str
    sequence: int
    keys: list[str]


class KeyBucket(Bucket):
    """Key-value bucket with encoded keys."""

    _listed: _Listed | None = None

    def subject(self, kind: str, key: str) -> str:
        """Return the subject of a key, in parts."""
        encoded = encode(key)
        parts = [encoded[first : first + 8] for first in range(0, min(len(encoded), 8 * _DEPTH), 8)]
        if rest := encoded[8 * _DEPTH :]:
            parts.append(rest)
        return f"{self.root}{kind}.{'.'.join(parts)}"

    @patient
    def keys(self, kind: str, prefix: str = "", limit: int | None = None, after: str | None = None) -> Flow[list[str]]:
        """Return keys that have values, in order. Their values stay where they are.

        For a page the server tells from memory which keys begin as ``prefix`` does, in steps of `_STEP` bytes, and looks at the messages of that page alone.
        """
        where, size = f"{self.root}{kind}.", len(prefix.encode())
        steps = min(_DEPTH, size // _STEP)
        patterns = [where + "".join([f"{encode(prefix)[8 * step : 8 * step + 8]}." for step in range(steps)]) + ">"]
        if steps and size == steps * _STEP:
            patterns.append(self.subject(kind, prefix))  # which has no further part
        if limit is None or limit > _PAGE:  # it reads that many headers anyway
            subjects = yield from self._living(patterns)
            encoded = sorted([subject[len(where) :].replace(".", "") for subject in subjects])
        else:
            encoded = yield from self._list(where, patterns, after)
        head = encode(prefix)[: size * 8 // _STEP]
        first = 0 if after is None else bisect_right(encoded, encode(after))
        following = (each for each in encoded[first:] if each.startswith(head))
        likely = read_entries(f"keys of {self.name}", following, str, decode)
        keys = (key for key in likely if key.startswith(prefix))
        if limit is None or limit > _PAGE:
            return list(islice(keys, limit))
        living: list[str] = []
        while some := {self.subject(kind, key): key for key in islice(keys, min(limit - len(living), _FILTERS))}:
            there = yield from self._living(list(some))
            living += [key for subject, key in some.items() if subject in there]
        if len(living) < limit:
            self._listed = None  # that was the last page
        return living

    def _list(self, where: str, patterns: Sequence[str], after: str | None) -> Flow[list[str]]:
        """Return keys in order, of which some may have no value any more; those of the page before, where nothing was written since."""
        listed = self._listed
        info = yield from self.api("STREAM.INFO", None)
        sequence = info["state"]["last_seq"]
        if after is not None and listed is not None and listed[:2] == (patterns[0], sequence):
            return listed.keys
        subjects = {*patterns[1:], *(yield from self.subjects(patterns[0]))}
        encoded = sorted([subject[len(where) :].replace(".", "") for subject in subjects])
        self._listed = _Listed(patterns[0], sequence, encoded)
        return encoded

    def _living(self, patterns: Sequence[str]) -> Flow[set[str]]:
        """Return the subjects that have values, by what their messages say."""
        known = yield from self.ensure()
        name = secrets.token_hex(8)
        config = {
            "name": name, "deliver_policy": "last_per_subject", "ack_policy": "none", "headers_only": True,
            "mem_storage": True, "num_replicas": 1, "inactive_threshold": 30_000_000_000, "filter_subjects": patterns,
        }  # fmt: skip
        body = {"stream_name": self.stream, "config": config, "action": "create"}
        consumer = yield from self.api("CONSUMER.CREATE", body, f".{name}")
        subjects: set[str] = set()
        remaining = consumer["num_pending"]
        now = known.now_ms()
        while remaining > 0:
            want = min(remaining, 10_000)
            pull = json.dumps({"batch": want, "no_wait": True}).encode()
            asked = Request(f"{API}CONSUMER.MSG.NEXT.{self.stream}.{name}", pull, None, want, name)
            (messages,) = yield Batch(asked, until=0)  # what it has sent it sends no more
            for message in messages:
                if not message.status:
                    entry = _consumed(message)
                    if not entry.deleted and (entry.expires_ms is None or entry.expires_ms > now):
                        subjects.add(message.subject.decode())
            remaining = 0 if messages[-1].status else remaining - len(messages)
        yield from self.api("CONSUMER.DELETE", None, f".{name}")
        return subjects


def _consumed(message: Message) -> Entry:
    # $JS.ACK.stream.consumer.deliveries.sequence.number.nanoseconds.pending
    parts = message.reply.split(b".")
    return entry_of(int(parts[-4]), b"", message.headers, int(parts[-2]) // 1_000_000)
