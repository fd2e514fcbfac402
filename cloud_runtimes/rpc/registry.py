"""RPC by a registry: processes with one home find each other, without settings.

A server is an entry of the registry, a lease that its process renews. Those who may use the registry share a secret, by which caller and server know each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from socket import gethostname
from time import monotonic, time_ns
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from .._core import fork
from .._core.logs import logger, once, repeated
from .._core.threads import Background, Changes
from .._http.http1 import Endpoint
from .._version import __version__
from ..config import ClientSettings
from ..errors import CloudRuntimesError, InvalidArgumentError, UnauthenticatedError, UnavailableError
from ..spi import rpc as spi
from ..spi.inventory import InstanceInfo, ServiceInfo
from ..spi.operation import Method, Operation
from ..spi.rpc import Announcement, Guard, RpcCall, RpcDriver, RpcReply
from .host import hosts
from .peers import Peers, endpoint

LEASE: Final = 15.0
"""Seconds that an entry lasts without a renewal. Servers renew three times as often."""
_LOOPBACK: Final = "127.0.0.1"
_METHODS: Final = 200
"""Methods that a server tells of."""
_END_MS: Final = 253_402_300_800_000
"""The year 10000."""
_FRESH: Final = 1.0
"""Seconds for which an answer of the registry is used."""
_RENEW: Final = Method("rpc", "announce", repeatable=False)


class Entry(NamedTuple):
    """A server that can be called.

    Attributes:
        instance: the server's own name; `listener` of it is who answers at the address.
        app_id: of the application.
        address: ``http://host:port``.
        about: what else it tells, as JSON; ``""``: nothing.
    """

    instance: str
    app_id: str
    address: str
    about: str = ""


def listener(instance: str) -> str:
    """Return the name by which a server proves itself: servers that share one socket have it in common, before a dot."""
    return instance.partition(".")[0]


class Registry(ABC):
    """Where the servers of one home are entered. A store writes one of these; the rest is done here."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Name of the registry in messages."""

    def check(self) -> str | None:
        """Return why there can be no registry here; ``None``: there is one."""
        return None

    @abstractmethod
    def find(self, op: Operation, app_id: str, /) -> list[Entry]:
        """Return the living servers of an application, without entries that cannot be read."""

    @abstractmethod
    async def find_async(self, op: Operation, app_id: str, /) -> list[Entry]:
        """Return the living servers of an application, without entries that cannot be read."""

    @abstractmethod
    def find_all(self, op: Operation, prefix: str, /) -> list[Entry]:
        """Return the living servers of all applications whose names begin so, in the order of their names."""

    @abstractmethod
    def secret(self, op: Operation) -> bytes:
        """Return the secret of the home; the first caller makes it. Remembered, so that only the first call waits."""

    def own_host(self, op: Operation) -> str:
        """Return the address of this machine by which others that use the registry reach it."""
        return _LOOPBACK

    @abstractmethod
    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        """Enter a server for so many seconds, or renew its lease. The ``first`` time, entries that have ended may be removed."""

    @abstractmethod
    def leave(self, op: Operation, entry: Entry) -> None:
        """Remove an entry."""


class Home(Protocol):
    """The component that has a registry."""

    context: ClientSettings

    @property
    def peers(self) -> Peers:
        """The connections to services that the registry knows."""


class _Server(NamedTuple):
    """A known server, with an element for each call of this process that is under way: lists need no lock."""

    endpoint: Endpoint
    calls: list[None]


def _calls_of(server: _Server) -> int:
    return len(server.calls)


