"""Conformance of a `FileDriver`: names, listings, and what becomes of a file by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import InvalidArgumentError, MissingFileError, NotFoundError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite

__all__ = ["NAMES", "NameTests"]

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


class NameTests(Suite):
    """Names that are files and folders, absence, listing, copying and moving."""

    # -- names --------------------------------------------------------------

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

    # -- absent -------------------------------------------------------------

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

    # -- listing ------------------------------------------------------------

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

    # -- copying and moving -------------------------------------------------

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
