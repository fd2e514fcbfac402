"""A file of secrets is read again when it has changed, and never half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components.config_file import secret as secret_file
from cloud_runtimes.components.config_file import watched
from cloud_runtimes.errors import ClosedError, DeadlineExceededError, NotFoundError, PayloadError, UnavailableError
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make, Rounds
from tests.support.forked import in_child
from tests.support.waiting import until

Write = Callable[..., Path]

SETTLE_MS = round(watched.QUIET * 1000)
GRACE_MS = round(secret_file.GRACE * 1000)


class Reads:
    """How often files were really read."""

    count = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads, real = Reads(), watched.bytes_of

    def contents(descriptor: int, size: int) -> bytes:
        reads.count += 1
        return real(descriptor, size)

    monkeypatch.setattr(watched, "bytes_of", contents)
    return reads


def test_read_once_while_it_stays(
    write: Write, client: Make, api: Api, canary: Canary, reads: Reads, clocks: Any
) -> None:
    app_client = client(path=write("s.json", {"a": canary.value()}))
    for _ in range(5):
        api.call(app_client.secret, "get_secret", "s", "a")
        api.call(app_client.secret, "get_bulk_secret", "s")
    assert reads.count == 1


@pytest.mark.parametrize("how", ["in place", "replaced", "same size and time", "touched"])
def test_read_again_when_it_changed(
    write: Write, client: Make, api: Api, canary: Canary, reads: Reads, clocks: Any, how: str
) -> None:
    old, new = canary.value(), canary.value()
    new = f"{new}{'x' * (len(old) - len(new))}"
    path = write("s.json", {"a": old})
    app_client = client(path=path)
    api.call(app_client.secret, "get_secret", "s", "a")
    status = path.stat()
    if how == "replaced":
        write("new.json", {"a": new}).replace(path)
    elif how == "touched":
        os.utime(path)
        new = old
    else:
        write("s.json", {"a": new})
        if how == "same size and time":  # the time of the status cannot be set
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            after = path.stat()
            assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
                status.st_mtime_ns,
                status.st_size,
                status.st_ino,
            )
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == new) is True
    assert reads.count == 2


def test_what_the_caller_holds_stays(write: Write, client: Make, api: Api, canary: Canary, clocks: Any) -> None:
    old = canary.value()
    app_client = client(path=write("s.json", {"a": old}))
    held = api.call(app_client.secret, "get_secret", "s", "a")
    write("s.json", {})
    with canary.raises(NotFoundError):
        api.call(app_client.secret, "get_secret", "s", "a")
    assert (held.value == old) is True


def test_a_link_that_is_turned(
    sources: Path, write: Write, client: Make, api: Api, canary: Canary, clocks: Any
) -> None:
    """As an orchestrator does with mounted secrets: a folder behind a symbolic link is exchanged."""
    values = [canary.value(), canary.value()]
    for number, value in enumerate(values):
        (sources / f"v{number}").mkdir()
        write(f"v{number}/s.json", {"a": value})
    (sources / "now").symlink_to("v0")
    app_client = client(path=sources / "now" / "s.json")
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == values[0]) is True
    (sources / "next").symlink_to("v1")
    (sources / "next").replace(sources / "now")
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == values[1]) is True


def test_a_removed_file_is_no_longer_served(write: Write, client: Make, api: Api, canary: Canary, clocks: Any) -> None:
    path = write("s.json", {"a": canary.value()})
    app_client = client(path=path)
    api.call(app_client.secret, "get_secret", "s", "a")
    path.unlink()
    with canary.raises(UnavailableError, match="does not exist"):
        api.call(app_client.secret, "get_secret", "s", "a")
    value = canary.value()
    write("s.json", {"a": value})
    clocks.ahead_ms = 0  # it has just been written, and what was before counts no more
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == value) is True


# -- while it is being written --------------------------------------------------


def test_what_just_changed_is_not_read_yet(
    write: Write, client: Make, api: Api, canary: Canary, clocks: Any, reads: Reads
) -> None:
    old, new = canary.value(), canary.value()
    app_client = client(path=write("s.json", {"a": old}))
    api.call(app_client.secret, "get_secret", "s", "a")
    clocks.ahead_ms = -(SETTLE_MS // 2)  # the file's time is now, or at most a little later
    path = write("s.json", {"a": new})
    clocks.ahead_ms = path.stat().st_ctime_ns // 1_000_000 - time.time_ns() // 1_000_000
    begin = time.monotonic()
    got = api.call(app_client.secret, "get_secret", "s", "a")
    if time.monotonic() - begin < SETTLE_MS / 2000:  # else this machine was busy, and the time is up
        assert (got.value == old) is True
        assert reads.count == 1
    clocks.ahead_ms += 10 * SETTLE_MS
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == new) is True


def test_the_first_reading_waits(write: Write, client: Make, api: Api, canary: Canary, reads: Reads) -> None:
    """In real time."""
    value = canary.value()
    app_client = client(path=write("s.json", {"a": value}))
    begin = time.monotonic()
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == value) is True
    assert time.monotonic() - begin < 5
    assert reads.count == 1


def test_a_file_that_does_not_come_to_rest(
    write: Write, client: Make, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch, clocks: Any
) -> None:
    path = write("s.json", {"a": canary.value()})
    app_client = client(path=path)
    real = watched.bytes_of

    def contents(descriptor: int, size: int) -> bytes:
        data = real(descriptor, size)
        with path.open("ab") as file:
            file.write(b" ")
        return data

    with monkeypatch.context() as patched:
        patched.setattr(watched, "bytes_of", contents)
        # on a busy machine a loop's own deadline comes before the thread's, which knows what it waits for
        with canary.raises(DeadlineExceededError, match="being written|a thread of the client's pool"):
            api.call(app_client.secret, "get_secret", "s", "a", timeout=2)
        patched.setattr(secret_file, "PATIENCE", 0.1)
        with canary.raises(UnavailableError, match="changes all the time"):
            api.call(app_client.secret, "get_secret", "s", "a", timeout=None)
    assert api.call(app_client.secret, "get_secret", "s", "a")


def test_a_half_written_one_keeps_what_was_before(
    write: Write, client: Make, api: Api, canary: Canary, clocks: Any
) -> None:
    old, new = canary.value(), canary.value()
    app_client = client(path=write("s.json", {"a": old}))
    api.call(app_client.secret, "get_secret", "s", "a")
    whole = json.dumps({"a": new})
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path = write("s.json", whole[:cut])
        # it has come to rest, and yet it is not old
        clocks.ahead_ms = path.stat().st_ctime_ns // 1_000_000 - time.time_ns() // 1_000_000 + 2 * SETTLE_MS
        assert (api.call(app_client.secret, "get_secret", "s", "a").value == old) is True
    clocks.ahead_ms += 2 * GRACE_MS
    with canary.raises(PayloadError, match="syntax error"):
        api.call(app_client.secret, "get_secret", "s", "a")
    write("s.json", whole)
    assert (api.call(app_client.secret, "get_secret", "s", "a").value == new) is True


def test_a_file_that_is_replaced_again_and_again(
    sources: Path, write: Write, client: Make, canary: Canary, clocks: Any
) -> None:
    """It is never quiet, and whole every time."""
    values = [canary.value() for _ in range(2)]
    app_client = client(path=write("s.json", {"a": values[0]}))
    app_client.secret.get_secret("s", "a")
    clocks.ahead_ms = 0
    end = time.monotonic() + 20
    while app_client.secret.get_secret("s", "a").value != values[1]:
        write("new.json", {"a": values[1]}).replace(sources / "s.json")
        assert time.monotonic() < end
        time.sleep(0.02)


WRITER = """
import json, os, sys, time
path, words, rounds = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
for number in range(rounds):
    # slowly, in place: what is read meanwhile is no JSON, or the state before
    with open(path, "r+b") as file:
        file.truncate()
        for part in (b'{"a": "', words[number % 2].encode() * 50, b'", "b": "', words[number % 2].encode() * 50, b'"}'):
            file.write(part)
            file.flush()
            time.sleep(0.005)
    time.sleep(0.25)
