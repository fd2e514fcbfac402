"""RPC by the embedded store: processes with one home find each other, without settings.

A server is a row of ``services``: a lease that its process renews (boot id, CLOCK_BOOTTIME), with the process's name, so that a dead one is not called. A file beside the database holds a secret, by which processes that may read the folder know each other.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import stat
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

from ..._core import fork
from ..._core.clocks import is_alive, process_name
from ..._core.logs import repeated
from ..._core.os_errors import explain_os_error
from ..._core.threads import Background, Changes
from ..._http.http1 import Endpoint
from ...errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError, UnavailableError
from ...rpc.peers import Peers, endpoint
from ...spi import rpc as spi
from ...spi.operation import Method, Operation
from ...spi.rpc import Announcement, Guard, RpcCall, RpcDriver, RpcReply
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine

__all__ = ["LEASE", "SECRET", "SqliteRpc", "home_secret", "known"]

LEASE: Final = 15.0
"""Seconds that a registration lasts without a renewal. Servers renew three times as often."""
_FRESH: Final = 1.0
"""Seconds for which an answer of the registry is used."""

SECRET: Final = "rpc.secret"
_SIZE: Final = 32
known: dict[str, bytes] = {}
"""Path of a secret → content, as this process read it."""

_RENEW: Final = Method("rpc", "announce", repeatable=False)
_FIND: Final = "SELECT instance, address, process FROM services WHERE app_id = ? AND boot = ? AND deadline > ?"
_ENTER: Final = (
    "INSERT INTO services (instance, app_id, address, process, boot, deadline) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (instance) DO UPDATE SET deadline = excluded.deadline"
)


class SqliteRpc(RpcDriver):
    """One service, found by the registry of one store."""

    features = frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD, spi.STATUS})

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self._app_id = context.context.app_id
        self._known: tuple[Endpoint, ...] = ()
        self._known_until = 0.0

    @property
    def _peers(self) -> Peers:
        return self._context.peers

    # -- calling ----------------------------------------------------------

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        while True:
            fresh = monotonic() >= self._known_until
            if fresh:
                self._found(self._engine.query(op, *self._lookup()))
            try:
                return self._peers.call(op, self._known, call, self._app_id)
            except (UnauthenticatedError, UnavailableError) as error:
                self._failed(error, fresh)

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        while True:
            fresh = monotonic() >= self._known_until
            if fresh:
                self._found(await self._engine.query_async(op, *self._lookup()))
            try:
                return await self._peers.call_async(op, self._known, call, self._app_id)
            except (UnauthenticatedError, UnavailableError) as error:
                self._failed(error, fresh)

    def _failed(self, error: UnauthenticatedError | UnavailableError, fresh: bool) -> None:
        """Return where nothing was sent and the registry may have another answer by now; else raise."""
        self._known_until = 0.0
        if not fresh and not error.maybe_applied:
            return
        if isinstance(error, UnauthenticatedError):
            # another process has taken over a registered port: the service is not there
            raise self._absent("its port belongs to another process now") from error
        raise error

    def _lookup(self) -> tuple[str, tuple[Any, ...]]:
        if self._engine.memory:
            raise self._absent("it is not in this process, and a store in memory has no registry")
        clocks = self._engine.clocks
        return _FIND, (self._name, clocks.boot_id(), clocks.boot_ms())

    def _found(self, rows: list[Any]) -> None:
        living = [row for row in rows if is_alive(row[2])]
        if not living:
            raise self._absent(f"no process has registered it in {self._engine.path}")
        secret = home_secret(self._folder)
        random.shuffle(living)  # several servers share the calls
        try:
            self._known = tuple(endpoint(address, "the registry", secret, instance) for instance, address, _ in living)
        except InvalidArgumentError as error:
            raise self._absent(str(error)) from error
        self._known_until = monotonic() + _FRESH

    def _absent(self, why: str) -> UnavailableError:
        name = self._name
        return UnavailableError(
            f"no service {name!r}: {why}. Serve it (client.rpc.serve() of an application with app_id={name!r} and the same "
            f'CLOUD_RUNTIMES_HOME), or say where it is: [rpc.{name}] address = "http://host:port"'
        )

    # -- hosting ----------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return Path(self._engine.path).parent

    def guard(self, op: Operation, /) -> Guard:
        if self._engine.memory:
            return Guard()
        self._engine.open(op)
        return Guard((home_secret(self._folder),))

    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        if self._engine.memory:
            return Announcement()
        registration = _Registration(self._context, instance, self._name, address)
        registration.engine.run(registration.entering(tidy=True), op)
        return registration.start()

    async def announce_async(self, op: Operation, instance: str, address: str, /) -> Announcement:
        if self._engine.memory:
            return Announcement()
        registration = _Registration(self._context, instance, self._name, address)
        try:
            await registration.engine.run_async(registration.entering(tidy=True), op)
        except BaseException:
            registration.engine.submit(registration.leaving())  # behind that write, which may go on
            raise
        return registration.start()


class _Registration(Announcement):
    """A row of the registry, renewed by a thread until it is closed."""

    def __init__(self, context: SqliteComponent, instance: str, app_id: str, address: str) -> None:
        self._context = context
        self.engine: Engine = context.engine
        self._instance = instance
        process = process_name(os.getpid()) or f"{os.getpid()}::"
        self._row = (instance, app_id, address, process, context.clocks.boot_id())
        self._changes = Changes()
        self._closing = False
        self._generation = fork.generation()
        self._thread = Background(self._run, "cloud-runtimes-rpc-lease")

    def start(self) -> Self:
        """Renew from now on."""
        self._thread.start()
        return self

    def entering(self, *, tidy: bool = False) -> WriteTask:
        """Return the write that enters or renews the row."""
        row, clocks = self._row, self._context.clocks

        def body(connection: sqlite3.Connection) -> None:
            now = clocks.boot_ms()
            if tidy:
                connection.execute("DELETE FROM services WHERE boot <> ? OR deadline <= ?", (row[4], now))
            connection.execute(_ENTER, (*row, now + int(LEASE * 1000)))

        return WriteTask(body, durable=False)  # a registration is worth nothing after a power cut

    def leaving(self) -> WriteTask:
        """Return the write that deletes the row."""
        delete = "DELETE FROM services WHERE instance = ?"
        return WriteTask(lambda connection: connection.execute(delete, (self._instance,)), durable=False)

    def _renew(self, op: Operation) -> None:
        engine = self._context.engine
        engine.run(self.entering(), op)
        if engine is not self.engine:  # the home was removed or emptied, and the secret with it
            restore_secret(Path(engine.path).parent)
            self.engine = engine

    def _run(self) -> None:
        while not self._closing:
            ticket = self._changes.ticket()
            if self._closing or self._changes.wait(ticket, LEASE / 3):
                continue
            try:
                self._renew(Operation(_RENEW, "rpc", LEASE / 3))
            except Exception as error:
                if self._closing:
                    return
                repeated(f"lease {self._instance}", "renewing the registration of %s failed: %s", self._row[1], error)

    def close(self, timeout: float | None) -> None:
        if self._closing or self._generation != fork.generation():
            return
        self._closing = True
        self._changes.announce()
        self._thread.join(timeout)
        self._context.engine.run(self.leaving(), Operation(_RENEW, "rpc", timeout))


# -- the secret of a home ------------------------------------------------------


def home_secret(folder: Path) -> bytes:
    """Return the secret of an existing home; the first caller makes it. One that others could have read or written is `PermissionDeniedError`."""
    path = folder / SECRET
    secret = known.get(str(path))
    if secret is None:
        try:
            secret = _read(path)
            if secret is None:
                _make(folder, path, os.urandom(_SIZE))
                secret = _read(path)
        except PermissionDeniedError:  # ours, which is an OSError too
            raise
        except OSError as error:
            raise explain_os_error(error, path) from error
        if secret is None:
            raise PermissionDeniedError(f"{path} went away while it was made: try again")
        known[str(path)] = secret
    return secret


def restore_secret(folder: Path) -> None:
    """Write the secret that this process serves by again, where the home was emptied and nobody has made another."""
    path = folder / SECRET
    secret = known.get(str(path))
    if secret is not None and not path.exists():
        _make(folder, path, secret)


def _read(path: Path) -> bytes | None:
    refusal = PermissionDeniedError(
        f"{path} must be a file that its owner alone can read: chmod 600 it, or delete it so that a new one is made"
    )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            raise refusal from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise refusal
        secret = os.read(descriptor, _SIZE + 1)
    finally:
        os.close(descriptor)
    if len(secret) != _SIZE:
        raise PermissionDeniedError(f"{path} does not hold a secret of ours: delete it so that a new one is made")
    return secret


def _make(folder: Path, path: Path, secret: bytes) -> None:
    """Make it in one step: written elsewhere, then linked to its name."""
    made = folder / f"{SECRET}-{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(made, path)
        except FileExistsError:
            return  # another was first
    finally:
        os.unlink(made)
