"""The suites on the runtime dapr over a real daprd, whose binary the variable ``DAPRD`` names; without one they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError, UnsupportedError
from cloud_runtimes.testing import (
    Api,
    ConfigurationSuite,
    DatabaseSuite,
    FileSuite,
    Harness,
    LockSuite,
    PubSubSuite,
    RpcSuite,
    ScheduleSuite,
    SecretHarness,
    SecretSuite,
    StateSuite,
)
from cloud_runtimes.testing.canary import Canary
from cloud_runtimes.testing.suites._base import Call
from cloud_runtimes.testing.suites._schedule_runs import gone
from tests.support.daprd import Beneath
from tests.support.harnesses.daprd import DAPRD, IN_REDIS, PUBSUB, RPC, SECRETS, DaprdRpc, Secrets

pytestmark = pytest.mark.process
if not os.environ.get("DAPRD"):
    pytest.skip("DAPRD names no daprd", allow_module_level=True)
SOON = 20.0


class OnDaprd:
    """The harness of the suites here."""

    @pytest.fixture(params=sorted(DAPRD))
    def harness(
        self, request: pytest.FixtureRequest, daprd: Beneath, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Harness]:
        monkeypatch.setenv("APP_PORT", str(daprd.port))
        harness = DAPRD[request.param](daprd)
        yield harness
        harness.close()


class TestState(OnDaprd, StateSuite):
    def test_what_expired_is_absent_for_conditions(
        self, client: CloudRuntimesClient, api: Api, store: str, harness: Harness
    ) -> None:
        """Until its sweep, once a second, daprd's memory lets delete, by its etag, what has expired; so it is waited for here."""
        api.call(client.state, "save", store, "k", 1, ttl=1)
        etag = api.call(client.state, "get_item", store, "k").etag
        assert api.until(lambda: api.call(client.state, "get_item", store, "k") is None)
        with pytest.raises(ConflictError):
            api.call(client.state, "save", store, "k", 2, etag=etag)
        api.call(client.state, "save", store, "k", 3, concurrency="first-write")
        assert api.call(client.state, "get", store, "k") == 3


class TestFile(OnDaprd, FileSuite):
    # its files and folders are those of the machine: none is both, no part of a name has more than 255 bytes, folders stay,
    # and it writes in place
    test_a_file_and_a_folder_of_one_name: Any = None
    test_names_are_literal: Any = None
    test_list: Any = None
    test_list_of_one_level: Any = None
    test_delete: Any = None
    test_readers_never_see_a_mixture: Any = None

    def test_names_and_listings(self, client: CloudRuntimesClient, api: Api, store: str) -> None:
        names = ["a b", "a-b", "a.b", "a/b", "a/c/d", "ä/ö", "%41", "x" * 255, "it's", "a&b=c?d#e", "z/y/x/w"]
        for name in names:
            api.call(client.file, "put_file", store, name, name.encode())
        for name in names:
            assert api.call(client.file, "get_file", store, name) == name.encode()
        ordered = sorted(names, key=str.encode)

        def listed(*arguments: Any, **options: Any) -> list[str]:
            return [info.name for info in api.call(client.file, "list_files", store, *arguments, **options)]

        assert listed() == ordered
        for prefix in ("a", "a/", "a/b", "a/c", "z/y/", "absent/", "a/b/"):
            assert listed(prefix) == [name for name in ordered if name.startswith(prefix)]
        assert listed(limit=3) + listed(after=ordered[2]) == ordered
        assert listed("a/", recursive=False) == ["a/b", "a/c/"]
        for name in names:
            api.call(client.file, "delete_file", store, name)
            api.call(client.file, "delete_file", store, name)
        assert listed() == []


class TestDatabase(OnDaprd, DatabaseSuite):
    pass


class TestSchedule(OnDaprd, ScheduleSuite):
    @pytest.fixture(autouse=True)
    def _scheduler(self, daprd: Beneath) -> None:
        if not daprd.scheduler:
            pytest.skip("there is no scheduler beside daprd")

    def test_once(self, call: Call, client: CloudRuntimesClient, api: Api) -> None:
        """In real time, since nobody sets its clock."""
        seen: list[Any] = []
        client.schedule.job("j")(api.handler(seen.append))
        api.call(client.schedule, "schedule_job", "j", due_time="1500ms", data={"a": 0.5})
        with api.opened(client.schedule.running()):
            assert api.until(lambda: seen == [{"a": 0.5}], SOON)
            assert api.until(lambda: gone(call), SOON)


