"""A client that serves, another that calls it over HTTP although it is in this process, and sockets to send anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http.proof import TOKEN_HEADER, call_token
from cloud_runtimes.components.sqlite.secret import home_secret
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.rpc.host import hosts
from cloud_runtimes.testing.suites import rpc_methods
from tests.rpc.http_peers import Hostile, Raw


@pytest.fixture
def closing() -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make clients that are closed at the end."""
    clients: list[CloudRuntimesClient] = []

    def make(**arguments: Any) -> CloudRuntimesClient:
        client = CloudRuntimesClient(**arguments)
        clients.append(client)
        return client

    yield make
    for client in reversed(clients):
        client.close(timeout=2)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is found in this process, as if it were another's."""
    monkeypatch.setattr(hosts, "find", lambda app_id: None)


@pytest.fixture
def serving(home: Path, closing: Callable[..., CloudRuntimesClient]) -> CloudRuntimesClient:
    """A client with the suite's methods."""
    client = closing(app_id="there", config={"capa": {"home": str(home)}})
    rpc_methods.register(client)
    return client


@pytest.fixture
def server(serving: CloudRuntimesClient) -> Iterator[RpcServer]:
    with serving.rpc.serving() as opened:
        yield opened


@pytest.fixture
def caller(home: Path, closing: Callable[..., CloudRuntimesClient], apart: None) -> CloudRuntimesClient:
    """A client that finds the server by the registry."""
    return closing(app_id="suite", config={"capa": {"home": str(home)}})


@pytest.fixture
def token(server: RpcServer, home: Path) -> str:
    """The header that lets a caller in."""
    challenge = f"{int((time.time() + 300) * 1000):x}{'0' * 32}"
    return f"{TOKEN_HEADER}: {call_token(home_secret(home), 'there', '0' * 32, challenge)}\r\n"


@pytest.fixture
def raw(server: RpcServer) -> Iterator[Callable[[], Raw]]:
    connections: list[Raw] = []

    def connect() -> Raw:
        connections.append(Raw(server.address))
        return connections[-1]

    yield connect
    for each in connections:
        each.socket.close()


@pytest.fixture
def hostile() -> Iterator[Callable[..., Hostile]]:
    servers: list[Hostile] = []

    def make(*answers: bytes, **options: Any) -> Hostile:
        servers.append(Hostile(list(answers), **options))
        return servers[-1]

    yield make
    for each in servers:
        each.close()
