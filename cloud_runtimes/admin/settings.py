"""The table ``[admin]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The table ``[admin]``."""

    audit: str | None = setting(None, help="pub/sub component that gets an event for each change by `client.admin`")
