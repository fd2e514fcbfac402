"""One server of one process: its connections. All clients of the process that name it share it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from ..._core import fork
from ..._core.logs import logger
from ..._core.threads import Background, Mutex
from ...errors import ClosedError, CloudRuntimesError, DeadlineExceededError, UnavailableError, UnsupportedError
from ...spi.operation import Method, Operation
from .address import parse_url
from .connection import Connection, LoopConnection
from .failures import Lost, checked, explained
from .notifier import RedisNotifier
from .resp import Batch, Flow, ReplyError, Value

if TYPE_CHECKING:
    from .settings import RedisSettings

__all__ = ["RedisEngine", "Script", "acquire", "is_unknown"]

T = TypeVar("T")
_NAME: Final = "cloud-runtimes"
_LEAST: Final = (7, 0)
_BEHIND: Final = Method("redis", "undo", repeatable=True)
_engines: dict[RedisSettings, RedisEngine] = {}
_engines_lock = Mutex()
_inherited: list[Any] = []
"""Of a parent process; kept, since closing a TLS connection would end it for the parent."""


def acquire(settings: RedisSettings) -> RedisEngine:
    """Return the process's engine for some settings, made without I/O; each call needs one `RedisEngine.release`."""
    with _engines_lock:
        engine = _engines[settings] = _engines.get(settings) or RedisEngine(settings)
        engine.users += 1
        return engine


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

    def run(self, keys: Sequence[Value], *arguments: Value) -> Flow[Any]:
        """Run it; all keys have one hash tag."""
        (reply,) = yield Batch(self.command(keys, *arguments), key=keys[0])
        if is_unknown(reply):
            (reply,) = yield Batch(self.command(keys, *arguments, whole=True), key=keys[0])
        if isinstance(reply, ReplyError):
            raise reply
        return reply


def is_unknown(reply: Any) -> bool:
    """Tell whether a server does not know a script that it was asked to run."""
    return isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")


