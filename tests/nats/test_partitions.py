"""The network between the servers of a cluster is cut, so that a leader is alone, and clients still reach it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nats.test_cluster import EVENTS, STREAM, client_of, lead, url, whole
from tests.support import Figure, Make, Rounds
from tests.support.counting import Counting
from tests.support.nats import NatsServer, Network, serve_cluster
from tests.support.needs import present
from tests.support.traffic import Traffic
from tests.support.waiting import until


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def cluster(network: Network) -> Iterator[list[NatsServer]]:
    with present(serve_cluster(jetstream={"sync_interval": "always"}, network=network)) as servers:
        yield servers


@pytest.mark.soak
def test_a_leader_that_is_cut_off(
    cluster: list[NatsServer], network: Network, client: Make, figure: Figure, rounds: Rounds
) -> None:
    """Writes that it acknowledges survive. The others elect another leader; all go on once the network is whole."""
    count = rounds(1, 10)
    alone, others = cluster[:1], cluster[1:]
    clients = [client(url(*side), replicas=3) for side in (alone, others)]
    with (
        Counting(clients) as counting,
        Traffic(client_of(alone), "alone", timeout=2) as there,
        Traffic(client_of(others), "others", timeout=2) as here,
    ):
        for turn in range(count):
            whole(cluster)
            for stream in (STREAM, EVENTS):
                lead(clients[1], cluster, stream, 0)
            with network.without(0, silent=bool(turn % 2)):
                failed = there.failed
                _until_more(counting.acknowledged[1])
                _until_more(here.acknowledged)
                until(lambda failed=failed: there.failed > failed)  # type: ignore[misc]
            _until_more(counting.acknowledged[0])
            there.go_on()
            here.go_on()
    assert not there.lost
    assert not here.lost
    what = (
        f"{count}: {len(there.acknowledged) + len(here.acknowledged)} acknowledged, 0 lost, "
        f"{there.twice + here.twice} twice, {there.failed + here.failed} failed; {counting.check()}"
    )
    figure("leaders of JetStream cut off from the others, of three servers", what)


def _until_more(acknowledged: list[int] | set[int]) -> None:
    """Wait until more is acknowledged."""
    before = len(acknowledged)
    until(lambda: len(acknowledged) > before)
