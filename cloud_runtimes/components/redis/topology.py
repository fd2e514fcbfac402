"""Which server has a key: the one server, the master that Sentinels name, or a node of a cluster.

A topology asks nobody itself. The engine asks the servers of `Topology.ask` the `Topology.question`, tells it the answer, and what it learned from errors.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from .resp import ReplyError, Value
from .settings import Address, Target

_SLOTS: Final = 16384
_PORTS: Final = 65536
_REFERRED: Final = re.compile(r"(\d{1,5}) (\S*):(\d{1,5})(?: |$)", re.ASCII)
_MOVING: Final = frozenset(["ASK", "MOVED", "TRYAGAIN"])
_AWAY: Final = frozenset(["CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"])


def slot_of(key: Value) -> int:
    """Return the slot of a key, by its hash tag if it has one."""
    name = key if isinstance(key, bytes) else str(key).encode()
    start = name.find(b"{") + 1
    end = name.find(b"}", start)
    if start and end > start:
        name = name[start:end]
    return crc_hqx(name, 0) % _SLOTS


class Topology:
    """Topology of a single server, which has all keys.

    Attributes:
        follows: whether another server may take over, which calls wait for.
        changes: a new number means that another server may have some keys, without the last writes.
        question: command that asks servers for the topology.
    """

    follows: ClassVar[bool] = False
    question: tuple[Value, ...] = ()

    def __init__(self, target: Target) -> None:
        self._target = target
        self.changes = 0

    def find(self, key: Value | None) -> Address | None:
        """Return the server of a key, any for ``None``; ``None``: others are to be asked first."""
        return self._target.server

    def ask(self) -> Sequence[Address]:
        """Return whom to ask, the best first."""
        return ()

    def answer(self, asked: Address, reply: Any) -> bool:
        """Take in an answer; returns whether it was one."""
        return False

    def suspect(self, address: Address) -> None:
        """Ask anew before a server is used again: it does not answer, or is no master."""

    def refuses(self, reply: Any) -> bool:
        """Return whether a command was refused for now, and may be sent again."""
        if not isinstance(reply, ReplyError):
            return False
        code = str(reply).partition(" ")[0]
        return code in _MOVING or (self.follows and code in _AWAY)

    def learn(self, address: Address, error: ReplyError) -> Address | None:
        """Learn from an error of a server; returns the server that it names for this once (``ASK``)."""
        code, _, rest = str(error).partition(" ")
        if code in _AWAY:
            self.suspect(address)
        elif code in ("ASK", "MOVED") and (match := _REFERRED.match(rest)) is not None:
            slot, host, port = int(match[1]), match[2] or address.host, int(match[3])
            if slot < _SLOTS and port < _PORTS:
                return self.referred(code, slot, address._replace(host=host, port=port))
        return None

    def referred(self, code: str, slot: int, address: Address) -> Address | None:
        """Learn where a slot is (``MOVED``), or return where it is for this once (``ASK``)."""
        return None


class Sentinels(Topology):
    """The master that Sentinels name."""

    follows = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.master)
        self._seeds = list(target.seeds)
        self._master: Address | None = None

    def find(self, key: Value | None) -> Address | None:
        return self._master

    def ask(self) -> Sequence[Address]:
        return tuple(self._seeds)

    def answer(self, asked: Address, reply: Any) -> bool:
        if reply is None:
            return False
        host, port = reply
        self._master = self._target.server._replace(host=host.decode(), port=_port(port))
        self._seeds.sort(key=lambda seed: seed != asked)  # those before it did not answer
        return True

    def suspect(self, address: Address) -> None:
        if self._master == address:
            self._master = None
            self.changes += 1


class Cluster(Topology):
    """The nodes of a cluster.

    Args:
        discovered: whether the URL names one server, and that turned out to be a node. It then gets to say which others there are (``CLUSTER SLOTS``): no error reply sends a call, and the password, to a server that it does not name.
    """

    follows = True
    question = ("CLUSTER", "SLOTS")

    def __init__(self, target: Target, *, discovered: bool = False) -> None:
        super().__init__(target)
        self._discovered = discovered
        self._masters: list[Address] = []
        self._slots: list[Address | None] = [None] * _SLOTS
        self._suspects: set[Address] = set()

    def find(self, key: Value | None) -> Address | None:
        if key is not None:
            address = self._slots[slot_of(key)]
            return None if address in self._suspects else address
        return next((each for each in self._masters if each not in self._suspects), None)

    def ask(self) -> Sequence[Address]:
        known = dict.fromkeys((*self._masters, *self._target.seeds))
        return sorted(known, key=lambda each: each in self._suspects)

    def answer(self, asked: Address, reply: Any) -> bool:
        slots: list[Address | None] = [None] * _SLOTS
        masters: dict[Address, None] = {}
        for first, last, (host, port, *_), *_ in reply:
            name = host.decode() if host and host != b"?" else asked.host  # it does not know its own
            node = self._target.server._replace(host=name, port=_port(port))
            if not 0 <= first <= last < _SLOTS:
                raise ValueError(first, last)
            masters[node] = None
            slots[first : last + 1] = [node] * (last + 1 - first)
        if not masters:
            return False
        if slots != self._slots:
            self.changes += 1
        self._masters, self._slots = list(masters), slots
        self._suspects.clear()
        return True

    def suspect(self, address: Address) -> None:
        self._suspects.add(address)
        self.changes += 1

    def referred(self, code: str, slot: int, address: Address) -> Address | None:
        known = not self._discovered or address in self._masters
        if code == "ASK":
            return address if known else None
        self._slots[slot] = address if known else None  # else it is asked who has it
        self._suspects.discard(address)
        self.changes += 1
        return None


def _port(number: Any) -> int:
    port = int(number)
    if not 0 < port < _PORTS:
        raise ValueError(port)
    return port


_KINDS: Final[dict[str, Callable[[Target], Topology]]] = {
    "cluster": Cluster,
    "sentinel": Sentinels,
    "server": Topology,
}


def topology_of(target: Target) -> Topology:
    """Return the topology of what a URL names."""
    return _KINDS[target.kind](target)