class RedisEngine:
    """See the module; made by `acquire`.

    Attributes:
        where: what messages call it.
        notifier: wakes waiters of all processes.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.users = 0
        self.address = parse_url(settings.url)
        self.where = self.address.where
        self._closed = False
        self.forked()
        fork.register(self)
        self.notifier = RedisNotifier(self.open, settings.prefix)

    def forked(self) -> None:
        """In a forked child: begin anew; the connections are the parent's."""
        _inherited.extend(getattr(self, "_idle", ()))
        _inherited.extend(getattr(self, "_loops", {}).values())
        self._lock = Mutex()
        self._idle: list[Connection] = []
        # a token for each connection; threading's semaphore costs threads that wait for it a multiple
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self.settings.max_connections):
            self._free.put(None)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[LoopConnection]] = WeakKeyDictionary()
        self._ready = False

    # -- calls ------------------------------------------------------------

    def run(self, op: Operation, flow: Flow[T]) -> T:
        """Run the steps of a call.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        sent = False
        try:
            batch = next(flow)
            while True:
                connection = self._take(op)
                sent = True
                try:
                    for piece in batch.pieces:
                        connection.send(piece, op)
                    replies = connection.receive(batch.count, op)
                finally:
                    self._give(connection)
                batch = flow.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (Lost, ReplyError) as error:
            raise self.explained(error, sent and op.method.writes) from error

    async def run_async(self, op: Operation, flow: Flow[T]) -> T:
        """Asynchronous `run`."""
        sent = False
        try:
            batch = next(flow)
            while True:
                connection = await self._loop_connection(op)
                sent, received = True, connection.received
                try:
                    replies = await self._answer(op, connection.exchange(batch.data, batch.count))
                except DeadlineExceededError:
                    connection.expired(received)
                    raise
                finally:
                    if connection.quiet:
                        connection.end_unused()
                batch = flow.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (Lost, ReplyError) as error:
            raise self.explained(error, sent and op.method.writes) from error

    async def _answer(self, op: Operation, future: asyncio.Future[T], *, maybe_applied: bool = True) -> T:
        if op.deadline is None:
            return await future
        loop = future.get_loop()
        timer = loop.call_later(max(0.0, op.deadline - monotonic()), _expire, future)
        try:
            return await future
        except _Expired:
            raise op.timed_out(f"redis {self.where}", maybe_applied=maybe_applied and op.method.writes) from None
        finally:
            timer.cancel()

    def explained(self, error: Lost | ReplyError, maybe_applied: bool) -> CloudRuntimesError:
        """Return our error for one of the server or of a connection."""
        if isinstance(error, ReplyError):
            if str(error).startswith("READONLY"):  # a replica: by its name another server may be found by now
                self._leave()
            found = explained(self.where, error)
            found.maybe_applied = found.maybe_applied and maybe_applied
            return found
        return UnavailableError(
            f"redis {self.where}: the server cannot be reached: {error}", maybe_applied=maybe_applied
        )

    def behind(self, flow: Callable[[], Flow[Any]]) -> None:
        """Run the steps of a call in a thread, for what a caller left behind, until they are done or the server is away for too long."""

        def run() -> None:
            for pause in (0.0, 0.5, 2.0, 5.0):
                sleep(pause)
                with suppress(CloudRuntimesError):
                    self.run(Operation(_BEHIND, "redis", 5.0), flow())
                    return

        Background(run, "cloud-runtimes-redis-behind").start()

    # -- connections ------------------------------------------------------

    def open(self, op: Operation) -> Connection:
        """Return a new connection for its caller alone."""
        if self._closed:
            raise ClosedError("this client is closed: make another")
        connection = Connection(self.address)
        try:
            connection.open(op, _NAME)
            if not self._ready:
                self._check(connection.exchange(*_ASK, op))
        except BaseException as error:
            connection.close()
            if isinstance(error, DeadlineExceededError):  # the call itself was not sent
                raise op.timed_out(f"redis {self.where}") from None
            if isinstance(error, (Lost, ReplyError)):
                raise self.explained(error, False) from error
            raise
        return connection

    def _check(self, replies: list[Any]) -> None:
        """Refuse a server that is too old, or that drops keys as it likes."""
        if any(isinstance(reply, ReplyError) and str(reply).startswith("NOPERM") for reply in replies):
            self._ready = True  # the user may not ask
            return
        lines = b"".join(checked(replies)).decode().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        version, policy = fields.get("redis_version", ""), fields.get("maxmemory_policy", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if numbers < _LEAST:
            raise UnsupportedError(
                f"redis {self.where}: version {version or 'unknown'} is too old: Redis 7.0 or Valkey is needed"
            )
        if fields.get("maxmemory", "0") != "0" and policy != "noeviction":
            if policy.startswith("allkeys"):
                raise UnsupportedError(
                    f"redis {self.where}: the server drops keys once its memory is full (maxmemory-policy {policy}): "
                    "set noeviction"
                )
            what = "redis %s drops keys that expire once its memory is full, locks too (maxmemory-policy %s): set noeviction"
            logger().warning(what, self.where, policy)
        self._ready = True

    def ready(self, op: Operation) -> None:
        """Ask the server whether it is there."""
        self.run(op, _ping())

    def _take(self, op: Operation) -> Connection:
        try:
            self._free.get(timeout=op.remaining())
        except Empty:
            raise op.timed_out("a free connection: raise max_connections") from None
        try:
            while True:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    return self.open(op)
                if connection.is_alive():
                    return connection
                connection.close()
        except BaseException:
            self._free.put(None)
            raise

    def _give(self, connection: Connection) -> None:
        """Give back a connection; one that is in the middle of anything is closed."""
        if connection.sent or self._closed:
            connection.close()
        else:
            self._idle.append(connection)
        self._free.put(None)

    async def _loop_connection(self, op: Operation) -> LoopConnection:
        """Return the connection of the running loop, made by the first who needs it."""
        loop = asyncio.get_running_loop()
        while True:
            made = self._loops.get(loop)
            if made is not None and made.done():
                found = None if made.cancelled() or made.exception() is not None else made.result()
                if found is not None and found.closed is None:
                    if not found.quiet:
                        return found
                    found.end_unused()
                made = None
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if made is None:
                made = self._loops[loop] = loop.create_task(self._connect(op))
                made.add_done_callback(_look)
            try:
                return await self._answer(op, asyncio.shield(made), maybe_applied=False)
            except DeadlineExceededError:
                left = op.remaining()
                if left is not None and left <= 0:
                    raise
                # the time of the call that began to connect was over, not that of this one

    async def _connect(self, op: Operation) -> LoopConnection:
        return LoopConnection(await asyncio.to_thread(self.open, op))

    def _leave(self) -> None:
        """Make new connections for the calls to come."""
        self._close_idle()
        for made in list(self._loops.values()):
            if made.done() and not made.cancelled() and made.exception() is None:
                made.result().quiet = True

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def release(self) -> None:
        """Give up one use; the last one closes all connections."""
        with _engines_lock:
            self.users -= 1
            if self.users > 0:
                return
            if _engines.get(self.settings) is self:
                del _engines[self.settings]
        self._closed = True
        self.notifier.close()
        self._close_idle()
        for loop, made in list(self._loops.items()):
            if made.done() and not made.cancelled() and made.exception() is None:
                if loop.is_closed():
                    made.result().close()
                else:
                    loop.call_soon_threadsafe(made.result().close)


class _Expired(Exception):
    """The time of a call is over."""


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(_Expired())


def _look(made: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more."""
    if not made.cancelled():
        made.exception()


def _ping() -> Flow[None]:
    checked((yield Batch(("PING",))))


_ASK: Final = (Batch(("INFO", "server"), ("INFO", "memory")).data, 2)
