"""Stores that answer without end, with something else, or from elsewhere; and keys of other programs."""

from __future__ import annotations

import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import logs
from cloud_runtimes.components.objectstore import pages
from cloud_runtimes.errors import InternalError, MissingFileError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support.listening import Listener
from tests.support.objectstore import s3

from .conftest import Make

MIB = 1024 * 1024
LIMIT = 96 * MIB
"""What a call may take; an answer without end takes more in a second."""
XML = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
OBJECT = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nLast-Modified: Mon, 30 Nov 2026 00:00:00 GMT\r\nConnection: close\r\n'

Answer = Callable[[bytes], Iterator[bytes]]


class Server(Listener):
    """Answers each request with what it is told, on a connection of its own.

    Attributes:
        requests: heads of requests.
        answer: yields the bytes of an answer to a head.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[bytes] = []
        self.answer: Answer = lambda head: iter(())
        super().__init__(self._reply, host)
        self.url = f"http://key:secret@127.0.0.1:{self.port}"

    def _reply(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := connection.recv(65536)):
                return
            head += data
        self.requests.append(head)
        for piece in self.answer(head):
            connection.sendall(piece)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as http_server:
        yield http_server


@pytest.fixture
def client(server: Server) -> Iterator[CloudRuntimesClient]:
    with ExitStack() as resources:
        yield hostile_client(server, resources)


def hostile_client(server: Server, resources: ExitStack, **settings: Any) -> CloudRuntimesClient:
    from tests.support.objectstore import table

    described = table(server.url, "bucket", retries=0, session_token="the-token", **settings)
    config = {"file": {"s": described}, "state": {"s": described}}
    return resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=20))


@contextmanager
def little_memory() -> Iterator[None]:
    """Look that what is done takes little memory at any time."""
    if sys.platform != "linux":
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < LIMIT


def memory(what: str) -> int:
    return int(re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def page(
    names: list[str], more: str = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
) -> bytes:
    each = "<Contents><Key>{}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
    return f"<ListBucketResult>{more}{''.join(map(each.format, names))}</ListBucketResult>".encode()


def endless(head: bytes) -> Iterator[bytes]:
    yield XML + b"<ListBucketResult>"
    while True:
        yield b" " * 65536


def no_end_of_keys(head: bytes) -> Iterator[bytes]:
    """Every page has later keys than the one before."""
    no_end_of_keys.number += 1  # type: ignore[attr-defined]
    yield XML + page([f"{no_end_of_keys.number:08}-{each:04}-{'x' * 900}" for each in range(1000)])  # type: ignore[attr-defined]


no_end_of_keys.number = 0  # type: ignore[attr-defined]

BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%b">' % (98 + depth, b"&%c;" % (97 + depth) * 10) for depth in range(9)
)
LISTINGS: dict[str, tuple[Answer, type[Exception], str]] = {
    "an answer without end": (endless, ResourceExhaustedError, "more than a page"),
    "keys without end": (no_end_of_keys, ResourceExhaustedError, "limit and after"),
    "the same page": (lambda head: iter([XML + page(["a", "b"])]), InternalError, "does not go on"),
    "empty pages": (lambda head: iter([XML + page([])]), InternalError, "does not go on"),
    "entities": (lambda head: iter([XML + BOMB + b"]>" + page(["&j;"], "")]), InternalError, "as S3 does"),
    "no XML": (lambda head: iter([XML + b"<html>"]), InternalError, "as S3 does"),
    "no HTTP": (lambda head: iter([b"SSH-2.0-x\r\n\r\n"]), InternalError, "HTTP/1.1"),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_listings_without_end(
    server: Server, client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.answer, expected, said = LISTINGS[name]
    monkeypatch.setattr(pages, "_MEMORY", 4 * MIB)
    monkeypatch.setattr(pages, "_EMPTY", 10)
    with little_memory():
        for options in ({}, {"recursive": False}, {"limit": 10_000_000}):
            error = api.fails(expected, said)(client.file, "list_files", "s", **options)
            assert "http" not in str(error).replace("HTTP", "")
        api.fails(expected, said)(client.state, "list_keys", "s")


def test_objects_without_end(server: Server, client: CloudRuntimesClient, api: Api) -> None:
    def endless_object(head: bytes) -> Iterator[bytes]:
        yield OBJECT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + b"x" * 65536 + b"\r\n"

    server.answer = endless_object
    with little_memory():
        api.fails(InternalError, "more of an object than it announced")(client.file, "get_file", "s", "f")
        api.fails(InternalError, "more of an object than it announced")(client.state, "get", "s", "k")


@pytest.mark.promise("H4")
def test_redirects_are_not_followed(server: Server, client: CloudRuntimesClient, api: Api) -> None:
    """The other server would be sent the session token."""
    with Server() as other:
        other.answer = lambda head: iter([OBJECT + b"Content-Length: 2\r\n\r\nhi"])
        away = b"HTTP/1.1 307 Away\r\nLocation: http://localhost:%d/f\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        server.answer = lambda head: iter([away % other.port])
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("get_file", ("f",)), ("stat_file", ("f",)), ("list_files", ()), ("put_file", ("f", b"x")), ("delete_file", ("f",)),
        ]  # fmt: skip
        for method, arguments in calls:
            error = api.fails(UnavailableError, "another host")(client.file, method, "s", *arguments)
            assert "localhost" not in str(error)
        assert other.requests == []
        assert any(b"the-token" in head for head in server.requests)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logs, "_said", {})
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    return caplog


FOREIGN = ("a//b", "./c", "d/../e", "f\x01g", "folder/", "/h")


def test_keys_of_other_programs(
    make: Make, objectstore_url: str, bucket: str, api: Api, said: pytest.LogCaptureFixture
) -> None:
    if objectstore_url.startswith("azurite"):
        pytest.skip("Azurite has no S3")
    foreign = s3(objectstore_url)
    for key in FOREIGN:
        foreign.put_object(Bucket=bucket, Key=key, Body=b"theirs")
    client, below = make(), make("/below")
    for name in ("a/ours", "ours", "z"):
        api.call(client.file, "put_file", "s", name, b"ours")
    for each in (client, below):
        api.fails(MissingFileError)(each.file, "stat_file", "s", "absent")
        assert api.call(each.file, "exists", "s", "absent") is False
        api.call(each, "wait_ready")
    for _ in range(2):
        assert [each.name for each in api.call(client.file, "list_files", "s")] == ["a/ours", "ours", "z"]
        assert [each.name for each in api.call(client.file, "list_files", "s", limit=2)] == ["a/ours", "ours"]
        assert [each.name for each in api.call(client.file, "list_files", "s", "a/", recursive=False)] == ["a/ours"]
        assert api.call(client.state, "list_keys", "s", "a/") == ["a/ours"]
    for key in ("a//b", "./c", "d/../e", "f\x01g"):
        assert len([each for each in said.messages if repr(key) in each]) == 1
    assert not [each for each in said.messages if "'folder/'" in each]
