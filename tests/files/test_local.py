"""Names on disk, links and devices, other programs: what only files can get wrong."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.local.names import aside, locate, segment
from cloud_runtimes.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    MissingFileError,
    PermissionDeniedError,
    UnavailableError,
)
from cloud_runtimes.testing.apis import Api, AsyncApi, SyncApi
from tests.support.needs import needs_attributes, needs_root

HAS_DESCRIPTORS = os.open in os.supports_dir_fd

# -- names on disk ------------------------------------------------------------

_segments = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.text(st.sampled_from("%=+ftmp.xü"), min_size=1, max_size=300),
    st.integers(240, 600).map(lambda size: "x" * size),
).filter(lambda text: text not in (".", ".."))
_names = st.lists(_segments, min_size=1, max_size=4).map("/".join).filter(lambda name: len(name.encode()) <= 1024)


@given(_segments)
@example("%%f")
@example("%%+" + "x" * 252)
@example("x" * 253)
@example("x" * 255)
def test_a_segment_comes_back(text: str) -> None:
    *heads, entry = locate(text)[0] + (locate(text).entry,)
    assert segment((*heads, entry)) == (text, False)
    moved = aside(entry)
    assert segment((*heads, *moved)) == (text, True)
    for each in (*heads, entry, *moved):
        assert len(each.encode()) <= 255
        assert each not in (".", "..", "", "%%tmp")
        assert not {"/", "\0"} & set(each)


@given(st.lists(_segments, min_size=2, max_size=2, unique=True))
def test_no_two_segments_meet(pair: list[str]) -> None:
    one, other = (locate(text) for text in pair)
    assert {(*one.folders, one.entry), (*one.folders, *one.aside)}.isdisjoint(
        {(*other.folders, other.entry), (*other.folders, *other.aside)}
    )


@given(names=st.lists(_names, max_size=8, unique=True))
@settings(max_examples=40)
def test_any_names_round_trip(tmp_path_factory: Any, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("names")
    table = {"component": "local", "path": str(root), "durability": "relaxed"}
    with CloudRuntimesClient(config={"file": {"store": table}}) as client:
        for name in names:
            client.file.put_file("store", name, name.encode())
        assert [info.name for info in client.file.list_files("store")] == sorted(names, key=str.encode)
        for name in names:
            assert client.file.get_file("store", name) == name.encode()
            client.file.delete_file("store", name)
        assert client.file.list_files("store") == []
    assert {each.name for each in root.iterdir()} <= {"%%tmp", "%%lock"}


@needs_attributes
def test_plain_names_are_plain_files(client: CloudRuntimesClient, root: Path) -> None:
    client.file.put_file("store", "reports/2026.csv", b"a,b\n", content_type="text/csv")
    assert (root / "reports" / "2026.csv").read_bytes() == b"a,b\n"
    assert os.getxattr(root / "reports" / "2026.csv", "user.cloud_runtimes")


def test_stores_have_folders_of_their_own(tmp_path: Path) -> None:
    stores = ["a", "..", ".", "../a", "a/b", "%", "ü", "x" * 255, "x" * 254, "A"]
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path / "home")}}) as client:
        for store in stores:
            client.file.put_file(store, "f", store.encode())
        for store in stores:
            assert client.file.get_file(store, "f") == store.encode()
    folders = list((tmp_path / "home" / "files").iterdir())
    assert len(folders) == len(stores)
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert {each.name for each in tmp_path.iterdir()} == {"home"}


# -- what is no plain file ----------------------------------------------------


@pytest.fixture
def odd(root: Path, tmp_path: Path) -> Path:
    """A store with links, a pipe, a socket and a device; returns the outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "dangling").symlink_to(outside / "made")
    (root / "folder").symlink_to(outside)
    (root / "inside").symlink_to(".")
    os.mkfifo(root / "pipe")
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "socket"))
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    return outside


ODD = ("link", "dangling", "pipe", "socket", "device", "folder", "inside", "folder/secret", "folder/new", "inside/x")


