"""``https`` addresses: certificate and name are checked, always; and what all TLS of clients has in common."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.tls import client_context
from cloud_runtimes._http import sync_client
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.testing import Api
from tests.support import PEM
from tests.support.listening import Listener

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n42"


class TlsServer(Listener):
    """Answers each request on each connection with `OK`."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(PEM)
        self.received = b""
        super().__init__(self._answer, "")

    def _answer(self, plain: socket.socket) -> None:
        plain.settimeout(30)
        with self._context.wrap_socket(plain, server_side=True) as connection:
            while data := connection.recv(65536):
                self.received += data
                connection.sendall(OK)


@pytest.fixture
def server() -> Iterator[TlsServer]:
    with TlsServer() as tls_server:
        yield tls_server


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


@pytest.mark.promise("H8")
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


# -- what all TLS of clients has in common

PACKAGE = Path(__file__).parents[2] / "cloud_runtimes"


@pytest.fixture(scope="module")
def subject_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that names ``localhost`` in its subject, and nowhere else."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    path = tmp_path_factory.mktemp("tls") / "subject.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM) + secret)
    return path


def shake_hands(client: ssl.SSLContext, certificate: Path) -> None:
    """Have a client and a server agree, in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    theirs = server.wrap_bio(up, down, server_side=True)
    for side in (ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.promise("H8")
def test_a_name_in_the_subject_alone_is_none(subject_alone: Path) -> None:
    shake_hands(client_context(str(PEM)), PEM)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client_context(str(subject_alone)), subject_alone)


def test_contexts_of_clients_are_made_in_one_place() -> None:
    makers = re.compile(r"create_default_context|PROTOCOL_TLS_CLIENT|SSLContext\(")
    paths = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if makers.search(path.read_text())}
    assert paths == {"_core/tls.py"}
