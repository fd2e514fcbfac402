"""Buckets of files, laid out as ``nats object`` and nats-py have them (ADR-20 of the NATS project). Flows without I/O.

A version of a file is chunks under a subject of its own. Nobody finds them until the message of the file's name tells of them, and one message is always written whole.

Notes tell what may go, and when: of a version that was replaced, which somebody may still read, and of each upload until it is stored. So one that a process left when it died goes too. The note of an upload is only a suspicion: who sweeps looks first whether any name tells of that version. JetStream could write all this in one step. That takes it some 10 ms, since it makes a folder for each such batch.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from ...errors import ConflictError
from .buckets import Bucket
from .entries import Put, read_reply
from .failures import ServerError
from .protocol import Message
from .requests import Batch, Flow, Request
from .versions import WINDOW, Current, Gone, Reading, Stored, Upload, read_message, read_meta

KEPT: Final = 3_600_000
"""Milliseconds that a version stays which was replaced, for those who read it."""
UPLOAD: Final = 86_400_000
"""Milliseconds until an upload is swept."""
MARGIN: Final = 3_600_000
"""Milliseconds before, in which it is not stored any more."""
_ONCE: Final = {"Nats-Rollup": "sub"}
"""A message that replaces all others of its subject."""
_DELETED: Final = {**_ONCE, "Nats-TTL": "60s"}
_OVER: Final = {**_ONCE, "Nats-TTL": "1s"}
"""What takes the place of a note, and goes by itself."""
_HEX: Final = re.compile("[0-9a-f]{1,15}")
_PURGES: Final = 100
_LOOKED_AT: Final = 500


class Objects(Bucket):
    """Bucket of files."""

    space = ("OBJ_", "$O")
    needed: ClassVar[Mapping[str, Any]] = {"allow_direct": True}
    defaults: ClassVar[Mapping[str, Any]] = {"allow_atomic": True, "allow_msg_ttl": True}

    def _subjects(self) -> list[str]:
        return [f"{self.root}C.>", f"{self.root}M.>"]

    def writable(self) -> Flow[None]:
        """Refuse a bucket of others that has not what writing needs."""
        known = yield from self.ensure()
        self._check(known.config, {"allow_rollup_hdrs": True, **self.defaults})

    def _meta(self, name: str) -> str:
        return f"{self.root}M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _content(self, nuid: str) -> str:
        return f"{self.root}C.{nuid}"

    def _note(self, kind: str, due_ms: int, nuid: str, old: str = "") -> Put:
        """Return what notes when a version may go; ``old`` is the one that it would replace."""
        return Put(f"{self.root}C._.{kind}.{due_ms:x}.{nuid}", old.encode())

    def _note_old(self, stored: Stored | None) -> Flow[list[Put]]:
        if stored is None or not stored.chunks:
            return []
        return [self._note("old", (yield from self.now_ms()) + KEPT, stored.nuid)]

    # -- what there is ----------------------------------------------------

    def find(self, *names: str) -> Flow[list[Current]]:
        """Return what there is under some names."""
        entries = yield from self.read([self._meta(name) for name in names])
        return [read_message(name, entry) for name, entry in zip(names, entries, strict=True)]

    def names(self) -> Flow[list[str]]:
        """Return the names of all files, in order; some may have been deleted."""
        where = f"{self.root}M."
        decoded = []
        for subject in (yield from self.subjects(f"{where}*")):
            part = subject[len(where) :]
            try:
                decoded.append(base64.b64decode(part + "=" * (-len(part) % 4), b"-_").decode())
            except ValueError:  # no name at all
                continue
        return sorted(decoded)  # code points and bytes of UTF-8 have one order

    # -- reading ----------------------------------------------------------

    def part(self, reading: Reading, start: int, size: int) -> Flow[list[bytes]]:
        """Return some bytes of a version, in pieces.

        Raises:
            Gone: chunks of it are missing.
        """
        stored = reading.stored
        end = min(start + size, stored.size)
        pieces: list[bytes] = []
        if reading.offset != start:
            held = reading.chunk_offset + len(reading.chunk)
            if not (reading.chunk_offset <= start <= held == reading.offset):
                reading.seek(start)
        while start < end:
            begin = start - reading.chunk_offset
            if 0 <= begin < len(reading.chunk):
                pieces.append(reading.chunk[begin : end - reading.chunk_offset])
                start += len(pieces[-1])
                continue
            if reading.number >= stored.chunks:
                raise Gone
            for message in (yield from self._fetch(reading, min(end - reading.offset, WINDOW))):
                reading.take(message)
                begin = max(0, start - reading.chunk_offset)
                if start < end and begin < len(message.data):
                    pieces.append(message.data[begin : end - reading.chunk_offset])
                    start += len(pieces[-1])
        return pieces

    def _fetch(self, reading: Reading, size: int) -> Flow[list[Message]]:
        """Return chunks from where a reader is on. Numbers only grow from chunk to chunk, so the first guess is right or leads there."""
        stored, guess = reading.stored, max(1, reading.sequence) if reading.number else 1
        count = max(1, min(-(-size * stored.chunks // stored.size), stored.chunks - reading.number))
        while True:
            probing = guess == 1 and reading.number > 0
            want = 1 if probing else count
            ask = {"seq": guess, "batch": want, "next_by_subj": self._content(stored.nuid)}
            (messages,) = yield Batch(Request(self._get, json.dumps(ask).encode(), None, want))
            received = [message for message in messages if not message.status]
            if not received and messages[-1].status != 404:
                error = ServerError(messages[-1].status, "no responders")
                self._forget(error)
                raise error
            headers = received[0].headers if received else {}
            number = stored.chunks - 1 - int(headers.get("Nats-Num-Pending", -1))
            if number == reading.number:
                return received
            if number < reading.number:
                guess = int(headers["Nats-Sequence"]) + reading.number - number
            elif guess > 1:
                guess = 1
            else:
                raise Gone

    # -- writing ----------------------------------------------------------

    def send(self, upload: Upload, chunks: Sequence[bytes], seen: Current) -> Flow[None]:
        """Send some of an upload."""
        puts = [Put(self._content(upload.nuid), chunk) for chunk in chunks]
        if not upload.due:
            upload.due = (yield from self.now_ms()) + UPLOAD
            puts.insert(0, self._note_new(upload, seen))
        yield from self._send(puts)

    def _send(self, puts: Sequence[Put]) -> Flow[None]:
        """Write what changes nothing that anybody sees."""
        for (message,) in (yield Batch(*[put.request({}) for put in puts], until=0)):  # a chunk has no id
            read_reply(message)

    def _note_new(self, upload: Upload, seen: Current) -> Put:
        return self._note("new", upload.due, upload.nuid, "" if seen.stored is None else seen.stored.nuid)

    def store(self, upload: Upload, document: Mapping[str, Any], seen: Current) -> Flow[Stored | None]:
        """Have a name tell of an upload, all of which was sent; ``None``: another wrote it since it was seen.

        Raises:
            ConflictError: the upload took too long.
        """
        name = document["name"]
        if upload.due:
            late = (yield from self.now_ms()) > upload.due - MARGIN
            if upload.size > WINDOW:  # a machine that slept has no idea how late it is
                (note,) = yield from self.read([self._note_new(upload, seen).subject])
                late = late or not note.sequence
            if late:
                raise ConflictError(f"the upload of {self._store}/{name} took too long, and was given up")
        subject, meta = self._meta(name), {**document, "bucket": self.name}
        (done,) = yield from self.put([Put(subject, json.dumps(meta).encode(), seen.sequence, headers=_ONCE)])
        if isinstance(done, ServerError):
            return None
        puts = yield from self._note_old(seen.stored)
        if upload.due:
            puts.append(self._note_new(upload, seen)._replace(headers=_OVER))
        (entry,) = yield from self.read([subject], beside=puts)
        if entry.sequence != done:  # replaced by now
            entry = entry._replace(written_ms=(yield from self.now_ms()))
        return read_meta(meta, entry._replace(sequence=done))

    def seen_again(self, upload: Upload, name: str) -> Flow[Current]:
        """Return what there is under a name, and note that an upload is to replace it."""
        (current,) = yield from self.find(name)
        if upload.due:
            yield from self._send([self._note_new(upload, current)])
        return current

    def _deleted(self, name: str, current: Current) -> Put:
        mark = {"name": name, "bucket": self.name, "nuid": "", "size": 0, "chunks": 0, "digest": "", "deleted": True}
        return Put(self._meta(name), json.dumps(mark).encode(), current.sequence, headers=_DELETED)

    def remove(self, name: str) -> Flow[None]:
        """Delete a file, if it is there."""
        yield from self.writable()
        due = (yield from self.now_ms()) + UPLOAD
        while True:
            (current,) = yield from self.find(name)
            if not current.exists:
                return
            notes = yield from self._note_old(current.stored)
            suspicion = self._note("new", due, current.stored.nuid if current.stored is not None else "")
            if notes:
                yield from self._send([suspicion])
            (done,) = yield from self.put([self._deleted(name, current)])
            if isinstance(done, int):
                if notes:
                    yield from self.put([*notes, suspicion._replace(headers=_OVER)])
                return

    def rename(self, source: str, target: str) -> Flow[Stored | None]:
        """Have another name tell of a version, in one step; ``None``: there is none."""
        yield from self.writable()
        while True:
            current, old = yield from self.find(source, target)
            if current.error is not None:
                raise current.error
            if current.stored is None or source == target:
                return current.stored
            meta = json.dumps({**current.stored.document, "name": target}).encode()
            puts = [Put(self._meta(target), meta, old.sequence, headers=_ONCE), self._deleted(source, current)]
            if (yield from self.put_all([*puts, *(yield from self._note_old(old.stored))])):
                (moved,) = yield from self.find(target)
                return moved.stored or current.stored

    # -- what may go ------------------------------------------------------

    def purge(self, nuids: Iterable[str]) -> Flow[None]:
        """Remove the chunks of versions."""
        yield from self._purge([self._content(nuid) for nuid in nuids if nuid])

    def _purge(self, subjects: Sequence[str]) -> Flow[None]:
        api = f"$JS.API.STREAM.PURGE.{self.stream}"
        for first in range(0, len(subjects), _PURGES):
            some = subjects[first : first + _PURGES]
            asked = [Request(api, json.dumps({"filter": each}).encode()) for each in some]
            for (message,) in (yield Batch(*asked, writes=True)):
                read_reply(message)

    def sweep(self) -> Flow[None]:
        """Remove what may go by now."""
        now = yield from self.now_ms()
        due = []
        for subject in (yield from self.subjects(f"{self.root}C._.*.*.*")):
            when = subject.split(".")[-2]
            if _HEX.fullmatch(when) and int(when, 16) <= now:  # others may write notes too
                due.append(subject)
        suspected = [subject for subject in due if subject.split(".")[-3] == "new"]
        gone = {subject.rpartition(".")[2] for subject in due}
        if suspected:
            gone |= {entry.data.decode(errors="replace") for entry in (yield from self.read(suspected))}
            names = yield from self.names()
            for first in range(0, len(names), _LOOKED_AT):
                entries = yield from self.find(*names[first : first + _LOOKED_AT])
                gone -= {each.stored.nuid for each in entries if each.stored is not None}
        yield from self.purge(gone)
        yield from self._purge(due)
