"""SQLite: the embedded default. One file for every service, no server, no setting needed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from ..._core.clocks import Clocks
from ..._core.home import home_folder, is_memory
from ..._core.threads import Mutex
from ...config import ClientSettings
from ...errors import ClosedError, InvalidArgumentError
from ...spi.component import Component, no_native
from .context import SqliteSettings
from .data_folder import DATABASE

if TYPE_CHECKING:
    from ...rpc.peers import Peers
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .engine import Engine

__all__ = ["SqliteComponent", "SqliteSettings", "component"]


class SqliteComponent(Component):
    """Drivers over one shared engine."""

    name = "sqlite"
    Settings = SqliteSettings
    services = ("configuration", "lock", "pubsub", "rpc", "schedule", "state")

    settings: SqliteSettings
    clocks = Clocks()

    def __init__(self, settings: SqliteSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        durability = settings.durability or os.environ.get("CLOUD_RUNTIMES_DURABILITY") or "full"
        if durability not in ("full", "relaxed"):
            raise InvalidArgumentError("CLOUD_RUNTIMES_DURABILITY: give full or relaxed")
        self.durable = durability == "full"
        self._lock = Mutex()
        self._engine: Engine | None = None
        self._peers: Peers | None = None
        self._sweeping = self._closed = False

    @property
    def path(self) -> str:
        """The database's file, or ``:memory:…``."""
        if self.settings.path is not None:
            return home_folder(self.settings.path)
        home = home_folder(self.settings.home)
        return home if is_memory(home) else os.path.join(home, DATABASE)

    @property
    def engine(self) -> Engine:
        """The engine, made without I/O; another once the files of the last one are gone.

        Raises:
            ClosedError: the client was closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._engine is not None and self._engine.gone is not None:
                self._engine.release(1.0)
                self._engine, self._sweeping = None, False
            if self._engine is None:
                from .engine import acquire

                self._engine = acquire(self.path, self.clocks)
            return self._engine

    def native(self, service: str, name: str) -> sqlite3.Connection:
        """Return a new connection to the database that reads only. Its caller closes it."""
        if is_memory(self.path):
            raise no_native(service, name)
        self.ready()
        return sqlite3.connect(f"{Path(self.path).as_uri()}?mode=ro", uri=True, isolation_level=None)

    def driver(self, service: str, name: str) -> Driver:
        if service == "configuration":
            from .configuration import SqliteConfiguration

            return SqliteConfiguration(self, name)
        if service == "state":
            from .state import SqliteState

            return SqliteState(self, name)
        if service == "rpc":
            from .rpc import SqliteRpc

            return SqliteRpc(self, name)
        if service == "lock":
            from .lock import SqliteLock

            return SqliteLock(self, name)
        if service == "schedule":
            from .schedule import SqliteSchedule

            return SqliteSchedule(self)
        from .pubsub import SqlitePubSub

        return SqlitePubSub(self, name)

    @property
    def peers(self) -> Peers:
        """The connections to services that the registry knows."""
        with self._lock:
            if self._peers is None:
                from ...rpc.peers import Peers

                self._peers = Peers()
            return self._peers

    def sweeping(self) -> None:
        """Have expired rows swept from now on."""
        if not self._sweeping:
            self._sweeping = True
            from .sweep import start

            start(self)

    def check_open(self) -> None:
        """Refuse to go on waiting once the client was closed, though the engine may serve others."""
        if self._closed:
            raise ClosedError("the client was closed while this call waited")

    def ready(self) -> None:
        self.engine.open()

    def is_inside(self) -> bool:
        return self._engine is not None and self._engine.is_inside()

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
            peers, self._peers = self._peers, None
        if peers is not None:
            peers.close()
        if engine is not None:
            engine.release(timeout)


component = SqliteComponent
