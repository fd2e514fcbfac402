"""Conformance of a `FileDriver`: content, its ranges, and what is stored beside it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import AlreadyExistsError, InvalidArgumentError, MissingFileError, UnsupportedError
from ...file import FileInfo
from ..faces import Face
from ..harness import requires
from ._base import Call, Suite, one_each
from ._file import Broken

__all__ = ["ContentTests"]


class ContentTests(Suite):
    """Content in every form, ranges, attributes, versions."""

    # -- content ------------------------------------------------------------

    @pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 50, bytes(range(256)) * 5000], ids=len)
    def test_round_trip(self, call: Call, data: bytes) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        for given in (data, bytearray(data), memoryview(data), io.BytesIO(data), iter([data])):
            info = call("put_file", "f", given)
            assert call("get_file", "f") == data
            assert call("stat_file", "f") == info
        assert isinstance(info, FileInfo)
        assert (info.name, info.size, info.is_folder) == ("f", len(data), False)
        if info.modified is not None:
            assert before < info.modified < datetime.now(UTC) + timedelta(seconds=2)

    def test_a_path_gives_its_content(self, call: Call, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"content" * 300_000)
        assert call("put_file", "f", source).size == 2_100_000
        assert call("get_file", "f") == source.read_bytes()
        with source.open("rb") as file:
            call("put_file", "g", file)
        assert call("get_file", "g") == source.read_bytes()
        call.fails(InvalidArgumentError, match=r"absent cannot be read")("put_file", "f", tmp_path / "absent")
        assert call("stat_file", "f").size == 2_100_000

    def test_iterators(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        chunks = [b"a", bytearray(b"b" * 70_000), b"", memoryview(b"c")]
        call("put_file", "f", chunks)
        assert call("get_file", "f") == b"a" + b"b" * 70_000 + b"c"

        async def later() -> AsyncIterator[bytes]:
            for chunk in (b"1", b"", b"23"):
                yield chunk

        if face.name == "async":
            call("put_file", "f", later())
            assert call("get_file", "f") == b"123"
        else:
            with pytest.raises(InvalidArgumentError, match="put_file_async"):
                client.file.put_file(store, "f", later())  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "data", ["text", None, 7, {"a": 1}, pytest.param(io.StringIO("text"), id="StringIO"), ["text"], [7]], ids=repr
    )
    def test_what_is_no_content_is_refused(self, call: Call, data: Any) -> None:
        call.fails(InvalidArgumentError, match="bytes")("put_file", "f", data)
        assert not call("exists", "f")

    def test_a_source_that_fails_stores_nothing(self, call: Call, face: Face) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise Broken("mine")

        async def broken_later() -> AsyncIterator[bytes]:
            yield b"half"
            raise Broken("mine")

        sources: list[Callable[[], Any]] = [broken, *([broken_later] if face.name == "async" else [])]
        for source in sources:
            call.fails(Broken, match="mine")("put_file", "new", source())
            assert not call("exists", "new")
            call("put_file", "old", b"whole")
            call.fails(Broken, match="mine")("put_file", "old", source())
            assert call("get_file", "old") == b"whole"
        assert [info.name for info in call("list_files")] == ["old"]

    @requires("file.range")
    def test_ranges(self, call: Call) -> None:
        call("put_file", "f", b"0123456789")
        for start in (0, 1, 9, 10, 11, 1000):
            assert call("get_file", "f", start=start) == b"0123456789"[start:]
            for length in (0, 1, 5, 100):
                got = call("get_file", "f", start=start, length=length)
                assert got == b"0123456789"[start : start + length]
        for bad in ({"start": -1}, {"length": -1}, {"start": 1.0}, {"length": "1"}, {"start": True}, {"start": 2**63}):
            call.fails(InvalidArgumentError, match=r"start|length")("get_file", "f", **bad)
        call.fails(MissingFileError)("get_file", "absent", start=1, length=0)

    def test_ranges_undeclared(self, call: Call, client: CloudRuntimesClient, store: str) -> None:
        if call.lacks("file.range"):
            call.fails(UnsupportedError)("get_file", "f", start=1)
            with pytest.raises(UnsupportedError):
                client.file.open_file(store, "f").seek(1)

    # -- attributes ---------------------------------------------------------

    @requires("file.content_type", "file.metadata")
    def test_attributes(self, call: Call, face: Face) -> None:
        odd = {"Key": "value", "ключ": "значение 🎉", "empty": "", "quote": '"\\\n', "%": "%00", "k" * 500: "v" * 1000}
        info = call("put_file", "f", b"x", content_type="text/csv; header=present", metadata=odd)
        assert (info.content_type, info.metadata) == ("text/csv; header=present", odd)
        assert call("stat_file", "f") == info
        assert call("list_files") == [info]
        # they are replaced with the content
        call("put_file", "f", b"y")
        info = call("stat_file", "f")
        assert (info.content_type, info.metadata) == ("application/octet-stream", {})
        call("put_file", "f", b"y", metadata={"a": "b"})
        assert call("stat_file", "f").metadata == {"a": "b"}
        with call.opened("open_file", "f", "wb", metadata={"c": "d"}) as file:
            face.call(file, "write", b"z")
        assert call("stat_file", "f").metadata == {"c": "d"}

    @pytest.mark.parametrize(
        "bad",
        one_each(
            metadata=({"a": 1}, [("a", "b")], {"": "b"}, {"a": "\ud800"}, {"a": "x" * 2048}),
            content_type=("", "text/\n", "é", "any text", "text/", "text/plain, text/html", 7),
            overwrite=(None,),
            timeout=(0,),
        ),
        ids=repr,
    )
    def test_bad_arguments(self, call: Call, bad: dict[str, Any]) -> None:
        call.fails(InvalidArgumentError)("put_file", "f", b"x", **bad)
        assert not call("exists", "f")

    @requires("file.etag")
    def test_etags_name_versions(self, call: Call) -> None:
        etags = [call("put_file", "f", b"same").etag for _ in range(5)]
        assert all(etags)
        assert len(set(etags)) == 5
        assert call("stat_file", "f").etag == etags[-1]
        assert call("put_file", "g", b"same").etag not in etags

    @requires("file.exclusive")
    def test_only_create(self, call: Call) -> None:
        call("put_file", "f", b"first", overwrite=False)
        for again in (b"second", iter([b"second"])):
            call.fails(AlreadyExistsError, match="overwrite")("put_file", "f", again, overwrite=False)
        assert call("get_file", "f") == b"first"
        call("delete_file", "f")
        call("put_file", "f", b"third", overwrite=False)
        # also where the name is a folder
        call("put_file", "f/g", b"below")
        call.fails(AlreadyExistsError)("put_file", "f", b"x", overwrite=False)

    @requires("file.exclusive")
    def test_of_many_creators_one_wins(self, call: Call, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for round in range(5):
            calls = [
                (client.file, "put_file", (store, f"f{round}", b"%d" % number), {"overwrite": False})
                for number in range(8)
            ]
            results = face.together(calls)
            won = [number for number, result in enumerate(results) if isinstance(result, FileInfo)]
            assert len(won) == 1
            assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7
            assert call("get_file", f"f{round}") == b"%d" % won[0]

    def test_features_undeclared(self, call: Call) -> None:
        uses: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
            "file.content_type": ("put_file", ("f", b""), {"content_type": "text/csv"}),
            "file.metadata": ("put_file", ("f", b""), {"metadata": {"a": "b"}}),
            "file.exclusive": ("put_file", ("f", b""), {"overwrite": False}),
            "file.copy": ("copy_file", ("f", "g"), {}),
            "file.move": ("move_file", ("f", "g"), {}),
        }
        for feature, (method, args, kwargs) in uses.items():
            if call.lacks(feature):
                call.fails(UnsupportedError)(method, *args, **kwargs)
