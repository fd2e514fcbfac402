"""What the drivers are given: the component's settings, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ..._core.clocks import Clocks
from ...config import ClientSettings, duration, setting

if TYPE_CHECKING:
    from ...rpc.peers import Peers
    from .engine import Engine

__all__ = ["SqliteContext", "SqliteSettings"]

Durability = Literal["full", "relaxed"]


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
    durability: Durability | None = setting(None, help="full or relaxed")
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


class SqliteContext(Protocol):
    """The component, as its drivers see it.

    Attributes:
        settings: of the component.
        context: of the client.
        durable: commit with ``synchronous=FULL``.
        clocks: that rules about time use.
    """

    settings: SqliteSettings
    context: ClientSettings
    durable: bool
    clocks: Clocks

    @property
    def engine(self) -> Engine: ...

    @property
    def peers(self) -> Peers: ...

    def sweeping(self) -> None: ...

    def check_open(self) -> None: ...
