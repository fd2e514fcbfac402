"""``https`` addresses: certificate and name are checked, always. ``localhost.pem`` is a self-signed certificate for these tests."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http import sync_client
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.testing import Api
from tests.support import PEM

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n42"


class TlsServer:
    """Answers each request on each connection with `OK`."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(PEM)
        self._listener = socket.create_server(("", 0))
        self.port = self._listener.getsockname()[1]
        self.received = b""
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            plain.settimeout(30)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    while data := connection.recv(65536):
                        self.received += data
                        connection.sendall(OK)
            except OSError:
                plain.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(40)


@pytest.fixture
def server() -> Iterator[TlsServer]:
    made = TlsServer()
    yield made
    made.close()


@pytest.fixture
def call(home: Path, closing: Callable[..., CloudRuntimesClient], api: Api) -> Callable[[str], object]:
    clients: dict[str, CloudRuntimesClient] = {}

    def make(address: str) -> object:
        if address not in clients:
            table = {"capa": {"home": str(home)}, "rpc": {"x": {"address": address}}}
            clients[address] = closing(app_id="suite", timeout=5, config=table)
        answer: object = api.call(clients[address].rpc, "invoke_method", "x", "m", "canary")
        return answer

    return make


def _trusting(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    context = ssl.create_default_context()
    if path is not None:
        context.load_verify_locations(path)
    monkeypatch.setattr(sync_client, "_context", context)


def test_a_trusted_certificate(
    server: TlsServer, call: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    _trusting(monkeypatch, PEM)
    for _ in range(3):
        assert call(f"https://localhost:{server.port}") == 42
    assert server.connections == 1
    assert server.received.count(b"canary") == 3


@pytest.mark.parametrize("name", ["localhost", "127.0.0.2"])
def test_a_certificate_that_does_not_fit(
    server: TlsServer, call: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # of an unknown issuer, or for another name: the server listens on all of 127/8, its certificate names one
    _trusting(monkeypatch, None if name == "localhost" else PEM)
    with pytest.raises(UnavailableError, match=r"(?i)certificate") as caught:
        call(f"https://{name}:{server.port}")
    assert not caught.value.maybe_applied
    assert b"canary" not in server.received


def test_plain_http_to_a_tls_port(server: TlsServer, call: Callable[[str], object]) -> None:
    with pytest.raises(UnavailableError) as caught:
        call(f"http://127.0.0.1:{server.port}")
    assert caught.value.maybe_applied  # nobody knows what a server makes of bytes
