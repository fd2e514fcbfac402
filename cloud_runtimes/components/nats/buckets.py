"""Buckets: JetStream's streams of one message per key, and what is read from and written to them. Flows without I/O.

A bucket is one that ``nats kv`` reads. Its keys are encoded, since subjects have no spaces, wildcards and empty parts.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import inf
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeVar

from ...errors import NotFoundError, ResourceExhaustedError, UnavailableError, UnsupportedError
from .entries import (
    API,
    Entry,
    Put,
    encode,
    is_behind,
    is_stored,
    milliseconds,
    read_direct,
    read_leaders,
    read_reply,
    read_stored,
)
from .failures import IN_HAND, LEADERLESS, NO_STREAM, STREAM_EXISTS, WRONG_SEQUENCES, ServerError
from .requests import Batch, Flow, Request

if TYPE_CHECKING:
    from .engine import NatsEngine

P = ParamSpec("P")
T = TypeVar("T")
MAX_BATCH: Final = 1000
"""Messages of one atomic batch."""
_WINDOW: Final = 30
"""Seconds for which a server keeps the ids of writes."""
_DOUBT: Final = 2.0
"""Seconds within which a server that leads no more learns it, once it hears the others."""
_PAGE: Final = 1000
_PAGE_BYTES: Final = 8 * 1024 * 1024
_PLAIN: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]*")


def patient(flow: Callable[P, Flow[T]]) -> Callable[P, Flow[T]]:
    """Try again what found no leader, until there is one or the time is over, and once what found no stream, which is then made; nothing of it was done."""

    @wraps(flow)
    def again(*args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        gone = False
        while True:
            try:
                return (yield from flow(*args, **kwargs))
            except ServerError as error:
                if error.code == NO_STREAM and not gone:
                    gone = True
                    continue
                if error.code not in LEADERLESS:
                    raise
                failure = error
            yield Batch(failure=failure)

    return again


def write_all(puts: Sequence[Put]) -> Flow[None]:
    """Write all or nothing, as one atomic batch of a stream that allows it.

    Raises:
        ServerError: nothing was written.
    """
    batch, last = secrets.token_hex(16), len(puts)
    requests = [
        put.request(
            {
                "Nats-Batch-Id": batch,
                "Nats-Batch-Sequence": str(number),
                **({"Nats-Batch-Commit": "1"} if number == last else {}),
            },
            int(number in (1, last)),  # the first tells whether there can be a batch
        )
        for number, put in enumerate(puts, 1)
    ]
    answers = yield Batch(*requests, writes=True)
    for messages in (answers[0], answers[-1]):
        if messages[0].data or messages[0].status:
            read_reply(messages[0])


class Bucket:
    """Key-value bucket.

    Attributes:
        space: prefixes of its stream's name and of its subjects.
        needed: properties of the stream, without which it is refused.
        defaults: further properties for a new stream.
        name: as ``nats kv`` has it.
        stream: name of the stream of its messages.
        root: prefix of its subjects.
    """

    space: ClassVar = ("KV_", "$KV")
    needed: ClassVar[Mapping[str, Any]] = {
        "allow_direct": True, "allow_msg_ttl": True, "allow_atomic": True, "max_msgs_per_subject": 1,
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {"deny_delete": True}

    def __init__(self, engine: NatsEngine, service: str, store: str) -> None:
        settings = engine.settings
        self._engine = engine
        self._store = store
        plain = store if _PLAIN.fullmatch(store) else f"_{encode(store)}"
        self.name = f"{settings.prefix}-{service}-{plain}"
        self.stream = self.space[0] + self.name
        self.root = f"{self.space[1]}.{self.name}."
        self._get = f"{API}DIRECT.GET.{self.stream}"

    def subject(self, kind: str, key: str) -> str:
        """Return the subject of a key."""
        return f"{self.root}{kind}.{encode(key)}"

    def _subjects(self) -> list[str]:
        return [f"{self.root}>"]

    # -- the bucket itself ------------------------------------------------

    def ensure(self) -> Flow[_Known]:
        """Make the bucket, or check it, once in this process."""
        known: _Known | None = self._engine.buckets.get(self.name)
        if known is None:
            info = yield from self._ensure()
            self._check(info["config"], self.needed)
            known = self._engine.buckets[self.name] = _Known(info["config"], milliseconds(info["ts"]))
        return known

    def _check(self, config: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
        """Refuse a bucket that lacks properties."""
        wrong = [name for name, value in needed.items() if config.get(name) != value]
        if wrong:
            raise UnsupportedError(
                f"nats {self._engine.where}: the bucket {self.name!r} lacks {', '.join(wrong)}: "
                "let the component make it, or set them by nats stream edit"
            )

    def _ensure(self) -> Flow[dict[str, Any]]:
        settings = self._engine.settings
        try:
            return (yield from self.api("STREAM.INFO", None))
        except ServerError as error:
            if error.code != NO_STREAM:
                raise
        if settings.ensure == "check":
            raise NotFoundError(
                f'nats {self._engine.where}: there is no bucket {self.name!r}: make it, or set ensure = "create"'
            )
        config = {
            "name": self.stream, "subjects": self._subjects(), "num_replicas": settings.replicas,
            "storage": "file", "discard": "new", "allow_rollup_hdrs": True, "max_age": 0,
            "duplicate_window": _WINDOW * 1_000_000_000,
            # above what a bucket of this name may have given before it was removed
            "first_seq": time_ns() // 1_000_000, **self.needed, **self.defaults,
        }  # fmt: skip
        try:
            yield from self.api("STREAM.CREATE", config, writes=True)
        except ServerError as error:
            if error.code != STREAM_EXISTS:  # another made it just now
                raise
        return (yield from self.api("STREAM.INFO", None))

    def api(
        self, verb: str, body: Mapping[str, Any] | None, rest: str = "", writes: bool = False
    ) -> Flow[dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        # a second time it changes nothing
        ((message,),) = yield Batch(Request(f"{API}{verb}.{self.stream}{rest}", data), writes=writes, until=inf)
        return read_reply(message)

    def now_ms(self) -> Flow[int]:
        """Return the least that the server's clock says now, without asking it again."""
        return (yield from self.ensure()).now_ms()

    # -- reading ----------------------------------------------------------

    @patient
    def read(self, subjects: Sequence[str], *, strong: bool = True, beside: Sequence[Put] = ()) -> Flow[list[Entry]]:
        """Return what keys hold, expired values too; ``strong``: as their leader knows it. Others are written ``beside``, in the same packet."""
        known = yield from self.ensure()
        direct = not known.replicated or not strong
        asked = [Request(f"{self._get}.{each}") if direct else self._ask_leader(each) for each in subjects]
        try:
            answers = yield Batch(*[put.request({}) for put in beside], *asked, writes=bool(beside))
            for (message,) in answers[: len(beside)]:
                read_reply(message)
            return [read_direct(message) if direct else read_leaders(message) for (message,) in answers[len(beside) :]]
        except ServerError as error:
            self._forget(error)
            raise

    @patient
    def read_now(self, subject: str) -> Flow[tuple[Entry, int]]:
        """Return what a key holds as its leader knows it, and what the server's clock says, asked for before."""
        yield from self.ensure()
        (info,), (message,) = yield Batch(Request(f"{API}STREAM.INFO.{self.stream}"), self._ask_leader(subject))
        return read_leaders(message), milliseconds(read_reply(info)["ts"])

    def _ask_leader(self, subject: str) -> Request:
        return Request(f"{API}STREAM.MSG.GET.{self.stream}", json.dumps({"last_by_subj": subject}).encode())

    @patient
    def since(self, pattern: str, sequence: int, limit: float = inf) -> Flow[tuple[int, list[tuple[str, Entry]]]]:
        """Return the server's time, and the keys that were written behind a sequence, in the order of their writes. Stops once ``limit`` of them have values."""
        yield from self.ensure()
        entries: list[tuple[str, Entry]] = []
        time = Request(f"{API}STREAM.INFO.{self.stream}")
        now = 0
        while True:
            ask = {"next_by_subj": pattern, "seq": sequence + 1, "batch": _PAGE, "max_bytes": _PAGE_BYTES}
            asked = Request(self._get, json.dumps(ask).encode(), None, _PAGE + 1)
            try:
                *infos, messages = yield Batch(*([] if now else [time]), asked)
                if infos:
                    info = read_reply(infos[0][0])
                    now = milliseconds(info["ts"])
                    if info["state"]["last_seq"] < sequence:  # the bucket was made anew
                        sequence = 0
                        continue
                for message in messages:
                    if message.status == 503:
                        raise ServerError(503, "no responders")
                    if not message.status:
                        entry = read_direct(message)
                        entries.append((message.headers["Nats-Subject"], entry))
                        limit -= not entry.deleted
            except ServerError as error:
                self._forget(error)
                raise
            if limit <= 0 or messages[-1].headers.get("Nats-Num-Pending", "0") == "0":
                return now, entries
            sequence = entries[-1][1].sequence

    @patient
    def subjects(self, pattern: str) -> Flow[list[str]]:
        """Return the subjects that have messages, in no order. The server answers from memory."""
        yield from self.ensure()
        matches: dict[str, None] = {}
        offset = 0
        while True:
            try:
                info = yield from self.api("STREAM.INFO", {"subjects_filter": pattern, "offset": offset})
            except ServerError as error:
                self._forget(error)
                raise
            some = info["state"].get("subjects") or {}
            matches |= dict.fromkeys(some)  # one that others add or remove between two pages may come twice
            offset += len(some)
            if not some or offset >= info.get("total", 0):
                return list(matches)

    # -- writing ----------------------------------------------------------

    @patient
    def put(self, puts: Sequence[Put]) -> Flow[list[int | ServerError]]:
        """Write each of some keys, in their order; returns sequences, and refusals of those that failed alone."""
        known = yield from self.ensure()
        batch, doubtful_until = known.batch(puts), monotonic() + _DOUBT
        while True:
            answers = yield batch
            try:
                results = list(map(read_stored, answers))
            except ServerError as error:
                self._forget(error)
                if batch.sent == 1 and not any(map(is_stored, answers)):
                    raise
                failure = self._unclear(error)
                if error.code not in LEADERLESS or batch.until <= monotonic():
                    raise failure from error
                yield Batch(failure=failure)
                continue
            refused = [(put, each) for put, each in zip(puts, results, strict=True) if isinstance(each, ServerError)]
            if refused and batch.unanswered:  # a server that was started anew forgets ids of what was overwritten
                raise self._unclear(refused[0][1])
            doubted = [why for put, why in refused if why.code == IN_HAND or is_behind(why, put.expected)]
            if not doubted or min(doubtful_until, batch.until) <= monotonic():
                return results
            if batch.sent > 1:
                yield Batch(failure=self._unclear(doubted[0]))

    def _unclear(self, error: ServerError) -> UnavailableError:
        """Return the error for writes of which some may have been applied."""
        return UnavailableError(
            f"nats {self._engine.where}: the bucket {self.name!r} may have taken some of the writes: {error.text}",
            maybe_applied=True,
        )

    @patient
    def put_all(self, puts: Sequence[Put]) -> Flow[bool]:
        """Write all or nothing; ``False``: a key has not the expected sequence. Each key comes once."""
        if len(puts) == 1:
            (done,) = yield from self.put(puts)
            return not isinstance(done, ServerError)
        if len(puts) > MAX_BATCH:
            raise ResourceExhaustedError(f"a transaction on NATS writes {MAX_BATCH:,} keys at most: split it")
        known = yield from self.ensure()
        try:
            yield from write_all(puts)
        except ServerError as error:
            if error.code in WRONG_SEQUENCES:
                if known.replicated and is_behind(error, min(filter(None, (put.expected for put in puts)), default=0)):
                    raise self._unclear(error) from error
                return False
            self._forget(error)
            raise
        return True

    def _forget(self, error: ServerError) -> None:
        """Look at the bucket again, after an answer that says that it may be gone."""
        if error.code in (503, NO_STREAM):
            self._engine.buckets.pop(self.name, None)


class _Known:
    """Cached configuration and clock of a bucket."""

    def __init__(self, config: Mapping[str, Any], time_ms: int) -> None:
        self.config = config
        self.replicated = config["num_replicas"] > 1
        self._window = config.get("duplicate_window", 0) / 1e9
        self._time_ms = time_ms
        self._at = monotonic()

    def batch(self, puts: Sequence[Put]) -> Batch:
        """Return writes. Where another leader may take over they have ids, of which a server keeps one, so that they may be sent twice."""
        if not self.replicated or not self._window:
            return Batch(*[put.request({}) for put in puts], writes=True)
        id, until = secrets.token_hex(8), monotonic() + self._window / 2
        requests = [put.request({"Nats-Msg-Id": f"{id}-{number}"}) for number, put in enumerate(puts)]
        return Batch(*requests, writes=True, until=until)

    def now_ms(self) -> int:
        # the answer is older than its arrival, so this is never ahead of the server
        return self._time_ms + int((monotonic() - self._at) * 1000)
