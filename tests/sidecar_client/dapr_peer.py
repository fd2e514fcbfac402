"""A sidecar over HTTP that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support.listening import Answer, HttpServer


class Peer(HttpServer):
    """A server that answers as it is told, and keeps what was asked: (method, path, headers, body)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.stalls = False
        self.go_on = threading.Event()
        super().__init__()

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        self.asked.append((method, path, {name.lower(): value for name, value in headers.items()}, body))
        if self.stalls and method == "POST":
            self.go_on.wait(30)
            return None  # the caller has given up
        key = f"{method} {path.partition('?')[0]}"
        status, data, more = self.answers.get(key, self.answers.get("*", (204, b"", {})))
        return status, data, more.items()

    def says(self, status: int, document: Any, where: str = "*", **headers: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[where] = (status, data, headers)

    def is_component(self, kind: str) -> None:
        self.says(200, {"components": [{"name": "s", "type": kind, "version": "v1"}]}, "GET /v1.0/metadata")

    def writes(self) -> list[Any]:
        return [json.loads(body) for verb, _, _, body in self.asked if verb == "POST"]

    def close(self) -> None:
        self.go_on.set()
        super().close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer()
    yield server
    server.close()


@pytest.fixture
def client(peer: Peer) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(peer.url, app_id="shop", api_token="hidden") as instance:
        yield instance
