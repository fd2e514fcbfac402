"""A sidecar over HTTP that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient


class Peer:
    """A server that answers as it is told, and keeps what was asked: (method, path, headers, body)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.stalls = False
        self.go_on = threading.Event()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                peer.asked.append((self.command, self.path, headers, body))
                if peer.stalls and self.command == "POST":
                    peer.go_on.wait(30)
                    self.close_connection = True  # the caller has given up
                    return
                path = self.path.partition("?")[0]
                status, data, more = peer.answers.get(f"{self.command} {path}", peer.answers.get("*", (204, b"", {})))
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def says(self, status: int, document: Any, where: str = "*", **headers: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[where] = (status, data, headers)

    def is_component(self, kind: str) -> None:
        self.says(200, {"components": [{"name": "s", "type": kind, "version": "v1"}]}, "GET /v1.0/metadata")

    def writes(self) -> list[Any]:
        return [json.loads(body) for verb, _, _, body in self.asked if verb == "POST"]

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def client(peer: Peer) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(peer.url, app_id="shop", api_token="hidden") as made:
        yield made
