"""Settings of both processes."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud_runtimes.client import CloudRuntimesClient

__all__ = [
    "APPLIED",
    "BATCH",
    "DEFAULTS",
    "FIELDS",
    "LATE",
    "REPORT",
    "SECRET",
    "TOPIC",
    "Settings",
    "Totals",
    "sign",
    "state_key",
]

TOPIC: Final = "flights"
APPLIED: Final = "flights/applied"
"""Key of the record of what was applied; it is written with the totals, in one transaction where the store has them."""

BATCH: Final = "consumer.batch"
LATE: Final = "consumer.late-minutes"
DEFAULTS: Final = {BATCH: "1000", LATE: "15"}
"""The configuration of the consumer."""
REPORT: Final = "report"
"""The RPC method of the consumer."""
SECRET: Final = "report-key"
"""Key of the secret that signs it."""

Totals = dict[str, float]
FIELDS: Final = ("flights", "distance", "delayed", "air_time")
DEFAULT_HOME: Final = ".demo"


def state_key(carrier: str) -> str:
    """Return the key of a carrier's totals."""
    return f"flights/carrier/{carrier}"


def sign(report: Mapping[str, Any], key: str) -> str:
    """Return the HMAC-SHA256 (RFC 2104) of a report."""
    return hmac.new(key.encode(), json.dumps(sorted(report.items())).encode(), "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of the command line; ``home`` is used where there is no ``config``, and without a ``part`` both are done."""

    events: int | None
    home: str | None
    keep: bool
    part: str | None
    config: str | None
    pubsub: str
    store: str
    configuration: str
    secret: str
    app_id: str

    @property
    def folder(self) -> Path | None:
        """The home folder; ``None``: there is a configuration, or the home is a server's URL."""
        if self.config is not None or "://" in (self.home or ""):
            return None
        return Path(self.home or DEFAULT_HOME).absolute()

    @property
    def location(self) -> str:
        """The home: its folder, or the server's URL."""
        return str(self.folder or self.home)

    def client(self) -> CloudRuntimesClient:
        """Return a client, the same in both processes."""
        config: str | Mapping[str, Any] = self.config or {"runtime": "capa", "capa": {"home": self.location}}
        return CloudRuntimesClient(app_id=self.app_id, config=config)

    def arguments(self) -> Iterable[str]:
        """Return the command line of the other process."""
        where = ("--config", self.config) if self.config is not None else ("--home", self.location)
        names = ("pubsub", "store", "configuration", "secret", "app_id")
        return (*where, *(f"--{name.replace('_', '-')}={getattr(self, name)}" for name in names))