"""


@pytest.mark.process
def test_a_writer_in_place(write: Write, client: Make, canary: Canary, rounds: Rounds) -> None:
    """Another process writes in small steps; readers see each state whole, and in the end the last."""
    words = [canary.value(), canary.value()]
    path = write("s.json", {"a": words[1] * 50, "b": words[1] * 50})
    app_client = client(path=path)
    count = rounds(6, 100)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, ",".join(words), str(count)])
    wrong: list[str] = []
    looks = 0

    def read() -> None:
        nonlocal looks
        while writer.poll() is None:
            secrets = app_client.secret.get_bulk_secret("s")
            looks += 1
            if set(secrets) != {"a", "b"} or secrets["a"].value != secrets["b"].value:
                wrong.append(f"{len(secrets)} secrets")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert writer.wait(60) == 0
    assert wrong == []
    assert looks > 100
    last = words[(count - 1) % 2] * 50
    until(lambda: app_client.secret.get_secret("s", "a").value == last, seconds=10)


@pytest.mark.process
def test_a_forked_child_reads_for_itself(write: Write, client: Make, canary: Canary, clocks: Any) -> None:
    old, new = canary.value(), canary.value()
    app_client = client(path=write("s.json", {"a": old}))
    app_client.secret.get_secret("s", "a")
    write("s.json", {"a": new})
    assert in_child(lambda: app_client.secret.get_secret("s", "a").value) == new


def test_after_close(write: Write, client: Make, api: Api, canary: Canary, clocks: Any) -> None:
    app_client = client(path=write("s.json", {"a": canary.value()}))
    api.call(app_client.secret, "get_secret", "s", "a")
    api.call(app_client, "close")
    with canary.raises(ClosedError):
        api.call(app_client.secret, "get_secret", "s", "a")
