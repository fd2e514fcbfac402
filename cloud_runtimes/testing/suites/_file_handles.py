"""Conformance of a `FileDriver`: handles, and many at once."""

from __future__ import annotations

import io
import threading

import pytest

from ...errors import ClosedError, InvalidArgumentError, UnsupportedError
from ...file import FileInfo
from ..apis import Api
from ..harness import requires
from ._base import Broken, Call, Suite

__all__ = ["HandleTests"]


class HandleTests(Suite):
    """Whole replacement: by a handle, beside readers and other writers."""

    service = "file"

    def test_a_handle_writes(self, call: Call, api: Api) -> None:
        handle = call.plain("open_file", "d/f", "wb")
        assert issubclass(type(handle), io.RawIOBase)
        assert "not open yet" in repr(handle)
        with api.opened(handle) as file:
            assert file is handle
            assert (file.readable(), file.writable(), file.seekable()) == (False, True, False)
            assert api.call(file, "write", b"one") == 3
            assert not call("exists", "d/f")
            assert call("list_files") == []
            assert api.call(file, "write", memoryview(b"two")) == 3
            assert file.tell() == 6
            api.fails(UnsupportedError)(file, "read", 1)
            with pytest.raises(ClosedError):
                file.info  # noqa: B018
        assert file.closed
        assert call("get_file", "d/f") == b"onetwo"
        assert file.info == call("stat_file", "d/f")
        api.call(file, "close")
        api.fails(ClosedError)(file, "write", b"x")
        with pytest.raises(InvalidArgumentError, match="bytes"):
            with call.opened("open_file", "e", "wb") as file:
                api.call(file, "write", "text")
        assert not call("exists", "e")

    def test_a_handle_without_a_block(self, call: Call, api: Api) -> None:
        file = call.plain("open_file", "f", "wb")
        api.call(file, "write", b"x")
        assert not call("exists", "f")
        api.call(file, "close")
        assert call("get_file", "f") == b"x"
        empty = call.plain("open_file", "empty", "wb")
        api.call(empty, "close")
        assert call("get_file", "empty") == b""
        forgotten = call.plain("open_file", "g", "wb")
        api.call(forgotten, "write", b"half")
        del forgotten
        assert not call("exists", "g")

    def test_an_exception_stores_nothing(self, call: Call, api: Api) -> None:
        typed = {"content_type": "text/x"} if not call.lacks("file.content_type") else {}
        call("put_file", "old", b"whole", **typed)
        for name in ("old", "new"):
            for kind in (Broken, KeyboardInterrupt):
                with pytest.raises(kind):
                    with call.opened("open_file", name, "wb") as file:
                        api.call(file, "write", b"half")
                        raise kind
                assert file.closed
        assert call("get_file", "old") == b"whole"
        assert call("stat_file", "old").content_type == typed.get("content_type")
        assert not call("exists", "new")

    def test_a_handle_reads(self, call: Call, api: Api) -> None:
        data = bytes(range(256)) * 10_000
        info = call("put_file", "f", data)
        with call.opened("open_file", "f") as file:
            assert (file.readable(), file.writable()) == (True, False)
            assert file.info == info
            assert api.call(file, "read", 0) == b""
            got = b""
            while part := api.call(file, "read", 100_000):
                assert len(part) <= 100_000
                got += part
            assert got == data
            assert api.call(file, "read") == b""
            api.fails(UnsupportedError)(file, "write", b"x")
        api.fails(ClosedError)(file, "read")
        whole = call.plain("open_file", "f", "rb")
        assert api.call(whole, "read") == data
        api.call(whole, "close")
        with call.opened("open_file", "f") as file:
            parts = api.take(file.chunks(300_000))
        with io.BufferedReader(call.plain("open_file", "f")) as buffered:
            assert buffered.read(5) == data[:5]
            assert buffered.readline() == data[5:11]
        assert b"".join(parts) == data
        assert {len(part) for part in parts[:-1]} == {300_000}

    @requires("file.range")
    def test_a_handle_seeks(self, call: Call, api: Api) -> None:
        call("put_file", "f", b"0123456789")
        with call.opened("open_file", "f") as file:
            assert file.seekable()
            assert file.seek(7) == 7
            assert api.call(file, "read") == b"789"
            assert file.seek(-2, 2) == 8
            assert file.seek(-3, 1) == file.tell() == 5
            assert api.call(file, "read", 2) == b"56"
            file.seek(100)
            assert api.call(file, "read", 2) == b""
            for bad in ((-1, 0), (-101, 1), (0, 3), ("1", 0)):
                with pytest.raises(InvalidArgumentError):
                    file.seek(*bad)

    def test_a_reader_keeps_its_version(self, call: Call, api: Api) -> None:
        old, new = b"old" * 100_000, b"new" * 100_000
        call("put_file", "f", old)
        with call.opened("open_file", "f") as file:
            first = api.call(file, "read", 10)
            call("put_file", "f", new)
            assert call("get_file", "f") == new
            assert first + api.call(file, "read") == old
            call("delete_file", "f")
        assert not call("exists", "f")

    # -- at once --------------------------------------------------------------

    def test_readers_never_see_a_mixture(self, call: Call) -> None:
        sizes = (10, 200_000)
        kept = not call.lacks("file.metadata")
        call("put_file", "f", b"0" * 10, metadata={"n": "0"} if kept else None)
        over = threading.Event()
        seen: list[str] = []

        def read() -> None:
            while not over.is_set():
                with call.plain("open_file", "f") as file:
                    data = file.read()
                if len(set(data)) != 1 or len(data) not in sizes:
                    seen.append(f"content of {len(data)} bytes: {set(data)}")
                if kept and file.info.metadata["n"] != chr(data[0]):
                    seen.append(f"{file.info.metadata} with {data[:1]!r}")
                for info in call.plain("list_files"):
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

    def test_many_at_once(self, call: Call) -> None:
        files = {f"d{n % 7}/f{n % 13}/{n}": b"%d" % n for n in range(60)}
        stored = call.together(*[("put_file", name, data) for name, data in files.items()])
        assert all(isinstance(result, FileInfo) for result in stored)
        assert call.together(*[("get_file", name) for name in files]) == list(files.values())
        assert len(call("list_files")) == 60
        # putting beside deleting: a folder that is pruned meanwhile is made again
        for _ in range(5):
            puts = [("put_file", f"p/q/{n}", b"x") for n in range(10)]
            deletes = [("delete_file", f"p/q/{n}") for n in range(10)]
            for result in call.together(*[each for pair in zip(puts, deletes, strict=True) for each in pair]):
                assert result is None or isinstance(result, FileInfo)
