"""SIGKILL at any moment, sweeping beside living processes, links swapped in, much data in little memory."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError, PermissionDeniedError
from tests.support import Figure, Rounds

pytestmark = pytest.mark.process
SIZES = (10, 300_000, 5_000_000)


def temporaries(root: Path) -> list[str]:
    return [each.name for each in (root / "%%tmp").iterdir()] if (root / "%%tmp").exists() else []


@pytest.mark.promise("A5", figure="SIGKILL of a put")
def test_killed_puts(start: Any, at: Any, root: Path, rounds: Rounds, figure: Figure) -> None:
    count, files, swept = rounds(6, 200), 0, 0
    with at(root, durability="relaxed") as client:
        client.file.put_file("store", "folder/old", b"0" * 10, metadata={"digit": "0"})
    for number in range(count):
        child = start("put_until_killed", root).ready()
        time.sleep(random.uniform(0.0, 0.06))
        child.kill()
        child.close()
        swept += len(temporaries(root))
        with at(root, durability="relaxed") as client:
            for info in client.file.list_files("store"):
                data = client.file.get_file("store", info.name)
                assert len(data) == info.size in SIZES, (number, info)
                assert set(data) == {ord(info.metadata["digit"])}, (number, info)
                files += 1
                if info.name != "folder/old":
                    client.file.delete_file("store", info.name)
            assert client.file.exists("store", "folder/old")
            assert temporaries(root) == []
    assert files >= count
    figure(f"SIGKILL of a put, {count} rounds", f"{files} files whole, 0 mixed, {swept} temporaries swept, 0 left")


@pytest.mark.promise("A5")
def test_killed_moves(start: Any, at: Any, root: Path, rounds: Rounds, figure: Figure) -> None:
    count = rounds(5, 200)
    counts = {"here/a": 0, "there/a": 0}
    with at(root, durability="relaxed") as client:
        before = client.file.put_file("store", "here/a", b"content", metadata={"k": "v"})
    for _ in range(count):
        child = start("move_until_killed", root).ready()
        time.sleep(random.uniform(0.0, 0.02))
        child.kill()
        child.close()
        with at(root, durability="relaxed") as client:
            (info,) = client.file.list_files("store")
            assert (info.etag, info.metadata) == (before.etag, {"k": "v"})
            assert client.file.get_file("store", info.name) == b"content"
            counts[info.name] += 1
            client.file.move_file("store", info.name, "here/a")
    figure(
        f"SIGKILL of a move, {count} rounds",
        f"{counts['here/a']} at the source, {counts['there/a']} at the target, 0 at both",
    )


def test_a_living_put_survives_the_sweep_of_another(start: Any, at: Any, root: Path) -> None:
    child = start("put_slowly", root).ready()
    (root / "%%tmp").mkdir(exist_ok=True)
    (root / "%%tmp" / "orphan").write_bytes(b"of a process that was killed")
    assert len(temporaries(root)) == 2
    with at(root) as client:
        assert client.file.list_files("store") == []
        assert "orphan" not in temporaries(root)
        child.go()
        assert child.line() == {"done": True}
        assert client.file.get_file("store", "slow") == b"firstsecond"
    assert temporaries(root) == []


def test_processes_that_create_the_same(start: Any, client: CloudRuntimesClient, root: Path, rounds: Any) -> None:
    count = rounds(100, 2_000)
    children = [start("create", root, count).ready() for _ in range(3)]
    for child in children:
        child.go()
    created = [name for child in children for name in child.line()["made"]]
    assert len(created) == len(set(created)) == 2 * count
    assert [info.name for info in client.file.list_files("store", timeout=60)] == sorted(created)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="not on this Python: /proc")
def test_much_in_little_memory(start: Any, root: Path, rounds: Rounds, figure: Figure) -> None:
    size = rounds(96, 1024)
    line = start("stream", root, size).line()
    assert line["total"] == size * 1_048_576
    assert line["last"] == [(size - 1) % 256] * 5
    assert line["growth"] < 64 * 1_048_576
    figure(
        f"{size} MiB in, out, copied and through a handle",
        f"{line['growth'] / 1_048_576:.1f} MiB more memory; in {size / line['put']:,.0f} MiB/s, out {size / line['got']:,.0f} MiB/s",
    )


@pytest.mark.promise("H1", figure="links swapped in")
def test_links_swapped_in(
    start: Any, client: CloudRuntimesClient, root: Path, tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (outside / "file").write_bytes(b"secret")
    client.file.put_file("store", "folder/file", b"inside")
    (root / "target").write_bytes(b"inside")
    child = start("swap", root, outside).ready()
    refused = passed = 0
    count = rounds(1_500, 100_000)
    calls: list[Callable[[], Any]] = [
        lambda: client.file.get_file("store", "folder/file"),
        lambda: client.file.get_file("store", "target"),
        lambda: client.file.put_file("store", "folder/file", b"inside"),
        lambda: client.file.put_file("store", "folder/new", b"inside"),
        lambda: client.file.copy_file("store", "target", "folder/copy"),
        lambda: client.file.move_file("store", "folder/new", "moved"),
        lambda: client.file.list_files("store", "folder/"),
        lambda: client.file.delete_file("store", "folder/new"),
    ]
    client.close()
    with CloudRuntimesClient(
        config={"file": {"store": {"component": "local", "path": str(root), "durability": "relaxed"}}}, timeout=30
    ) as client:
        for number in range(count):
            try:
                result = calls[number % len(calls)]()
                passed += 1
                assert not isinstance(result, bytes) or result == b"inside", result
            except PermissionDeniedError:
                refused += 1
            except CloudRuntimesError as error:  # the folder was away, or came back in between
                if error.code not in ("NOT_FOUND", "INTERNAL"):
                    raise
        assert child.process.poll() is None
        child.kill()
    assert refused > count / 1000
    assert sorted(each.name for each in outside.iterdir()) == ["file", "secret"]
    assert (outside / "file").read_bytes() == (outside / "secret").read_bytes() == b"secret"
    assert passed > count / 1000
    figure(
        f"links swapped in, {count:,} calls", f"{passed:,} went inside, {refused:,} refused, 0 bytes from or to outside"
    )


def test_a_listing_of_many(at: Any, root: Path, rounds: Rounds, figure: Figure) -> None:
    count = rounds(5_000, 100_000)
    (root / "flat").mkdir()
    names = [f"flat/{number:06}" for number in range(count)]
    for name in names:
        (root / name).write_bytes(b"")
    random.Random(1).shuffle(names)
    with at(root) as client:
        over = threading.Event()

        def churn() -> None:
            while not over.is_set():
                client.file.put_file("store", "flat/zzz", b"x")
                client.file.delete_file("store", "flat/zzz")

        beside = threading.Thread(target=churn)
        beside.start()
        started = time.monotonic()
        try:
            paged: list[str] = []
            while page := client.file.list_files("store", limit=1000, after=paged[-1] if paged else None, timeout=60):
                paged += [info.name for info in page]
        finally:
            over.set()
            beside.join()
        pages = time.monotonic() - started
        started = time.monotonic()
        whole = [info.name for info in client.file.list_files("store", timeout=None)]
        once = time.monotonic() - started
    assert [name for name in paged if name != "flat/zzz"] == sorted(names) == [n for n in whole if n != "flat/zzz"]
    figure(f"{count:,} files listed", f"at once {once:.1f} s; in pages of 1,000 beside a writer {pages:.1f} s")
    shutil.rmtree(root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on this Python: fork")
def test_fork(client: CloudRuntimesClient, root: Path) -> None:
    import multiprocessing

    writer = client.file.open_file("store", "handle", "wb")
    writer.write(b"parent")
    reader_end, writer_end = os.pipe()

    def body() -> None:
        said = b""
        try:
            writer.write(b"child")
        except CloudRuntimesError as error:
            said = type(error).__name__.encode()
        client.file.put_file("store", "child", b"x")
        os.write(writer_end, said)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert os.read(reader_end, 100) == b"ClosedError"
    os.close(reader_end)
    os.close(writer_end)
    writer.write(b"s")
    writer.close()
    assert client.file.get_file("store", "handle") == b"parents"
    assert client.file.get_file("store", "child") == b"x"
