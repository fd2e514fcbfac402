"""The runtime dapr over a real daprd, whose binary the variable ``DAPRD`` names; without one this is skipped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from daprd import DAPRD, Daprd, DaprdGrpc, DaprdHttp, DaprdRpc, daprd_process, databases, redis_call

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ComponentNotFoundError, ConflictError, NotFoundError, UnsupportedError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.testing import (
    AsyncFace,
    DatabaseSuite,
    Face,
    FileSuite,
    Harness,
    RpcSuite,
    ScheduleSuite,
    StateSuite,
    SyncFace,
)

pytestmark = [pytest.mark.process, pytest.mark.skipif(not os.environ.get("DAPRD"), reason="DAPRD names no daprd")]
SOON = 20.0


@pytest.fixture(scope="module")
def daprd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daprd]:
    with daprd_process(tmp_path_factory.mktemp("daprd"), databases(request)) as made:
        yield made


class OnDaprd:
    """The harness of the suites here."""

    @pytest.fixture(params=sorted(DAPRD))
    def harness(
        self, request: pytest.FixtureRequest, daprd: Daprd, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Harness]:
        monkeypatch.setenv("APP_PORT", str(daprd.port))
        harness = DAPRD[request.param](daprd)
        yield harness
        harness.close()


class TestState(OnDaprd, StateSuite):
    def test_what_expired_is_absent_for_conditions(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        """Until its sweep, once a second, daprd's memory lets delete, by its etag, what has expired; so it is waited for here."""
        face.call(client.state, "save", store, "k", 1, ttl=1)
        etag = face.call(client.state, "get_item", store, "k").etag
        assert face.until(lambda: face.call(client.state, "get_item", store, "k") is None)
        with pytest.raises(ConflictError):
            face.call(client.state, "save", store, "k", 2, etag=etag)
        face.call(client.state, "save", store, "k", 3, concurrency="first-write")
        assert face.call(client.state, "get", store, "k") == 3


