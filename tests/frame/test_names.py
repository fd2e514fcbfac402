"""What a process remembers of names that others give, such as the callers of a sidecar."""

from __future__ import annotations

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.schedule.times import occurrences


def test_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes._service.base.MAX_NAMES", 3)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:names"}}) as client:
        for number in range(5):
            client.state.save(f"store{number}", "k", number)
        assert set(client.state._drivers) == {"store2", "store3", "store4"}
        assert [client.state.get(f"store{number}", "k") for number in range(5)] == [*range(5)]
        assert len(client.state._drivers) == 3


def test_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.components.sqlite.pubsub._MAX_TOPICS", 3)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:topics"}}, app_id="a") as client:
        with client.pubsub.subscribe("bus", "topic0") as events:
            for number in [*range(5), 0]:
                client.pubsub.publish("bus", f"topic{number}", number)
            assert [events.receive(10).data, events.receive(10).data] == [0, 0]
        assert len(client.pubsub._drivers["bus"]._topics) <= 3


def test_schedules() -> None:
    every = ",".join(map(str, range(60)))
    occurrences(f"{every} * * * *", "UTC")
    kept = occurrences.cache_info().currsize
    with pytest.raises(InvalidArgumentError, match=r"has 1,010 characters: 1,000 are taken"):
        occurrences("@every 10s".rjust(1010), "UTC")
    assert occurrences.cache_info().currsize == kept