@pytest.mark.parametrize("name", ODD)
@pytest.mark.usefixtures("odd")
def test_nothing_is_given_or_taken(client: CloudRuntimesClient, odd: Path, name: str) -> None:
    if (name == "device" and os.geteuid() != 0) or (name == "socket" and not hasattr(socket, "AF_UNIX")):
        name = "pipe"
    client.file.put_file("store", "plain", b"x")
    calls: list[Callable[[], Any]] = [
        lambda: client.file.get_file("store", name),
        lambda: client.file.stat_file("store", name),
        lambda: client.file.put_file("store", name, b"mine"),
        lambda: client.file.put_file("store", name, b"mine", overwrite=False),
        lambda: client.file.delete_file("store", name),
        lambda: client.file.copy_file("store", name, "copy"),
        lambda: client.file.copy_file("store", "plain", name),
        lambda: client.file.move_file("store", name, "moved"),
        lambda: client.file.move_file("store", "plain", name),
        lambda: client.file.open_file("store", name).read(),
        lambda: client.file.put_file("store", f"{name}/below", b"mine"),
    ]
    for call in calls:
        with pytest.raises(PermissionDeniedError, match="plain files and folders only"):
            call()
    assert [info.name for info in client.file.list_files("store")] == ["plain"]
    assert [info.name for info in client.file.list_files("store", recursive=False)] == ["plain"]
    assert client.file.list_files("store", "absent/") == []
    assert [each.name for each in odd.iterdir()] == ["secret"]
    assert (odd / "secret").read_bytes() == b"secret"


@pytest.mark.promise("H1")
def test_a_hard_link_is_not_written_through(client: CloudRuntimesClient, root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    os.link(tmp_path / "other", root / "a")
    os.link(tmp_path / "other", root / "b")
    client.file.move_file("store", "a", "b")
    assert [info.name for info in client.file.list_files("store")] == ["b"]
    client.file.put_file("store", "b", b"mine")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert client.file.get_file("store", "b") == b"mine"


# -- other programs -----------------------------------------------------------


def test_files_of_other_programs(client: CloudRuntimesClient, root: Path) -> None:
    (root / "deep").mkdir()
    (root / "empty").mkdir()
    (root / "deep" / "plain").write_bytes(b"plain")
    os.mkdir(os.path.join(os.fsencode(root), b"\xff"))
    for ours in ("%%+file", "%%nonsense", "%%=unmarked"):
        (root / ours).write_bytes(b"")
    (info,) = client.file.list_files("store")
    assert (info.name, info.size, info.content_type, info.metadata) == ("deep/plain", 5, None, {})
    assert client.file.get_file("store", "deep/plain") == b"plain"
    assert [info.name for info in client.file.list_files("store", recursive=False)] == ["deep/"]
    (root / "deep" / "plain").write_bytes(b"other")
    assert client.file.stat_file("store", "deep/plain").etag != info.etag


@pytest.mark.parametrize("attributes", [pytest.param(True, marks=needs_attributes), False])
def test_an_edit_of_a_file_of_ours(
    client: CloudRuntimesClient, root: Path, monkeypatch: pytest.MonkeyPatch, attributes: bool
) -> None:
    if not attributes:
        _without_attributes(monkeypatch)
    before = client.file.put_file("store", "a", b"content", content_type="text/x", metadata={"k": "v"})
    assert client.file.stat_file("store", "a") == before
    assert client.file.list_files("store") == [before]
    assert client.file.get_file("store", "a") == b"content"
    with open(root / "a", "r+b") as file:
        file.write(b"CON")
    info = client.file.stat_file("store", "a")
    assert (info.size, info.content_type, info.metadata) == (7, "text/x", {"k": "v"})
    assert info.etag != before.etag
    assert client.file.get_file("store", "a") == b"CONtent"
    with open(root / "a", "ab") as file:
        file.write(b"more")
    info = client.file.stat_file("store", "a")
    assert client.file.get_file("store", "a") == (root / "a").read_bytes()
    assert info.size == (root / "a").stat().st_size
    assert info.content_type == ("text/x" if attributes else None)


def _without_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse, raising=False)
    monkeypatch.setattr(os, "getxattr", refuse, raising=False)