class TestStateInRedis(StateSuite):
    @pytest.fixture(params=sorted(IN_REDIS))
    def harness(self, request: pytest.FixtureRequest, daprd: Beneath) -> Iterator[Harness]:
        harness = IN_REDIS[request.param](daprd)
        yield harness
        harness.close()

    @pytest.mark.xfail(reason="Redis takes an etag on a key that is absent", strict=True)
    def test_etag(self, call: Call, harness: Harness) -> None:
        super().test_etag(call, harness)

    def test_etag_of_what_is_there(self, client: CloudRuntimesClient, api: Api, store: str, harness: Harness) -> None:
        api.call(client.state, "save", store, "k", 1)
        first = api.call(client.state, "get_item", store, "k").etag
        api.call(client.state, "save", store, "k", 2, etag=first)
        for wrong in (first, harness.bad_etag, "not-one-of-yours"):
            for method, *value in (("save", 3), ("delete",)):
                with pytest.raises(ConflictError):
                    api.call(client.state, method, store, "k", *value, etag=wrong)
        item = api.call(client.state, "get_item", store, "k")
        assert item.value == 2
        api.call(client.state, "delete", store, "k", etag=item.etag)
        assert api.call(client.state, "get_item", store, "k") is None

    @pytest.mark.xfail(reason="Redis counts from 1 again for a key that was deleted", strict=True)
    def test_etag_is_new_after_every_write(self, call: Call) -> None:
        super().test_etag_is_new_after_every_write(call)

    @pytest.mark.xfail(reason="Redis takes an etag on a key that is absent", strict=True)
    def test_what_expired_is_absent_for_conditions(self, call: Call, harness: Harness) -> None:
        super().test_what_expired_is_absent_for_conditions(call, harness)

    def test_a_failed_transaction_rolls_back(
        self, client: CloudRuntimesClient, api: Api, store: str, harness: Harness
    ) -> None:
        """Redis undoes nothing, so a condition is refused before anything is written."""
        api.call(client.state, "save", store, "k", 1)
        conditions: tuple[dict[str, Any], ...] = ({"etag": harness.bad_etag}, {"concurrency": "first-write"})
        for condition in conditions:
            with pytest.raises(UnsupportedError, match="Redis") as caught:
                with api.opened(client.state.transaction(store)) as tx:
                    tx.save("new", 1)
                    tx.save("k", 2, **condition)
            assert not caught.value.maybe_applied
        items = api.call(client.state, "get_bulk", store, ["new", "k"])
        assert {key: item.value for key, item in items.items()} == {"k": 1}


class TestConfiguration(OnDaprd, ConfigurationSuite):
    pass


class TestLock(OnDaprd, LockSuite):
    pass


_AT_ONCE = frozenset({"test_max_in_flight", "test_members_share", "test_workers_run_at_once"})
"""Tests of which several events are under way at once; all others are about their order."""


class TestPubSub(PubSubSuite):
    @pytest.fixture(params=sorted(PUBSUB))
    def harness(self, request: pytest.FixtureRequest, daprd: Beneath) -> Iterator[Harness]:
        harness = PUBSUB[request.param](daprd)
        harness.in_order = request.node.originalname not in _AT_ONCE
        yield harness
        harness.close()


@pytest.fixture(scope="module")
def with_secrets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secrets]:
    harness = Secrets(tmp_path_factory.mktemp("secrets"))
    yield harness
    harness.close()


class TestSecret(SecretSuite):
    @pytest.fixture(params=sorted(SECRETS))
    def harness(self, request: pytest.FixtureRequest, with_secrets: Secrets, canary: Canary) -> Iterator[SecretHarness]:
        canary.declare(with_secrets.folder)
        harness = SECRETS[request.param](with_secrets)
        yield harness
        harness.close()


@pytest.fixture(scope="module", params=sorted(RPC))
def served(
    request: pytest.FixtureRequest, daprd: Beneath, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaprdRpc]:
    harness = RPC[request.param](daprd, tmp_path_factory.mktemp("rpc"))
    yield harness
    harness.close()


class TestRpc(RpcSuite):
    # daprd adds headers of its own (of tracing, what forwards and who calls), decodes a path once more than it encodes it,
    # and knows no methods but those of HTTP
    test_what_a_handler_sees: Any = None
    test_a_handler_s_own_calls_inherit: Any = None
    test_a_method_s_name_is_data: Any = None

    HTTP_METHODS = RpcSuite.HTTP_METHODS[:-1]

    @pytest.fixture
    def harness(self, served: DaprdRpc) -> Harness:
        return served
