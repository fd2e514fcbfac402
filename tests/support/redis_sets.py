"""Clusters, and masters that Sentinels watch, for tests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.support.ports import reserved_port
from tests.support.redis import RedisServer
from tests.support.waiting import until

__all__ = ["MASTER", "RedisCluster", "SentinelServer", "SentinelSet", "serve_cluster", "serve_sentinels", "until"]

MASTER = "mymaster"
_SLOTS = 16384
_NEVER = 10_000_000_000
"""Milliseconds within which a node is not believed dead, however a test sets the clocks."""


def _is_connected(server: RedisServer) -> bool:
    """Return whether a server is a replica of its master; one that begins may cut a connection."""
    try:
        return b"connected" in server.command("ROLE")
    except OSError:
        return False


class RedisCluster:
    """Nodes that share the slots.

    Attributes:
        masters, replicas: the nodes; ``replicas[n]`` follows ``masters[n]``.
        url: of all masters.
    """

    def __init__(self, masters: Sequence[RedisServer], replicas: Sequence[RedisServer]) -> None:
        self.masters = masters
        self.replicas = replicas
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in masters)

    @property
    def nodes(self) -> list[RedisServer]:
        """All of them."""
        return [*self.masters, *self.replicas]

    def command(self, *words: str) -> bytes:
        """Send a command to the node that has its key, and return the first bytes of the reply."""
        replies = (node.command(*words) for node in self.masters)
        return next(reply for reply in replies if not reply.startswith(b"-MOVED"))

    def advance(self, seconds: float) -> None:
        """Set the wall clocks forward."""
        for node in self.nodes:
            node.advance(seconds)

    def reset(self) -> None:
        """Set the wall clocks right."""
        for node in self.nodes:
            node.reset()

    def owner(self, slot: int) -> RedisServer | None:
        """Return the node that has a slot; ``None``: the one that had it does not run."""
        return next((each for each in self.nodes if self._has(each, slot)), None)

    def _has(self, node: RedisServer, slot: int) -> bool:
        if node.process is None or node.process.poll() is not None:
            return False
        lines = node.command("CLUSTER", "NODES").decode().splitlines()
        mine = next(line for line in lines if "myself" in line).split()
        ranges = [part for part in mine[8:] if not part.startswith("[")]
        return any(int(part.split("-")[0]) <= slot <= int(part.split("-")[-1]) for part in ranges)

    def move(self, slot: int, to: RedisServer, *, pause: float = 0.0) -> None:
        """Move a slot to another master, key by key, as ``redis-cli --cluster reshard`` does."""
        source = self.owner(slot)
        assert source is not None
        ids = {each.port: each.command("CLUSTER", "MYID").split(b"\r\n")[1].decode() for each in (source, to)}
        assert to.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[source.port]) == b"+OK\r\n"
        assert source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[to.port]) == b"+OK\r\n"
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", str(slot), "1").split(b"\r\n")[2:-1:2]:
            moved = source.command("MIGRATE", "127.0.0.1", str(to.port), keys[0].decode(), "0", "10000")
            assert moved in (b"+OK\r\n", b"+NOKEY\r\n"), moved
            time.sleep(pause)
        for node in (to, source, *self.masters):
            assert node.command("CLUSTER", "SETSLOT", str(slot), "NODE", ids[to.port]) == b"+OK\r\n"


@contextmanager
def serve_cluster(kind: str = "valkey", replicas: bool = False, **options: object) -> Iterator[RedisCluster]:
    """Run three masters, perhaps with a replica each, until the block ends. No node is believed dead, unless a test sets ``cluster-node-timeout``."""
    with ExitStack() as resources:
        count = 6 if replicas else 3
        buses = [resources.enter_context(reserved_port()) for _ in range(count)]
        settings = {"cluster_enabled": "yes", "cluster_node_timeout": _NEVER, "cluster_config_file": "nodes.conf"}
        settings |= {"cluster_replica_validity_factor": 0, "repl_diskless_sync_delay": 0, "shutdown_timeout": 0}
        settings |= options
        nodes = [RedisServer(resources, kind, {**settings, "cluster_port": bus}) for bus in buses]
        # they know each other from the start, which saves the seconds that they would talk for
        for node in nodes:
            lines = []
            for number, (each, bus) in enumerate(zip(nodes, buses, strict=True)):
                flags = "myself," if each is node else ""
                shard = number % 3
                share = f"{shard * _SLOTS // 3}-{(shard + 1) * _SLOTS // 3 - 1}"
                state = (
                    f"master - 0 0 {number + 1} connected {share}"
                    if number < 3
                    else f"slave {shard:040x} 0 0 {shard + 1} connected"
                )
                lines.append(f"{number:040x} 127.0.0.1:{each.port}@{bus} {flags}{state}\n")
            (node.folder / "nodes.conf").write_text("".join(lines) + "vars currentEpoch 6 lastVoteEpoch 0\n")
        for node in nodes:
            node.start()
        for node in nodes[:3]:
            node.advance(2.5)  # a master that starts waits for 2 s
        for node in nodes:
            until(lambda node=node: b"cluster_state:ok" in node.command("CLUSTER", "INFO"))
        for node in nodes[3:]:
            until(lambda node=node: b"connected" in node.command("ROLE"))
        yield RedisCluster(nodes[:3], nodes[3:])


class SentinelServer(RedisServer):
    """A Sentinel; its configuration is in its folder."""

    def _arguments(self) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]


class SentinelSet:
    """A master, its replicas, and three Sentinels.

    Attributes:
        servers: those with data, the master first.
        sentinels: who watches them.
        url: of the Sentinels.
    """

    def __init__(self, servers: Sequence[RedisServer], sentinels: Sequence[SentinelServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.url = "redis+sentinel://" + ",".join(f"127.0.0.1:{each.port}" for each in sentinels) + f"/{MASTER}/0"

    def master(self) -> RedisServer:
        """Return the master, as the first Sentinel that answers has it."""
        for sentinel in self.sentinels:
            if sentinel.process is not None and sentinel.process.poll() is None:
                port = int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split(b"\r\n")[4])
                return next(each for each in self.servers if each.port == port)
        raise AssertionError("no Sentinel runs")

    def rejoin(self, server: RedisServer) -> None:
        """Start a server that was the master, as a replica, and wait until the replica has all."""
        server._options["replicaof"] = f"127.0.0.1 {self.master().port}"
        server.start()
        # on a machine under load the Sentinels may have changed their minds since
        until(lambda: any(_is_connected(each) for each in self.servers))


@contextmanager
def serve_sentinels(
    kind: str = "valkey", replicas: int = 1, extra: str = "", **options: object
) -> Iterator[SentinelSet]:
    """Run a master and its replicas, and three Sentinels with the lines ``extra`` in their configuration, until the block ends."""
    with ExitStack() as resources:
        options = {"repl_diskless_sync_delay": 0, "shutdown_timeout": 0, **options}
        servers = [RedisServer(resources, kind, options)]
        servers[0].start()
        for _ in range(replicas):
            servers.append(RedisServer(resources, kind, {**options, "replicaof": f"127.0.0.1 {servers[0].port}"}))
            servers[-1].start()
        sentinels = [SentinelServer(resources, kind, {}) for _ in range(3)]
        for number, sentinel in enumerate(sentinels):
            lines = [
                f"port {sentinel.port}",
                "bind 127.0.0.1",
                f"dir {sentinel.folder}",
                f"sentinel myid {number:040x}",
            ]
            lines.append(f"sentinel monitor {MASTER} 127.0.0.1 {servers[0].port} 2")
            lines += [
                f"sentinel down-after-milliseconds {MASTER} 800",
                f"sentinel failover-timeout {MASTER} 2000",
                extra,
            ]
            # what they would tell each other within seconds
            lines += [f"sentinel known-replica {MASTER} 127.0.0.1 {each.port}" for each in servers[1:]]
            others = [(each, other) for other, each in enumerate(sentinels) if each is not sentinel]
            lines += [f"sentinel known-sentinel {MASTER} 127.0.0.1 {each.port} {other:040x}" for each, other in others]
            (sentinel.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
            sentinel.start()
        for replica in servers[1:]:
            until(lambda replica=replica: b"connected" in replica.command("ROLE"))
        yield SentinelSet(servers, sentinels)
