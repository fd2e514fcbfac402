"""Conformance of a `FileDriver`, through the service."""

from __future__ import annotations

import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import (
    AlreadyExistsError,
    ClosedError,
    InvalidArgumentError,
    MissingFileError,
    NotFoundError,
    UnsupportedError,
)
from ...file import FileInfo
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite

__all__ = ["FileSuite"]

NAMES = (
    "a",
    "a b",
    "a.txt",
    "folder/file",
    "deep/er/and/deep/er",
    "..a",
    "a..",
    "...",
    "a/.../b",
    ".hidden",
    "-rf",
    "~",
    "$HOME",
    "*",
    "[a-z]?",
    "100%",
    "%2e%2e",
    "%2e%2e/%2e%2e",
    "%00",
    "%%",
    "%%tmp",
    "%%tmp/file",
    "%%=x",
    "%%f",
    "%%ffile",
    "%%+",
    "%%+a/b",
    "back\\slash",
    "..\\up",
    "C:\\windows\\file",
    "'; DROP TABLE file; --",
    '"quoted"',
    "<a href='#'>",
    "line\r\nbreak",
    "\t",
    " ",
    " lead and trail ",
    "\x01",
    "\x7f",
    "".join(map(chr, range(1, 47))),
    "".join(map(chr, range(48, 128))),
    "é",
    "e\u0301",
    "漢字/🎉",
    "\ufeffbom",
    "\u202ertl",
    "CASE",
    "case",
    "con",
    "nul.txt",
    "x" * 250,
    "x" * 252,
    "x" * 253,
    "x" * 255,
    "x" * 256,
    "x" * 1024,
    "%%" + "y" * 253,
    "ü" * 127 + "x",
    "ü" * 128,
    "ü" * 512,
    "long/" + "z" * 300 + "/" + "z" * 300,
)
BAD_NAMES = (
    "",
    "/",
    "/etc/passwd",
    "a/",
    "a//b",
    "//",
    ".",
    "..",
    "../a",
    "../../etc/passwd",
    "a/../b",
    "a/./b",
    "./a",
    "a/..",
    "../foo/../bar",
    "a\0b",
    "\0",
    "\ud800",
    "x" * 1025,
    "ü" * 513,
    None,
    7,
    b"a",
    Path("a"),
)


class _Broken(Exception):
    """What a source raises."""


