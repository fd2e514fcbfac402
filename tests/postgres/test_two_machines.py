"""Two processes that share nothing but the URL: no folder, no working directory, no environment."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.testing import Api
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).parent / "machine.py"


def own_address() -> str:
    """The address of this machine in a network, of loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that is reached over the network."""
    with PostgresServer(listen_addresses="*") as server:
        yield server.url.replace("127.0.0.1", own_address())


@contextmanager
def machine(url: str, folder: Path, host: str, **environment: str) -> Iterator[Any]:
    """A process with folders of its own; gives what it says next."""
    import json

    for name in ("home", "tmp", "work"):
        (folder / name).mkdir(parents=True)
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "CLOUD_RUNTIMES_HOME": url}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), host],
        cwd=folder / "work",
        env={"PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[dict[str, Any]] = []

        def next_with(key: str) -> Any:
            while True:
                for line in said:
                    if key in line:
                        said.remove(line)
                        return line[key]
                text = process.stdout.readline()  # type: ignore[union-attr]
                assert text, "it ended"
                said.append(json.loads(text))

        try:
            yield next_with, process.stdin
        finally:
            process.stdin.close()
            process.wait(20)


def test_all_services_between_two_machines(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with (
        machine(url, tmp_path / "there", "0.0.0.0") as (said, stdin),
        CloudRuntimesClient(app_id="shop", config={"capa": {"home": url}}, timeout=10) as client,
    ):
        said("ready")
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT address FROM cloud_runtimes.services WHERE app_id = 'warehouse'"
            ).fetchone()
        assert row is not None
        assert row[0].startswith(f"http://{own_address()}:")
        assert api.call(client.rpc, "invoke", "warehouse", "double", 21).decode() == 42
        api.call(client.pubsub, "publish", "bus", "orders", {"id": api.name})
        assert said("event") == {"id": api.name}
        api.call(client.configuration, "save_configuration", "app", {"by": api.name})
        while said("configured").get("by") != api.name:
            pass
        assert said("ran") == [1]
        assert api.call(client.lock, "try_lock", "locks", "door") is None
        stdin.write("\n")
        stdin.flush()
        assert said("released")
        lease = api.call(client.lock, "try_lock", "locks", "door")
        assert lease is not None
        api.call(lease, "release")


def test_an_address_that_is_set_is_announced(url: str, monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """Behind a mapping of ports an operator says where the application is reached."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    capa = {"home": {"url": url, "schema": f"advertised_{api.name}"}}
    with (
        CloudRuntimesClient(
            app_id="named", config={"capa": {**capa, "rpc_address": f"http://localhost:{port}"}}
        ) as server,
        CloudRuntimesClient(app_id="caller", config={"capa": capa}) as caller,
    ):
        server.rpc.method("double")(lambda number: number * 2)
        with api.opened(server.rpc.serving(host="0.0.0.0", port=port)):
            with psycopg.connect(url) as connection:
                row = connection.execute(f"SELECT address FROM advertised_{api.name}.services").fetchone()
            assert row == (f"http://localhost:{port}",)
            assert api.call(caller.rpc, "invoke", "named", "double", 21).decode() == 42


@pytest.mark.parametrize("address", ["shop.example.com:8080", "http://user:canary@shop:8080", 8080])
def test_an_address_that_is_none_is_refused(address: Any) -> None:
    client = CloudRuntimesClient(config={"capa": {"rpc_address": address}})
    with client, pytest.raises(InvalidArgumentError, match="rpc_address") as caught:
        client.state.get("s", "k")
    assert "canary" not in str(caught.value)
