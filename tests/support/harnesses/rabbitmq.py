"""RabbitMQ as the component of pub/sub. Its clock cannot be set, so this really waits."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness

__all__ = ["RABBITMQ", "RABBITMQ_BINARY", "RABBITMQ_FRAMED", "RABBITMQ_STREAMS", "RabbitHome", "StreamHome"]

_numbers = itertools.count(1)


class RabbitHome(Harness):
    """A prefix of its own on the test run's server. The group of the suite has a queue from the first event on, since a queue does not have those before it."""

    name = "rabbitmq"
    event_metadata = False  # CloudEvents have no place for it
    longest = 1.0
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"{os.getpid()}-{next(_numbers)}"
        self.home = {"url": url, "prefix": self.prefix + ".{name}.", "groups": ["suite"], **self.settings}
        self._clients: list[CloudRuntimesClient] = []

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(config={"capa": {"home": self.home}}, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        if seconds > self.longest:
            pytest.skip(f"the clock of a RabbitMQ server cannot be set, and {seconds:g} s are long: see tests/rabbitmq")
        time.sleep(seconds)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class FramedHome(RabbitHome):
    """The same with many events a message."""

    name = "rabbitmq-frame"
    event_metadata = True
    settings: ClassVar[dict[str, Any]] = {"layout": "frame"}


class BinaryHome(RabbitHome):
    """The same with the attributes of events in headers."""

    name = "rabbitmq-binary"
    settings: ClassVar[dict[str, Any]] = {"content_mode": "binary"}


class StreamHome(RabbitHome):
    """The same with a stream for each topic, so that no group needs a queue from the first event on."""

    name = "rabbitmq-stream"
    settings: ClassVar[dict[str, Any]] = {"kind": "stream", "groups": []}


RABBITMQ: dict[str, type[RabbitHome]] = {RabbitHome.name: RabbitHome}
RABBITMQ_FRAMED: dict[str, type[RabbitHome]] = {FramedHome.name: FramedHome}
RABBITMQ_BINARY: dict[str, type[RabbitHome]] = {BinaryHome.name: BinaryHome}
RABBITMQ_STREAMS: dict[str, type[RabbitHome]] = {StreamHome.name: StreamHome}
