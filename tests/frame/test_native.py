"""`client.native`: the vendor's client or connection behind a component."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ComponentNotFoundError, InvalidArgumentError, UnsupportedError


def test_sqlite(home: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}) as client:
        connection = client.native("state", "orders")  # before the first call, too
        client.state.save("orders", "k", 1)
        assert connection.execute("SELECT count(*) FROM state").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM state")
        connection.close()
        client.state.save("orders", "k", 2)
        assert client.state.get("orders", "k") == 2


def test_local_and_sqlalchemy(home: Path) -> None:
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}) as client:
        client.file.put_file("docs", "a", b"x")
        assert [path.name for path in client.native("file", "docs").iterdir() if path.is_file()] == ["a"]
        assert client.native("database", "shop").dialect.name == "sqlite"


@pytest.mark.parametrize("service", ["state", "file", "rpc", "lock"])
def test_nothing_of_a_vendor(service: str) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:native"}}) as client:
        with pytest.raises(UnsupportedError, match=f"{service} 'x' has no client"):
            client.native(service, "x")


def test_what_is_not_there(home: Path) -> None:
    config: dict[str, Any] = {"state": {"orders": {"component": "sqlite", "home": str(home)}}, "capa": {"strict": True}}
    with CloudRuntimesClient(config=config) as client:
        with pytest.raises(ComponentNotFoundError, match=r"add \[state.carts\]"):
            client.native("state", "carts")
        with pytest.raises(InvalidArgumentError, match="'stat' is no service; there are configuration"):
            client.native("stat", "orders")


def test_dir_lists_the_services() -> None:
    names = dir(CloudRuntimesClient())
    assert {"state", "pubsub", "telemetry", "close", "native"} <= set(names)
