"""A member of a consumer group on Redis, with a connection of its own.

One trip settles, renews leases, takes over what dead members held, and reads. The read blocks at the server: so an idle member makes no call but that one, which ends when something else is due. What is settled while it blocks goes by another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ...errors import CloudRuntimesError, UnavailableError
from ...spi.broker.in_flight import InFlight
from ...spi.broker.member import SocketMember
from ...spi.broker.policy import LOOK_TIMEOUT, POLL, DeliveryPolicy
from ...spi.operation import Operation
from .._net.connections import ConnectionLost
from . import RedisComponent
from .engine import Pipeline
from .entries import RETRY, STREAM, part_arguments, take_in
from .failures import checked
from .resp import NOTHING, Batch, Flow, ReplyError, Value
from .streams import LEAVE, LOOK, RENEW, SETTLE, GroupKeys

if TYPE_CHECKING:
    from .connection import Connection
    from .pubsub import RedisPubSub

_IDLE: Final = 30.0
"""Seconds that a read blocks at most."""
_GRACE: Final = 10.0
"""Seconds within which a server answers a read whose time is up."""
_MANY: Final = 1_000_000_000
_START: Final = b"0-0"


class RedisMember(SocketMember):
    """See the module; made by `RedisPubSub.subscribe` once the group exists."""

    component: RedisComponent
    failures = (ConnectionLost, ReplyError, CloudRuntimesError)

    def __init__(
        self,
        component: RedisComponent,
        driver: RedisPubSub,
        policy: DeliveryPolicy,
        now_ms: int,
        in_flight: Callable[[DeliveryPolicy], InFlight] = InFlight,
    ) -> None:
        super().__init__(component, policy, in_flight(policy))
        self._driver = driver
        request = policy.request
        self._group: Value = request.group
        self._me: Value = self.policy.name
        keys, group = driver.keys(request.topic), GroupKeys.of(driver.keys(request.topic), request.group)
        self._streams: dict[Any, bytes] = {STREAM: keys.stream, RETRY: group.retry}
        self._keys = (keys.stream, group.retry, keys.delayed, group.later)
        dead = keys if request.dead_letter_topic is None else driver.keys(request.dead_letter_topic)
        self._settling = (*self._keys, dead.stream, keys.counters)
        self._seen, self._paused = keys.seen, keys.paused
        self._ack_wait = self.policy.ack_wait_ms / 1000
        self._connection: Connection | None = None
        self._client = 0
        self._before = False  # whether there was a connection before
        self._blocked = False  # a read is at the server
        self._blocks = False  # the last read was one that waits
        self._answer_by = 0.0
        self._clock = now_ms / 1000 - monotonic()
        self._renewed = monotonic()
        self._look_at = 0.0
        self._claims = False  # the next trip takes over what dead members held
        self._cursors = {STREAM: _START, RETRY: _START}
        # events of the last read; of the first one it is guessed
        self._per_entry = 100 if component.settings.layout == "frame" else 1

    # -- the source -------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def _now_us(self) -> int:
        return int((monotonic() + self._clock) * 1e6)

    def is_paused(self) -> bool:
        asked = _one(Batch(("SISMEMBER", self._paused, self._group), key=self._keys[0]))
        return bool(self.component.engine.run(Operation(POLL, self.policy.pubsub, LOOK_TIMEOUT), asked))

    def _exchange(self, want: int) -> None:
        in_flight = self.in_flight
        if not self._blocked:
            self._trip(0 if in_flight.is_ready else want)
        elif in_flight.done or in_flight.unacked or in_flight.expired:
            self._run(self._settle_meanwhile())

    def _leave(self) -> None:
        try:
            if self._connection is None:
                self._connect()
            elif self._blocked:
                self._end_read(self._connection)
        except (ConnectionLost, ReplyError, CloudRuntimesError):
            pass  # what was under way goes to another member after ack_wait
        self.in_flight.release()
        self._run(self._leaving())

    def _end_read(self, connection: Connection) -> None:
        """Have the read at the server end, and take in what it brings."""
        end = monotonic() + 1.0
        while (reply := connection.next()) is NOTHING and monotonic() < end:
            if self._run(_one(Batch(("CLIENT", "UNBLOCK", self._client)).sent_to(connection.address))):
                reply = connection.receive(1, self.operation())[0]
                break
            sleep(0.01)  # the read is on its way to the server, or its answer on the way back
        self._answered(reply)

    def _run(self, flow: Flow[Any]) -> Any:
        """Run steps on another connection."""
        return self.component.engine.run(self.operation(), flow)

    def _failed(self, error: Exception, *, leaving: bool = False) -> Exception:
        refusal = error.__cause__ if isinstance(error, CloudRuntimesError) else error
        if isinstance(refusal, ReplyError) and _is_gone(refusal) and not leaving:
            return self._rejoin()
        address = None if self._connection is None else self._connection.address
        self._disconnect()
        return (
            self.component.engine.map_error(error, True, address)
            if isinstance(error, (ConnectionLost, ReplyError))
            else error
        )

    def _rejoin(self) -> CloudRuntimesError:
        """Make the group again where it does not exist, from the beginning: what is there may come twice, and nothing is missed."""
        self._disconnect()
        where = f"redis {self.component.engine.where}"
        _, created = self._run(self._driver.join(self.policy, "0"))
        if not created:
            return UnavailableError(f"{where}: the keys of the group have moved")
        self.in_flight.forget()
        return UnavailableError(
            f"{where}: the group had gone, since its keys were deleted or the server lost its data; it was made again"
        )

    # -- the connection ---------------------------------------------------

    def _connect(self) -> None:
        op = self.operation()
        connection = self.component.engine.open(op, self._keys[0])
        try:
            (self._client,) = checked(connection.exchange(Batch(("CLIENT", "ID")).data, 1, op))
            self._connection = connection
            if self._before:
                self._look_at = 0.0  # perhaps it is another server
                self._recover(connection, op)
            connection.topic = self.policy.request.topic
        except BaseException:
            self._disconnect()
            connection.close()
            raise
        self._before = True

    def _recover(self, connection: Connection, op: Operation) -> None:
        """Take in what was read by a connection that ended before it came."""
        read = ("XREADGROUP", "GROUP", self._group, self._me, "COUNT", _MANY, "STREAMS", *self._streams.values(), 0, 0)
        (reply,) = checked(connection.exchange(Batch(read).data, 1, op))
        for name, entries in reply:
            origin = self._origin(name)
            self._take_over(origin, [entry for entry in entries if entry[1]], 1)
            self._lost(origin, [entry[0] for entry in entries if not entry[1]], acknowledge=True)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._blocked = False
        if connection is not None:
            connection.close()

    # -- a trip -----------------------------------------------------------

    def _trip(self, want: int) -> None:
        """Do all that is due, and begin to read where events are wanted."""
        connection, now, op = self._connection, monotonic(), self.operation()
        assert connection is not None
        pipeline = Pipeline(self._run, self._keys[0])
        due = min(self._due(), now + self._soonest())
        self._settlements(pipeline)
        if now >= self._look_at:
            pipeline.run(self._looking, LOOK, self._keys)
            self._claims = True
            if (dead := self.policy.request.dead_letter_topic) is not None:
                self._run(self._driver.trimmed(dead))
        count = max(1, want // self._per_entry)
        self._keep(pipeline, now, count if want else 0)
        data = pipeline.batch().data if pipeline else b""
        if want:
            pause = max(1, int((due - now) * 1000) + 1)
            self._blocks = due > now  # else what is due next is only known by the answers to the rest
            data += Batch(self._reading(count, ("BLOCK", pause) if self._blocks else ())).data
            self._answer_by = now + pause / 1000 + _GRACE
        if data:
            connection.send(data, op)
            self._blocked = want > 0
            pipeline.taken(connection.receive(len(pipeline), op))

    def _reading(self, count: int, block: tuple[Value, ...]) -> tuple[Value, ...]:
        """Return the command that reads so many entries."""
        read = ("XREADGROUP", "GROUP", self._group, self._me, "COUNT", count, *block)
        return (*read, "STREAMS", *reversed(self._streams.values()), ">", ">")

    def _due(self) -> float:
        """Return when there is something to do without being told."""
        renewal = self._renewed + self._ack_wait / 3 if self.in_flight.held else self._look_at
        return min(renewal, self._look_at)

    def _soonest(self) -> float:
        """Return in how many seconds the first of the events comes again that are to be settled now."""
        delays = [part.delay_ms / 1000 for part in self.in_flight.unacked if part.delay_ms is not None]
        return min(delays, default=_IDLE)

    # -- settling ---------------------------------------------------------

    def _settlements(self, pipeline: Pipeline) -> None:
        """Add what settles; what a server takes is forgotten, the rest goes by the next trip."""
        in_flight = self.in_flight

        def written(reply: Any) -> None:
            del in_flight.unacked[:count]
            self._next(reply[1])

        if count := len(in_flight.unacked):
            pipeline.run(written, SETTLE, self._settling, *self._parts())
        for origin, ids in in_flight.done.items():
            pipeline.add(partial(self._acknowledged, origin), "XACK", self._streams[origin], self._group, *ids)
            if origin == RETRY:
                pipeline.add(None, "XDEL", self._streams[origin], *ids)
        self._count_expired(pipeline)

    def _count_expired(self, pipeline: Pipeline) -> None:
        def noted(reply: Any) -> None:
            self.in_flight.expired = 0

        if self.in_flight.expired:
            pipeline.add(noted, *self._count("expired", self.in_flight.expired))

    def _acknowledged(self, origin: Hashable, reply: Any) -> None:
        del self.in_flight.done[origin]

    def _count(self, what: str, count: int) -> tuple[Value, ...]:
        return ("HINCRBY", self._settling[5], f"{what}:{self.policy.label}", count)

    def _parts(self) -> list[Value]:
        """Return the arguments of the scripts that settle what was not acknowledged."""
        parts = part_arguments(self.in_flight.unacked, self._driver.letters)
        return [self._group, self._me, self.policy.label, *parts]

    def _settle_meanwhile(self) -> Flow[None]:
        """Settle while a read is at the server."""
        pipeline = Pipeline(self._run, self._keys[0])
        self._settlements(pipeline)
        if monotonic() + self._soonest() < self._answer_by - _GRACE:
            # the read ends too late; a new one blocks until then, by the server's clock
            pipeline.add(None, "CLIENT", "UNBLOCK", self._client)
        assert self._connection is not None
        if pipeline:
            pipeline.taken((yield pipeline.batch().sent_to(self._connection.address)))

    def _leaving(self) -> Flow[None]:
        pipeline = Pipeline(self._run, self._keys[0])
        parts, self.in_flight.unacked = self._parts(), []
        self._settlements(pipeline)
        if pipeline:
            checked((yield pipeline.batch()))
        yield from LEAVE.run((*self._settling, self._seen), *parts)

    # -- leases -----------------------------------------------------------

    def _keep(self, pipeline: Pipeline, now: float, count: int) -> None:
        """Add what keeps what is held, and what takes over up to so many entries."""
        if self.in_flight.held and now >= self._renewed + self._ack_wait / 3:
            self._renew(pipeline, now)
        if self._claims and count:
            self._claims = False
            for origin in self._streams:
                self._take_overs(pipeline, origin, count)

    def _renew(self, pipeline: Pipeline, now: float) -> None:
        # after a stall others may have some: only what is still held is renewed
        stalled = now > self._renewed + self._ack_wait * 0.8
        for origin, stream in self._streams.items():
            ids = list(self.in_flight.tokens(origin))
            if ids and stalled:
                arguments = (self._group, self._me, *ids)
                pipeline.run(partial(self._gone, origin), RENEW, (stream,), *arguments)
            elif ids:
                pipeline.add(_ignore, "XCLAIM", stream, self._group, self._me, 0, *ids, "JUSTID")
        self._renewed = now

    def _gone(self, origin: int, lost: list[bytes]) -> None:
        if lost:
            self.in_flight.lose(origin, set(lost))

    def _looking(self, reply: Any) -> None:
        now = monotonic()
        self._clock = reply[0] / 1000 - now
        self._look_at = now + min(_IDLE, self._ack_wait / 2)
        self._next(reply[1])

    def _next(self, due_ms: int) -> None:
        """Note when the next message is due."""
        if due_ms >= 0:
            self._look_at = min(self._look_at, monotonic() + due_ms / 1000)

    def _take_overs(self, pipeline: Pipeline, origin: int, count: int) -> None:
        """Add what takes over from dead members."""

        def take(reply: Any) -> None:
            self._cursors[origin], entries, deleted = reply
            if self._cursors[origin] != _START:
                self._claims = True
            self._take_over(origin, entries, 0)
            self._lost(origin, deleted)

        ack_wait, cursor = self.policy.ack_wait_ms, self._cursors[origin]
        claim = ("XAUTOCLAIM", self._streams[origin], self._group, self._me, ack_wait, cursor, "COUNT", count)
        pipeline.add(take, *claim)

    def _take_over(self, origin: int, entries: list[Any], uncounted: int) -> None:
        """Take in entries that were delivered before; ``uncounted`` times that was not to anybody."""
        held = set(self.in_flight.tokens(origin))
        entries = [entry for entry in entries if entry[0] not in held]
        if not entries:
            return
        between = ("XPENDING", self._streams[origin], self._group, entries[0][0], entries[-1][0], _MANY, self._me)
        counts = {row[0]: row[3] for row in self._run(_one(Batch(between)))}
        for id, fields in entries:
            self._take_in(origin, [(id, fields)], max(1, counts.get(id, 1) - uncounted))

    def _lost(self, origin: int, ids: list[bytes], acknowledge: bool = False) -> None:
        """Count and report entries that were trimmed before they were settled."""
        if not ids:
            return
        repeated(
            f"trimmed {self.policy.label}",
            "%s: %d events were deleted from the stream before they were settled: raise the stream's limit, or consume faster",
            self.policy.label,
            len(ids),
        )
        self._run(_one(Batch(self._count("lost", len(ids)))))
        if acknowledge:
            self._run(_one(Batch(("XACK", self._streams[origin], self._group, *ids))))

    # -- reading ----------------------------------------------------------

    def _wait(self, want: int, timeout: float | None) -> None:
        """Wait for the answer to the read, for `wake`, or for what is due."""
        end = monotonic() + (_IDLE if timeout is None else timeout)
        connection = self._connection if self._blocked else None
        if connection is None:
            end = min(end, self._due())
        elif self._answered(connection.next()):  # it came with the answers before it
            return
        while (remaining := end - monotonic()) > 0:
            ready = self.waker.wait(connection, remaining)
            if connection is not None and ready and self._answered(self._answer(connection)):
                return
            if not ready:
                break
        if self._blocked and monotonic() > self._answer_by:
            raise ConnectionLost("the server did not answer in time")

    def _answer(self, connection: Connection) -> Any:
        """Return the answer to the read, of which something has come; `NOTHING`: it was something else."""
        if connection.address.tls is None:
            return connection.receive(1, self.operation())[0]  # what has begun is soon whole
        reply = connection.next()
        while reply is NOTHING and connection.is_readable():
            reply = connection.next()
        return reply

    def _answered(self, reply: Any) -> bool:
        if reply is NOTHING:
            return False
        self._blocked = False
        self._read(reply)
        return True

    def _read(self, reply: Any) -> None:
        """Take in the answer to a read."""
        if isinstance(reply, ReplyError):
            raise reply
        if reply is None:
            if self._blocks:  # time is up, by the server's clock
                self._look_at = 0.0
            return
        if isinstance(reply, tuple):
            name, ids, frame = reply
            self._per_entry = self.in_flight.add_packed(self._origin(name), ids, frame) // len(ids)
            return
        count = entries = 0
        for name, those in reply:
            entries += len(those)
            count += self._take_in(self._origin(name), those, 1)
        if count:
            self._per_entry = max(1, count // entries)

    def _origin(self, name: bytes) -> int:
        return STREAM if name == self._streams[STREAM] else RETRY

    def _take_in(self, origin: int, entries: Sequence[Any], deliveries: int) -> int:
        count, bell = take_in(self.in_flight, origin, entries, deliveries)
        if bell:
            self._look_at = 0.0
        return count


def _is_gone(error: ReplyError) -> bool:
    """Return whether the group, or its stream, has gone."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED the stream"))


def _ignore(reply: Any) -> None:
    """Only an error counts."""


def _one(batch: Batch) -> Flow[Any]:
    (reply,) = checked((yield batch))
    return reply
