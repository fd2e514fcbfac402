"""SQLite: the embedded default. One file for every service, no server, no setting needed."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..._core.clocks import Clocks
from ..._core.home import home_folder, is_durable, is_memory
from ...config import ClientSettings, duration, setting
from ...errors import ClosedError
from ...spi.component import no_native
from .._home import HomeComponent
from .files import DATABASE

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .engine import Engine
    from .relay import SqliteRelay

__all__ = ["SqliteComponent", "SqliteSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSettings:
    """Settings of the component.

    Attributes:
        home: folder that holds the database, else ``CLOUD_RUNTIMES_HOME``, else ``./.cloud_runtimes``; ``":memory:"`` keeps it in the process.
        path: the database's file, instead of ``home/cloud_runtimes.db``.
        durability: ``"full"``: what is acknowledged survives a power cut; ``"relaxed"``: it survives a crash of the process, a power cut may cost the last moments. Default: ``CLOUD_RUNTIMES_DURABILITY``, else full.
        max_value_bytes: largest value of state or configuration, or event payload, encoded.
        retention: seconds that an event stays at least, settled or not.
        group_expiry: seconds after which a consumer group that nobody asked for holds nothing back.
        max_bytes: of the log of one pub/sub name; ``None``: no limit.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
        when_full: at ``max_bytes``: ``"refuse"`` publishing, or ``"drop_oldest"`` frames, counted.
    """

    home: str | None = setting(None, help="folder of the database")
    path: str | None = setting(None, help="file of the database")
    durability: Literal["full", "relaxed"] | None = setting(None, help="full or relaxed")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest value or event")
    retention: float = setting(86400.0, parse=duration, help="how long events stay at least")
    group_expiry: float = setting(7 * 86400.0, parse=duration, help="when an unseen group holds nothing")
    max_bytes: int | None = setting(None, help="limit of the log")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")
    when_full: Literal["refuse", "drop_oldest"] = setting("refuse", help="what happens at max_bytes")

    def __post_init__(self) -> None:
        if self.home is not None and self.path is not None:
            raise ValueError("give home or path, not both")
        if not 1 <= self.max_value_bytes <= 512 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 536,870,912")
        if self.max_bytes is not None and self.max_bytes < 1024 * 1024:
            raise ValueError("max_bytes must be at least 1,048,576")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")


class SqliteComponent(HomeComponent):
    """Drivers over one shared engine.

    Attributes:
        clocks: that rules about time use.
    """

    name = "sqlite"
    Settings = SqliteSettings
    drivers: ClassVar = {
        "configuration": "SqliteConfiguration",
        "lock": "SqliteLock",
        "pubsub": "SqlitePubSub",
        "rpc": "SqliteRpc",
        "schedule": "SqliteSchedule",
        "state": "SqliteState",
    }
    services = tuple(drivers)

    settings: SqliteSettings
    clocks = Clocks()

    def __init__(self, settings: SqliteSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)
        self._engine: Engine | None = None
        self._sweeping = False

    @property
    def path(self) -> str:
        """The database's file, or ``:memory:…``."""
        if self.settings.path is not None:
            return home_folder(self.settings.path)
        home = home_folder(self.settings.home)
        return home if is_memory(home) else os.path.join(home, DATABASE)

    @property
    def engine(self) -> Engine:
        """The engine, made without I/O; another once the files of the last one are gone."""
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

    def relay(self, name: str) -> SqliteRelay:
        relay: SqliteRelay = self._module("relay").SqliteRelay(self, name)
        return relay

    def native(self, service: str, name: str) -> sqlite3.Connection:
        """Return a new connection to the database that reads only. Its caller closes it."""
        if is_memory(self.path):
            raise no_native(service, name)
        self.ready()
        return sqlite3.connect(f"{Path(self.path).as_uri()}?mode=ro", uri=True, isolation_level=None)

    def sweeping(self) -> None:
        """Have expired rows swept from now on."""
        if not self._sweeping:
            self._sweeping = True
            self._module("sweep").start(self)

    def ready(self) -> None:
        self.engine.open()

    def is_inside(self) -> bool:
        return self._engine is not None and self._engine.is_inside()

    def close(self, timeout: float | None) -> None:
        super().close(timeout)
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.release(timeout)


component = SqliteComponent
