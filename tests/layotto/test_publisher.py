"""A publisher over Layotto, where each event is a request."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import _lanes
from cloud_runtimes.testing import Api
from tests.support.attempts import attempts_that_ran_out
from tests.support.fake_layotto import FakeLayotto

SOON = 20.0


def test_a_slow_answer_to_each_event(
    fake: FakeLayotto, client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: Counter[int] = Counter()
    inner = fake.pubsub._envelope

    def slow(request: Any) -> Any:
        came[json.loads(request.data)["data"]] += 1
        time.sleep(0.002)
        return inner(request)

    monkeypatch.setattr(fake.pubsub, "_envelope", slow)
    # of a batch's 500 events an attempt's time is enough for fifty, if that
    monkeypatch.setattr(_lanes, "ATTEMPT", 0.1)
    monkeypatch.setattr(_lanes, "_SLOW", 0.4)
    ended = attempts_that_ran_out(monkeypatch)
    with api.opened(client.pubsub.publisher("bus", "t")) as publisher:
        for number in range(500):
            publisher.send(number, key="k")
        api.call(publisher, "flush", SOON)
        assert publisher.stats().delivered == 500
    assert list(came) == list(range(500))
    # those that were under way when an attempt ended
    assert came.total() - 500 <= len(ended)
