"""``client.admin.overview`` where components are away, hang or are wrongly configured: each is a line, none is an error of the whole."""

from __future__ import annotations

import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.admin import ComponentStatus, Overview
from cloud_runtimes.testing import Api

AWAY = "redis://127.0.0.1:1"


def overview(api: Api, config: dict[str, Any], **options: Any) -> Overview:
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        found: Overview = api.call(client.admin, "overview", **options)
        return found


def errors(found: Overview) -> dict[tuple[str, str], ComponentStatus]:
    return {(each.service, each.name): each for each in found.components if each.error is not None}


def test_a_component_that_is_away_is_a_line(api: Api, tmp_path: Path) -> None:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        client.pubsub.publish("bus", "t", 1)
        with client.pubsub.subscribe("bus", "t", group="g"):
            pass
    config = {
        "capa": {"home": str(tmp_path / "home")},
        "state": {"carts": {"component": "redis", "url": AWAY}},
        "pubsub": {"events": {"component": "redis", "url": AWAY}},
    }
    found = overview(api, config)
    away = errors(found)
    assert set(away) == {("state", "carts"), ("pubsub", "events")}
    assert [each.component for each in found.components] == ["redis", "redis"]
    assert all("cannot be reached" in str(each.error) for each in away.values())
    assert [(each.pubsub_name, each.group.name, each.group.lag) for each in found.groups] == [("bus", "g", 1)]


def test_a_home_that_is_away_is_one_line(api: Api) -> None:
    found = overview(api, {"capa": {"home": AWAY}})
    (status,) = found.components
    assert (status.service, status.name) == ("", "")
    assert "cannot be reached" in str(status.error)


def test_wrong_settings_are_a_line(api: Api, tmp_path: Path) -> None:
    tables = {"state": {"carts": {"component": "redis"}, "more": {"component": "absent"}}}
    found = errors(overview(api, {"capa": {"home": str(tmp_path)}, **tables}))
    assert set(found) == {("state", "carts"), ("state", "more")}
    assert "unknown component" in str(found["state", "more"].error)


def test_a_component_that_hangs_keeps_nobody(api: Api, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        tables = {"state": {"carts": {"component": "redis", "url": url}}}
        begun = time.monotonic()
        found = errors(overview(api, {"capa": {"home": str(tmp_path)}, **tables}, timeout=0.5))
        assert time.monotonic() - begun < 5
    assert set(found) == {("state", "carts")}
    assert "within 0.5 s" in str(found["state", "carts"].error)


def test_locks_that_expired_while_others_wait(api: Api, tmp_path: Path) -> None:
    config = {"capa": {"home": str(tmp_path)}}
    with CloudRuntimesClient(app_id="shop", config=config) as client:
        assert client.lock.try_lock("locks", "r") is not None
        assert client.lock.try_lock("locks", "held") is not None
    connection = sqlite3.connect(tmp_path / "cloud_runtimes.db", isolation_level=None)
    connection.execute("UPDATE locks SET deadline = 1 WHERE resource = 'r'")
    connection.execute(
        "INSERT INTO lock_line (store, resource, boot, claim) SELECT store, resource, boot, 'x' FROM locks"
    )
    connection.close()
    (stuck,) = overview(api, config).locks
    assert (stuck.store_name, stuck.lock.resource_id, stuck.lock.owner, stuck.lock.waiting) == ("locks", "r", None, 1)
