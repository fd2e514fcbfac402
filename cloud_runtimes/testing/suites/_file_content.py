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
from ._base import Suite
from ._file import Broken

__all__ = ["ContentTests"]


class ContentTests(Suite):
    """Content in every form, ranges, attributes, versions."""

    # -- content ------------------------------------------------------------

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

    @pytest.mark.parametrize(
        "data",
        ["text", None, 7, {"a": 1}, pytest.param(io.StringIO("text"), id="StringIO"), ["text"], [7]],
        ids=repr,
    )
    def test_what_is_no_content_is_refused(
        self, client: CloudRuntimesClient, face: Face, store: str, data: Any
    ) -> None:
        with pytest.raises(InvalidArgumentError, match="bytes"):
            face.call(client.file, "put_file", store, "f", data)
        assert not face.call(client.file, "exists", store, "f")

    def test_a_source_that_fails_stores_nothing(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise Broken("mine")

        async def broken_later() -> AsyncIterator[bytes]:
            yield b"half"
            raise Broken("mine")

        sources: list[Callable[[], Any]] = [broken, *([broken_later] if face.name == "async" else [])]
        for source in sources:
            with pytest.raises(Broken, match="mine"):
                face.call(client.file, "put_file", store, "new", source())
            assert not face.call(client.file, "exists", store, "new")
            face.call(client.file, "put_file", store, "old", b"whole")
            with pytest.raises(Broken, match="mine"):
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

    # -- attributes ---------------------------------------------------------

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
            {"content_type": "any text"},
            {"content_type": "text/"},
            {"content_type": "text/plain, text/html"},
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
