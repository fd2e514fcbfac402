"""Whether the sidecar's actuator says that it is ready."""

from __future__ import annotations

from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["ask"]


def ask(actuator: str, timeout: float) -> str:
    """Return ``""`` where ``/actuator/health/readiness`` answers with 200, else why it does not."""
    opener = build_opener(ProxyHandler({}))  # nobody's proxy stands before a sidecar
    try:
        with opener.open(Request(f"{actuator.rstrip('/')}/actuator/health/readiness"), timeout=timeout):
            return ""
    except (URLError, OSError, ValueError) as error:
        return f"its actuator: {error}"