class FileSuite(Suite):
    """Every case of Go CDK's blob conformance that the contract has, and what it misses: names that are files and folders, whole replacement, handles."""

    service = "file"

    # -- content ----------------------------------------------------------

    @pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 50, bytes(range(256)) * 5000], ids=len)
    def test_round_trip(self, client: CloudRuntimesClient, face: Face, store: str, data: bytes) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        for given in (data, bytearray(data), memoryview(data), io.BytesIO(data), iter([data])):
            info = face.call(client.file, "put_file", store, "f", given)
            assert face.call(client.file, "get_file", store, "f") == data
            assert face.call(client.file, "stat_file", store, "f") == info
        assert isinstance(info, FileInfo)
        assert (info.name, info.size, info.is_folder) == ("f", len(data), False)
        if info.modified is not None:
            assert before < info.modified < datetime.now(UTC) + timedelta(seconds=2)

    def test_a_path_gives_its_content(
        self, client: CloudRuntimesClient, face: Face, store: str, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"content" * 300_000)
        assert face.call(client.file, "put_file", store, "f", source).size == 2_100_000
        assert face.call(client.file, "get_file", store, "f") == source.read_bytes()
        with source.open("rb") as file:
            face.call(client.file, "put_file", store, "g", file)
        assert face.call(client.file, "get_file", store, "g") == source.read_bytes()
        with pytest.raises(InvalidArgumentError, match=r"absent cannot be read"):
            face.call(client.file, "put_file", store, "f", tmp_path / "absent")
        assert face.call(client.file, "stat_file", store, "f").size == 2_100_000

    def test_iterators(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        chunks = [b"a", bytearray(b"b" * 70_000), b"", memoryview(b"c")]
        face.call(client.file, "put_file", store, "f", chunks)
        assert face.call(client.file, "get_file", store, "f") == b"a" + b"b" * 70_000 + b"c"

        async def later() -> AsyncIterator[bytes]:
            for chunk in (b"1", b"", b"23"):
                yield chunk

        if face.name == "async":
            face.call(client.file, "put_file", store, "f", later())
            assert face.call(client.file, "get_file", store, "f") == b"123"
        else:
            with pytest.raises(InvalidArgumentError, match="put_file_async"):
                client.file.put_file(store, "f", later())  # type: ignore[arg-type]

    @pytest.mark.parametrize("data", ["text", None, 7, {"a": 1}, io.StringIO("text"), ["text"], [7]], ids=repr)
    def test_what_is_no_content_is_refused(
        self, client: CloudRuntimesClient, face: Face, store: str, data: Any
    ) -> None:
        with pytest.raises(InvalidArgumentError, match="bytes"):
            face.call(client.file, "put_file", store, "f", data)
        assert not face.call(client.file, "exists", store, "f")

    def test_a_source_that_fails_stores_nothing(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise _Broken("mine")

        async def broken_later() -> AsyncIterator[bytes]:
            yield b"half"
            raise _Broken("mine")

        sources: list[Callable[[], Any]] = [broken, *([broken_later] if face.name == "async" else [])]
        for source in sources:
            with pytest.raises(_Broken, match="mine"):
                face.call(client.file, "put_file", store, "new", source())
            assert not face.call(client.file, "exists", store, "new")
            face.call(client.file, "put_file", store, "old", b"whole")
            with pytest.raises(_Broken, match="mine"):
                face.call(client.file, "put_file", store, "old", source())
            assert face.call(client.file, "get_file", store, "old") == b"whole"
        assert [info.name for info in face.call(client.file, "list_files", store)] == ["old"]

    @requires("file.range")
    def test_ranges(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.file, "put_file", store, "f", b"0123456789")
        for start in (0, 1, 9, 10, 11, 1000):
            assert face.call(client.file, "get_file", store, "f", start=start) == b"0123456789"[start:]
            for length in (0, 1, 5, 100):
                got = face.call(client.file, "get_file", store, "f", start=start, length=length)
                assert got == b"0123456789"[start : start + length]
        for bad in ({"start": -1}, {"length": -1}, {"start": 1.0}, {"length": "1"}, {"start": True}, {"start": 2**63}):
            with pytest.raises(InvalidArgumentError, match=r"start|length"):
                face.call(client.file, "get_file", store, "f", **bad)
        with pytest.raises(MissingFileError):
            face.call(client.file, "get_file", store, "absent", start=1, length=0)

    def test_ranges_undeclared(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        if self.lacks(client, "file.range", store):
            with pytest.raises(UnsupportedError):
                face.call(client.file, "get_file", store, "f", start=1)
            with pytest.raises(UnsupportedError):
                client.file.open_file(store, "f").seek(1)

    # -- attributes -------------------------------------------------------

    @requires("file.content_type", "file.metadata")
    def test_attributes(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        odd = {"Key": "value", "ключ": "значение 🎉", "empty": "", "quote": '"\\\n', "%": "%00", "k" * 500: "v" * 1000}
        info = face.call(
            client.file, "put_file", store, "f", b"x", content_type="text/csv; header=present", metadata=odd
        )
        assert (info.content_type, info.metadata) == ("text/csv; header=present", odd)
        assert face.call(client.file, "stat_file", store, "f") == info
        assert face.call(client.file, "list_files", store) == [info]
        # they are replaced with the content
        face.call(client.file, "put_file", store, "f", b"y")
        info = face.call(client.file, "stat_file", store, "f")
        assert (info.content_type, info.metadata) == ("application/octet-stream", {})
        face.call(client.file, "put_file", store, "f", b"y", metadata={"a": "b"})
        assert face.call(client.file, "stat_file", store, "f").metadata == {"a": "b"}
        with face.opened(client.file.open_file(store, "f", "wb", metadata={"c": "d"})) as file:
            face.call(file, "write", b"z")
        assert face.call(client.file, "stat_file", store, "f").metadata == {"c": "d"}

    @pytest.mark.parametrize(
        "bad",
        [
            {"metadata": {"a": 1}},
            {"metadata": [("a", "b")]},
            {"metadata": {"": "b"}},
            {"metadata": {"a": "\ud800"}},
            {"metadata": {"a": "x" * 2048}},
            {"content_type": ""},
            {"content_type": "text/\n"},
            {"content_type": "é"},
            {"content_type": 7},
            {"overwrite": None},
            {"timeout": 0},
        ],
        ids=repr,
    )
    def test_bad_arguments(self, client: CloudRuntimesClient, face: Face, store: str, bad: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.file, "put_file", store, "f", b"x", **bad)
        assert not face.call(client.file, "exists", store, "f")

    @requires("file.etag")
    def test_etags_name_versions(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        etags = [face.call(client.file, "put_file", store, "f", b"same").etag for _ in range(5)]
        assert all(etags)
        assert len(set(etags)) == 5
        assert face.call(client.file, "stat_file", store, "f").etag == etags[-1]
        assert face.call(client.file, "put_file", store, "g", b"same").etag not in etags

    @requires("file.exclusive")
    def test_only_create(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.file, "put_file", store, "f", b"first", overwrite=False)
        for again in (b"second", iter([b"second"])):
            with pytest.raises(AlreadyExistsError, match="overwrite"):
                face.call(client.file, "put_file", store, "f", again, overwrite=False)
        assert face.call(client.file, "get_file", store, "f") == b"first"
        face.call(client.file, "delete_file", store, "f")
        face.call(client.file, "put_file", store, "f", b"third", overwrite=False)
        # also where the name is a folder
        face.call(client.file, "put_file", store, "f/g", b"below")
        with pytest.raises(AlreadyExistsError):
            face.call(client.file, "put_file", store, "f", b"x", overwrite=False)

    @requires("file.exclusive")
    def test_of_many_creators_one_wins(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for round in range(5):
            calls = [
                (client.file, "put_file", (store, f"f{round}", b"%d" % number), {"overwrite": False})
                for number in range(8)
            ]
            results = face.together(calls)
            won = [number for number, result in enumerate(results) if isinstance(result, FileInfo)]
            assert len(won) == 1
            assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7
            assert face.call(client.file, "get_file", store, f"f{round}") == b"%d" % won[0]

    def test_features_undeclared(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        uses: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
            "file.content_type": ("put_file", ("f", b""), {"content_type": "text/csv"}),
            "file.metadata": ("put_file", ("f", b""), {"metadata": {"a": "b"}}),
            "file.exclusive": ("put_file", ("f", b""), {"overwrite": False}),
            "file.copy": ("copy_file", ("f", "g"), {}),
            "file.move": ("move_file", ("f", "g"), {}),
        }
        for feature, (method, args, kwargs) in uses.items():
            if self.lacks(client, feature, store):
                with pytest.raises(UnsupportedError):
                    face.call(client.file, method, store, *args, **kwargs)

    # -- names ------------------------------------------------------------

    def test_names_are_literal(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for name in NAMES:
            face.call(client.file, "put_file", store, name, name.encode())
        for name in NAMES:
            assert face.call(client.file, "get_file", store, name) == name.encode(), repr(name)
            assert face.call(client.file, "stat_file", store, name).name == name
        listed = [info.name for info in face.call(client.file, "list_files", store)]
        assert listed == sorted(NAMES, key=str.encode)
        face.call(client.file, "delete_file", store, "*")
        assert not face.call(client.file, "exists", store, "*")
        for name in NAMES:
            face.call(client.file, "delete_file", store, name)
            assert not face.call(client.file, "exists", store, name), repr(name)
        assert face.call(client.file, "list_files", store) == []

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:20])
    def test_bad_names_are_refused(self, client: CloudRuntimesClient, face: Face, store: str, name: Any) -> None:
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("put_file", (name, b"x")),
            ("get_file", (name,)),
            ("stat_file", (name,)),
            ("exists", (name,)),
            ("delete_file", (name,)),
        ]
        if not self.lacks(client, "file.copy", store):
            calls += [("copy_file", ("f", name)), ("copy_file", (name, "f"))]
        if not self.lacks(client, "file.move", store):
            calls += [("move_file", ("f", name)), ("move_file", (name, "f"))]
        for method, args in calls:
            with pytest.raises(InvalidArgumentError, match=r"name|source|target"):
                face.call(client.file, method, store, *args)
        with pytest.raises(InvalidArgumentError, match="name"):
            client.file.open_file(store, name, "wb")
        assert face.call(client.file, "list_files", store) == []

    @pytest.mark.parametrize("name", ["a", "x" * 253, "x" * 300, "%%=a"], ids=["short", "edge", "long", "marked"])
    @pytest.mark.parametrize("file_first", [True, False])
    def test_a_file_and_a_folder_of_one_name(
        self, client: CloudRuntimesClient, face: Face, store: str, name: str, file_first: bool
    ) -> None:
        names = [name, f"{name}/b", f"{name}/b/c"]
        for each in names if file_first else reversed(names):
            face.call(client.file, "put_file", store, each, each.encode(), metadata=None)
        for each in names:
            assert face.call(client.file, "get_file", store, each) == each.encode()
            face.call(client.file, "put_file", store, each, b"new " + each.encode())
        assert [info.name for info in face.call(client.file, "list_files", store)] == names
        face.call(client.file, "delete_file", store, f"{name}/b")
        assert [info.name for info in face.call(client.file, "list_files", store)] == [name, f"{name}/b/c"]
        face.call(client.file, "delete_file", store, f"{name}/b/c")
        assert face.call(client.file, "get_file", store, name) == b"new " + name.encode()
        face.call(client.file, "put_file", store, name, b"again")
        assert [info.name for info in face.call(client.file, "list_files", store)] == [name]
        face.call(client.file, "delete_file", store, name)
        assert face.call(client.file, "list_files", store) == []

    # -- absent -----------------------------------------------------------

    def test_absent(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for created in (False, True):
            if created:
                face.call(client.file, "put_file", store, "folder/f", b"x")
            for name in ("absent", "folder", "folder/absent", "folder/f/deeper"):
                for method in ("get_file", "stat_file"):
                    with pytest.raises(MissingFileError, match=r"list_files") as caught:
                        face.call(client.file, method, store, name)
                    assert isinstance(caught.value, (NotFoundError, FileNotFoundError))
                    assert (caught.value.component, caught.value.operation) == (store, method)
                with pytest.raises(MissingFileError):
                    with face.opened(client.file.open_file(store, name)):
                        raise AssertionError("it opened")
                assert face.call(client.file, "exists", store, name) is False
                face.call(client.file, "delete_file", store, name)
        assert face.call(client.file, "get_file", store, "folder/f") == b"x"
        assert face.call(client.file, "exists", store, "folder/f") is True

    def test_delete(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.file, "put_file", store, "d/f", b"x")
        face.call(client.file, "delete_file", store, "d/f")
        face.call(client.file, "delete_file", store, "d/f")
        assert face.call(client.file, "list_files", store) == []
        assert face.call(client.file, "list_files", store, recursive=False) == []
        face.call(client.file, "put_file", store, "d", b"now a file")
        assert face.call(client.file, "get_file", store, "d") == b"now a file"

    def test_stores_are_apart(self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness) -> None:
        other = harness.store("file")
        face.call(client.file, "put_file", store, "f", b"1")
        assert not face.call(client.file, "exists", other, "f")
        face.call(client.file, "put_file", other, "f", b"2")
        assert face.call(client.file, "get_file", store, "f") == b"1"

    def test_another_client_sees_it(
        self, client: CloudRuntimesClient, face: Face, store: str, harness: Harness
    ) -> None:
        face.call(client.file, "put_file", store, "f", b"x")
        assert face.call(harness.client().file, "get_file", store, "f") == b"x"

    # -- listing ----------------------------------------------------------

    def test_list(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        names = ["a", "a-b", "a.b", "a/b", "a/c/d", "a0", "b/c", "B", "ab", "z/y/x/w", "ä/ö"]
        for name in names:
            face.call(client.file, "put_file", store, name, name.encode())
        ordered = sorted(names, key=str.encode)

        def listed(*args: Any, **kwargs: Any) -> list[str]:
            return [info.name for info in face.call(client.file, "list_files", store, *args, **kwargs)]

        assert listed() == ordered
        sizes = {info.name: info.size for info in face.call(client.file, "list_files", store)}
        tells = not self.lacks(client, "file.sizes", store)
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

    def test_list_of_one_level(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for name in ["a", "a/b", "a/c/d", "a/c/e", "a-b/c", "b/c", "f"]:
            face.call(client.file, "put_file", store, name, b"x")

        def listed(*args: Any, **kwargs: Any) -> list[str]:
            found = face.call(client.file, "list_files", store, *args, recursive=False, **kwargs)
            assert all(info.is_folder is info.name.endswith("/") for info in found)
            one = None if self.lacks(client, "file.sizes", store) else 1
            assert all(info.size == (0 if info.is_folder else one) for info in found)
            return [info.name for info in found]

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

    @pytest.mark.parametrize(
        "bad",
        [
            {"limit": 0},
            {"limit": 1.0},
            {"limit": True},
            {"prefix": 7},
            {"prefix": "\0"},
            {"after": b"a"},
            {"after": "\ud800"},
            {"recursive": 1},
        ],
        ids=repr,
    )
    def test_bad_listings(self, client: CloudRuntimesClient, face: Face, store: str, bad: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.file, "list_files", store, **bad)

    # -- copying and moving -----------------------------------------------

    @requires("file.copy")
    def test_copy(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        data = b"content" * 400_000
        face.call(client.file, "put_file", store, "a", data, content_type="text/x", metadata={"k": "v"})
        face.call(client.file, "put_file", store, "deep/b", b"old")
        info = face.call(client.file, "copy_file", store, "a", "deep/b")
        assert (info.name, info.size, info.content_type, info.metadata) == ("deep/b", len(data), "text/x", {"k": "v"})
        assert face.call(client.file, "get_file", store, "deep/b") == data
        assert info == face.call(client.file, "stat_file", store, "deep/b")
        face.call(client.file, "put_file", store, "a", b"changed")
        assert face.call(client.file, "stat_file", store, "deep/b") == info
        face.call(client.file, "copy_file", store, "deep/b", "deep/b")
        assert face.call(client.file, "get_file", store, "deep/b") == data
        with pytest.raises(MissingFileError, match="absent"):
            face.call(client.file, "copy_file", store, "absent", "new")
        assert not face.call(client.file, "exists", store, "new")

    @requires("file.move")
    def test_move(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        before = face.call(
            client.file, "put_file", store, "d/a", b"content", content_type="text/x", metadata={"k": "v"}
        )
        face.call(client.file, "put_file", store, "b", b"old")
        info = face.call(client.file, "move_file", store, "d/a", "b")
        assert (info.name, info.etag, info.content_type) == ("b", before.etag, "text/x")
        assert [each.name for each in face.call(client.file, "list_files", store)] == ["b"]
        for source, target in (("b", "b"), ("b", "b/c/d"), ("b/c/d", "b/c"), ("b/c", "b"), ("b", "x" * 700)):
            info = face.call(client.file, "move_file", store, source, target)
            assert face.call(client.file, "list_files", store) == [info]
            assert face.call(client.file, "get_file", store, target) == b"content"
        for target in ("new", "new/er", "absent", "absent/below"):
            with pytest.raises(MissingFileError, match="absent"):
                face.call(client.file, "move_file", store, "absent", target)
        assert len(face.call(client.file, "list_files", store, recursive=False)) == 1

    # -- handles ----------------------------------------------------------

    def test_a_handle_writes(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        handle = client.file.open_file(store, "d/f", "wb")
        assert "not open yet" in repr(handle)
        with face.opened(handle) as file:
            assert file is handle
            assert isinstance(file, io.RawIOBase)
            assert (file.readable(), file.writable(), file.seekable()) == (False, True, False)
            assert face.call(file, "write", b"one") == 3
            assert not face.call(client.file, "exists", store, "d/f")
            assert face.call(client.file, "list_files", store) == []
            assert face.call(file, "write", memoryview(b"two")) == 3
            assert file.tell() == 6
            with pytest.raises(UnsupportedError):
                face.call(file, "read", 1)
            with pytest.raises(ClosedError):
                file.info  # noqa: B018
        assert file.closed
        assert face.call(client.file, "get_file", store, "d/f") == b"onetwo"
        assert file.info == face.call(client.file, "stat_file", store, "d/f")
        face.call(file, "close")
        with pytest.raises(ClosedError):
            face.call(file, "write", b"x")
        with pytest.raises(InvalidArgumentError, match="bytes"):
            with face.opened(client.file.open_file(store, "e", "wb")) as file:
                face.call(file, "write", "text")
        assert not face.call(client.file, "exists", store, "e")

    def test_a_handle_without_a_block(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        file = client.file.open_file(store, "f", "wb")
        face.call(file, "write", b"x")
        assert not face.call(client.file, "exists", store, "f")
        face.call(file, "close")
        assert face.call(client.file, "get_file", store, "f") == b"x"
        empty = client.file.open_file(store, "empty", "wb")
        face.call(empty, "close")
        assert face.call(client.file, "get_file", store, "empty") == b""
        forgotten = client.file.open_file(store, "g", "wb")
        face.call(forgotten, "write", b"half")
        del forgotten
        assert not face.call(client.file, "exists", store, "g")

    def test_an_exception_stores_nothing(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        typed = {"content_type": "text/x"} if client.supports("file.content_type", store) else {}
        face.call(client.file, "put_file", store, "old", b"whole", **typed)
        for name in ("old", "new"):
            for kind in (_Broken, KeyboardInterrupt):
                with pytest.raises(kind):
                    with face.opened(client.file.open_file(store, name, "wb")) as file:
                        face.call(file, "write", b"half")
                        raise kind
                assert file.closed
        assert face.call(client.file, "get_file", store, "old") == b"whole"
        assert face.call(client.file, "stat_file", store, "old").content_type == typed.get("content_type")
        assert not face.call(client.file, "exists", store, "new")

    def test_a_handle_reads(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        data = bytes(range(256)) * 10_000
        info = face.call(client.file, "put_file", store, "f", data)
        with face.opened(client.file.open_file(store, "f")) as file:
            assert (file.readable(), file.writable()) == (True, False)
            assert file.info == info
            assert face.call(file, "read", 0) == b""
            got = b""
            while part := face.call(file, "read", 100_000):
                assert len(part) <= 100_000
                got += part
            assert got == data
            assert face.call(file, "read") == b""
            with pytest.raises(UnsupportedError):
                face.call(file, "write", b"x")
        with pytest.raises(ClosedError):
            face.call(file, "read")
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
    def test_a_handle_seeks(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        face.call(client.file, "put_file", store, "f", b"0123456789")
        with face.opened(client.file.open_file(store, "f")) as file:
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

    def test_a_reader_keeps_its_version(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        old, new = b"old" * 100_000, b"new" * 100_000
        face.call(client.file, "put_file", store, "f", old)
        with face.opened(client.file.open_file(store, "f")) as file:
            first = face.call(file, "read", 10)
            face.call(client.file, "put_file", store, "f", new)
            assert face.call(client.file, "get_file", store, "f") == new
            assert first + face.call(file, "read") == old
            face.call(client.file, "delete_file", store, "f")
        assert not face.call(client.file, "exists", store, "f")

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
        self, face: Face, client: CloudRuntimesClient, store: str, harness: Harness
    ) -> None:
        second = harness.client()
        writer = second.file.open_file(store, "f", "wb")
        face.call(writer, "write", b"half")
        face.call(second, "close")
        assert writer.closed
        with pytest.raises(ClosedError):
            face.call(writer, "write", b"x")
        assert not face.call(client.file, "exists", store, "f")
        with pytest.raises(ClosedError):
            face.call(second.file, "get_file", store, "f")

    # -- at once ----------------------------------------------------------

    def test_readers_never_see_a_mixture(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        sizes = (10, 200_000)
        kept = self._keeps(client, store)
        face.call(client.file, "put_file", store, "f", b"0" * 10, metadata={"n": "0"} if kept else None)
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
                face.call(client.file, "put_file", store, "f", digit.encode() * sizes[number % 2], metadata=metadata)
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
