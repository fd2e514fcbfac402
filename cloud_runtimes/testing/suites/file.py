"""Conformance of a `FileDriver`, through the service."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ...errors import (
    AlreadyExistsError,
    ClosedError,
    InvalidArgumentError,
    MissingFileError,
    NotFoundError,
    UnsupportedError,
)
from ...file import FileInfo
from ..apis import Api
from ..harness import Harness, requires
from ._base import Broken, Call
from ._file_handles import HandleTests

# fmt: off
NAMES = (
    "a", "a b", "a.txt", "folder/file", "deep/er/and/deep/er", "..a", "a..", "...", "a/.../b", ".hidden", "-rf", "~",
    "$HOME", "*", "[a-z]?", "100%", "%2e%2e", "%2e%2e/%2e%2e", "%00", "%%", "%%tmp", "%%tmp/file", "%%=x", "%%f",
    "%%ffile", "%%+", "%%+a/b", "back\\slash", "..\\up", "C:\\windows\\file", "'; DROP TABLE file; --", '"quoted"',
    "<a href='#'>", "line\r\nbreak", "\t", " ", " lead and trail ", "\x01", "\x7f", "".join(map(chr, range(1, 47))),
    "".join(map(chr, range(48, 128))), "é", "e\u0301", "漢字/🎉", "\ufeffbom", "\u202ertl", "CASE", "case", "con",
    "nul.txt", "x" * 250, "x" * 252, "x" * 253, "x" * 255, "x" * 256, "x" * 1024, "%%" + "y" * 253, "ü" * 127 + "x",
    "ü" * 128, "ü" * 512, "long/" + "z" * 300 + "/" + "z" * 300,
)
# fmt: on


class FileSuite(HandleTests):
    """Every case of Go CDK's blob conformance that the contract has, and what it misses: names that are files and folders, whole replacement, handles."""

    # -- content --------------------------------------------------------------

    def test_round_trip(self, call: Call, subtests: pytest.Subtests) -> None:
        for data in (b"", b"x", b"\x00\xff" * 50, bytes(range(256)) * 5000):
            with subtests.test(bytes=len(data)):
                before, name = datetime.now(UTC) - timedelta(seconds=2), f"f{len(data)}"
                for given in (data, bytearray(data), memoryview(data), io.BytesIO(data), iter([data])):
                    info = call("put_file", name, given)
                    assert call("get_file", name) == data
                    assert call("stat_file", name) == info
                assert isinstance(info, FileInfo)
                assert (info.name, info.size, info.is_folder) == (name, len(data), False)
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

    def test_iterators(self, call: Call, api: Api) -> None:
        chunks = [b"a", bytearray(b"b" * 70_000), b"", memoryview(b"c")]
        call("put_file", "f", chunks)
        assert call("get_file", "f") == b"a" + b"b" * 70_000 + b"c"

        async def later() -> AsyncIterator[bytes]:
            for chunk in (b"1", b"", b"23"):
                yield chunk

        if api.name == "async":
            call("put_file", "f", later())
            assert call("get_file", "f") == b"123"
        else:
            call.fails(InvalidArgumentError, match="put_file_async")("put_file", "f", later())

    def test_a_source_that_fails_stores_nothing(self, call: Call, api: Api) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise Broken("mine")

        async def broken_later() -> AsyncIterator[bytes]:
            yield b"half"
            raise Broken("mine")

        sources: list[Callable[[], Any]] = [broken, *([broken_later] if api.name == "async" else [])]
        for source in sources:
            call.fails(Broken, match="mine")("put_file", "new", source())
            assert not call("exists", "new")
            call("put_file", "old", b"whole")
            call.fails(Broken, match="mine")("put_file", "old", source())
            assert call("get_file", "old") == b"whole"
        for text in (io.StringIO("text"), ["text"], [7]):
            call.fails(InvalidArgumentError, match="bytes")("put_file", "new", text)
        assert [info.name for info in call("list_files")] == ["old"]

    @requires("file.range")
    def test_ranges(self, call: Call) -> None:
        call("put_file", "f", b"0123456789")
        for start in (0, 1, 9, 10, 11, 1000):
            assert call("get_file", "f", start=start) == b"0123456789"[start:]
            for length in (0, 1, 5, 100):
                got = call("get_file", "f", start=start, length=length)
                assert got == b"0123456789"[start : start + length]
        call.fails(MissingFileError)("get_file", "absent", start=1, length=0)

    # -- attributes -----------------------------------------------------------

    @requires("file.content_type", "file.metadata")
    def test_attributes(self, call: Call, api: Api) -> None:
        odd = {"Key": "value", "ключ": "значение 🎉", "empty": "", "quote": '"\\\n', "%": "%00", "k" * 500: "v" * 1000}
        info = call("put_file", "f", b"x", content_type="text/csv; header=present", metadata=odd)
        assert (info.content_type, info.metadata) == ("text/csv; header=present", odd)
        assert call("stat_file", "f") == info
        (listed,) = call("list_files")
        assert (listed if not call.lacks("file.listed") else call("stat_file", listed.name)) == info
        # they are replaced with the content
        call("put_file", "f", b"y")
        info = call("stat_file", "f")
        assert (info.content_type, info.metadata) == ("application/octet-stream", {})
        call("put_file", "f", b"y", metadata={"a": "b"})
        assert call("stat_file", "f").metadata == {"a": "b"}
        with call.opened("open_file", "f", "wb", metadata={"c": "d"}) as file:
            api.call(file, "write", b"z")
        assert call("stat_file", "f").metadata == {"c": "d"}

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
    def test_of_many_creators_one_wins(self, call: Call) -> None:
        for name in "abcde":
            results = call.together(*[("put_file", name, b"%d" % number) for number in range(8)], overwrite=False)
            (won,) = (number for number, result in enumerate(results) if isinstance(result, FileInfo))
            assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7
            assert call("get_file", name) == b"%d" % won

    def test_undeclared_features_are_refused(self, call: Call) -> None:
        uses: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
            "file.content_type": ("put_file", ("f", b""), {"content_type": "text/csv"}),
            "file.metadata": ("put_file", ("f", b""), {"metadata": {"a": "b"}}),
            "file.exclusive": ("put_file", ("f", b""), {"overwrite": False}),
            "file.copy": ("copy_file", ("f", "g"), {}),
            "file.move": ("move_file", ("f", "g"), {}),
            "file.range": ("get_file", ("f",), {"start": 1}),
            "file.url": ("url", ("f",), {"expires": 60}),
        }
        for feature, (method, arguments, options) in uses.items():
            if call.lacks(feature):
                call.fails(UnsupportedError)(method, *arguments, **options)
        if call.lacks("file.range"):
            with pytest.raises(UnsupportedError):
                call.plain("open_file", "f").seek(1)

    def test_stores_and_clients(self, call: Call, api: Api, harness: Harness) -> None:
        other = call.on(store=harness.store("file"))
        call("put_file", "f", b"1")
        assert not other("exists", "f"), "stores are apart"
        other("put_file", "f", b"2")
        assert call("get_file", "f") == b"1"
        second = harness.client()
        assert call.on(second)("get_file", "f") == b"1", "clients share"
        writer = call.on(second).plain("open_file", "g", "wb")
        api.call(writer, "write", b"half")
        api.call(second, "close")
        assert writer.closed, "closing the client gives up what is open"
        api.fails(ClosedError)(writer, "write", b"x")
        assert not call("exists", "g")
        call.on(second).fails(ClosedError)("get_file", "f")

    # -- names ----------------------------------------------------------------

    def test_names_are_literal(self, call: Call) -> None:
        for name in NAMES:
            call("put_file", name, name.encode())
        for name in NAMES:
            assert call("get_file", name) == name.encode(), repr(name)
            assert call("stat_file", name).name == name
        listed = [info.name for info in call("list_files")]
        assert listed == sorted(NAMES, key=str.encode)
        call("delete_file", "*")
        assert not call("exists", "*")
        for name in NAMES:
            call("delete_file", name)
            assert not call("exists", name), repr(name)
        assert call("list_files") == []

    def test_a_file_and_a_folder_of_one_name(self, call: Call, subtests: pytest.Subtests) -> None:
        for name, file_first in product(("a", "x" * 253, "x" * 300, "%%=a"), (True, False)):
            with subtests.test(name=name, file_first=file_first):
                names = [name, f"{name}/b", f"{name}/b/c"]
                for each in names if file_first else reversed(names):
                    call("put_file", each, each.encode(), metadata=None)
                for each in names:
                    assert call("get_file", each) == each.encode()
                    call("put_file", each, b"new " + each.encode())
                assert [info.name for info in call("list_files")] == names
                call("delete_file", f"{name}/b")
                assert [info.name for info in call("list_files")] == [name, f"{name}/b/c"]
                call("delete_file", f"{name}/b/c")
                assert call("get_file", name) == b"new " + name.encode()
                call("put_file", name, b"again")
                assert [info.name for info in call("list_files")] == [name]
                call("delete_file", name)
                assert call("list_files") == []

    def test_absent(self, call: Call, store: str) -> None:
        for created in (False, True):
            if created:
                call("put_file", "folder/f", b"x")
            for name in ("absent", "folder", "folder/absent", "folder/f/deeper"):
                for method in ("get_file", "stat_file"):
                    caught = call.fails(MissingFileError, match=r"list_files")(method, name)
                    assert isinstance(caught, NotFoundError)
                    assert isinstance(caught, FileNotFoundError)
                    assert (caught.component, caught.operation) == (store, method)
                with pytest.raises(MissingFileError):
                    with call.opened("open_file", name):
                        raise AssertionError("it opened")
                assert call("exists", name) is False
                call("delete_file", name)
        assert call("get_file", "folder/f") == b"x"
        assert call("exists", "folder/f") is True

    def test_delete(self, call: Call) -> None:
        call("put_file", "d/f", b"x")
        call("delete_file", "d/f")
        call("delete_file", "d/f")
        assert call("list_files") == []
        assert call("list_files", recursive=False) == []
        call("put_file", "d", b"now a file")
        assert call("get_file", "d") == b"now a file"

    # -- listing --------------------------------------------------------------

    def test_list(self, call: Call) -> None:
        names = ["a", "a-b", "a.b", "a/b", "a/c/d", "a0", "b/c", "B", "ab", "z/y/x/w", "ä/ö"]
        for name in names:
            call("put_file", name, name.encode())
        ordered = sorted(names, key=str.encode)

        def listed(*args: Any, **kwargs: Any) -> list[str]:
            return [info.name for info in call("list_files", *args, **kwargs)]

        assert listed() == ordered
        sizes = {info.name: info.size for info in call("list_files")}
        tells = not call.lacks("file.sizes")
        assert sizes == {name: len(name.encode()) if tells else None for name in names}
        for prefix in ("a", "a/", "a/b", "a/c", "b", "b/c", "z/y/", "z/y/x/w", "absent", "ä", "/", "..", "a//", "../"):
            assert listed(prefix) == [name for name in ordered if name.startswith(prefix)], prefix
        for limit in (1, 2, 3, 100):
            assert listed(limit=limit) == ordered[:limit]
            page, paged = listed(limit=limit), []
            while page:
                paged += page
                page = listed(limit=limit, after=page[-1])
            assert paged == ordered
        for after in (*names, "", "a/", "a/c", "a/c/", "zz", "absent", "Z"):
            assert listed(after=after) == [name for name in ordered if name.encode() > after.encode()], after
        assert listed("a", after="a.b", limit=2) == ["a/b", "a/c/d"]

    def test_list_of_one_level(self, call: Call) -> None:
        for name in ["a", "a/b", "a/c/d", "a/c/e", "a-b/c", "b/c", "f"]:
            call("put_file", name, b"x")

        def listed(*args: Any, **kwargs: Any) -> list[str]:
            infos = call("list_files", *args, recursive=False, **kwargs)
            assert all(info.is_folder is info.name.endswith("/") for info in infos)
            one = None if call.lacks("file.sizes") else 1
            assert all(info.size == (0 if info.is_folder else one) for info in infos)
            return [info.name for info in infos]

        assert listed() == ["a", "a-b/", "a/", "b/", "f"]
        assert listed("a") == ["a", "a-b/", "a/"]
        assert listed("a/") == ["a/b", "a/c/"]
        assert listed("a/c") == ["a/c/"]
        assert listed("a/c/") == ["a/c/d", "a/c/e"]
        assert listed("absent/") == []
        page, paged = listed(limit=1), []
        while page:
            paged += page
            page = listed(limit=1, after=page[-1])
        assert paged == ["a", "a-b/", "a/", "b/", "f"]

    # -- copying and moving ---------------------------------------------------

    @requires("file.copy")
    def test_copy(self, call: Call) -> None:
        data = b"content" * 400_000
        call("put_file", "a", data, content_type="text/x", metadata={"k": "v"})
        call("put_file", "deep/b", b"old")
        info = call("copy_file", "a", "deep/b")
        assert (info.name, info.size, info.content_type, info.metadata) == ("deep/b", len(data), "text/x", {"k": "v"})
        assert call("get_file", "deep/b") == data
        assert info == call("stat_file", "deep/b")
        call("put_file", "a", b"changed")
        assert call("stat_file", "deep/b") == info
        call("copy_file", "deep/b", "deep/b")
        assert call("get_file", "deep/b") == data
        call.fails(MissingFileError, match="absent")("copy_file", "absent", "new")
        assert not call("exists", "new")

    @requires("file.move")
    def test_move(self, call: Call) -> None:
        before = call("put_file", "d/a", b"content", content_type="text/x", metadata={"k": "v"})
        call("put_file", "b", b"old")
        info = call("move_file", "d/a", "b")
        assert (info.name, info.etag, info.content_type) == ("b", before.etag, "text/x")
        assert [each.name for each in call("list_files")] == ["b"]
        for source, target in (("b", "b"), ("b", "b/c/d"), ("b/c/d", "b/c"), ("b/c", "b"), ("b", "x" * 700)):
            info = call("move_file", source, target)
            assert call("list_files") == [info]
            assert call("get_file", target) == b"content"
        for target in ("new", "new/er", "absent", "absent/below"):
            call.fails(MissingFileError, match="absent")("move_file", "absent", target)
        assert len(call("list_files", recursive=False)) == 1
