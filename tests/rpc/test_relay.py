"""Relay on a service's port: what callers give a process that passes their questions on to the real service."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http import proof
from cloud_runtimes.errors import UnauthenticatedError
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites import rpc_methods
from tests.rpc.http_peers import Raw, Relay
from tests.support import Make
from tests.support.ports import reserved_port

TOKEN = "what the callers of this application know"


@pytest.fixture
def relay() -> Iterator[Callable[..., Relay]]:
    relays: list[Relay] = []

    def make(*arguments: Any, **options: Any) -> Relay:
        relays.append(Relay(*arguments, **options))
        return relays[-1]

    yield make
    for each in relays:
        each.close()


@pytest.fixture
def opened(home: Path, closing: Make) -> Iterator[RpcServer]:
    client = closing(app_id="there", config={"capa": {"home": str(home), "rpc_token": TOKEN}})
    rpc_methods.register(client)
    with client.rpc.serving() as server:
        yield server


@pytest.fixture
def to(tmp_path: Path, closing: Make, apart: None) -> Callable[..., CloudRuntimesClient]:
    def make(*addresses: str) -> CloudRuntimesClient:
        table = {"address": list(addresses), "token": TOKEN}
        return closing(app_id="suite", config={"capa": {"home": str(tmp_path / "b")}, "rpc": {"there": table}})

    return make


@pytest.mark.promise("H4")
@pytest.mark.parametrize("rewrite", [False, True])
def test_a_relay_gets_neither_a_call_nor_a_token(
    opened: RpcServer, to: Callable[..., CloudRuntimesClient], relay: Callable[..., Relay], api: Api, rewrite: bool
) -> None:
    thief = relay(opened.address, rewrite=rewrite)
    with pytest.raises(UnauthenticatedError, match=r"not trusted.*rpc_allowed_hosts"):
        api.call(to(thief.address).rpc, "invoke_method", "there", "echo", "canary")
    assert api.call(to(thief.address, opened.address).rpc, "invoke_method", "there", "echo", "canary") == "canary"
    assert thief.received.count(b"GET /cloud-runtimes/hello?nonce=") == 2
    assert b"canary" not in thief.received
    assert b"token" not in thief.received


def test_a_relay_on_another_address_of_the_same_port_and_name(
    opened: RpcServer, to: Callable[..., CloudRuntimesClient], relay: Callable[..., Relay], api: Api
) -> None:
    """``localhost`` is ::1 before it is 127.0.0.1, where the real one is."""
    port = urlsplit(opened.address).port
    thief = relay(opened.address, host="127.0.0.2", port=port)
    with pytest.raises(UnauthenticatedError, match="not trusted"):
        api.call(to(thief.address).rpc, "invoke_method", "there", "echo", "canary")
    assert b"canary" not in thief.received


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as reserved:
        yield reserved


@pytest.fixture
def mapped(home: Path, closing: Make, relay: Callable[..., Relay], port: int) -> Iterator[Relay]:
    """A mapping of ports whose name the server allows."""
    http_relay = relay(f"http://127.0.0.1:{port}")
    hosts = [f"127.0.0.1:{http_relay.port}"]
    client = closing(
        app_id="there", config={"capa": {"home": str(home), "rpc_token": TOKEN, "rpc_allowed_hosts": hosts}}
    )
    rpc_methods.register(client)
    with client.rpc.serving(port=port):
        yield http_relay


def tokens(mapped: Relay) -> list[bytes]:
    return re.findall(rb"cloud-runtimes-token: ([^\r]+)", mapped.received)


def test_a_token_is_one_connection_s(mapped: Relay, to: Callable[..., CloudRuntimesClient], api: Api) -> None:
    for client in (to(mapped.address), to(mapped.address)):
        for _ in range(2):
            assert api.call(client.rpc, "invoke_method", "there", "echo", 1) == 1
    first, again, other, _ = tokens(mapped)
    assert first == again
    assert other != first


def test_a_token_gets_old_and_a_caller_has_another(
    mapped: Relay, to: Callable[..., CloudRuntimesClient], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = to(mapped.address)
    assert api.call(client.rpc, "invoke_method", "there", "echo", 1) == 1
    later = time.time() + proof.LIFETIME + 1.0
    monkeypatch.setattr(proof, "time", lambda: later)
    reply = Raw(mapped.address)
    request = b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncloud-runtimes-token: %b\r\nconnection: close\r\n\r\n"
    reply.send(request % tokens(mapped)[0])
    answer = reply.everything()
    reply.socket.close()
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"cloud-runtimes-token: refused" in answer
    # the kept connection's token is refused, so the call is made on another
    assert api.call(client.rpc, "invoke_method", "there", "echo", 2) == 2
    assert len(set(tokens(mapped))) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + (b"0" if token[-1:] != b"0" else b"1"),
        lambda token: token.replace(b".", b"", 1),
        lambda token: re.sub(rb"\.1", b".9", token, count=1),
        lambda token: token.upper(),
        lambda token: b"",
        lambda token: b"\xff" * 40,
    ],
)
def test_a_token_that_is_changed_is_refused(
    mapped: Relay, to: Callable[..., CloudRuntimesClient], change: Callable[[bytes], bytes]
) -> None:
    assert to(mapped.address).rpc.invoke_method("there", "echo", 1) == 1
    raw = Raw(mapped.address)
    token = change(tokens(mapped)[0])
    raw.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncloud-runtimes-token: " + token + b"\r\nconnection: close\r\n\r\n")
    assert raw.everything().startswith(b"HTTP/1.1 401")
    raw.socket.close()
