"""Logging in by an NKey or a JWT: the server sends a nonce, which the client signs by Ed25519.

A seed and a public key are base32 of a prefix, 32 bytes and their CRC-16 (github.com/nats-io/nkeys).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from ..._core.config_formats import without_values
from ..._core.extras import importing
from ...errors import InvalidArgumentError

if TYPE_CHECKING:
    from .settings import NatsSettings

_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_PARTS: Final = re.compile(r"-{3,}BEGIN [^-\n]+-{3,}\s+(\S+)\s+-{3,}END ")


@without_values
def login(settings: NatsSettings, nonce: str | None) -> dict[str, str]:
    """Return what ``CONNECT`` says of the client. The files are read anew each time, since others may renew them.

    Raises:
        InvalidArgumentError: a file cannot be read, or is none of this kind.
        UnsupportedError: cryptography is not installed.
    """
    if settings.credentials is not None:
        parts = _PARTS.findall(_read("credentials", settings.credentials))
        if len(parts) != 2:
            raise _wrong("credentials", settings.credentials, "a .creds file, with a JWT and the seed of its user")
        _, signature = _signed("credentials", settings.credentials, parts[1], nonce)
        return {"jwt": parts[0], **signature}
    if settings.nkey is not None:
        public, signature = _signed("nkey", settings.nkey, _read("nkey", settings.nkey).strip(), nonce)
        return {"nkey": public, **signature}
    return {}


def _read(setting: str, path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        why = "it is no text"
    raise InvalidArgumentError(f"nats: {setting}: the file {path} cannot be read: {why}")


def _wrong(setting: str, path: str, wanted: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"nats: {setting}: the file {path} is not {wanted}")


def _signed(setting: str, path: str, seed: str, nonce: str | None) -> tuple[str, dict[str, str]]:
    """Return the public key, and the signature of the nonce; a server without one wants none."""
    with importing("logging in to NATS by an NKey or a JWT", "nats"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        raw = b""
    sound = len(raw) == 36 and binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
    if not sound or raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise _wrong(setting, path, "one with the seed of a user's key: it begins with SU")
    key = Ed25519PrivateKey.from_private_bytes(raw[2:-2])
    public = bytes([_USER]) + key.public_key().public_bytes_raw()
    public += binascii.crc_hqx(public, 0).to_bytes(2, "little")
    signature = (
        {} if nonce is None else {"sig": base64.urlsafe_b64encode(key.sign(nonce.encode())).decode().rstrip("=")}
    )
    return base64.b32encode(public).decode().rstrip("="), signature
