"""RPC on Capa: a call finds its service in this process, in the configuration, or in the home, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...errors import CloudRuntimesError
from ...rpc.host import Host, hosts
from ...rpc.local import call as call_here
from ...rpc.local import call_async as call_here_async
from ...spi import rpc as spi
from ...spi.inventory import ServiceInfo
from ...spi.operation import Operation
from ...spi.rpc import Announcement, Answer, CallSource, Guard, RpcCall, RpcDriver, RpcReply

if TYPE_CHECKING:
    from ..._http.http1 import Endpoint
    from . import CapaRuntime


class CapaRpc(RpcDriver):
    """The way to one service."""

    @cached_property
    def features(self) -> frozenset[str]:  # type: ignore[override]
        try:
            has = self._runtime.embedded_rpc(self._name).features & {spi.SERVICES}
        except CloudRuntimesError:  # this home has no registry
            has = frozenset()
        return frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD, spi.STATUS}) | has

    def __init__(self, runtime: CapaRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._app_id = runtime.settings.app_id
        self._seen = -1
        self._host: Host | None = None
        self._configured: tuple[Endpoint, ...] | None = None
        self._store: RpcDriver | None = None
        self._address = runtime.capa.rpc_address
        own = [] if self._address is None else [urlsplit(self._address).netloc]
        self.allowed_hosts = (*own, *(runtime.capa.rpc_allowed_hosts or ()))
        if name in runtime.settings.addresses:
            self._configured = runtime.endpoints(name)  # what is wrong with them is said before any I/O

    def _here(self) -> Host | None:
        """Return who has the service in this process."""
        version = hosts.version
        if self._seen != version or (self._host is not None and self._host.context.closed):
            self._host = hosts.find(self._name)
            self._seen = version
        return self._host

    def _away(self) -> RpcDriver:
        if self._store is None:
            self._store = self._runtime.embedded_rpc(self._name)
            self._store.executor = self.executor
        return self._store

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        host = self._here()
        if host is not None:
            return call_here(host, op, call, self._app_id)
        if self._configured is not None:
            return self._runtime.peers.call(op, self._configured, call, self._app_id)
        return self._away().invoke(op, call)

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        host = self._here()
        if host is not None:
            return await call_here_async(host, op, call, self._app_id)
        if self._configured is not None:
            return await self._runtime.peers.call_async(op, self._configured, call, self._app_id)
        return await self._away().invoke_async(op, call)

    def guard(self, op: Operation, /) -> Guard:
        return self._guard(self._away().guard(op))

    async def guard_async(self, op: Operation, /) -> Guard:
        return self._guard(await self._away().guard_async(op))

    def _guard(self, home: Guard) -> Guard:
        capa = self._runtime.capa
        token = capa.rpc_token
        return Guard((*home.secrets, *(() if token is None else (token.encode(),))), capa.rpc_open)

    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return self._announcing().announce(op, instance, self._address or address)

    async def announce_async(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return await self._announcing().announce_async(op, instance, self._address or address)

    def _announcing(self) -> RpcDriver:
        away = self._away()
        away.methods = self.methods
        return away

    def services(self, op: Operation, prefix: str, /) -> Sequence[ServiceInfo]:
        return self._away().services(op, prefix)

    def receive(self, op: Operation, answer: Answer, /) -> CallSource | None:
        return self._away().receive(op, answer)

    async def receive_async(self, op: Operation, answer: Answer, /) -> CallSource | None:
        return await self._away().receive_async(op, answer)
