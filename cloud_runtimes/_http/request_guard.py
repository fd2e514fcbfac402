"""A check of ``Host``, ``Origin`` and ``Sec-Fetch-Site`` that keeps web pages away from servers on this machine.

A browser sends what a page asks for to any address, this machine's own included, and a page can let its own name resolve to 127.0.0.1 (DNS rebinding). Three rules refuse such requests before a server routes them:

* ``Host`` must be a name that nobody can register: an IP address, ``localhost``, a name without a dot, one under ``.localhost`` or ``.internal`` (RFC 6761), or one that the operator allows. A page whose own name was rebound sends that name.
* ``Origin`` must be the server's own (Fetch Standard, section 3.1). Browsers send it with every request that can change something, except a form or an image by ``GET``.
* ``Sec-Fetch-Site`` must be ``same-origin`` or ``none`` (W3C Fetch Metadata). Browsers send it to loopback addresses with every request. Where they leave it out, since the address is not loopback, a browser's ``GET`` is refused.

Programs that are no browsers send neither ``Origin`` nor ``Sec-Fetch-Site``. A server that asks for a token needs no check where the token is right: no page knows it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ..errors import InvalidArgumentError

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(?::[0-9]{1,5})?")
_HEADERS: Final = frozenset(
    [b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"user-agent"]
)


class Refusal(NamedTuple):
    """Why a request is not answered; the reason names the remedy."""

    status: (
        int  # 421 for a ``Host`` that is not the server's (RFC 9110, section 15.5.20), 403 for a page of another origin
    )
    reason: str


class RequestGuard:
    """Tells requests that a web page made a browser send from all others.

    ``allowed`` are further names of this server, which an operator gives by ``option``. One with a port stands for that port alone, one that begins with a dot for all names below it. With ``pages`` the server shows pages of its own: links to them are followed, and its ``GET`` changes nothing.
    """

    def __init__(self, allowed: Iterable[str] = (), *, option: str, pages: bool = False) -> None:
        names = [allowed] if isinstance(allowed, str) else list(allowed)
        for name in names:
            if not isinstance(name, str) or not (_AUTHORITY.fullmatch(name.lower()) or _address(name)):
                raise InvalidArgumentError(f"{option}: give names such as 'dapr.example.com', without a scheme")
        self._allowed: Final = frozenset(name.lower() for name in names)
        self._option = option
        self._pages = pages

    def refusal(self, scope: Mapping[str, Any]) -> Refusal | None:
        """Return why an ASGI request must not be answered, or ``None``. Needs no I/O."""
        given: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            name = name.lower()
            if name in _HEADERS:
                text = value.decode("latin-1")
                given[name] = f"{given[name]}, {text}" if name in given else text
        host = given.get(b"host", "").lower()
        name = _name(host[:300])
        if not _unregistrable(name) and not self.allows(host):
            return Refusal(
                421,
                f"this server does not answer to the Host it was asked for: use an address such as 127.0.0.1, or localhost, or allow the name with {self._option}",
            )
        origin = given.get(b"origin")
        site = given.get(b"sec-fetch-site")
        if origin is not None and not self._is_own(origin.lower(), host, scope):
            return Refusal(403, "requests that pages of other origins make are not answered")
        if site is None:
            # a browser that does not tell may act for any page, which matters where a GET can change something
            if self._pages or origin is not None or _is_loopback(name):
                return None
            if not given.get(b"user-agent", "").startswith("Mozilla/"):
                return None
        elif site in ("same-origin", "none") or (self._pages and _follows_link(scope, given)):
            return None
        return Refusal(403, "requests that pages of other origins make are not answered")

    def allows(self, host: str) -> bool:
        """Return whether the operator has allowed a ``Host``, in lower case."""
        name = _name(host[:300])
        return bool({name, host} & self._allowed) or any(
            name.endswith(each) for each in self._allowed if each[0] == "."
        )

    def _is_own(self, origin: str, host: str, scope: Mapping[str, Any]) -> bool:
        if origin == f"{scope.get('scheme', 'http')}://{host}":
            return True
        # before a server with a name of its own TLS may have ended
        return not _unregistrable(_name(host[:300])) and origin == f"https://{host}"


def _follows_link(scope: Mapping[str, Any], given: Mapping[bytes, str]) -> bool:
    """Return whether another page only links to the server's own: it may not frame or read it."""
    return (
        scope["path"] == "/"
        and given.get(b"sec-fetch-mode") == "navigate"
        and given.get(b"sec-fetch-dest") == "document"
    )


@lru_cache(64)
def _name(host: str) -> str:
    """Return the name or address in a ``Host``, in lower case; ``""``: it is none."""
    match = _AUTHORITY.fullmatch(host)
    return "" if match is None else match[1].strip("[]").removesuffix(".")


@lru_cache(64)
def _unregistrable(name: str) -> bool:
    return _address(name) is not None or (name != "" and "." not in name) or name.endswith((".localhost", ".internal"))


@lru_cache(64)
def _is_loopback(name: str) -> bool:
    """Return whether browsers take a name or address for this machine (W3C Secure Contexts, section 3.1)."""
    address = _address(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False  # the kernel does, browsers do not
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
