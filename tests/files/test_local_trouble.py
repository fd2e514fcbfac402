"""Disks in trouble, and calls that are given up, with files on disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.os_folders import open_folder
from cloud_runtimes.errors import (
    AlreadyExistsError,
    CloudRuntimesError,
    DeadlineExceededError,
    MissingFileError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnsupportedError,
)
from tests.support.needs import needs_attributes, needs_root

# -- disks in trouble ---------------------------------------------------------


@pytest.mark.promise("C1")
@pytest.mark.root
@needs_root
def test_full_disk(small_disk: Path, at: Any) -> None:
    with at(small_disk / "store") as client:
        client.file.put_file("store", "old", b"old" * 100_000, metadata={"k": "v"})
        for name in ("old", "new/deep"):
            with pytest.raises(ResourceExhaustedError, match=r"full.*free space") as caught:
                client.file.put_file("store", name, os.urandom(9_000_000))
            assert caught.value.maybe_applied is False
            with pytest.raises(ResourceExhaustedError):
                with client.file.open_file("store", name, "wb") as file:
                    for _ in range(10):
                        file.write(os.urandom(1_000_000))
        # one that goes on after the error stores nothing either
        with pytest.raises(CloudRuntimesError, match="nothing is stored"):
            with client.file.open_file("store", "new", "wb") as file:
                with pytest.raises(ResourceExhaustedError):
                    file.write(os.urandom(9_000_000))
        (info,) = client.file.list_files("store")
        assert (info.name, info.metadata) == ("old", {"k": "v"})
        assert client.file.get_file("store", "old") == b"old" * 100_000
        assert {each.name for each in (small_disk / "store").iterdir()} <= {"old", "%%tmp", "%%lock"}
        subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
        client.file.put_file("store", "new", bytes(9_000_000))
        assert client.file.stat_file("store", "new").size == 9_000_000


@pytest.mark.promise("C3")
@pytest.mark.root
@needs_root
def test_read_only_disk(small_disk: Path, at: Any) -> None:
    with at(small_disk) as client:
        client.file.put_file("store", "a", b"x")
        (small_disk / "%%tmp").mkdir(exist_ok=True)
        (small_disk / "%%tmp" / "orphan").write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with at(small_disk) as client:
        assert client.file.get_file("store", "a") == b"x"
        assert len(client.file.list_files("store")) == 1
        for refused in (
            lambda: client.file.put_file("store", "a", b"y"),
            lambda: client.file.put_file("store", "b/c", b"y", overwrite=False),
            lambda: client.file.delete_file("store", "a"),
            lambda: client.file.copy_file("store", "a", "b"),
            lambda: client.file.move_file("store", "a", "b"),
            lambda: client.file.open_file("store", "a", "wb").write(b"y"),
        ):
            with pytest.raises(PermissionDeniedError, match="check owner, mode and mount") as caught:
                refused()
            assert caught.value.maybe_applied is False


@pytest.mark.root
@needs_root
def test_without_permission(tmp_path: Path, at: Any) -> None:
    with at(tmp_path / "root") as client:
        client.file.put_file("store", "a", b"x")
        (tmp_path / "root").chmod(0o700)
        os.seteuid(65534)
        try:
            with at(tmp_path / "root") as other:
                for refused in (
                    lambda: other.file.get_file("store", "a"),
                    lambda: other.file.list_files("store"),
                    lambda: other.file.put_file("store", "a", b"y"),
                ):
                    with pytest.raises(PermissionDeniedError):
                        refused()
        finally:
            os.seteuid(0)
        assert client.file.get_file("store", "a") == b"x"


@pytest.mark.root
@needs_root
def test_a_mount_inside_is_a_store_of_its_own(tmp_path: Path, at: Any, root: Path) -> None:
    (root / "mount").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root / "mount")], check=True)
    try:
        with at(root) as client:
            with pytest.raises(UnsupportedError, match="another file system"):
                client.file.put_file("store", "mount/a", b"x")
            assert client.file.list_files("store") == []
    finally:
        subprocess.run(["umount", "-l", str(root / "mount")], check=True)


# -- giving up ----------------------------------------------------------------


@needs_attributes
def test_a_cancelled_put_stores_nothing(client: CloudRuntimesClient, root: Path) -> None:
    """Whatever the thread that it left running does then."""
    client.file.put_file("store", "f", b"old")
    inside, go = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"half"
        inside.set()
        go.wait(20)
        yield b"half"

    async def main() -> None:
        task = asyncio.ensure_future(client.file.put_file_async("store", "f", chunks()))
        ticks = 0
        while not inside.is_set():
            ticks += 1
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert getattr(caught.value, "maybe_applied", None) is False
        go.set()
        with pytest.raises(DeadlineExceededError) as late:
            inside.clear()
            go.clear()
            await client.file.put_file_async("store", "f", chunks(), timeout=0.2)
        assert late.value.maybe_applied is False
        go.set()

        async def forever() -> Any:
            yield b"half"
            await asyncio.sleep(60)

        with pytest.raises(DeadlineExceededError) as late:
            await client.file.put_file_async("store", "f", forever(), timeout=0.2)
        assert late.value.maybe_applied is False
        task = asyncio.ensure_future(client.file.put_file_async("store", "f", forever()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert getattr(caught.value, "maybe_applied", None) is False
        with pytest.raises(asyncio.CancelledError):
            async with client.file.open_file("store", "f", "wb") as file:
                await file.write_async(b"half")
                raise asyncio.CancelledError

    asyncio.run(main())
    client.close()
    time.sleep(0.05)
    assert (root / "f").read_bytes() == b"old"
    assert not list((root / "%%tmp").iterdir()) if (root / "%%tmp").exists() else True


def test_the_loop_is_free_while_a_source_blocks(client: CloudRuntimesClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            time.sleep(0.02)
            yield b"x"

    async def main() -> int:
        ticks = 0
        task = asyncio.ensure_future(client.file.put_file_async("store", "f", chunks()))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.005)
        assert (await task).size == 20
        return ticks

    assert asyncio.run(main()) > 10


def test_a_file_of_an_asynchronous_library(client: CloudRuntimesClient) -> None:
    class File:
        async def read(self, size: int) -> bytes:
            raise AssertionError("its chunks are taken by async for")

        async def __aiter__(self) -> Any:
            yield b"one"
            yield b"two"

    asyncio.run(client.file.put_file_async("store", "f", File()))  # type: ignore[arg-type]
    assert client.file.get_file("store", "f") == b"onetwo"


def test_an_interrupted_put_stores_nothing(client: CloudRuntimesClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        client.file.put_file("store", "f", chunks())
    assert getattr(caught.value, "maybe_applied", None) is False
    assert not client.file.exists("store", "f")
    client.file.put_file("store", "f", b"x")


def test_a_put_inside_a_put(client: CloudRuntimesClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"outer"
        client.file.put_file("store", "f", b"inner")

    client.file.put_file("store", "f", chunks())
    assert client.file.get_file("store", "f") == b"outer"


def test_who_holds_the_store_too_long(client: CloudRuntimesClient, root: Path) -> None:
    """A process that was stopped with the lock: others wait no longer than they want to."""
    client.file.put_file("store", "f", b"x")
    held = open_folder(str(root))
    assert held.try_lock()
    try:
        for call in (
            lambda: client.file.put_file("store", "f", b"y", timeout=0.1),
            lambda: client.file.delete_file("store", "f", timeout=0.1),
            lambda: client.file.move_file("store", "f", "g", timeout=0.1),
        ):
            with pytest.raises(DeadlineExceededError, match="the lock of the store") as caught:
                call()
            assert caught.value.maybe_applied is False
        assert client.file.get_file("store", "f") == b"x"
    finally:
        held.close()
    client.file.put_file("store", "f", b"y")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="not on this Python: /proc")
def test_nothing_stays_open(at: Any, root: Path) -> None:
    with at(root, durability="relaxed") as client:
        for number in range(50):
            client.file.put_file("store", f"d/{number}", b"x")
            client.file.put_file("store", "d", b"x")
            client.file.get_file("store", f"d/{number}")
            client.file.copy_file("store", f"d/{number}", "copy")
            client.file.move_file("store", "copy", "d/moved")
            client.file.list_files("store", limit=3)
            with pytest.raises(AlreadyExistsError):
                client.file.put_file("store", "d", b"x", overwrite=False)
            with pytest.raises(MissingFileError):
                client.file.get_file("store", "absent/a")
            client.file.open_file("store", f"d/{number}").read(1)
            client.file.open_file("store", "forgotten", "wb").write(b"x")
    held = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # of the listing itself
            held.append(os.readlink(f"/proc/self/fd/{name}"))
    assert not [path for path in held if path.startswith(str(root.parent))]
