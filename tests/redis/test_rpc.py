"""The registry of services on Redis: leases by the server's clock, one secret, nothing that stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloud_runtimes.components.redis.rpc import _Registry
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.rpc.registry import Entry
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.redis import RedisHome
from tests.support.harnesses.rpc import ServerRegistryRpc
from tests.support.redis import Serve


def operation() -> Operation:
    return Operation(Method("rpc", "announce", repeatable=False), "rpc", 5.0)


def registry(home: RedisHome) -> _Registry:
    runtime: Any = home.client()._context.runtime()
    return _Registry(runtime.component("state", "s"))


def keys(home: RedisHome) -> int:
    return home.server.command("KEYS", f"{{{home.prefix}:rpc:*").count(b":servers")


def test_a_server_is_there_as_long_as_its_lease(home: RedisHome, api: Api) -> None:
    mine, theirs = registry(home), registry(home)
    one, two = Entry("1", "app", "http://127.0.0.1:1"), Entry("2", "app", "http://127.0.0.1:2")
    mine.enter(operation(), one, 15.0, first=True)
    home.advance(10)
    theirs.enter(operation(), two, 15.0, first=True)
    entries = theirs.find(operation(), "app") if api.name == "sync" else api.run(theirs.find_async(operation(), "app"))  # type: ignore[attr-defined]
    assert entries == [one, two]
    home.advance(6)
    assert mine.find(operation(), "app") == [two]
    mine.enter(operation(), one, 15.0, first=False)  # late, and there again
    assert len(mine.find(operation(), "app")) == 2
    mine.leave(operation(), one)
    assert mine.find(operation(), "app") == [two]
    assert mine.find(operation(), "another") == []
    assert keys(home) == 1
    home.advance(16)
    assert mine.find(operation(), "app") == []
    assert keys(home) == 0
    assert b":about" not in home.server.command("KEYS", f"{{{home.prefix}:rpc:*")


def test_all_have_one_secret(home: RedisHome) -> None:
    secrets = {registry(home).secret(operation()) for _ in range(4)}
    assert len(secrets) == 1
    assert len(secrets.pop()) == 32


def test_calls_while_the_server_is_away(served: Serve, client: Make, api: Api, tmp_path: Path) -> None:
    """Calls go on with known addresses for a moment, then report the failure. Another prefix is another home."""
    server = served(appendonly="yes", appendfsync="always")
    there = ServerRegistryRpc(tmp_path, server.url)
    try:
        rpc = client(server.url).rpc
        assert api.call(rpc, "invoke_method", there.service, "echo", 1) == 1
        api.fails(UnavailableError, match="no process has registered it in redis")(
            client(server.url, prefix="other").rpc, "invoke_method", there.service, "echo", 1
        )
        server.kill()
        api.pause(1.1)
        error = api.fails(UnavailableError, match="cannot be reached")(rpc, "invoke_method", there.service, "echo", 1)
        assert not error.maybe_applied
        server.start()
        assert api.call(rpc, "invoke_method", there.service, "echo", 1) == 1
    finally:
        there.close()
