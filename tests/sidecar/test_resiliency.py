"""Policies of resource files that the sidecar holds: timeouts and retries of calls of the application."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from cloud_runtimes.resiliency.policies import Policy, Resiliency, Retries
from tests.sidecar.raw import send
from tests.support.apps import App, Got, Reply
from tests.support.ports import reserved_port
from tests.support.running import declared, serving

PATH = "/v1.0/invoke/app/method/m"


def policies(timeout: float | None = None, **retries: object) -> Resiliency:
    return Resiliency(apps={"app": Policy(timeout, Retries(interval=0.01, **retries) if retries else None)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("retries", "statuses", "status", "calls"),
    [
        ({}, [503, 200], 503, 1),
        ({"most": 3}, [503, 404, 200], 200, 3),
        ({"most": 1}, [503, 503, 200], 503, 2),
        ({"most": 3, "http": ((500, 599),)}, [503, 404, 200], 404, 2),
        ({"most": 3}, [201], 201, 1),
    ],
)
def test_answers_are_tried_again(retries: dict[str, object], statuses: list[int], status: int, calls: int) -> None:
    answers = itertools.chain(statuses, itertools.repeat(200))
    with App(answer=lambda got: Reply(next(answers) if got.path == "/m" else 200)) as app:
        with serving(declared(":memory:retries"), app_port=app.port, resiliency=policies(**retries)) as sidecar:
            assert send(sidecar.http_address, "POST", PATH, {"a": 1}).status == status
        assert [got.body for got in app.got if got.path == "/m"] == [b'{"a": 1}'] * calls


def test_an_application_that_is_not_there_yet_is_tried_again() -> None:
    retries = policies(most=None)
    with reserved_port() as port, serving(declared(":memory:late"), app_port=port, resiliency=retries) as sidecar:
        done: list[int] = []
        caller = threading.Thread(target=lambda: done.append(send(sidecar.http_address, "POST", PATH, 1).status))
        caller.start()
        with App(port=port):
            caller.join(60)
    assert done == [200]


def test_an_attempt_has_a_limit_of_its_own() -> None:
    hold = threading.Event()

    def answer(got: Got) -> Reply:
        if got.path == "/m" and not hold.is_set():
            hold.set()
            time.sleep(2)
        return Reply()

    with App(answer=answer) as app:
        limited = policies(timeout=0.3, most=5)
        with serving(declared(":memory:limit"), app_port=app.port, resiliency=limited) as sidecar:
            begin = time.monotonic()
            assert send(sidecar.http_address, "POST", PATH, 1).status == 200
            assert time.monotonic() - begin >= 0.3
    assert hold.is_set()
