"""``client.admin`` on RabbitMQ: groups are paused and deleted, and the events of a stream are read by a consumer of which the server keeps nothing. A queue counts a delivery of what is looked at."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from secrets import token_hex
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from ...errors import CloudRuntimesError, ConflictError, UnsupportedError
from ...spi.admin import Position, PubSubAdmin, Target
from ...spi.broker.mending import BACK, group_is_gone, sent_back
from ...spi.broker.redelivery import write_history
from ...spi.broker.showing import PAGE_BYTES, Shown
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .._net.connections import ConnectionLost
from .failures import LOCKED, ServerError
from .link import PATIENCE, ask
from .messages import FRAME, GONE, OFFSET, PAST, Reader, id_of, letter_of
from .replay import is_event
from .session import CALLS, Ask, Delivered, Publish
from .wire import method, read_properties

if TYPE_CHECKING:
    from .connection import Connection
    from .pubsub import RabbitmqPubSub

_AHEAD: Final = 1000
_QUIET: Final = 0.1
"""Seconds without a message after which a consumer that got some has all there are."""
_EXCLUSIVE: Final = 4
_ENDLESS: Final = 2**62
"""An offset that no message has."""
_GOING: Final = 1.0
"""Seconds for which a server may still count the consumers of a connection that has been closed."""
_FIRST: Final = 2.0
"""Seconds in which the first message comes, if there is any."""


class RabbitmqAdmin(PubSubAdmin):
    """The topics of a pub/sub name; with ``kind = "queue"`` their events are not shown."""

    def __init__(self, driver: RabbitmqPubSub) -> None:
        self._driver = driver
        self._engine = driver.component.engine
        self._topology = driver.topology
        # of dead-letter topics: letters that are gone, and the offset of the next
        self._letters: dict[str, set[str]] = {}
        self._next: dict[str, int] = {}

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        if group is not None or isinstance(start, datetime):
            what = "what a group has not settled: its queue counts a delivery" if group else "events since a time"
            raise UnsupportedError(f"rabbitmq {self._engine.where}: a stream does not show {what}")
        stream = self._topology.stream(topic)
        if not self._engine.run(op, self._topology.has(stream)):
            return []
        with self._mapped(op):
            return self._peek(op, topic, stream, start, limit)

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        run, topology = self._engine.run, self._topology
        if run(op, topology.has_order(topic, group, False)) is None:
            return False
        run(op, topology.pause(topic, group, paused))
        return True

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        run, topology = self._engine.run, self._topology
        if (ordered := run(op, topology.has_order(topic, group, False))) is None:
            return None
        messages = self._unused(op, topic, group, ordered)
        if not dry_run:
            run(op, topology.delete(topic, group, ordered))
        return messages

    def _unused(self, op: Operation, topic: str, group: str, ordered: bool) -> int:
        """Return how many messages a group has; `ConflictError`: it has members."""
        end = monotonic() + _GOING
        while True:
            messages, members = self._engine.run(op, self._topology.use(self._topology.group(topic, group, ordered)))
            if not members:
                return int(messages)
            if monotonic() >= end:
                raise ConflictError(
                    f"{op.component}/{topic}: the group {group!r} has members: stop them first ({members})"
                )
            sleep(_QUIET)

    def _peek(self, op: Operation, topic: str, stream: str, start: Position, limit: int) -> list[Delivery]:
        if not isinstance(start, str):
            offset, _, last = start
            return self._events(op, topic, stream, offset, last, limit, start)[:limit]
        last = max((offset for offset, _ in self._read(op, stream, "last", None)), default=-1)
        if start == "latest":
            return self._events(op, topic, stream, max(0, last - limit + 1), last, None)[-limit:]
        return self._events(op, topic, stream, "first", last, limit)[:limit]

    def _events(
        self,
        op: Operation,
        topic: str,
        stream: str,
        begin: int | str,
        last: int,
        limit: int | None,
        after: tuple[int, int, int] | None = None,
    ) -> list[Delivery]:
        """Return events up to the last message; their tokens are its offset, the index in the message, and the last offset."""
        found: list[Delivery] = []
        size, gone = 0, self._gone(op, topic)
        for offset, message in self._read(op, stream, begin, last) if last >= 0 else ():
            shown = Shown(topic, id_of)
            if is_event(read_properties(message[1])):
                Reader(shown).take(CALLS, [message])
                events = [event._replace(token=(offset, event.token[1], last)) for event in shown.events()]
                found += [
                    event
                    for event in events
                    if (after is None or event.token > after) and letter_of(event.record) not in gone
                ]
            size += len(message[2])
            if limit is not None and (len(found) >= limit or size >= PAGE_BYTES):
                break
        return found

    def _gone(self, op: Operation, topic: str, *, now: bool = False) -> set[str]:
        """Return the removed letters of a topic; without ``now`` those that were when this was first asked."""
        name = self._topology.gone(topic)
        if now:
            mark = token_hex(8)
            self._engine.run(op, self._driver.tell_gone(topic, mark))
            self._learn(op, topic, name, _ENDLESS, mark)
            if mark not in self._letters[topic]:
                raise TimeoutError
        elif topic not in self._letters and self._engine.run(op, self._topology.has(name)):
            last = max((offset for offset, _ in self._read(op, name, "last", None)), default=-1)
            self._learn(op, topic, name, last)
        return self._letters.setdefault(topic, set())

    def _learn(self, op: Operation, topic: str, stream: str, last: int, mark: str | None = None) -> None:
        """Read which letters are gone, on from what is known, up to an offset or a mark."""
        letters = self._letters.setdefault(topic, set())
        begin = self._next.get(topic, 0)
        for offset, (_, about, _) in self._read(op, stream, begin, last) if begin <= last else ():
            letter = str((read_properties(about).headers or {}).get(GONE))
            letters.add(letter)
            self._next[topic] = offset + 1
            if letter == mark:
                return

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        run, sent = self._engine.run, [sent_back(record, to) for record, *_ in letters] if to else []
        for goal, group in {target for target, _ in sent if target[1]}:
            if run(op, self._topology.has_order(goal, group, False)) is None:
                raise group_is_gone(op.component, goal, group)
        run(op, self._driver.begin_gone(topic))
        goals = {goal for (goal, group), _ in sent if not group}
        exchanges = {goal: run(op, self._topology.redrives(topic, goal)) for goal in goals}
        with self._mapped(op), closing(self._engine.open(op, f"removing from {topic}")) as connection:
            self._lock(op, connection, topic)
            gone = {*self._gone(op, topic, now=True)}
            steps = []
            for number, (record, *_) in enumerate(letters):
                if (letter := letter_of(record)) in gone:
                    continue
                gone.add(letter)
                if to is None:
                    steps.append(self._driver.gone(topic, letter))
                else:
                    (goal, group), frame = sent[number]
                    steps.append(self._going(topic, letter, goal, group, frame, exchanges.get(goal)))
            ask(connection, *steps)
            for step in steps:
                if step.problem is not None:
                    raise step.problem
        return len(steps)

    def _going(self, topic: str, letter: str, goal: str, group: str, frame: bytes, exchange: str | None) -> Publish:
        """Return what tells that a letter is gone, and delivers it again at once: one message goes to several queues."""
        if exchange is None:
            exchange, key = self._topology.due, self._topology.queue(goal, group)
            headers = {"BCC": [self._topology.gone(topic)], PAST: write_history(0, BACK)}
            about, body = FRAME._replace(headers=headers), frame
        else:
            (key,) = self._driver.keys([frame], 1)
            ((about, body),) = self._driver.messages([frame], raw=False)
        about = about._replace(headers={**(about.headers or {}), GONE: letter})
        return Publish(self._driver.message(exchange, key, about, body, mandatory=True), 1, exchange)

    def _lock(self, op: Operation, connection: Connection, topic: str) -> None:
        """Have nobody else remove letters of a topic while this connection is open."""
        while True:
            try:
                ask(connection, Ask((50, 10), "hsot", 0, f"{self._topology.gone(topic)}:lock", _EXCLUSIVE, {}))
                return
            except ServerError as error:
                if error.code != LOCKED:
                    raise
            if op.remaining() == 0.0:
                raise op.timed_out(f"another that removes letters of {topic}")
            sleep(random.uniform(0.02, 0.1))

    @contextmanager
    def _mapped(self, op: Operation) -> Iterator[None]:
        try:
            yield
        except CloudRuntimesError:
            raise
        except TimeoutError as error:
            raise op.timed_out(f"rabbitmq {self._engine.where}") from error
        except (ConnectionLost, ServerError) as error:
            raise self._engine.map_error(error) from error

    def _read(self, op: Operation, stream: str, begin: int | str, last: int | None) -> Iterator[tuple[int, Delivered]]:
        """Yield messages from an offset to the last one, or until no more come, each with its offset."""
        with closing(self._engine.open(op, f"looking at {stream}")) as connection:
            consume = Ask((60, 20), "hssot", 0, stream, stream, 0, {OFFSET: begin})
            ask(connection, Ask((60, 10), "lho", 0, _AHEAD, 0), consume)
            wait = _FIRST
            while deliveries := self._wait(op, connection, wait):
                wait = _QUIET if last is None else _FIRST
                for each in deliveries:
                    offset = (read_properties(each[1]).headers or {}).get(OFFSET, 0)
                    yield offset, each
                    if last is not None and offset >= last:
                        return
                # this one stands for those before it, and asks for more
                connection.send_all(method(CALLS, (60, 80), "qo", deliveries[-1][0], 1), monotonic() + PATIENCE)

    @staticmethod
    def _wait(op: Operation, connection: Connection, seconds: float) -> list[Any]:
        end = monotonic() + seconds
        while not (deliveries := connection.session.take().get(CALLS, [])) and monotonic() < end:
            if op.remaining() == 0.0:
                raise op.timed_out("messages of a stream")
            connection.send_all(b"", monotonic() + PATIENCE)
            if connection.wait(end):
                connection.receive()
        return deliveries
