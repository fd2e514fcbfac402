"""Calls to the servers of one URL. All clients of the process that name it share them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

from ..._core.backoff import NONE, Backoff
from ...errors import CloudRuntimesError, DeadlineExceededError, UnavailableError
from ...spi.broker.policy import POLL
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .._net.connections import ConnectionLost
from .._net.engines import Engine
from .connection import Connection, answer
from .failures import checked, map_error
from .notifier import RedisNotifier
from .resp import Batch, Errors, Flow, ReplyError, Value
from .servers import PATIENCE, Servers
from .settings import Address, RedisSettings

T = TypeVar("T")
_Steps: TypeAlias = Generator[Batch | float, Any, T]
"""Yields commands, and gets their replies, or seconds to wait."""
_AT_ONCE: Final = 5
"""How often a server may refer to another before a pause."""
_PAUSES: Final = Backoff(0.02, 0.5, jitter=NONE)


class Script:
    """A Lua script, which a server keeps once it has seen it.

    Args:
        flags: of redis.io, "Eval flags": ``""`` refuses the whole script where memory is full, ``"allow-oom"`` runs it even then, ``"no-writes"`` runs on a replica too. ``None``: the first of its commands decides.
    """

    def __init__(self, text: str, flags: str | None = None) -> None:
        if flags is not None:
            text = f"#!lua flags={flags}\n{text}" if flags else f"#!lua\n{text}"
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[Value], *arguments: Value, whole: bool = False) -> tuple[Value, ...]:
        """Return the command that runs it; ``whole``: with its text, for a server that does not know it."""
        name = ("EVAL", self._text) if whole else ("EVALSHA", self._sha)
        return (*name, len(keys), *keys, *arguments)

    def run(self, keys: Sequence[Value], *arguments: Value, once: bool = False) -> Flow[Any]:
        """Run it; all keys have one hash tag. ``once``: fail where a server refuses it for now."""
        for whole in (False, True):
            batch = Batch(self.command(keys, *arguments, whole=whole), key=keys[0])
            batch.once = once
            (reply,) = yield batch
            if not is_unknown(reply):
                break
        if isinstance(reply, ReplyError):
            raise reply
        return reply


def is_unknown(reply: Any) -> bool:
    """Return whether a server does not know a script that it was asked to run."""
    return isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")


class RedisEngine(Engine, FlowEngine["Batch", list[Any]]):
    """See the module; made by `acquire`.

    Attributes:
        servers: and the connections to them.
        where: what messages call them.
        keeps_log: whether they keep a log of what is written, as far as `ready` was told.
    """

    settings: RedisSettings
    notifier: RedisNotifier
    keeps_log = True

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings)
        self.servers = Servers(settings)
        self.where = self.servers.where
        self._wait: bytes | None = None
        if settings.wait_replicas:
            self._wait = Batch(("WAIT", settings.wait_replicas, int(settings.wait_timeout * 1000))).data
        self.notifier = RedisNotifier(self.open, settings.prefix)

    @property
    def changes(self) -> int:
        """Another number means that another server may have taken over, which lacks the last writes, or that notifications may have been missed."""
        return self.notifier.count + self.servers.topology.changes

    # -- calls ------------------------------------------------------------

    def exchange(self, op: Operation, batch: Batch) -> list[Any]:
        connection = self.servers.take(op, batch)
        batch.by = connection.address
        try:
            for piece in batch.pieces:
                connection.send(piece, op)
            return connection.receive(batch.count, op)
        except ConnectionLost as error:
            raise self.map_error(error, op.method.writes, batch.by) from error
        finally:
            self.servers.give(connection)

    async def exchange_async(self, op: Operation, batch: Batch) -> list[Any]:
        connection = await self.servers.loop_connection(op, batch)
        batch.by, received = connection.address, connection.received
        try:
            return await answer(op, connection.exchange(batch.data, batch.count), self.where)
        except ConnectionLost as error:
            raise self.map_error(error, op.method.writes, batch.by) from error
        except DeadlineExceededError:
            connection.expired(received)
            raise
        finally:
            if connection.quiet:
                self.servers.suspect(batch.by)
                connection.end_unused()

    def steps(self, op: Operation, flow: Flow[T]) -> _Steps[T]:
        """Yield the commands of a call, again where they were refused for now."""
        # what a failover loses of a member's settlements comes again
        kept: list[Any] | None = [] if self._wait and op.method.writes and op.method is not POLL else None
        latest = Errors.latest
        batch = None
        try:
            batch = next(flow)
            if monotonic() > self.servers.look_at:
                yield from self.servers.look_again(batch)
            while True:
                replies = (yield batch) if kept is None else (yield from self._replicated(batch, kept))
                if Errors.latest is not latest:
                    latest = Errors.latest
                    yield from self._again(op, batch, replies, kept)
                batch = flow.send(replies)
        except StopIteration as stop:
            self._check_kept(kept)
            result: T = stop.value
            return result
        except ReplyError as error:
            raise self.map_error(error, op.method.writes, None if batch is None else batch.by) from error

    def _replicated(self, batch: Batch, kept: list[Any]) -> _Steps[list[Any]]:
        """Have replicas take in what is written."""
        assert self._wait is not None
        step = Batch.rendered((batch.data + self._wait,), batch.count + 1, batch.key).sent_to(batch.to)
        replies: list[Any] = yield step
        batch.by = step.by
        kept.append(replies.pop())
        return replies

    def _check_kept(self, kept: list[Any] | None) -> None:
        for reply in kept or ():
            if isinstance(reply, ReplyError) and not str(reply).startswith("ERR WAIT"):
                error = map_error(self.where, reply)
                error.maybe_applied = True
                raise error
            had = 0 if isinstance(reply, ReplyError) else reply  # it has become a replica itself
            if had < self.settings.wait_replicas:
                raise UnavailableError(
                    f"redis {self.where}: {had} replicas of the {self.settings.wait_replicas} that wait_replicas wants "
                    f"had the write within {self.settings.wait_timeout:g} s",
                    maybe_applied=True,
                )

    def _again(self, op: Operation, batch: Batch, replies: list[Any], kept: list[Any] | None) -> _Steps[None]:
        """Have commands sent again that a server refers to another one, or refuses for now, and replace their replies."""
        servers, by, referred, pauses = self.servers, batch.by, 0, 0
        end = monotonic() + PATIENCE if op.deadline is None else op.deadline
        while True:
            refused = [index for index, reply in enumerate(replies) if servers.topology.refuses(reply)]
            if not refused:
                return
            error = replies[refused[0]]
            assert by is not None
            to = servers.learn(error, by)
            referred += 1
            if referred > _AT_ONCE or not str(error).startswith(("ASK", "MOVED")):
                pauses += 1
                pause = _PAUSES.after(pauses)
                if batch.once or monotonic() + pause >= end:
                    return
                yield pause
            commands = batch.commands()
            again = [commands[index] for index in refused]
            if to is not None:
                again = [each for command in again for each in ([b"ASKING"], command)]
            step = Batch(*again, key=batch.key).sent_to(to)
            if kept and len(refused) == len(replies):
                kept.pop()  # nothing was written that replicas could have
            try:
                answers = (yield step) if kept is None else (yield from self._replicated(step, kept))
            except CloudRuntimesError as failed:
                failed.maybe_applied = failed.maybe_applied or (op.method.writes and len(refused) < len(replies))
                raise
            by = batch.by = step.by
            for index, reply in zip(refused, answers if to is None else answers[1::2], strict=True):
                replies[index] = reply

    def map_error(
        self, error: ConnectionLost | ReplyError, maybe_applied: bool, address: Address | None = None
    ) -> CloudRuntimesError:
        """Return our error for one of a server or of a connection to it."""
        return self.servers.map_error(error, maybe_applied, address)

    # -- connections ------------------------------------------------------

    def open(self, op: Operation, key: Value | None = None) -> Connection:
        """Return a new connection for its caller alone, to the server that has a key; ``None``: to any. It does not wait for one that takes over."""
        return self.servers.open(op, key, waits=False)

    def ready(self, op: Operation) -> None:
        self.keeps_log = self.run(op, _ping())

    def _close(self) -> None:
        self.servers.close()
        self.notifier.close()


def _ping() -> Flow[bool]:
    pong, info = yield Batch(("PING",), ("INFO", "persistence"))
    checked([pong])
    return isinstance(info, ReplyError) or b"aof_enabled:0" not in info


_Take: TypeAlias = Callable[[Any], None]


class Pipeline:
    """Commands that go to a server together, each with what takes in its reply; ``run`` runs the steps of a call on another connection, ``key`` is one that all have the slot of."""

    def __init__(self, run: Callable[[Flow[Any]], Any], key: Value) -> None:
        self._run = run
        self._key = key
        self._commands: list[tuple[tuple[Value, ...], _Take | None]] = []

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, take: _Take | None, *command: Value) -> None:
        """Add a command; ``None``: nothing depends on its reply, also where it is an error."""
        self._commands.append((command, take))

    def run(self, take: _Take, script: Script, keys: Sequence[Value], *arguments: Value) -> None:
        """Add a script, which is run anew where the server does not know it."""

        def taken(reply: Any) -> None:
            take(self._run(script.run(keys, *arguments)) if is_unknown(reply) else reply)

        self._commands.append((script.command(keys, *arguments), taken))

    def batch(self) -> Batch:
        """Return the commands; there is one at least."""
        return Batch(*(command for command, _ in self._commands), key=self._key)

    def taken(self, replies: Sequence[Any]) -> None:
        """Take in the replies, then raise the first that is an error: it does not keep the others from being taken in."""
        failed: list[ReplyError] = []
        for reply, (_, take) in zip(replies, self._commands, strict=True):
            if take is None:
                continue
            if isinstance(reply, ReplyError) and not is_unknown(reply):
                failed.append(reply)
            else:
                take(reply)
        if failed:
            raise failed[0]
