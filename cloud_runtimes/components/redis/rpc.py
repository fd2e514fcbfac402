"""The registry of services on Redis: a sorted set of each application's servers by the ends of their leases, by the server's clock, and one secret for the prefix."""

from __future__ import annotations

import os
from typing import Final

from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._rpc import read_servers
from . import RedisComponent
from .engine import Script
from .failures import checked
from .resp import Batch, Flow

_SIZE: Final = 32
_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(ms) return string.format('%.0f', ms) end
"""
_FIND: Final = Script(
    _NOW + "return redis.call('ZRANGE', KEYS[1], '(' .. at(now), '+inf', 'BYSCORE')", flags="no-writes"
)
# ARGV: entry, milliseconds; with the last lease the set goes too
_ENTER: Final = Script(
    _NOW + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', at(now))
redis.call('ZADD', KEYS[1], at(now + ARGV[2]), ARGV[1])
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
""",
    flags="allow-oom",
)


class _Registry(Registry):
    def __init__(self, component: RedisComponent) -> None:
        self._component = component
        self.flows = component.engine
        self._secret: bytes | None = None

    @property
    def where(self) -> str:
        return f"redis {self.flows.where}"

    def _key(self, app_id: str) -> bytes:
        return self._component.key("rpc", app_id, "servers")

    def _find(self, op: Operation, app_id: str) -> Flow[list[Entry]]:
        rows = yield from _FIND.run((self._key(app_id),))
        return read_servers(app_id, [each.partition(b" ")[::2] for each in rows], bytes.decode)

    find, find_async = both_apis(_find)

    def secret(self, op: Operation) -> bytes:
        if self._secret is None:
            self._secret = self.flows.run(op, self._find_secret())
        return self._secret

    def _find_secret(self) -> Flow[bytes]:
        secret = os.urandom(_SIZE)
        (stored,) = checked((yield Batch(("SET", self._component.key("rpc", "", "secret"), secret, "NX", "GET"))))
        return secret if stored is None else bytes(stored)

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        self.flows.run(op, _ENTER.run((self._key(entry.app_id),), _member(entry), int(seconds * 1000)))

    def leave(self, op: Operation, entry: Entry) -> None:
        self.flows.run(op, self._leave(entry))

    def _leave(self, entry: Entry) -> Flow[None]:
        checked((yield Batch(("ZREM", self._key(entry.app_id), _member(entry)))))


class RedisRpc(RegistryRpc):
    """RPC driver of one service, which the registry of one prefix resolves.

    Whoever may read its secret may call and be called."""

    registry = _Registry


def _member(entry: Entry) -> str:
    return f"{entry.instance} {entry.address}"