class RegistryRpc(RpcDriver):
    """RPC driver of a service that a registry lists."""

    features = frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD, spi.SERVICES, spi.STATUS})
    registry: ClassVar[Any]  # makes the `Registry` of a component

    def __init__(self, component: Home, name: str) -> None:
        self._registry: Registry = self.registry(component)
        self._component = component
        self._name = name
        self._caller = component.context.app_id
        self._known: tuple[_Server, ...] = ()
        self._known_until = 0.0

    # -- calling ----------------------------------------------------------

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        while True:
            fresh = monotonic() >= self._known_until
            if fresh:
                registry = self._checked()
                self._accept(registry.find(op, self._name), registry.secret(op))
            servers = sorted(self._known, key=_calls_of)
            calls = servers[0].calls
            calls.append(None)
            try:
                return self._component.peers.call(op, [each.endpoint for each in servers], call, self._caller)
            except (UnauthenticatedError, UnavailableError) as error:
                self._failed(error, fresh)
            finally:
                calls.pop()

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        while True:
            fresh = monotonic() >= self._known_until
            if fresh:
                registry = self._checked()
                entries = await registry.find_async(op, self._name)
                self._accept(entries, await asyncio.to_thread(registry.secret, op))
            servers = sorted(self._known, key=_calls_of)
            calls = servers[0].calls
            calls.append(None)
            try:
                endpoints = [each.endpoint for each in servers]
                return await self._component.peers.call_async(op, endpoints, call, self._caller)
            except (UnauthenticatedError, UnavailableError) as error:
                self._failed(error, fresh)
            finally:
                calls.pop()

    def _failed(self, error: UnauthenticatedError | UnavailableError, fresh: bool) -> None:
        """Return where nothing was sent and the registry may have another answer by now; else raise."""
        self._known_until = 0.0
        if not fresh and not error.maybe_applied:
            return
        if isinstance(error, UnauthenticatedError):
            # another process has taken over a registered port: the service is not there
            raise self._absent("its port belongs to another process now") from error
        raise error

    def _checked(self) -> Registry:
        registry = self._registry
        if (why := registry.check()) is not None:
            raise self._absent(why)
        return registry

    def _accept(self, entries: list[Entry], secret: bytes) -> None:
        random.shuffle(entries)  # else all callers begin with the same one
        endpoints: dict[Endpoint, None] = {}
        why = f"no process has registered it in {self._registry.where}"
        for each in entries:
            try:
                endpoints[endpoint(each.address, "the registry", secret, listener(each.instance))] = None
            except InvalidArgumentError as error:
                why = str(error)
                what = "the server %r of %r in the registry is skipped: %s"
                once(f"server {each.instance}", what, each.instance, self._name, error)
        if not endpoints:
            raise self._absent(why)
        self._known = tuple(_Server(each, []) for each in endpoints)
        self._known_until = monotonic() + _FRESH

    def _absent(self, why: str) -> UnavailableError:
        name = self._name
        return UnavailableError(
            f"no service {name!r}: {why}. Serve it (client.rpc.serve() of an application with app_id={name!r} and the same "
            f'CLOUD_RUNTIMES_HOME), or say where it is: [rpc.{name}] address = "http://host:port"'
        )

    # -- hosting ----------------------------------------------------------

    def guard(self, op: Operation, /) -> Guard:
        known = self._registry.check() is None
        return Guard((self._registry.secret(op),)) if known else Guard()

    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        if self._registry.check() is not None:
            return Announcement()
        lease = _Lease(self._registry, Entry(instance, self._name, address), self.methods)
        lease.enter(op)
        return lease.start()

    async def announce_async(self, op: Operation, instance: str, address: str, /) -> Announcement:
        if self._registry.check() is not None:
            return Announcement()
        lease = _Lease(self._registry, Entry(instance, self._name, address), self.methods)
        try:
            await self._in_thread(lease.enter, op)
        except BaseException:
            Background(lease.withdraw, "cloud-runtimes-rpc-withdraw").start()  # the thread may go on
            raise
        return lease.start()

    # -- looking ----------------------------------------------------------

    def services(self, op: Operation, prefix: str, /) -> Sequence[ServiceInfo]:
        if self._registry.check() is not None:  # so nobody but this process has any
            here = {host.app_id: tuple(sorted(host.handlers)) for host in hosts.open()}
            return [ServiceInfo(app, here[app], ()) for app in sorted(here) if app.startswith(prefix)]
        entries = self._registry.find_all(op, prefix)
        return [_service(app_id, list(each)) for app_id, each in groupby(entries, lambda entry: entry.app_id)]


