"""Subscriptions on a scripted source: how they handle its updates and errors."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.sqlite.configuration import SqliteConfiguration
from cloud_runtimes.configuration import ConfigurationItem, ConfigurationSubscription
from cloud_runtimes.configuration._feed import Feed
from cloud_runtimes.errors import ClosedError, PermissionDeniedError, UnavailableError
from cloud_runtimes.spi.configuration import ConfigurationSource, Update
from tests.support.waiting import until, wait_in_vain

Values = dict[str, str | None]


def items(values: Values) -> dict[str, ConfigurationItem]:
    return {key: ConfigurationItem(key, value or "", deleted=value is None) for key, value in values.items()}


def values_of(received: dict[str, ConfigurationItem] | None) -> Values | None:
    return None if received is None else {key: None if item.deleted else item.value for key, item in received.items()}


class Scripted(ConfigurationSource):
    """A fake: gives what it is told to give, raises what it is told to raise."""

    def __init__(self) -> None:
        self.script: list[Update | Exception] = []
        self.looks = 0
        self.closed = False
        self._woken = threading.Event()

    def say(self, *what: Update | Exception) -> None:
        self.script += what
        self._woken.set()

    def look_first(self) -> None:
        """Hook that a test runs before each look."""

    def look(self) -> Update | None:
        self.looks += 1
        self.look_first()
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, timeout: float, /) -> None:
        if not self.script:
            self._woken.wait(min(timeout, 0.05))
            self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self.closed = True


class Stage:
    """Subscribes to scripted sources."""

    def __init__(self, client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.source = Scripted()
        self.first: Values = {"a": "1"}
        monkeypatch.setattr(SqliteConfiguration, "subscribe", lambda *_: (self.source, Update(items(self.first), True)))

    def subscribe(self, *arguments: Any) -> ConfigurationSubscription:
        return self.client.configuration.subscribe_configuration("app", *arguments)


@pytest.fixture
def stage(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(client, monkeypatch)


def changed(values: Values) -> Update:
    return Update(items(values), False)


def everything(values: Values) -> Update:
    return Update(items(values), True)


def test_changes_and_whole_states(stage: Stage) -> None:
    with stage.subscribe() as sub:
        assert values_of(sub.receive(5)) == {"a": "1"}
        stage.source.say(changed({"a": "2", "b": "1"}))
        assert values_of(sub.receive(5)) == {"a": "2", "b": "1"}
        # a whole state: what is not in it is gone, what is as it was is not told
        stage.source.say(everything({"b": "1", "c": "1"}))
        assert values_of(sub.receive(5)) == {"a": None, "c": "1"}
        stage.source.say(changed({"c": None, "never": None}))
        assert values_of(sub.receive(5)) == {"c": None}
        stage.source.say(everything({"b": "1"}), changed({"b": "1"}), everything({}))
        assert values_of(sub.receive(5)) == {"b": None}
        assert sub.receive(0.1) is None
        assert sub.current() == {}


def test_a_deleted_key_that_came_back(stage: Stage) -> None:
    with stage.subscribe() as sub:
        sub.receive(5)
        stage.source.say(changed({"a": None}), changed({"a": "1"}))
        until(lambda: not stage.source.script and stage.source.looks >= 3)
        # the taker knows this very value
        assert sub.receive(0.1) is None


@pytest.mark.promise("B6")
def test_a_lost_connection_and_a_hundred_updates(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The last value is there within 2 s of the connection's return, and no older one after it."""
    seen = []
    with caplog.at_level(logging.WARNING, "cloud_runtimes"), stage.subscribe() as sub:
        sub.receive(5)
        stage.source.say(*[UnavailableError("connection lost")] * 6)
        until(lambda: not stage.source.script)
        back = time.monotonic()
        # what the connection brings first is what it had missed, all of it
        stage.source.say(*[changed({"a": str(number)}) for number in range(100)], everything({"a": "last"}))
        while not seen or seen[-1] != "last":
            received = sub.receive(5)
            assert received is not None
            seen.append(received["a"].value)
        assert time.monotonic() - back < 5  # or 2, on a machine that has nothing else to do
        assert sub.receive(0.1) is None
    assert [record.message for record in caplog.records] == [
        "configuration 'app': connection lost; trying again"
    ], "said once"


