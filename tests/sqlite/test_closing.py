"""Closing while others use the client, and writes that a signal handler makes in a write of its own thread."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite import engine as engines
from cloud_runtimes.errors import ClosedError, UnavailableError
from tests.support.waiting import running


@pytest.mark.parametrize("service", ["configuration", "lock", "pubsub", "rpc", "schedule", "state"])
def test_nothing_is_opened_behind_a_close(client: CloudRuntimesClient, home: Path, service: str) -> None:
    client.state.save("store", "k", 1)
    runtime: Any = client._context.runtime()
    component: Any = runtime.component("state", "store")
    client.close()
    # a call that had looked up runtime or component before
    with pytest.raises(ClosedError):
        runtime.component(service, "late")
    with pytest.raises(ClosedError):
        component.driver(service, "late")
    assert str(home / "cloud_runtimes.db") not in engines._engines


def test_a_close_beside_calls_leaves_no_engine(home: Path) -> None:
    for _ in range(10):
        client = CloudRuntimesClient(app_id="busy")
        client.state.save("store", "k", 1)
        begun = threading.Barrier(5)

        def use(number: int) -> None:
            begun.wait()  # noqa: B023
            with pytest.raises(ClosedError):
                while True:
                    number += 4
                    client.state.save(f"store-{number}", "k", 1)  # noqa: B023

        with running(*[threading.Thread(target=use, args=(number,)) for number in range(4)]):
            begun.wait()
            client.close()
        assert str(home / "cloud_runtimes.db") not in engines._engines


def test_a_handler_in_the_middle_of_a_write_is_refused_once(client: CloudRuntimesClient) -> None:
    client.state.save("store", "k", 1)
    driver: Any = client.state._frame.drivers["store"]
    attempts: list[int] = []
    refusals: list[UnavailableError] = []
    apply, write = driver._apply, driver.write

    def handler(number: int, frame: Any) -> None:
        with pytest.raises(UnavailableError, match="signal handler") as caught:
            client.state.save("store", "h", 1)
        refusals.append(caught.value)

    def applying(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return apply(*arguments)

    def writing(*arguments: Any) -> Any:
        attempts.append(1)
        return write(*arguments)

    driver._apply, driver.write = applying, writing
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        client.state.save("store", "k", 2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(refusals) == 1
    assert not refusals[0].retryable
    assert not refusals[0].maybe_applied
    assert len(attempts) == 2, "the write, and the handler's one attempt"
    assert client.state.get("store", "k") == 2
    assert client.state.get("store", "h") is None
