"""Conformance of a `FileDriver`: names, listings, and what becomes of a file by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import InvalidArgumentError, MissingFileError, NotFoundError
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, Suite, one_each

__all__ = ["NAMES", "NameTests"]

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
# fmt: off
BAD_NAMES = (
    "", "/", "/etc/passwd", "a/", "a//b", "//", ".", "..", "../a", "../../etc/passwd", "a/../b", "a/./b", "./a",
    "a/..", "../foo/../bar", "a\0b", "\0", "\ud800", "x" * 1025, "ü" * 513, None, 7, b"a", Path("a"),
)
# fmt: on


class NameTests(Suite):
    """Names that are files and folders, absence, listing, copying and moving."""

    # -- names --------------------------------------------------------------

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

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:20])
    def test_bad_names_are_refused(self, call: Call, client: CloudRuntimesClient, store: str, name: Any) -> None:
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("put_file", (name, b"x")),
            ("get_file", (name,)),
            ("stat_file", (name,)),
            ("exists", (name,)),
            ("delete_file", (name,)),
        ]
        if not call.lacks("file.copy"):
            calls += [("copy_file", ("f", name)), ("copy_file", (name, "f"))]
        if not call.lacks("file.move"):
            calls += [("move_file", ("f", name)), ("move_file", (name, "f"))]
        for method, args in calls:
            call.fails(InvalidArgumentError, match=r"name|source|target")(method, *args)
        with pytest.raises(InvalidArgumentError, match="name"):
            client.file.open_file(store, name, "wb")
        assert call("list_files") == []

    @pytest.mark.parametrize("name", ["a", "x" * 253, "x" * 300, "%%=a"], ids=["short", "edge", "long", "marked"])
    @pytest.mark.parametrize("file_first", [True, False])
    def test_a_file_and_a_folder_of_one_name(self, call: Call, name: str, file_first: bool) -> None:
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

    # -- absent -------------------------------------------------------------

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

    def test_stores_are_apart(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        other = harness.store("file")
        call("put_file", "f", b"1")
        assert not face.call(client.file, "exists", other, "f")
        face.call(client.file, "put_file", other, "f", b"2")
        assert call("get_file", "f") == b"1"

    def test_another_client_sees_it(self, call: Call, face: Face, store: str, harness: Harness) -> None:
        call("put_file", "f", b"x")
        assert face.call(harness.client().file, "get_file", store, "f") == b"x"

    # -- listing ------------------------------------------------------------

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
            found = call("list_files", *args, recursive=False, **kwargs)
            assert all(info.is_folder is info.name.endswith("/") for info in found)
            one = None if call.lacks("file.sizes") else 1
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
        "bad", one_each(limit=(0, 1.0, True), prefix=(7, "\0"), after=(b"a", "\ud800"), recursive=(1,)), ids=repr
    )
    def test_bad_listings(self, call: Call, bad: dict[str, Any]) -> None:
        call.fails(InvalidArgumentError)("list_files", **bad)

    # -- copying and moving -------------------------------------------------

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
