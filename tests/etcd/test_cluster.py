"""A cluster of three: the leader dies or hands over, while state, configuration and locks are used."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.etcd.messages import pack, read_fields
from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError, LeaseLostError, UnavailableError
from tests.support import Figure, Make, Rounds
from tests.support.counting import Counting
from tests.support.etcd import EtcdServer, asked, serve_cluster
from tests.support.needs import present
from tests.support.waiting import until


@pytest.fixture
def cluster() -> Iterator[list[EtcdServer]]:
    with present(serve_cluster()) as servers:
        yield servers


def status(server: EtcdServer) -> tuple[int, int]:
    """Return a server's own id, and that of its leader; 0: it has none."""
    fields = dict(read_fields(asked(server.url, "/etcdserverpb.Maintenance/Status", b"")))
    return dict(read_fields(fields[1]))[2], fields.get(4, 0)


def leader(servers: list[EtcdServer]) -> int:
    """Return the place of the leader, once all agree on one."""

    def agreed() -> int | None:
        try:
            statuses = [status(server) for server in servers]
        except CloudRuntimesError:
            return None
        led = {leads for _, leads in statuses}
        ids = [id for id, _ in statuses]
        return ids.index(led.pop()) + 1 if len(led) == 1 and led <= set(ids) else None

    return until(agreed, seconds=30) - 1


@pytest.mark.soak
@pytest.mark.parametrize("harm", ["kill", "stop", "move"])
def test_a_leader_is_gone(cluster: list[EtcdServer], client: Make, harm: str, rounds: Rounds, figure: Figure) -> None:
    """Nothing acknowledged is lost, tokens only grow, subscribers get the last value."""
    count, chance = rounds(1, 20), random.Random(5)
    url = "etcd://" + ",".join(server.url.removeprefix("etcd://") for server in cluster)
    clients = [client(url) for _ in range(4)]
    tokens: list[int] = []
    unclear: list[CloudRuntimesError] = []
    over = threading.Event()

    def lock(locker: CloudRuntimesClient) -> None:
        while not over.is_set():
            try:
                with locker.lock.hold("l", "r", expiry=5, wait=10, timeout=10) as lease:
                    assert lease.token is not None
                    tokens.append(lease.token)
            except CloudRuntimesError as error:
                unclear.append(error)

    locking = [threading.Thread(target=lock, args=(locker,)) for locker in clients[2:]]
    saved = 0
    with clients[2].configuration.subscribe_configuration("c") as sub, Counting(clients[:2]) as counting:
        for thread in locking:
            thread.start()
        for number in range(count):
            had, held = len(counting.acknowledged[0]), len(tokens)
            until(lambda had=had, held=held: len(counting.acknowledged[0]) > had + 10 and len(tokens) > held, seconds=60)  # type: ignore[misc]
            index = leader(cluster)
            server = cluster[index]
            if harm == "kill":
                server.kill()
            elif harm == "stop":
                server.signal(signal.SIGSTOP)
            else:
                id, _ = status(chance.choice([each for each in cluster if each is not server]))
                asked(server.url, "/etcdserverpb.Maintenance/MoveLeader", pack((1, id)))
            while True:
                try:
                    clients[3].configuration.save_configuration("c", {"k": str(number)}, timeout=10)
                    saved = number
                    break
                except CloudRuntimesError as error:
                    unclear.append(error)
            until(lambda saved=saved: sub.current().get("k") and sub.current()["k"].value == str(saved), seconds=30)  # type: ignore[misc]
            if harm == "kill":
                server.start()
            elif harm == "stop":
                server.signal(signal.SIGCONT)
        over.set()
        for thread in locking:
            thread.join(60)
    summary = counting.check()
    assert tokens == sorted(set(tokens))
    named = (UnavailableError, DeadlineExceededError, LeaseLostError)
    assert [error for error in unclear if not isinstance(error, named)] == []
    figure(
        f"leaders of three etcd servers that are gone ({harm})",
        f"{count} leaders: {summary}; {len(tokens):,} tokens only grew; {len(unclear)} calls of locks and configuration failed with a named error",
    )
