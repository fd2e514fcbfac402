"""Tokens over a server that lost its last minutes, and keys of strangers below a lock."""

from __future__ import annotations

import logging
import shutil
from zlib import crc32

import pytest

from cloud_runtimes.components.etcd import lock as etcd_lock
from cloud_runtimes.components.etcd.messages import put
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.etcd import Serve, asked
from tests.support.harnesses.etcd import EtcdHome

PUT = "/etcdserverpb.KV/Put"


def test_tokens_grow_over_a_server_restored_from_a_backup(served: Serve, client: Make, api: Api) -> None:
    server = served()
    lock = client(server.url).lock

    def token() -> int:
        lease = api.call(lock, "try_lock", "l", "r", expiry=60)
        assert lease is not None
        api.call(lease, "release")
        with api.opened(lock.hold("l", "r", wait=20)) as held:  # by the queue as well
            assert held.token > lease.token
            return int(held.token)

    tokens = [token()]
    server.kill()
    backup = shutil.copytree(server.folder / "data", server.folder / "backup")
    server.start()
    tokens += [token() for _ in range(3)]
    server.kill()
    shutil.rmtree(server.folder / "data")
    backup.rename(server.folder / "data")
    server.start()
    tokens += [token() for _ in range(2)]
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("value", [b"", b"\xff", b'{"owner": "me"}'])
def test_a_key_without_a_lease_holds_no_lock(
    home: EtcdHome, api: Api, caplog: pytest.LogCaptureFixture, value: bytes, waits: bool
) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    client = home.client()
    lock = client.lock
    for name in ("1", "2"):
        asked(home.server.url, PUT, put(f"{home.prefix}/lock/l/r/{name}".encode(), value))
    assert api.call(client.admin, "locks", "l") == []
    if waits:
        with api.opened(lock.hold("l", "r", wait=20)) as lease:
            assert lease.token > 1 << 50
    else:
        assert api.call(lock, "unlock", "l", "r", "me") == UnlockStatus.NOT_FOUND
        lease = api.call(lock, "try_lock", "l", "r", "me", expiry=30)
        assert lease is not None
        assert api.call(lock, "try_lock", "l", "r") is None
        assert api.call(lock, "unlock", "l", "r", "me") == UnlockStatus.SUCCESS
    assert len(caplog.records) == 2
    assert "lock/l/r/1" in caplog.text


def test_a_last_token_that_is_none(home: EtcdHome, api: Api) -> None:
    lock, key = home.client().lock, f"{home.prefix}/lock-token/l/{crc32(b'r') % 64}".encode()
    first = api.call(lock, "try_lock", "l", "r")
    api.call(first, "release")
    for value in (b"", b"soon", b"9" * 30):
        asked(home.server.url, PUT, put(key, value))
        lease = api.call(lock, "try_lock", "l", "r")
        assert lease.token > first.token
        api.call(lease, "release")
    asked(home.server.url, PUT, put(key, b"%d" % (1 << 58)))
    assert api.call(lock, "try_lock", "l", "r").token == (1 << 58) + 1


def test_grants_of_one_counter_at_once(home: EtcdHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All get what they ask for, with a token each."""
    monkeypatch.setattr(etcd_lock, "_COUNTERS", 1)
    lock = home.client().lock
    leases = api.together([(lock, "try_lock", ("l", f"r{number}"), {}) for number in range(16)])
    assert len({lease.token for lease in leases}) == 16