@needs_attributes
def test_a_file_that_may_not_be_read_is_listed(
    client: CloudRuntimesClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    client.file.put_file("store", "a", b"content")
    monkeypatch.setattr(os, "getxattr", refuse)
    (info,) = client.file.list_files("store")
    assert (info.name, info.size, info.content_type) == ("a", 7, None)
    with pytest.raises(PermissionDeniedError):
        client.file.get_file("store", "a")


def test_without_attributes(client: CloudRuntimesClient, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_attributes(monkeypatch)
    inner = client.file.put_file("store", "inner", b"x" * 100_000, metadata={"ключ": "🎉"})
    # the whole inode given as content keeps its own
    outer = client.file.put_file("store", "outer", root / "inner", metadata={"outer": "yes"})
    assert outer.size == (root / "inner").stat().st_size > inner.size
    assert client.file.get_file("store", "inner") == b"x" * 100_000
    assert client.file.get_file("store", "inner", start=99_998, length=100) == b"xx"
    assert client.file.get_file("store", "outer") == (root / "inner").read_bytes()
    assert client.file.copy_file("store", "inner", "copy").metadata == inner.metadata
    assert client.file.get_file("store", "copy") == b"x" * 100_000
    assert [info.size for info in client.file.list_files("store")] == [100_000, 100_000, outer.size]
    data = (root / "inner").read_bytes()
    for cut in range(1, 120):
        (root / "cut").write_bytes(data[:-cut])
        assert client.file.stat_file("store", "cut").size == len(data) - cut
        (root / "cut").write_bytes(data[100_000 - 1 + cut :])
        assert client.file.get_file("store", "cut") == (root / "cut").read_bytes() or cut == 1


@pytest.mark.root
@needs_root
def test_another_file_system(tmp_path: Path, at: Any) -> None:
    """A file system without attributes, and without naming a file after it was opened."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(disk)], check=True)
    try:
        with at(disk / "store") as client:
            info = client.file.put_file("store", "a/b", b"content", metadata={"k": "v"})
            client.file.put_file("store", "a/b", b"again", metadata={"k": "w"})
            assert client.file.stat_file("store", "a/b").metadata == {"k": "w"}
            assert client.file.get_file("store", "a/b") == b"again"
            assert info.etag != client.file.stat_file("store", "a/b").etag
            with pytest.raises(AlreadyExistsError):
                client.file.put_file("store", "a/b", b"", overwrite=False)
            client.file.copy_file("store", "a/b", "c")
            client.file.move_file("store", "c", "a/b")
            assert [info.name for info in client.file.list_files("store")] == ["a/b"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_root_that_is_removed_is_made_again(client: CloudRuntimesClient, root: Path) -> None:
    client.file.put_file("store", "a", b"x")
    subprocess.run(["rm", "-r", str(root)], check=True)
    assert client.file.list_files("store") == []
    client.file.put_file("store", "a", b"y")
    assert (root / "a").is_file()
    assert client.file.get_file("store", "a") == b"y"


@pytest.mark.parametrize("api", [SyncApi, AsyncApi], ids=["sync", "async"])
@pytest.mark.parametrize("remade", [False, True], ids=["moved", "replaced"])
def test_a_root_that_is_moved_gets_nothing_more(
    client: CloudRuntimesClient, root: Path, api: type[Api], remade: bool
) -> None:
    own, moved = api(), root.with_name("moved")
    own.call(client.file, "put_file", "store", "kept", b"1")
    late = client.file.open_file("store", "late", "wb")
    late.write(b"2")
    root.rename(moved)
    if remade:
        root.mkdir()
    with pytest.raises(UnavailableError, match=r"removed or replaced during this call, and nothing was changed"):
        own.call(late, "close")
    own.call(client.file, "put_file", "store", "new", b"3")
    assert (root / "new").is_file()
    assert own.call(client.file, "get_file", "store", "new") == b"3"
    assert {each.name for each in moved.iterdir()} - {"%%lock"} == {"%%tmp", "kept"}
    # nobody without a descriptor follows a folder that moved
    assert len(os.listdir(moved / "%%tmp")) == (0 if HAS_DESCRIPTORS else 1)
    assert not own.call(client.file, "exists", "store", "kept")
    own.close()


def test_reading_makes_nothing(at: Any, tmp_path: Path) -> None:
    with at(tmp_path / "absent") as client:
        assert client.file.list_files("store") == []
        assert not client.file.exists("store", "a")
        client.file.delete_file("store", "a")
        with pytest.raises(MissingFileError):
            client.file.move_file("store", "a", "b")
        with pytest.raises(MissingFileError):
            client.file.copy_file("store", "a", "b")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"")
    with at(tmp_path / "file") as client:
        with pytest.raises(InvalidArgumentError, match="no folder"):
            client.file.list_files("store")


def test_bad_settings(subtests: pytest.Subtests) -> None:
    for table, message in (
        ({"home": "a", "path": "b"}, "not both"),
        ({"path": ":memory:"}, "home"),
        ({"durability": "some"}, "full"),
        ({"pth": "x"}, "did you mean 'path'"),
    ):
        with subtests.test(table=table, message=message):
            with CloudRuntimesClient(config={"file": {"store": {"component": "local", **table}}}) as client:
                with pytest.raises(InvalidArgumentError, match=message):
                    client.file.list_files("store")


def test_memory_is_shared_by_name_and_ends_with_its_last_client() -> None:
    config = {"capa": {"home": ":memory:files"}}
    with CloudRuntimesClient(config=config) as one, CloudRuntimesClient(config=config) as two:
        one.file.put_file("store", "a", b"x")
        assert two.file.get_file("store", "a") == b"x"
    with CloudRuntimesClient(config=config) as three:
        assert not three.file.exists("store", "a")
