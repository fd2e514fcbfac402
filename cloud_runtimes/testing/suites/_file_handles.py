"""Conformance of a `FileDriver`: handles, and many at once."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, InvalidArgumentError, UnsupportedError
from ...file import FileInfo
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite
from ._file import Broken

__all__ = ["HandleTests"]


class HandleTests(Suite):
    """Whole replacement: by a handle, beside readers and other writers."""

    # -- handles ------------------------------------------------------------

    def test_a_handle_writes(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        handle = client.file.open_file(store, "d/f", "wb")
        assert "not open yet" in repr(handle)
        with face.opened(handle) as file:
            assert file is handle
            assert isinstance(file, io.RawIOBase)
            assert (file.readable(), file.writable(), file.seekable()) == (False, True, False)
            assert face.call(file, "write", b"one") == 3
            assert not call("exists", "d/f")
            assert call("list_files") == []
            assert face.call(file, "write", memoryview(b"two")) == 3
            assert file.tell() == 6
            face.fails(UnsupportedError)(file, "read", 1)
            with pytest.raises(ClosedError):
                file.info  # noqa: B018
        assert file.closed
        assert call("get_file", "d/f") == b"onetwo"
        assert file.info == call("stat_file", "d/f")
        face.call(file, "close")
        face.fails(ClosedError)(file, "write", b"x")
        with pytest.raises(InvalidArgumentError, match="bytes"):
            with call.opened("open_file", "e", "wb") as file:
                face.call(file, "write", "text")
        assert not call("exists", "e")

    def test_a_handle_without_a_block(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        file = client.file.open_file(store, "f", "wb")
        face.call(file, "write", b"x")
        assert not call("exists", "f")
        face.call(file, "close")
        assert call("get_file", "f") == b"x"
        empty = client.file.open_file(store, "empty", "wb")
        face.call(empty, "close")
        assert call("get_file", "empty") == b""
        forgotten = client.file.open_file(store, "g", "wb")
        face.call(forgotten, "write", b"half")
        del forgotten
        assert not call("exists", "g")

    def test_an_exception_stores_nothing(self, call: Call, face: Face) -> None:
        typed = {"content_type": "text/x"} if (not call.lacks("file.content_type")) else {}
        call("put_file", "old", b"whole", **typed)
        for name in ("old", "new"):
            for kind in (Broken, KeyboardInterrupt):
                with pytest.raises(kind):
                    with call.opened("open_file", name, "wb") as file:
                        face.call(file, "write", b"half")
                        raise kind
                assert file.closed
        assert call("get_file", "old") == b"whole"
        assert call("stat_file", "old").content_type == typed.get("content_type")
        assert not call("exists", "new")

    def test_a_handle_reads(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        data = bytes(range(256)) * 10_000
        info = call("put_file", "f", data)
        with call.opened("open_file", "f") as file:
            assert (file.readable(), file.writable()) == (True, False)
            assert file.info == info
            assert face.call(file, "read", 0) == b""
            got = b""
            while part := face.call(file, "read", 100_000):
                assert len(part) <= 100_000
                got += part
            assert got == data
            assert face.call(file, "read") == b""
            face.fails(UnsupportedError)(file, "write", b"x")
        face.fails(ClosedError)(file, "read")
        whole = client.file.open_file(store, "f", "rb")
        assert face.call(whole, "read") == data
        face.call(whole, "close")
        if face.name == "sync":
            with client.file.open_file(store, "f") as file:
                parts = list(file.chunks(300_000))
            with io.BufferedReader(client.file.open_file(store, "f")) as buffered:
                assert buffered.read(5) == data[:5]
                assert buffered.readline() == data[5:11]
        else:

            async def read() -> list[bytes]:
                async with client.file.open_file(store, "f") as file:
                    return [part async for part in file.chunks(300_000)]

            parts = face.run(read())
        assert b"".join(parts) == data
        assert {len(part) for part in parts[:-1]} == {300_000}

    @requires("file.range")
    def test_a_handle_seeks(self, call: Call, face: Face) -> None:
        call("put_file", "f", b"0123456789")
        with call.opened("open_file", "f") as file:
            assert file.seekable()
            assert file.seek(7) == 7
            assert face.call(file, "read") == b"789"
            assert file.seek(-2, 2) == 8
            assert file.seek(-3, 1) == file.tell() == 5
            assert face.call(file, "read", 2) == b"56"
            file.seek(100)
            assert face.call(file, "read", 2) == b""
            for bad in ((-1, 0), (-101, 1), (0, 3), ("1", 0)):
                with pytest.raises(InvalidArgumentError):
                    file.seek(*bad)

    def test_a_reader_keeps_its_version(self, call: Call, face: Face) -> None:
        old, new = b"old" * 100_000, b"new" * 100_000
        call("put_file", "f", old)
        with call.opened("open_file", "f") as file:
            first = face.call(file, "read", 10)
            call("put_file", "f", new)
            assert call("get_file", "f") == new
            assert first + face.call(file, "read") == old
            call("delete_file", "f")
        assert not call("exists", "f")

    def test_bad_handles(self, client: CloudRuntimesClient, store: str) -> None:
        for mode in ("r", "w", "ab", "r+b", "", None):
            with pytest.raises(InvalidArgumentError, match="'rb' or 'wb'"):
                client.file.open_file(store, "f", mode)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            client.file.open_file(store, "f", timeout=0)
        for size in (0, -1, 1.5):
            with pytest.raises(InvalidArgumentError):
                client.file.open_file(store, "f").chunks(size)  # type: ignore[arg-type]

    def test_closing_the_client_gives_up_what_is_open(
        self, call: Call, face: Face, store: str, harness: Harness
    ) -> None:
        second = harness.client()
        writer = second.file.open_file(store, "f", "wb")
        face.call(writer, "write", b"half")
        face.call(second, "close")
        assert writer.closed
        face.fails(ClosedError)(writer, "write", b"x")
        assert not call("exists", "f")
        face.fails(ClosedError)(second.file, "get_file", store, "f")

    # -- at once ------------------------------------------------------------

    def test_readers_never_see_a_mixture(self, call: Call, client: CloudRuntimesClient, store: str) -> None:
        sizes = (10, 200_000)
        kept = self._keeps(client, store)
        call("put_file", "f", b"0" * 10, metadata={"n": "0"} if kept else None)
        over = threading.Event()
        seen: list[str] = []

        def read() -> None:
            while not over.is_set():
                with client.file.open_file(store, "f") as file:
                    data = file.read()
                if len(set(data)) != 1 or len(data) not in sizes:
                    seen.append(f"content of {len(data)} bytes: {set(data)}")
                if kept and file.info.metadata["n"] != chr(data[0]):
                    seen.append(f"{file.info.metadata} with {data[:1]!r}")
                for info in client.file.list_files(store):
                    if info.name != "f" or info.size not in (*sizes, None):
                        seen.append(repr(info))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(40):
                digit = str(number % 10)
                metadata = {"n": digit} if kept else None
                call("put_file", "f", digit.encode() * sizes[number % 2], metadata=metadata)
        finally:
            over.set()
            reader.join()
        assert seen == []

    @staticmethod
    def _keeps(client: CloudRuntimesClient, store: str) -> bool:
        return client.supports("file.metadata", store)

    def test_many_at_once(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        calls: list[Any] = [
            (client.file, "put_file", (store, f"d{n % 7}/f{n % 13}/{n}", b"%d" % n), {}) for n in range(60)
        ]
        assert all(isinstance(result, FileInfo) for result in face.together(calls))
        results = face.together([(client.file, "get_file", (store, f"d{n % 7}/f{n % 13}/{n}"), {}) for n in range(60)])
        assert results == [b"%d" % n for n in range(60)]
        assert len(face.call(client.file, "list_files", store)) == 60
        # putting beside deleting: a folder that is pruned meanwhile is made again
        for _ in range(5):
            puts: list[Any] = [(client.file, "put_file", (store, f"p/q/{n}", b"x"), {}) for n in range(10)]
            deletes: list[Any] = [(client.file, "delete_file", (store, f"p/q/{n}"), {}) for n in range(10)]
            for result in face.together([call for pair in zip(puts, deletes, strict=True) for call in pair]):
                assert result is None or isinstance(result, FileInfo)