@pytest.mark.parametrize("error", [PermissionDeniedError("no longer yours"), ValueError("a fault")])
def test_a_subscription_outlives_any_error(stage: Stage, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    sub = stage.subscribe()
    assert values_of(sub.receive(5)) == {"a": "1"}
    problems: list[str] = []
    stage.source.look_first = lambda: problems.append(str(sub.health.problem))  # type: ignore[method-assign]
    stage.source.say(changed({"a": "2"}), error, changed({"a": "3"}))
    until(lambda: values_of(sub.current()) == {"a": "3"})
    assert any(str(error) in each for each in problems)
    until(lambda: sub.health.problem is None)
    assert values_of(sub.receive(5)) == {"a": "3"}
    assert [record.message for record in caplog.records if str(error) in record.message] == [
        f"configuration 'app': {'' if error.__class__ is PermissionDeniedError else 'ValueError: '}{error}; trying again"
    ]
    sub.close()


def test_an_error_wakes_who_waits(stage: Stage) -> None:
    sub = stage.subscribe()
    sub.receive(5)
    errors: list[Exception] = []

    def take() -> None:
        try:
            sub.receive()
        except Exception as error:
            errors.append(error)

    async def wait() -> None:
        waiting = asyncio.create_task(sub.wait_async())
        await asyncio.sleep(0.05)
        stage.source.say(ClosedError("the client is closed"))
        with pytest.raises(ClosedError) as caught:
            await waiting
        raised: Any = caught.value
        assert (raised.service, raised.operation, raised.component, raised.runtime) == (
            *("configuration", "subscribe_configuration", "app"),
            "capa",
        )

    thread = threading.Thread(target=take)
    thread.start()
    asyncio.run(wait())
    thread.join(10)
    assert [type(error) for error in errors] == [ClosedError]
    sub.close()


def test_a_handler_ends_with_its_client(stage: Stage) -> None:
    seen: list[Any] = []
    sub = stage.subscribe((), lambda items: seen.append(values_of(items)))
    until(lambda: seen == [{"a": "1"}])
    stage.source.say(PermissionDeniedError("no longer yours"), changed({"a": "2"}))
    until(lambda: seen == [{"a": "1"}, {"a": "2"}])
    stage.source.say(ClosedError("the client is closed"))
    with pytest.raises(ClosedError):
        sub.wait()
    sub.close()


def test_a_failing_handler_is_told_what_has_become_of_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    failing = True

    def handler(items: dict[str, ConfigurationItem]) -> None:
        seen.append(values_of(items))
        if failing:
            raise ValueError("not today")

    stage.first = {"a": "1", "b": "1"}
    with caplog.at_level(logging.WARNING, "cloud_runtimes"), stage.subscribe((), handler):
        until(lambda: len(seen) >= 2)
        stage.source.say(changed({"a": None, "b": "2"}))
        until(lambda: {"b": "2"} in seen)  # it never got hold of the deleted one
        failing = False
        until(lambda: seen[-1] == {"b": "2"} and seen.count({"b": "2"}) > 1)
        stage.source.say(changed({"b": "3"}))
        until(lambda: seen[-1] == {"b": "3"})
    assert seen[0] == seen[1] == {"a": "1", "b": "1"}
    assert len([record for record in caplog.records if "gets them again" in record.message]) == 1


def test_what_is_given_back_is_handed_out_again() -> None:
    feed = Feed(Scripted(), everything({"a": "1", "b": "1"}), name="test")
    first = feed.take(0)
    assert values_of(first) == {"a": "1", "b": "1"}
    assert first is not None
    assert feed.take(0) is None
    feed.give_back(first)
    assert values_of(feed.take(0)) == {"a": "1", "b": "1"}
    feed._admit(changed({"a": None}))
    gone = feed.take(0)
    assert values_of(gone) == {"a": None}
    assert gone is not None
    feed.give_back(gone)
    assert values_of(feed.take(0)) == {"a": None}
    feed.give_back(gone)
    feed._admit(changed({"a": "back"}))
    assert values_of(feed.take(0)) == {"a": "back"}
    assert feed.take(0) is None
    assert not feed._known.keys() - {"a", "b"}, "nothing of what is gone is kept"


def test_an_empty_first_that_is_given_back() -> None:
    feed = Feed(Scripted(), everything({}), name="test")
    first = feed.take(0)
    assert first == {}
    assert feed.take(0) is None
    feed.give_back(first)
    assert feed.take(0) == {}
    assert feed.take(0) is None


def test_takers_share(stage: Stage) -> None:
    """Several threads on one subscription: each change goes to one of them, and nobody waits in vain."""
    taken: list[Values] = []
    lock = threading.Lock()
    with stage.subscribe() as sub:

        def take() -> None:
            for received in sub:
                with lock:
                    taken.append(values_of(received) or {})

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(200):
            stage.source.say(changed({f"k{number}": "1"}))
        until(lambda: sum(map(len, taken)) == 201)
        sub.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert sorted(key for each in taken for key in each) == sorted(["a", *(f"k{number}" for number in range(200))])


def test_waiting_in_vain_leaves_nothing_behind(stage: Stage) -> None:
    with stage.subscribe() as sub:
        sub.receive(5)
        wait_in_vain(sub)
        assert len(sub._feed._changes._futures) <= 1
        assert len(sub._feed._changes._tickets) <= 1


def test_a_source_that_fails_to_close_is_said(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def close() -> None:
        raise OSError("stuck")

    stage.source.close = close  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "cloud_runtimes"):
        stage.subscribe().close()
    assert [record.message for record in caplog.records] == ["configuration 'app': closing failed: stuck"]