class TestFile(OnDaprd, FileSuite):
    # its files and folders are those of the machine: none is both, no part of a name has more than 255 bytes, folders stay,
    # and it writes in place
    test_a_file_and_a_folder_of_one_name: Any = None
    test_names_are_literal: Any = None
    test_list: Any = None
    test_list_of_one_level: Any = None
    test_delete: Any = None
    test_readers_never_see_a_mixture: Any = None

    def test_names_and_listings(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        names = ["a b", "a-b", "a.b", "a/b", "a/c/d", "ä/ö", "%41", "x" * 255, "it's", "a&b=c?d#e", "z/y/x/w"]
        for name in names:
            face.call(client.file, "put_file", store, name, name.encode())
        for name in names:
            assert face.call(client.file, "get_file", store, name) == name.encode()
        ordered = sorted(names, key=str.encode)

        def listed(*arguments: Any, **options: Any) -> list[str]:
            return [info.name for info in face.call(client.file, "list_files", store, *arguments, **options)]

        assert listed() == ordered
        for prefix in ("a", "a/", "a/b", "a/c", "z/y/", "absent/", "a/b/"):
            assert listed(prefix) == [name for name in ordered if name.startswith(prefix)]
        assert listed(limit=3) + listed(after=ordered[2]) == ordered
        assert listed("a/", recursive=False) == ["a/b", "a/c/"]
        for name in names:
            face.call(client.file, "delete_file", store, name)
            face.call(client.file, "delete_file", store, name)
        assert listed() == []


class TestDatabase(OnDaprd, DatabaseSuite):
    pass


class TestSchedule(OnDaprd, ScheduleSuite):
    @pytest.fixture(autouse=True)
    def _scheduler(self, daprd: Daprd) -> None:
        if not daprd.scheduler:
            pytest.skip("there is no scheduler beside daprd")

    def test_once(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """In real time, since nobody sets its clock."""
        seen: list[Any] = []
        client.schedule.job("j")(face.handler(seen.append))
        face.call(client.schedule, "schedule_job", "j", due_time="1500ms", data={"a": 0.5})
        with face.opened(client.schedule.running()):
            assert face.until(lambda: seen == [{"a": 0.5}], SOON)
            assert face.until(lambda: self._gone(client, face), SOON)


@pytest.fixture(scope="module")
def served(daprd: Daprd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaprdRpc]:
    harness = DaprdRpc(daprd, tmp_path_factory.mktemp("rpc"))
    yield harness
    harness.close()


class TestRpc(RpcSuite):
    # daprd adds headers of its own (of tracing, what forwards and who calls), decodes a path once more than it encodes it,
    # and knows no methods but those of HTTP
    test_what_a_handler_sees: Any = None
    test_a_handler_s_own_calls_inherit: Any = None
    test_a_method_s_name_is_data: Any = None

    @pytest.mark.parametrize("http_method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize("data", [None, {"a": 1}])
    def test_http_methods(
        self, client: CloudRuntimesClient, face: Face, store: str, http_method: str, data: Any
    ) -> None:
        super().test_http_methods(client, face, store, http_method, data)

    @pytest.fixture
    def harness(self, served: DaprdRpc) -> Harness:
        return served


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    made: Face = request.param()
    yield made
    made.close()


@pytest.fixture(params=sorted(DAPRD))
def client(request: pytest.FixtureRequest, daprd: Daprd) -> Iterator[CloudRuntimesClient]:
    harness = DAPRD[request.param](daprd)
    yield harness.client()
    harness.close()


@pytest.fixture
def over_grpc(daprd: Daprd) -> Iterator[CloudRuntimesClient]:
    harness = DaprdGrpc(daprd)
    yield harness.client()
    harness.close()


@pytest.fixture
def redis(daprd: Daprd) -> int:
    if daprd.redis is None:
        pytest.skip("there is no redis-server")
    redis_call(daprd.redis, "FLUSHALL")
    return daprd.redis


def test_ready(client: CloudRuntimesClient, face: Face) -> None:
    face.call(client, "wait_ready")


def test_no_such_component(client: CloudRuntimesClient, face: Face) -> None:
    for service, method, *arguments in (
        ("state", "get", "none", "k"),
        ("state", "save", "none", "k", 1),
        ("pubsub", "publish", "none", "t", 1),
        ("pubsub", "publish_bulk", "none", "t", [1, 2]),
        ("secret", "get_secret", "none", "k"),
        ("secret", "get_bulk_secret", "none"),
    ):
        with pytest.raises(ComponentNotFoundError):
            face.call(getattr(client, service), method, *arguments)


def test_no_such_pubsub_to_subscribe_to(over_grpc: CloudRuntimesClient, face: Face) -> None:
    with pytest.raises(ComponentNotFoundError):
        face.call(over_grpc.pubsub, "subscribe", "none", "t")


def test_events(client: CloudRuntimesClient, over_grpc: CloudRuntimesClient, face: Face) -> None:
    sent = [b"", b"\x00\xff", 1, 2**63 - 1, 0.1, 1e300, 2.0, None, "", "text", "ünïcødé", {"a": [1.5, None]}, [1, True]]
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {
        "id": "mine",
        "subject": "s",
        "time": "2025-01-15T09:30:12Z",
        "level": 7,
        "urgent": True,
        "traceparent": trace,
    }
    events: list[Any] = []
    # by a handler, since publishing to daprd's memory waits for the answers to what came before
    handler = face.handler(events.append)
    topic = f"t-{client._runtime_for().link.exact}-{face.name}"
    with face.opened(face.call(over_grpc.pubsub, "subscribe", "bus", topic, handler)):
        for value in sent:
            face.call(client.pubsub, "publish", "bus", topic, value)
        face.call(client.pubsub, "publish_bulk", "bus", topic, sent)
        face.call(client.pubsub, "publish", "bus", topic, "x", key="k", attributes=given)
        assert face.until(lambda: len(events) >= 2 * len(sent) + 1)
    # daprd's memory delivers while it is published, in no order
    by_key = sorted((event.data for event in events if event.id != "mine"), key=repr)
    assert by_key == sorted([*sent, *sent], key=repr)
    assert [type(value) for value in by_key] == [type(value) for value in sorted([*sent, *sent], key=repr)]
    [last] = [event for event in events if event.id == "mine"]
    assert (last.data, last.subject, last.key, last.traceparent, last.source) == ("x", "s", "k", trace, "suite")
    assert last.type == "cloud_runtimes.event"
    assert {name: last.extensions[name] for name in ("level", "urgent")} == {"level": 7, "urgent": True}


def test_many_events_are_each_answered_once(over_grpc: CloudRuntimesClient, face: Face) -> None:
    seen: list[int] = []
    handler = face.handler(lambda event: seen.append(event.data))
    topic = f"many-{face.name}"
    with face.opened(face.call(over_grpc.pubsub, "subscribe", "bus", topic, handler, workers=4, max_in_flight=100)):
        face.call(over_grpc.pubsub, "publish_bulk", "bus", topic, list(range(500)))
        assert face.until(lambda: len(seen) >= 500)
        face.pause(0.3)
    assert sorted(seen) == list(range(500))


def test_over_http_there_is_no_subscribing_to_configuration(daprd: Daprd, face: Face) -> None:
    harness = DaprdHttp(daprd)
    with pytest.raises(UnsupportedError, match="grpc://"):
        face.call(harness.client().configuration, "subscribe_configuration", "settings")
    harness.close()


def test_secrets(client: CloudRuntimesClient, face: Face) -> None:
    assert face.call(client.secret, "get_secret", "vault", "db").value == "sesame"
    assert face.call(client.secret, "get_secret", "vault", "odd / key.").value == "yes"
    assert {key: each.value for key, each in face.call(client.secret, "get_bulk_secret", "vault").items()} == {
        "db": "sesame",
        "odd / key.": "yes",
    }
    with pytest.raises(NotFoundError, match="'absent' in 'vault'"):
        face.call(client.secret, "get_secret", "vault", "absent")


def test_locks(client: CloudRuntimesClient, face: Face, redis: int) -> None:
    lease = face.call(client.lock, "try_lock", "locks", "r", "me", expiry=30)
    assert face.call(client.lock, "try_lock", "locks", "r", "you") is None
    assert face.call(client.lock, "unlock", "locks", "r", "you") is UnlockStatus.NOT_OWNER
    face.call(lease, "release")
    assert face.call(client.lock, "unlock", "locks", "r", "me") is UnlockStatus.NOT_FOUND
    with face.opened(client.lock.hold("locks", "r", expiry=1)) as held:
        assert held.token is None
        before = time.monotonic()
        with pytest.raises(Exception, match="not free"):
            with face.opened(client.lock.hold("locks", "r", expiry=30, wait=0)):
                pass
        assert time.monotonic() - before < 10


def test_no_such_store(client: CloudRuntimesClient, face: Face, redis: int) -> None:
    for service, method, *arguments in (
        ("configuration", "get_configuration", "none"),
        ("lock", "try_lock", "none", "r"),
        ("lock", "unlock", "none", "r", "me"),
    ):
        with pytest.raises(ComponentNotFoundError):
            face.call(getattr(client, service), method, *arguments)


def test_configuration(client: CloudRuntimesClient, face: Face, redis: int) -> None:
    redis_call(redis, "SET", "a", "1||v1")
    redis_call(redis, "SET", "b", "2")
    assert face.call(client.configuration, "get_configuration", "settings", ["a", "b", "c"]) == {"a": "1", "b": "2"}
    items = face.call(client.configuration, "get_configuration_items", "settings", ["a"])
    assert items["a"].version == "v1"


def test_configuration_that_changes(over_grpc: CloudRuntimesClient, face: Face, redis: int) -> None:
    redis_call(redis, "SET", "a", "1||1")
    with face.opened(face.call(over_grpc.configuration, "subscribe_configuration", "settings", ["a", "b"])) as sub:
        assert {key: item.value for key, item in face.call(sub, "receive", SOON).items()} == {"a": "1"}
        redis_call(redis, "SET", "a", "2||2")
        redis_call(redis, "SET", "b", "new||1")
        seen: dict[str, str | None] = {}
        while seen != {"a": "2", "b": "new"}:
            items = face.call(sub, "receive", SOON)
            assert items is not None, f"only {seen} came"
            seen |= {key: item.value for key, item in items.items()}
        redis_call(redis, "DEL", "b")
        items = face.call(sub, "receive", SOON)
        assert items is not None
        assert items["b"].deleted
