"""The servers of one URL, and this process's connections to them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..._core import fork
from ..._core.backoff import NONE, Backoff
from ..._core.logs import repeated
from ...errors import (
    ClosedError,
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.operation import Operation
from .._net.connections import ConnectionLost
from .._net.loops import close_soon, made_by
from .connection import Connection, LoopConnection, believing
from .failures import checked, map_error
from .resp import Batch, ReplyError, Value
from .settings import Address, RedisSettings, parse_target
from .topology import Cluster, Topology, topology_of

PATIENCE: Final = 10.0
"""Seconds for which a call without a deadline waits for a server that takes over."""
_NAME: Final = "cloud-runtimes"
_LEAST: Final = (7, 0)
_CONNECT: Final = 2.0
"""Seconds that connecting may take where another server may take over."""
_ASK: Final = 1.0
"""Seconds that one server has to say where others are."""
_PAUSES: Final = Backoff(0.02, 0.5, jitter=NONE)
_INFO: Final = Batch(("INFO", "server"), ("INFO", "memory"))
_LOOK: Final = 60.0
"""Seconds after which a server is asked again what it drops, before the next call."""
_TOLD: Final = 3600.0
"""Seconds after which that is said again."""
_ROLE: Final = Batch(("ROLE",))


class Servers:
    """See the module.

    Attributes:
        target: what the URL names; a cluster once it is known to be one.
        where: what messages call them.
        topology: which of them has a key.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self.target = parse_target(settings.url)
        self.where = self.target.where
        self.topology = topology_of(self.target)
        self._closed = False
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: begin anew; the connections are the parent's."""
        fork.keep(getattr(self, "_idle", None), list(getattr(self, "_loops", {}).values()))
        self._looking = threading.Lock()
        self._idle: dict[Address, list[Connection]] = {}
        # a token for each connection; threading's semaphore costs threads that wait for it a multiple
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._settings.max_connections):
            self._free.put(None)
        self._loops: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[Address | None, asyncio.Future[LoopConnection]]
        ] = WeakKeyDictionary()
        self._checked: set[Address] = set()
        self.look_at = monotonic() + _LOOK

    # -- what is known of them --------------------------------------------

    def map_error(
        self, error: ConnectionLost | ReplyError, maybe_applied: bool, address: Address | None
    ) -> CloudRuntimesError:
        """Return our error for one of a server or of a connection to it, and learn from it."""
        if isinstance(error, ReplyError):
            if address is not None:
                self.learn(error, address)
            translated = map_error(self.where, error)
            translated.maybe_applied = translated.maybe_applied and maybe_applied
            return translated
        if address is not None:
            self.suspect(address)
        text = f"redis {self.where}: the server cannot be reached: {error}"
        return UnavailableError(text, maybe_applied=maybe_applied, retryable=not error.lasts)

    def learn(self, error: ReplyError, address: Address) -> Address | None:
        """Learn from an error where keys are; returns the server that it names for this once."""
        code = str(error).partition(" ")[0]
        if code in ("ASK", "CLUSTERDOWN", "MOVED"):
            self._is_cluster()
        elif code == "READONLY":  # a replica: by its name another server may be found by now
            self._leave(address)
        return self.topology.learn(address, error)

    def suspect(self, address: Address) -> None:
        """Ask where its keys are before it is used again."""
        self.topology.suspect(address)
        if self.topology.follows:
            self._leave(address)

    def _is_cluster(self) -> None:
        if self.target.kind == "server":
            self.target = self.target._replace(kind="cluster")
            self.topology = Cluster(self.target, discovered=True)

    def _look(self, op: Operation, key: Value | None) -> Address:
        """Ask where a key is."""
        remaining = op.remaining()
        if not self._looking.acquire(timeout=-1 if remaining is None else remaining):
            raise op.timed_out(f"redis {self.where}")
        try:
            topology, failed = self.topology, None
            if (server := topology.find(key)) is not None:
                return server
            for address in topology.ask():
                try:
                    if self._ask(op.limited(_ASK), address, topology):
                        break
                except (UnavailableError, DeadlineExceededError) as error:
                    failed = failed or error
            else:
                if failed is None and self.target.kind == "sentinel":
                    raise InvalidArgumentError(
                        f"redis {self.where}: the Sentinels know no master of this name: check the url"
                    )
                if failed is not None:
                    raise failed
            if (server := topology.find(key)) is not None:
                return server
            raise UnavailableError(f"redis {self.where}: no node of the cluster has the slot of the key")
        finally:
            self._looking.release()

    def _ask(self, op: Operation, address: Address, topology: Topology) -> bool:
        connection = Connection(address)
        try:
            connection.open(op, _NAME)
            reply = checked(connection.exchange(Batch(topology.question).data, 1, op))[0]
            with believing(address):
                return topology.answer(address, reply)
        except ConnectionLost as error:
            text = f"redis {self.where}: {address.where} cannot be asked: {error}"
            raise UnavailableError(text, retryable=not error.lasts) from error
        except ReplyError as error:
            raise map_error(address.where, error) from error
        finally:
            connection.close()

    # -- making connections -----------------------------------------------

    def open(
        self, op: Operation, key: Value | None = None, to: Address | None = None, *, waits: bool = True
    ) -> Connection:
        """Return a new connection, for its caller alone, to the server that has a key (``None``: to any), or to a certain one.

        Where another server may take over, this ``waits`` for it.
        """
        end = monotonic() + PATIENCE if op.deadline is None else op.deadline
        failures = 0
        while True:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            try:
                address = to or self.topology.find(key) or self._look(op, key)
                return self._open(op.limited(_CONNECT) if self.topology.follows else op, address)
            except (UnavailableError, DeadlineExceededError) as error:
                error.maybe_applied = False  # the call itself was not sent
                limited = isinstance(error, DeadlineExceededError)
                if to or not waits or not self.topology.follows or not (error.retryable or limited):
                    raise
                failures += 1
                pause = _PAUSES.after(failures)
                if monotonic() + pause >= end:
                    if limited:
                        raise op.timed_out(f"redis {self.where}") from None
                    raise
            sleep(pause)

    def _open(self, op: Operation, address: Address) -> Connection:
        connection = Connection(address)
        try:
            connection.open(op, _NAME)
            if self.target.kind == "sentinel":
                role = connection.exchange(_ROLE.data, 1, op)[0]
                with believing(address):
                    self._check_role(role, address)
            if address not in self._checked:
                replies = connection.exchange(_INFO.data, 2, op)
                with believing(address):
                    self._check(replies)
                self._checked.add(address)
        except BaseException as error:
            connection.close()
            if isinstance(error, DeadlineExceededError):
                self.suspect(address)
            if isinstance(error, (ConnectionLost, ReplyError)):
                raise self.map_error(error, False, address) from error
            raise
        return connection

    def _check_role(self, role: Any, address: Address) -> None:
        """Refuse a server that was the master once, or is to be."""
        if isinstance(role, ReplyError) or role[0] == b"master":  # the user may not ask
            return
        self.suspect(address)
        raise UnavailableError(f"redis {self.where}: {address.where} is no master now")

    def _check(self, replies: list[Any]) -> None:
        """Refuse a server that is too old, or that drops keys as it likes."""
        fields = _fields(replies)
        if fields is None:
            return
        version = fields.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if numbers < _LEAST:
            raise UnsupportedError(
                f"redis {self.where}: version {version or 'unknown'} is too old: Redis 7.0 or Valkey is needed"
            )
        mode = fields.get("redis_mode") or fields.get("server_mode")
        if mode == "sentinel":
            raise InvalidArgumentError(
                f"redis {self.where}: the server is a Sentinel: give redis+sentinel://host:26379/master/0"
            )
        if mode == "cluster":
            self._is_cluster()
        if (policy := _evicts(fields)).startswith("allkeys"):
            raise UnsupportedError(
                f"redis {self.where}: the server drops keys once its memory is full (maxmemory-policy {policy}): "
                "set noeviction"
            )
        if policy:
            self._warn(policy)

    def look_again(self, batch: Batch) -> Generator[Batch, list[Any], None]:
        """Ask the server of a call whether it drops keys by now: somebody may have changed that while it runs."""
        self.look_at = monotonic() + _LOOK
        replies = yield Batch.rendered(_INFO.pieces, _INFO.count, batch.key).sent_to(batch.to)
        if policy := _evicts(_fields(replies) or {}):
            self._warn(policy)

    def _warn(self, policy: str) -> None:
        which = "any keys, acknowledged events too," if policy.startswith("allkeys") else "keys that expire, locks too,"
        what = "redis %s drops %s once its memory is full (maxmemory-policy %s): set noeviction"
        repeated(f"redis {self.where} {policy}", what, self.where, which, policy, every=_TOLD)

    # -- connections of threads -------------------------------------------

    def take(self, op: Operation, batch: Batch) -> Connection:
        """Return a connection for commands; `give` it back."""
        try:
            self._free.get(timeout=op.remaining())
        except Empty:
            raise op.timed_out("a free connection: raise max_connections") from None
        try:
            while (address := batch.to or self.topology.find(batch.key)) is not None:
                try:
                    connection = self._idle[address].pop()
                except (IndexError, KeyError):
                    break
                if connection.is_alive():
                    return connection
                connection.close()
                self.topology.suspect(address)
            return self.open(op, batch.key, batch.to)
        except BaseException:
            self._free.put(None)
            raise

    def give(self, connection: Connection) -> None:
        """Give back a connection; one that is in the middle of anything is closed."""
        if self._closed or not connection.is_free():
            connection.close()
            self.suspect(connection.address)
        else:
            self._idle.setdefault(connection.address, []).append(connection)
        self._free.put(None)

    # -- connections of event loops ---------------------------------------

    async def loop_connection(self, op: Operation, batch: Batch) -> LoopConnection:
        """Return the connection of the running loop for commands, made by the first who needs it."""
        loop = asyncio.get_running_loop()
        connections = self._loops.setdefault(loop, {})
        while True:
            address = batch.to or self.topology.find(batch.key)
            task = connections.get(address)
            if task is not None and task.done():
                connection = made_by(task)
                if connection is not None and connection.closed is None:
                    if not connection.quiet:
                        return connection
                    connection.end_unused()
                task = None
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if task is None:
                task = connections[address] = loop.create_task(self._connect(op, batch, connections, address))
                task.add_done_callback(made_by)
            try:
                async with asyncio.timeout(op.remaining()):
                    connection = await asyncio.shield(task)
            except TimeoutError as error:
                remaining = op.remaining()
                if remaining is not None and remaining <= 0:
                    raise (
                        error if isinstance(error, CloudRuntimesError) else op.timed_out(f"redis {self.where}")
                    ) from None
                # the time of the call that began to connect was over, not that of this one
            else:
                if connection.address == address:
                    return connection

    async def _connect(
        self,
        op: Operation,
        batch: Batch,
        connections: dict[Address | None, asyncio.Future[LoopConnection]],
        wanted: Address | None,
    ) -> LoopConnection:
        connection = LoopConnection(await asyncio.to_thread(self.open, op, batch.key, batch.to))
        if connection.address != wanted:  # it was found only now, or another took over
            this = connections.pop(wanted)
            other = connections.get(connection.address)
            if other is None or (
                other.done() and ((current := made_by(other)) is None or current.closed or current.quiet)
            ):
                connections[connection.address] = this
            else:
                connection.close()
        return connection

    # -- the end ----------------------------------------------------------

    def _leave(self, address: Address | None) -> None:
        """Make new connections for the calls to come, to a server or (``None``) to all."""
        for each, idle in list(self._idle.items()):
            if each == address or address is None:
                with suppress(IndexError):
                    while True:
                        idle.pop().close()
        for connections in list(self._loops.values()):
            if (task := connections.get(address)) is not None and (connection := made_by(task)) is not None:
                connection.quiet = True

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._leave(None)
        for loop, connections in list(self._loops.items()):
            for task in list(connections.values()):
                if (connection := made_by(task)) is not None:
                    close_soon(loop, connection.close)


def _fields(replies: list[Any]) -> dict[str, str] | None:
    """Return what ``INFO`` tells; ``None``: the user may not ask."""
    if any(isinstance(reply, ReplyError) and str(reply).startswith("NOPERM") for reply in replies):
        return None
    lines = b"".join(checked(replies)).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _evicts(fields: dict[str, str]) -> str:
    """Return the policy by which a server drops keys, ``""``: it drops none."""
    policy = fields.get("maxmemory_policy", "")
    return policy if fields.get("maxmemory", "0") != "0" and policy != "noeviction" else ""
