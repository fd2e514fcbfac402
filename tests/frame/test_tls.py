"""What all TLS of clients has in common."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud_runtimes._core.tls import client_context
from tests.support import PEM

PACKAGE = Path(__file__).parents[2] / "cloud_runtimes"


@pytest.fixture(scope="module")
def subject_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that names ``localhost`` in its subject, and nowhere else."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    path = tmp_path_factory.mktemp("tls") / "subject.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM) + secret)
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


def test_a_name_in_the_subject_alone_is_none(subject_alone: Path) -> None:
    shake_hands(client_context(str(PEM)), PEM)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client_context(str(subject_alone)), subject_alone)


def test_contexts_of_clients_are_made_in_one_place() -> None:
    makers = re.compile(r"create_default_context|PROTOCOL_TLS_CLIENT|SSLContext\(")
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if makers.search(path.read_text())}
    assert found == {"_core/tls.py"}
