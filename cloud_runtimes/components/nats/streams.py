"""The stream of a pub/sub name: its subjects, and what is read of it. Flows without I/O.

A topic is a subject of the stream, ``PREFIX.NAME.t.TOPIC``; ``d`` has what is published later, ``r`` what comes again for one group. A group is a durable consumer of its topic and another of its ``r``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from math import inf
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ...errors import NotFoundError, UnsupportedError
from ...spi.broker.policy import LATEST
from ...spi.pubsub import SubscribeRequest
from .buckets import patient
from .entries import API, decode, encode, milliseconds, read_reply, rfc3339
from .failures import CONSUMER_LIMIT, NO_STREAM, STREAM_EXISTS, ServerError
from .requests import Batch, Bulk, Flow, Request

if TYPE_CHECKING:
    from .engine import NatsEngine
    from .protocol import Message

MAIN, RETRY = 1, 2
"""Where a message comes from: the topic, or what comes again for the group."""
END: Final = 2**62
"""Behind all messages, and all times."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]*")
_LONGEST: Final = 200
"""Characters of a name; a server takes 255 of a consumer's."""
_NEEDED: Final = ("allow_direct", "allow_msg_schedules")
_PAGE: Final = 1000
_CONSUMERS: Final = 100_000
"""Of a stream at most; without a number of its own servers from 2.15 on allow 1,000."""
_GOING: Final = 10
"""Pauses before a stream that was there is made again: one that is made while the server still deletes the other is never answered."""


def _token(text: str) -> str:
    """Return any text as one part of a subject."""
    return _short(text if _PLAIN.fullmatch(text) else f"_{encode(text)}")


def _text(token: str) -> str:
    """Undo `_token`, unless the text was too long."""
    try:
        return decode(token[1:]) if token.startswith("_") else token
    except ValueError:
        return token


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"_{hashlib.sha256(name.encode()).hexdigest()}"


def _path(topic: str) -> str:
    """Return a topic as parts of a subject: dots between plain parts stay, so that others may subscribe to ``orders.*``."""
    return topic if all(map(_PLAIN.fullmatch, topic.split("."))) else _token(topic)


