"""The registry of services on Redis: a sorted set of each application's servers by the ends of their leases, by the server's clock, and one secret for the prefix."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi import rpc as spi
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._rpc import read_entered, read_servers
from . import RedisComponent
from .engine import Script
from .failures import checked
from .resp import Batch, Flow
from .scanning import names_of, pages

_SIZE: Final = 32
_APP: Final = re.compile(rb"(.*)}:servers", re.DOTALL)
_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(ms) return string.format('%.0f', ms) end
"""
_FIND: Final = Script(
    _NOW + "return redis.call('ZRANGE', KEYS[1], '(' .. at(now), '+inf', 'BYSCORE')", flags="no-writes"
)
# KEYS: the servers, and what else each tells. ARGV: entry, milliseconds, instance, what it tells; with the last lease both go
_ENTER: Final = Script(
    _NOW + """
for _, each in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', at(now), 'BYSCORE')) do
  redis.call('ZREM', KEYS[1], each)
  redis.call('HDEL', KEYS[2], string.match(each, '^[^ ]*'))
end
redis.call('ZADD', KEYS[1], at(now + ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, last) end
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

    def _key(self, app_id: str, what: str = "servers") -> bytes:
        return self._component.key("rpc", app_id, what)

    def _find(self, op: Operation, app_id: str) -> Flow[list[Entry]]:
        rows = yield from _FIND.run((self._key(app_id),))
        return read_servers(app_id, [each.partition(b" ")[::2] for each in rows], bytes.decode)

    find, find_async = both_apis(_find)

    def find_all(self, op: Operation, prefix: str, /) -> list[Entry]:
        return self.flows.run(op, self._find_all(prefix))

    def _find_all(self, prefix: str) -> Flow[list[Entry]]:
        apps = yield from names_of(self._component, "rpc", b"*}:servers", _APP)
        rows: list[tuple[Any, ...]] = []
        for some in pages([app for app in apps if app.startswith(prefix)]):
            (time,) = checked((yield Batch(("TIME",))))
            living = f"({int(time[0]) * 1000}", "+inf", "BYSCORE"
            asked = [
                each
                for app in some
                for each in (("ZRANGE", self._key(app), *living), ("HGETALL", self._key(app, "about")))
            ]
            replies = checked((yield Batch(*asked)))
            for app, servers, told in zip(some, replies[::2], replies[1::2], strict=True):
                about = dict(zip(told[::2], told[1::2], strict=True))
                for instance, _, address in (each.partition(b" ") for each in servers):
                    rows.append((instance, app.encode(), address, about.get(instance)))
        return read_entered(rows, bytes.decode)

    def secret(self, op: Operation) -> bytes:
        if self._secret is None:
            self._secret = self.flows.run(op, self._find_secret())
        return self._secret

    def _find_secret(self) -> Flow[bytes]:
        secret = os.urandom(_SIZE)
        (stored,) = checked((yield Batch(("SET", self._component.key("rpc", "", "secret"), secret, "NX", "GET"))))
        return secret if stored is None else bytes(stored)

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        keys = self._key(entry.app_id), self._key(entry.app_id, "about")
        self.flows.run(op, _ENTER.run(keys, _member(entry), int(seconds * 1000), entry.instance, entry.about))

    def leave(self, op: Operation, entry: Entry) -> None:
        self.flows.run(op, self._leave(entry))

    def _leave(self, entry: Entry) -> Flow[None]:
        about = ("HDEL", self._key(entry.app_id, "about"), entry.instance)
        checked((yield Batch(("ZREM", self._key(entry.app_id), _member(entry)), about)))


class RedisRpc(RegistryRpc):
    """RPC driver of one service, which the registry of one prefix resolves.

    Whoever may read its secret may call and be called."""

    registry = _Registry

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        if component.is_cluster:  # each application has a server of its own
            self.features -= {spi.SERVICES}


def _member(entry: Entry) -> str:
    return f"{entry.instance} {entry.address}"
