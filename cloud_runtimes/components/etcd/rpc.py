"""The registry of services on etcd: a key for each server, with a lease, and one secret for the prefix."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote_to_bytes

from ...rpc.registry import Entry, Registry, RegistryRpc
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._rpc import read_entered, read_servers
from . import EtcdComponent
from .engine import Flow, Request, ensure, lease_of, revoke
from .messages import changed_by, put, range_of, read_range, read_txn, then, txn, under

_SIZE: Final = 32


class _Registry(Registry):
    def __init__(self, component: EtcdComponent) -> None:
        self._component = component
        self.flows = component.engine
        self._secret: bytes | None = None

    @property
    def where(self) -> str:
        return f"etcd {self.flows.where}"

    def own_host(self, op: Operation) -> str:
        return self.flows.own_host(op)

    def _find(self, op: Operation, app_id: str, /) -> Flow[list[Entry]]:
        prefix = self._component.key("rpc", app_id, "")
        items = read_range((yield Request(range_of, prefix, under(prefix)))).items
        return read_servers(app_id, [(item.key[len(prefix) :], item.value) for item in items], bytes.decode)

    find, find_async = both_apis(_find)

    def find_all(self, op: Operation, prefix: str, /) -> list[Entry]:
        return self.flows.run(op, self._find_all(prefix))

    def _find_all(self, prefix: str) -> Flow[list[Entry]]:
        key, about = self._component.key("rpc", ""), self._component.key("rpc-about", "")
        asked = [then(range_of, each, under(each)) for each in (key, about)]
        answers = read_txn((yield Request(txn, (), asked))).answers
        servers, told = (read_range(answer).items for answer in answers)
        tells = {item.key[len(about) :]: item.value for item in told}
        rows = []
        for item in servers:
            app, _, instance = (place := item.key[len(key) :]).partition(b"/")
            rows.append((instance, unquote_to_bytes(app), item.value, tells.get(place)))
        return [each for each in read_entered(rows, bytes.decode) if each.app_id.startswith(prefix)]

    def secret(self, op: Operation) -> bytes:
        if self._secret is None:
            self._secret = self.flows.run(op, self._find_secret())
        return self._secret

    def _find_secret(self) -> Flow[bytes]:
        key, secret = f"{self._component.settings.prefix}/rpc-secret".encode(), os.urandom(_SIZE)
        absent, makes = [changed_by(key, 0)], [then(put, key, secret)]
        done = read_txn((yield Request(txn, absent, makes, [then(range_of, key)])))
        return secret if done.succeeded else read_range(done.answers[0]).items[0].value

    def enter(self, op: Operation, entry: Entry, seconds: float, *, first: bool) -> None:
        self.flows.run(op, self._enter(entry, int(seconds)))

    def _enter(self, entry: Entry, seconds: int) -> Flow[None]:
        id = _id(entry)
        yield from ensure(id, seconds)
        tells = {"rpc": entry.address, "rpc-about": entry.about}
        puts = [
            then(put, self._component.key(kind, entry.app_id, entry.instance), value.encode(), id)
            for kind, value in tells.items()
        ]
        yield Request(txn, (), puts, writes=True)

    def leave(self, op: Operation, entry: Entry) -> None:
        self.flows.run(op, revoke(_id(entry)))


class EtcdRpc(RegistryRpc):
    """A service in the registry of one prefix. Whoever may read its secret may call and be called."""

    registry = _Registry


def _id(entry: Entry) -> int:
    """Return the id of the lease of a server."""
    return lease_of("rpc", entry.app_id, entry.instance)