class Stream:
    """See the module.

    Attributes:
        name: of the stream.
        counters: of the stream that counts what became of events.
    """

    def __init__(self, engine: NatsEngine, name: str) -> None:
        settings = engine.settings
        self._engine = engine
        self._settings = settings
        self.name = f"{settings.prefix}-pubsub-{_token(name)}"
        self.counters = f"{settings.prefix}-counters"
        self._root = f"{settings.prefix}.{_token(name)}"
        self._count = f"{self.counters}.{_token(name)}"
        self._counting: bool | None = None
        self._known = False
        self._window = 0.0  # in seconds, of ids that the server keeps; none where no other leader may take over
        self._offset: float | None = None  # of the server's clock to this one, once the stream was there

    # -- names ------------------------------------------------------------

    def topic(self, topic: str) -> str:
        """Return the subject of a topic."""
        return f"{self._root}.t.{_path(topic)}"

    def topic_of(self, subject: str) -> str:
        """Return the topic of a subject; of a name that is too long its hash."""
        return _text(subject.removeprefix(f"{self._root}.t."))

    def group_of(self, consumer: str) -> str:
        """Return the group of a consumer's name; of a name that is too long its hash."""
        return _text(consumer.partition("=")[0])

    def delayed(self, name: str) -> str:
        """Return the subject of a message that is published later."""
        return f"{self._root}.d.{name}"

    def back(self, log: str) -> str:
        """Return the subject of what was sent back to a group with an order, see `Place`."""
        return f"{self._root}.o.{log}"

    def presence(self, consumer: str, member: str) -> str:
        """Return the subject that says that a group has a member which asks for nothing now."""
        return f"{self._root}.p.{consumer}.{member}"

    def claim(self, sequence: int) -> str:
        """Return the subject that says that a message was removed, or is about to be."""
        return f"{self._root}.m.{sequence}"

    @property
    def topics(self) -> str:
        """Subjects of all topics."""
        return f"{self._root}.t.>"

    def subject(self, origin: int, topic: str, group: str) -> str:
        """Return the subject of an origin."""
        return self.topic(topic) if origin == MAIN else f"{self._root}.r.{_token(group)}.{_path(topic)}"

    def consumer(self, origin: int, topic: str, group: str) -> str:
        """Return the name of the consumer of an origin."""
        name = _short(f"{_token(group)}={_token(topic)}")
        return name if origin == MAIN else f"{name}=again"

    def next_of(self, consumer: str) -> str:
        """Return the subject that asks a consumer for messages."""
        return f"{self._engine.api}CONSUMER.MSG.NEXT.{self.name}.{consumer}"

    # -- the stream -------------------------------------------------------

    @patient
    def ensure(self) -> Flow[None]:
        """Make the stream, or check it, until it is known."""
        if not self._known:
            info = yield from self._ensure()
            config = info["config"]
            wrong = [name for name in _NEEDED if not config.get(name)]
            if wrong:
                raise UnsupportedError(
                    f"nats {self._engine.where}: the stream {self.name!r} lacks {', '.join(wrong)}: "
                    "let the component make it, or set them by nats stream edit"
                )
            self._window = config.get("duplicate_window", 0) / 1e9 if config["num_replicas"] > 1 else 0.0
            self._offset = milliseconds(info["ts"]) / 1000 - monotonic()
            self._known = True

    def forget(self) -> None:
        """Look at the stream again, after an answer that says that it may be gone; members go by the server's clock meanwhile."""
        self._known = False

    def writes(self, requests: Sequence[Request | Bulk], *, ids: bool) -> Batch:
        """Return writes to it; those that have ids may be sent twice."""
        return Batch(*requests, writes=True, until=monotonic() + self._window / 2 if ids else None)

    def now(self) -> float:
        """Return what the server's clock says, in seconds since 1970; a little late, and never early."""
        assert self._offset is not None
        return monotonic() + self._offset

    def _ensure(self) -> Flow[dict[str, Any]]:
        config: dict[str, Any] = {
            # no allow_msg_ttl: it costs the server a fifth more for each message
            "subjects": [f"{self._root}.>"], "allow_atomic": True, **dict.fromkeys(_NEEDED, True),
            # nothing goes by itself, so it discards nothing either; a new one is not possible with schedules
            "discard": "old", "max_age": 0, "max_consumers": _CONSUMERS,
        }  # fmt: skip
        if self._settings.duplicate_window:
            config["duplicate_window"] = int(self._settings.duplicate_window * 1e9)
        return (yield from self._stream(self.name, config, _GOING if self._offset is not None else 0))

    def _stream(self, name: str, more: Mapping[str, Any], pauses: int = 0) -> Flow[dict[str, Any]]:
        """Return what is known of a stream, which is made where it is still not there after some pauses."""
        settings = self._settings
        while True:
            try:
                return (yield from self.api("STREAM.INFO", name=name))
            except ServerError as error:
                if error.code != NO_STREAM:
                    raise
                if not pauses:
                    break
                failure = error
            pauses -= 1
            yield Batch(failure=failure)
        if settings.ensure == "check":
            raise NotFoundError(
                f'nats {self._engine.where}: there is no stream {name!r}: make it, or set ensure = "create"'
            )
        config = {"name": name, "retention": "limits", "storage": "file", "num_replicas": settings.replicas, **more}
        try:
            yield from self.api("STREAM.CREATE", config, writes=True, name=name)
        except ServerError as error:
            if error.code == CONSUMER_LIMIT and "max_consumers" in more:  # the account allows fewer
                more = {key: value for key, value in more.items() if key != "max_consumers"}
                return (yield from self._stream(name, more))
            if error.code != STREAM_EXISTS:  # another made it just now
                raise
        return (yield from self.api("STREAM.INFO", name=name))

    def api(
        self,
        verb: str,
        body: Mapping[str, Any] | None = None,
        rest: str = "",
        writes: bool = False,
        name: str | None = None,
    ) -> Flow[dict[str, Any]]:
        """Call JetStream's API."""
        data = b"" if body is None else json.dumps(body).encode()
        # a second time it changes nothing
        asked = Request(f"{API}{verb}.{name or self.name}{rest}", data)
        ((message,),) = yield Batch(asked, writes=writes, until=inf)
        return read_reply(message)

    # -- reading ----------------------------------------------------------

    def place(self, topic: str, begins: int | None) -> Flow[int]:
        """Return the number of the message behind which a new group begins; see `begins_at`."""
        if begins is None:
            return 0
        last = yield from self.last()
        if begins == LATEST:
            return last
        first = yield from self._first({"start_time": rfc3339(begins), "next_by_subj": self.topic(topic)})
        return last if first is None else first - 1

    def last(self) -> Flow[int]:
        """Return the number of the last message."""
        info = yield from self.api("STREAM.INFO")
        number: int = info["state"]["last_seq"]
        return number

    @patient
    def read(self, subject: str, behind: int, last: int, most: int = _PAGE) -> Flow[list[Message]]:
        """Return messages of a subject behind one and up to another, not all of them at once."""
        asked = {"next_by_subj": subject, "seq": behind + 1, "batch": most}
        (messages,) = yield Batch(Request(f"{API}DIRECT.GET.{self.name}", json.dumps(asked).encode(), None, most + 1))
        return [message for message in messages if not message.status and int(message.headers["Nats-Sequence"]) <= last]

    def following(self, subject: str, behind: int) -> Request:
        """Return what asks for the first message of a subject behind one."""
        asked = {"next_by_subj": subject, "seq": behind + 1}
        return Request(f"{API}DIRECT.GET.{self.name}", json.dumps(asked).encode())

    def read_log(self, topic: str, log: str, behind: int, last: int, most: int = _PAGE) -> Flow[list[Message]]:
        """Return messages of a topic and of what was sent back to a group with an order, in their order; see `read`."""
        pages = []
        for subject in (self.topic(topic), self.back(log)):
            pages.append((yield from self.read(subject, behind, last, most)))
        numbered = [[(int(each.headers["Nats-Sequence"]), each) for each in page] for page in pages]
        end = min((page[-1][0] for page in numbered if page), default=0)
        both = (each for page in numbered for each in page if each[0] <= end)
        return [message for _, message in sorted(both, key=itemgetter(0))]

    @patient
    def count(self, subject: str, behind: int) -> Flow[int]:
        """Return how many messages a subject has behind one."""
        asked = {"next_by_subj": subject, "seq": behind + 1, "batch": 1}
        ((message, *_),) = yield Batch(Request(f"{API}DIRECT.GET.{self.name}", json.dumps(asked).encode(), None, 2))
        return 0 if message.status else 1 + int(message.headers["Nats-Num-Pending"])

    def clear(self, subject: str, last: int | None = None) -> Flow[dict[str, Any]]:
        """Remove the messages of a subject, or those up to one."""
        more = {} if last is None else {"seq": last + 1}
        return self.api("STREAM.PURGE", {"filter": subject, **more}, writes=True)

    # -- counting ---------------------------------------------------------

    def counter(self, what: str, request: SubscribeRequest, count: int, id: str) -> Request:
        """Return what adds to a counter of a group."""
        subject = f"{self._count}.{what}.{_token(request.group)}.{_path(request.topic)}"
        return Request(subject, b"", {"Nats-Incr": f"+{count}", "Nats-Msg-Id": id})

    def counts(self) -> Flow[bool]:
        """Return whether there are counters; they are made at the first use."""
        if self._counting is None:
            more = {"subjects": [f"{self.counters}.>"], "allow_msg_counter": True, "allow_direct": True}
            try:
                yield from self._stream(self.counters, {**more, "max_msgs_per_subject": 1})
                self._counting = True
            except NotFoundError:
                self._counting = False
        return self._counting

    def _first(self, wanted: Mapping[str, Any]) -> Flow[int | None]:
        request = Request(f"{API}DIRECT.GET.{self.name}", json.dumps(wanted).encode())
        ((message,),) = yield Batch(request)
        if message.status:
            if message.status == 404:
                return None
            raise ServerError(message.status, message.headers.get("Description", "no responders"))
        return int(message.headers["Nats-Sequence"])
