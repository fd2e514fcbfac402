"""Where a server is and how it is spoken to, from a URL as redis-py has it."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from ...errors import InvalidArgumentError

__all__ = ["Address", "parse_url"]

_TRUE = ("1", "true", "yes", "on")


class Address(NamedTuple):
    """One server.

    Attributes:
        host, port: of TCP; the path of a socket file and 0 otherwise.
        username, password: ``None``: none is sent.
        database: that is selected.
        tls: options of a TLS connection, ``ssl_ca_certs`` and so on; ``None``: without TLS.
    """

    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: tuple[tuple[str, str], ...] | None

    def __repr__(self) -> str:
        return f"redis {self.where}"

    @property
    def where(self) -> str:
        """How messages name it, without user and password."""
        return f"{self.host}:{self.port}" if self.port else self.host

    def context(self) -> ssl.SSLContext | None:
        """Return what a TLS connection is made with."""
        if self.tls is None:
            return None
        options = dict(self.tls)
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
        wanted = options.get("ssl_cert_reqs", "required")
        context.check_hostname = wanted == "required" and options.get("ssl_check_hostname", "true").lower() in _TRUE
        context.verify_mode = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL}.get(wanted, ssl.CERT_REQUIRED)
        if certificate := options.get("ssl_certfile"):
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
        return context


def parse_url(url: str) -> Address:
    """Read a URL.

    Raises:
        InvalidArgumentError: it is none; the URL is not quoted, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        username = unquote(parts.username) if parts.username else query.get("username")
        password = unquote(parts.password) if parts.password else query.get("password")
        if parts.scheme == "unix":
            return Address(unquote(parts.path), 0, username, password, int(query.get("db", "0")), None)
        path = parts.path.strip("/")
        tls = None
        if parts.scheme == "rediss":
            tls = tuple(sorted((name, value) for name, value in query.items() if name.startswith("ssl_")))
        database = int(path or query.get("db", "0"))
        return Address(parts.hostname or "localhost", parts.port or 6379, username, password, database, tls)
    except ValueError:
        raise InvalidArgumentError(
            "the url of a redis component: give one such as redis://user:password@host:6379/0"
        ) from None
