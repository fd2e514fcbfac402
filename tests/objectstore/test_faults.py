"""Results that callers get when the store, the way to it or the credentials fail."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    MissingFileError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Figure, Rounds
from tests.support.fault_proxy import FaultProxy
from tests.support.forked import in_child
from tests.support.objectstore import s3, table
from tests.support.waiting import Stopwatch, running, until

from .conftest import Make

MIB = 1024 * 1024
PART = 5 * MIB
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "get": ("get_file", ("f",)),
    "list": ("list_files", ()),
    "put": ("put_file", ("f", b"new")),
    "delete": ("delete_file", ("f",)),
    "copy": ("copy_file", ("f", "g")),
}
REFUSALS = [
    (403, "InvalidAccessKeyId", UnauthenticatedError, "credentials"),
    (403, "SignatureDoesNotMatch", UnauthenticatedError, "credentials"),
    (400, "ExpiredToken", UnauthenticatedError, "ended"),
    (403, "RequestTimeTooSkewed", UnauthenticatedError, "clock"),
    (403, "AccessDenied", PermissionDeniedError, "allow"),
    (404, "NoSuchBucket", NotFoundError, "no such bucket"),
    (503, "SlowDown", UnavailableError, "fewer requests"),
    (500, "InternalError", UnavailableError, "InternalError"),
]


def answer(status: int, code: str) -> bytes:
    """Return an answer of S3, after which the connection closes."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>https://x/?q=leak</Message></Error>'.encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def uploads(url: str, bucket: str) -> list[dict[str, Any]]:
    """Return the unfinished uploads."""
    pending: list[dict[str, Any]] = s3(url).list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return pending


