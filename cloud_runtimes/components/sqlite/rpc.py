"""The registry of services in the embedded store: one row per server, and a file with the secret of the home.

A row is a lease (boot id, CLOCK_BOOTTIME) with the process's name, so that a dead one is not called.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..._core.clocks import is_alive, process_name
from ..._core.os_errors import explain_os_error
from ...errors import PermissionDeniedError
from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi.operation import Operation
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent

__all__ = ["SECRET", "SqliteRpc", "home_secret", "known"]

SECRET: Final = "rpc.secret"
_SIZE: Final = 32
known: dict[str, bytes] = {}
"""Path of a secret → content, as this process read it."""

_FIND: Final = "SELECT instance, app_id, address, process FROM services WHERE app_id = ? AND boot = ? AND deadline > ?"
_ENTER: Final = (
    "INSERT INTO services (instance, app_id, address, process, boot, deadline) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (instance) DO UPDATE SET deadline = excluded.deadline"
)


class SqliteRpc(RegistryRpc):
    """One service, found by the registry of one store."""

    def __init__(self, context: SqliteComponent, name: str) -> None:
        super().__init__(_Registry(context), context, name)


class _Registry(Registry):
    """The rows of one store."""

    def __init__(self, context: SqliteComponent) -> None:
        self._context = context
        self._engine = context.engine
        process = process_name(os.getpid()) or f"{os.getpid()}::"
        self._holder = (process, context.clocks.boot_id())

    @property
    def where(self) -> str:
        return self._context.engine.path

    def check(self) -> str | None:
        if self._context.engine.memory:
            return "it is not in this process, and a store in memory has no registry"
        return None

    def find(self, op: Operation, app_id: str) -> list[Entry]:
        return self._living(self._context.engine.query(op, _FIND, self._lookup(app_id)))

    async def find_async(self, op: Operation, app_id: str) -> list[Entry]:
        return self._living(await self._context.engine.query_async(op, _FIND, self._lookup(app_id)))

    def _lookup(self, app_id: str) -> tuple[Any, ...]:
        return app_id, self._context.clocks.boot_id(), self._context.clocks.boot_ms()

    @staticmethod
    def _living(rows: list[Any]) -> list[Entry]:
        return [Entry(*row[:3]) for row in rows if is_alive(row[3])]

    def secret(self, op: Operation) -> bytes:
        engine = self._context.engine
        engine.open(op)
        return home_secret(Path(engine.path).parent)

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        clocks = self._context.clocks

        def body(connection: sqlite3.Connection) -> None:
            now = clocks.boot_ms()
            if first:
                connection.execute("DELETE FROM services WHERE boot <> ? OR deadline <= ?", (self._holder[1], now))
            connection.execute(_ENTER, (*entry, *self._holder, now + int(seconds * 1000)))

        engine = self._context.engine
        engine.run(WriteTask(body, durable=False), op)  # a registration is worth nothing after a power cut
        if engine is not self._engine:  # the home was removed or emptied, and the secret with it
            restore_secret(Path(engine.path).parent)
            self._engine = engine

    def leave(self, op: Operation, entry: Entry) -> None:
        delete = "DELETE FROM services WHERE instance = ?"
        task = WriteTask(lambda connection: connection.execute(delete, (entry.instance,)), durable=False)
        self._context.engine.run(task, op)


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
