"""Options before the command, and the client made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from .. import config
from ..client import CloudRuntimesClient

APP_ID: Final = "cloud-runtimes"


@dataclass(slots=True)
class Invocation:
    """The options before the command; filled by the front that parses them."""

    config: str | None = None
    runtime: str | None = None
    endpoint: str | None = None
    app_id: str | None = None
    timeout: float | None = None
    debug: bool = False


def make_client(invocation: Invocation) -> CloudRuntimesClient:
    """Return the client; it has done no I/O beyond reading the configuration."""
    app_id = invocation.app_id or os.environ.get("APP_ID")
    if app_id is None and not config.read(invocation.config)[0].get("app_id"):
        # else the group would be named after how the program was started: the script, or python -m
        app_id = APP_ID
    return CloudRuntimesClient(
        invocation.endpoint,
        config.DEFAULT_TIMEOUT if invocation.timeout is None else invocation.timeout,
        runtime=invocation.runtime,
        app_id=app_id,
        config=invocation.config,
    )


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Let what the library warns of meanwhile go to stderr."""
    import logging

    from .._core.logs import logger

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger().addHandler(handler)
    try:
        yield
    finally:
        logger().removeHandler(handler)


@contextmanager
def connect(invocation: Invocation) -> Iterator[CloudRuntimesClient]:
    """Give a client for one command; what the library warns of meanwhile goes to stderr."""
    with logging_to_stderr(), make_client(invocation) as client:
        yield client