def says_nothing(error: BaseException, bucket: str) -> None:
    """Look that no URL and nothing the server said is shown."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        assert "http" not in text, text
        assert "leak" not in text
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert bucket in str(error)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("status", "code", "expected", "said"), REFUSALS, ids=[each[1] for each in REFUSALS])
def test_refusals(
    make: Make, proxied: str, proxy: FaultProxy, bucket: str, api: Api,
    name: str, status: int, code: str, expected: type[CloudRuntimesError], said: str,
) -> None:  # fmt: skip
    client = make(url=proxied, retries=0, timeout=5)
    proxy.down.replacement = answer(status, code)
    method, arguments = CALLS[name]
    error = api.fails(expected, said)(client.file, method, "s", *arguments)
    says_nothing(error, bucket)
    assert error.retryable is (expected is UnavailableError)
    if expected is not UnavailableError:
        assert not error.maybe_applied


def test_throttling_is_waited_for(make: Make, proxied: str, proxy: FaultProxy, api: Api) -> None:
    client = make(url=proxied)
    proxy.down.replacement = answer(503, "SlowDown")

    def relent() -> None:
        until(lambda: proxy.accepted > 2)
        proxy.heal()

    with running(relent):
        api.call(client.file, "put_file", "s", "f", b"x")
    assert api.call(client.file, "get_file", "s", "f") == b"x"
    assert proxy.accepted > 2


def test_a_bucket_that_is_gone(make: Make, objectstore_url: str, bucket: str, api: Api) -> None:
    client = make()
    assert api.call(client.file, "exists", "s", "f") is False
    api.fails(MissingFileError)(client.file, "stat_file", "s", "f")
    s3(objectstore_url).delete_bucket(Bucket=bucket)
    for method in ("exists", "stat_file", "get_file", "delete_file"):
        error = api.fails(NotFoundError, "no such bucket")(client.file, method, "s", "f")
        assert not isinstance(error, MissingFileError)
    api.fails(NotFoundError, "no such bucket")(client.file, "put_file", "s", "f", b"x")
    api.fails(NotFoundError, "no such bucket")(client.state, "get", "s", "k")
    api.fails(NotFoundError, "no such bucket")(client, "wait_ready")


def test_a_store_that_is_silent(make: Make, proxied: str, proxy: FaultProxy, api: Api) -> None:
    client = make(url=proxied)
    proxy.down.lost = True
    for method, arguments, writes in (("get_file", (), False), ("put_file", (b"x",), True), ("stat_file", (), False)):
        begun = time.monotonic()
        with Stopwatch() as watch:
            error = api.fails(DeadlineExceededError)(client.file, method, "s", "f", *arguments, timeout=0.5)
            assert watch.seconds < 1.5
        assert time.monotonic() - begun > 0.4
        assert error.maybe_applied is writes


def test_a_store_that_is_away(make: Make, proxied: str, proxy: FaultProxy, bucket: str, api: Api) -> None:
    client = make(url=proxied, retries=1)
    proxy.gone()
    error = api.fails(UnavailableError, "reached")(client.file, "put_file", "s", "f", b"x")
    says_nothing(error, bucket)
    assert not error.maybe_applied
    proxy.back()
    api.call(client.file, "put_file", "s", "f", b"x")


def test_credentials_that_end_while_a_file_is_read(make: Make, proxied: str, proxy: FaultProxy, api: Api) -> None:
    data = random.randbytes(4 * MIB)
    client = make(url=proxied, retries=0)
    api.call(client.file, "put_file", "s", "f", data)
    with api.opened(client.file.open_file("s", "f")) as file:
        got = api.call(file, "read", MIB)
        proxy.down.replacement = answer(400, "ExpiredToken")
        proxy.break_all("close")
        api.fails(UnauthenticatedError, "ended")(file, "read", MIB)
        proxy.heal()
        assert got + api.call(file, "read") == data


def test_a_large_file_that_is_replaced_while_it_is_read(make: Make, api: Api) -> None:
    client = make()
    api.call(client.file, "put_file", "s", "f", bytes(3 * MIB))
    with api.opened(client.file.open_file("s", "f")) as file:
        assert api.call(file, "read", MIB) == bytes(MIB)
        api.call(client.file, "put_file", "s", "f", b"1" * 3 * MIB)
        assert api.fails(ConflictError, "open it again")(file, "read", MIB).__cause__ is None


def test_what_is_given_up_leaves_no_parts(make: Make, objectstore_url: str, bucket: str, api: Api) -> None:
    client = make(part_size=PART)

    def broken() -> Any:
        for _ in range(12):
            yield bytes(MIB)
        raise ZeroDivisionError

    api.fails(ZeroDivisionError)(client.file, "put_file", "s", "f", broken())
    with pytest.raises(ZeroDivisionError):
        with api.opened(client.file.open_file("s", "f", "wb")) as file:
            api.call(file, "write", bytes(12 * MIB))
            assert uploads(objectstore_url, bucket)
            raise ZeroDivisionError
    abandoned = client.file.open_file("s", "f", "wb")
    api.call(abandoned, "write", bytes(12 * MIB))
    api.call(client, "close")
    if "key:secret@" in objectstore_url:  # versitygw keeps an upload whose abort meets a part on its way
        assert uploads(objectstore_url, bucket) == []
    assert "Contents" not in s3(objectstore_url).list_objects_v2(Bucket=bucket)


def test_a_source_that_takes_too_long_leaves_no_parts(make: Make, objectstore_url: str, bucket: str, api: Api) -> None:
    client = make(part_size=PART)

    def slow() -> Iterator[bytes]:
        for _ in range(12):
            yield bytes(MIB)
        time.sleep(1.5)
        yield bytes(MIB)

    async def slow_async() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield bytes(MIB)
        await asyncio.sleep(20)

    source = slow() if api.name == "sync" else slow_async()
    assert not api.fails(DeadlineExceededError)(client.file, "put_file", "s", "f", source, timeout=1).maybe_applied
    if "key:secret@" in objectstore_url:
        until(lambda: not uploads(objectstore_url, bucket))
    assert not api.call(client.file, "exists", "s", "f")


@pytest.mark.parametrize("cut", [0, 3 * MIB, 11 * MIB])
def test_a_connection_that_breaks_during_an_upload(
    make: Make, proxied: str, proxy: FaultProxy, objectstore_url: str, bucket: str, api: Api, cut: int
) -> None:
    """Parts are sent again; where that does not help, nothing is stored, and no part stays."""
    client, data = make(url=proxied, part_size=PART), random.randbytes(12 * MIB)
    proxy.up.cut, proxy.up.once = cut, True
    api.call(client.file, "put_file", "s", "f", data)
    assert api.call(client.file, "get_file", "s", "f") == data
    proxy.up.cut, proxy.up.once = cut, False
    few = make(url=proxied, part_size=PART, retries=0, timeout=10)
    error = api.fails((UnavailableError, DeadlineExceededError))(
        few.file, "put_file", "s", "f", iter([bytes(12 * MIB)])
    )
    says_nothing(error, bucket)
    proxy.heal()
    assert api.call(make().file, "get_file", "s", "f") == data


_PUT = """
import json
import sys
from cloud_runtimes import CloudRuntimesClient
config, size = json.loads(sys.argv[1]), int(sys.argv[2])
with CloudRuntimesClient(app_id="child", config=config) as client:
    client.file.exists("s", "f")
    print("ready", flush=True)
    sys.stdin.readline()
    client.file.put_file("s", "f", iter([b"n" * 1048576] * (size // 1048576)), metadata={"is": "new"})
    print("done", flush=True)
"""


@pytest.mark.promise("A5")
@pytest.mark.process
def test_a_put_that_is_killed(
    make: Make, objectstore_url: str, proxied: str, proxy: FaultProxy, bucket: str,
    rounds: Rounds, figure: Figure,
) -> None:  # fmt: skip
    """It leaves the old file or the new one. Parts of it wait for the bucket's rule, and are nothing meanwhile."""
    size, times = 12 * MIB, rounds(4, 50)
    client = make()
    config = json.dumps({"file": {"s": table(proxied, bucket, part_size=PART)}})
    seen = {"old": 0, "new": 0, "parts": 0}
    for number in range(times):
        client.file.put_file("s", "f", b"o" * size, metadata={"is": "old"})
        child = subprocess.Popen(
            [sys.executable, "-c", _PUT, config, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        # every other one is killed near the end, among the requests that complete the upload
        share = (number + 0.5) / times
        proxy.end, proxy.up.cut = "half-open", int(size * share) if number % 2 else size + int(9000 * share)
        child.stdin.write("\n")
        child.stdin.flush()
        until(lambda child=child: proxy.up.cut == 0 or child.poll() is not None)
        child.kill()
        child.communicate()
        proxy.heal()
        time.sleep(0.1)  # what is on its way arrives
        with client.file.open_file("s", "f") as file:
            data, info = file.read(), file.info
        assert data == {"old": b"o", "new": b"n"}[info.metadata["is"]] * size
        seen[info.metadata["is"]] += 1
        for upload in uploads(objectstore_url, bucket):  # as the rule does it
            seen["parts"] += 1
            s3(objectstore_url).abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        assert uploads(objectstore_url, bucket) == []
    assert seen["parts"] > 0, "some were killed in the middle"
    figure(
        "puts of 12 MiB into a bucket killed with SIGKILL",
        f"{times}: {seen['old']} left the old file, {seen['new']} the new one, none another; "
        f"{seen['parts']} left parts for the bucket's rule",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is not on this Python")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told(make: Make) -> None:
    client = make()
    client.file.put_file("s", "f", b"x")

    def child() -> None:
        with pytest.raises(UnsupportedError, match="spawn"):
            client.file.get_file("s", "f")

    in_child(child)
    assert client.file.get_file("s", "f") == b"x"
