"""Configuration whose connections are cut and whose servers forget."""

from __future__ import annotations

import pytest

from cloud_runtimes.components.redis.configuration import TOMBSTONE_MS
from cloud_runtimes.errors import PermissionDeniedError
from cloud_runtimes.spi.configuration import Selection
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.harnesses.redis import RedisHome
from tests.support.homes import receive
from tests.support.redis import Serve

KINDS = pytest.mark.parametrize("kind", ["valkey", "redis"])
_LOOK = Method("configuration", "look", repeatable=True, writes=False)


def test_connections_that_are_cut_miss_nothing(served: Serve, client: Make, api: Api, rounds: Rounds) -> None:
    server = served()
    mine, other = client(server.url), client(server.url)
    with api.opened(mine.configuration.subscribe_configuration("app", ["k"])) as subscription:
        for number in range(rounds(4, 200)):
            server.command("CLIENT", "KILL", "TYPE", "PUBSUB")
            other.configuration.save_configuration("app", {"k": str(number)})
            receive(api, subscription, "k", str(number))


@pytest.mark.parametrize("how", ["restart", "flush"])
def test_a_server_that_forgot(served: Serve, client: Make, api: Api, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that the server lost are deleted for subscribers, even if as many changes came since."""
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 0.3)
    server = served()
    mine = client(server.url)
    mine.configuration.save_configuration("app", {"k": "1", "lost": "1"})
    with api.opened(mine.configuration.subscribe_configuration("app")) as subscription:
        receive(api, subscription, "lost", "1")
        assert api.call(subscription, "receive", 0.2) is None  # it listens
        if how == "restart":
            server.kill()
            server.start()
            client(server.url).configuration.save_configuration("app", {"k": "2", "more": "2"})
        else:
            server.command("FLUSHALL")
        receive(api, subscription, "lost", None)


def test_tombstones_are_swept_and_who_is_behind_gets_all(home: RedisHome, api: Api) -> None:
    client = home.client()
    configuration = client.configuration
    api.call(configuration, "save_configuration", "app", {"a": "1", "b": "1", "c": "1"})
    source, update = configuration._frame.driver("app").subscribe(
        Operation(_LOOK, "app", 5.0), Selection((), None, None, None)
    )
    assert set(update.items) == {"a", "b", "c"}
    api.call(configuration, "delete_configuration", "app", ["a"])
    home.advance(TOMBSTONE_MS / 1000 - 10)
    api.call(configuration, "delete_configuration", "app", ["b"])
    home.advance(20)
    api.call(configuration, "save_configuration", "app", {"c": "2"})
    length = home.server.command("HLEN", f"{{{home.prefix}:configuration:app}}:items")
    assert length == b":2\r\n"  # b, which was deleted just now, and c
    update = source.look()
    assert update is not None
    assert update.complete
    assert {key: item.value for key, item in update.items.items()} == {"c": "2"}
    api.call(configuration, "save_configuration", "app", {"a": "3"})
    update = source.look()
    assert update is not None
    assert not update.complete
    assert {key: item.value for key, item in update.items.items()} == {"a": "3"}
    source.close()


@KINDS
def test_who_may_not_publish_changes_nothing(served: Serve, client: Make, api: Api, kind: str) -> None:
    server = served(kind)
    server.command("ACL", "SETUSER", "quiet", "on", ">secret", "~*", "+@all", "resetchannels")
    quiet = client(server.url.replace("//", "//quiet:secret@"))
    error = api.fails(PermissionDeniedError)(quiet.configuration, "save_configuration", "app", {"k": "1"})
    assert error.maybe_applied, "how far a script came is not told"
    assert "secret" not in str(error)
    assert api.call(client(server.url).configuration, "get_configuration", "app") == {}