def _service(app_id: str, entries: Sequence[Entry]) -> ServiceInfo:
    told = [_told(entry.about) for entry in entries]
    methods = [each["methods"] for each in told if isinstance(each.get("methods"), list)]
    return ServiceInfo(
        app_id,
        tuple(sorted({str(name) for names in methods for name in names})[:_METHODS]) if methods else None,
        tuple(_instance(entry.address, each) for entry, each in zip(entries, told, strict=True)),
    )


def _told(about: str) -> dict[str, Any]:
    try:
        told = json.loads(about or "{}")
    except ValueError:  # another program's
        return {}
    return told if isinstance(told, dict) else {}


_TELLS: Final[Mapping[str, Any]] = {"host": str, "pid": int, "since": int, "version": str}


def _instance(address: str, told: dict[str, Any]) -> InstanceInfo:
    host, pid, since, version = (
        value if isinstance(value := told.get(name), kind) else None for name, kind in _TELLS.items()
    )
    moment = None if since is None or not 0 <= since < _END_MS else datetime.fromtimestamp(since / 1000, UTC)
    return InstanceInfo(address, host, pid, moment, version)


class _Lease(Announcement):
    """An entry, renewed by a thread until it is closed."""

    def __init__(self, registry: Registry, entry: Entry, methods: Callable[[], Iterable[str]] | None) -> None:
        self._registry = registry
        self._entry = entry
        self._methods = methods
        self._about = {"host": gethostname(), "since": time_ns() // 1_000_000, "version": __version__}
        self._changes = Changes()
        self._closing = False
        self._generation = fork.generation()
        self._thread = Background(self._run, "cloud-runtimes-rpc-lease")

    def enter(self, op: Operation) -> None:
        """Enter the server; once it was withdrawn, take that back."""
        self._entry = self._entry._replace(address=self._reachable(op))
        self._enter(op, first=True)
        if self._closing:
            self._registry.leave(op, self._entry)

    def _enter(self, op: Operation, *, first: bool) -> None:
        methods = {} if self._methods is None else {"methods": sorted(self._methods())[:_METHODS]}
        about = json.dumps({**self._about, "pid": os.getpid(), **methods})
        self._registry.enter(op, self._entry._replace(about=about), LEASE, first=first)

    def _reachable(self, op: Operation) -> str:
        """Return the address that others are told."""
        address = self._entry.address
        parts = urlsplit(address)
        if parts.hostname not in ("0.0.0.0", "::"):
            return address
        host = self._registry.own_host(op)
        if parts.hostname == "0.0.0.0" and ":" in host:
            logger().warning(
                "%s listens by IPv4, and reaches %s by IPv6: it is announced at %s, where only this machine finds it. "
                "Give host='::', or set rpc_address in [capa]",
                self._entry.app_id,
                self._registry.where,
                _LOOPBACK,
            )
            host = _LOOPBACK
        return f"http://{f'[{host}]' if ':' in host else host}:{parts.port}"

    def renew(self, op: Operation) -> None:
        """Renew the lease."""
        self._enter(op, first=False)

    def withdraw(self) -> None:
        """Take back an entry that nobody waits for any more."""
        self._closing = True
        with suppress(CloudRuntimesError):  # then it ends by itself
            self._registry.leave(Operation(_RENEW, "rpc", LEASE / 3), self._entry)

    def start(self) -> Self:
        """Renew from now on."""
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._closing:
            ticket = self._changes.ticket()
            if self._closing or self._changes.wait(ticket, LEASE / 3):
                continue
            try:
                self.renew(Operation(_RENEW, "rpc", LEASE / 3))
            except Exception as error:
                if self._closing:
                    return
                what = "renewing the registration of %s failed: %s"
                repeated(f"lease {self._entry.instance}", what, self._entry.app_id, error)

    def close(self, timeout: float | None) -> None:
        if self._closing or self._generation != fork.generation():
            return
        self._closing = True
        self._changes.announce()
        self._thread.join(timeout)
        self._registry.leave(Operation(_RENEW, "rpc", timeout), self._entry)
