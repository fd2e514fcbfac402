"""Differences between systems are written in one place, and their variants behave alike where both can run."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import cloud_runtimes
from cloud_runtimes._core import os_clocks, os_datagrams, os_folders, os_processes, os_sockets
from cloud_runtimes._core.os_sockets import POLLIN, POLLOUT
from cloud_runtimes.components import local, sqlalchemy
from cloud_runtimes.errors import UnsupportedError

PACKAGE = Path(cloud_runtimes.__file__).parent
_ASKED = re.compile(r"sys\.platform|os\.name\b|platform\.system|^\s*(?:import|from) (?:fcntl|msvcrt|resource|termios|winreg)\b", re.M)  # fmt: skip
needs_descriptors = pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="not on this Python: dir_fd")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="not on this Python: AF_UNIX")
needs_poll = pytest.mark.skipif(not hasattr(select, "poll"), reason="not on this Python: poll")


def test_which_system_it_is_is_asked_in_the_seam_alone() -> None:
    asked = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if _ASKED.search(path.read_text("utf-8"))}
    assert not [str(path) for path in asked if path.parent != Path("_core") or not path.name.startswith("os_")]
    assert len(asked) > 3


# -- folders --------------------------------------------------------------------


@pytest.fixture(params=[pytest.param("_Descriptor", marks=needs_descriptors), "_Path"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[os_folders.Folder]:
    """An open folder, by both ways."""
    (tmp_path / "root").mkdir()
    root: Any = (
        os_folders.open_folder(str(tmp_path / "root"))
        if request.param == "_Descriptor"
        else os_folders._Path(str(tmp_path / "root"))
    )
    yield root
    root.close()


def _put(folder: os_folders.Folder, entry: str, data: bytes) -> None:
    file = folder.open(entry, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(file, data)
    os.close(file)


def _get(folder: os_folders.Folder, entry: str) -> bytes:
    file = folder.open(entry)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


def test_names_of_a_folder(folder: os_folders.Folder) -> None:
    folder.make("below")
    below = folder.enter("below")
    _put(folder, "a", b"a")
    _put(folder, "b", b"b")
    with pytest.raises(FileExistsError):
        folder.name_new("a", folder, "b")
    folder.name_new("a", below, "a")
    reader = below.open("a")
    folder.rename("b", below, "a")
    assert os.read(reader, 100) == b"a", "what is open stays what it was"
    os.close(reader)
    assert _get(below, "a") == b"b"
    with below.scan() as entries:
        assert [each.name for each in entries] == ["a"]
    below.unlink("a")
    below.close()
    folder.remove("below")
    with pytest.raises(FileNotFoundError):
        folder.enter("below")


def test_no_link_is_followed(folder: os_folders.Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "root" / "file").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    with pytest.raises(OSError):
        folder.open("file")
    with pytest.raises(OSError):
        folder.enter("folder")


def test_a_folder_that_was_replaced_is_not_taken_for_itself(tmp_path: Path) -> None:
    (tmp_path / "root" / "below").mkdir(parents=True)
    root = os_folders._Path(str(tmp_path / "root"))
    below = root.enter("below")
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    (tmp_path / "root").rename(tmp_path / "old")
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    for each in (root, below):
        with pytest.raises(OSError):
            each.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_one_opening_locks_a_folder(folder: os_folders.Folder, tmp_path: Path) -> None:
    other: Any = type(folder)
    other = os_folders._Path(str(tmp_path / "root")) if other is os_folders._Path else os_folders.open_folder(str(tmp_path / "root"))  # fmt: skip
    assert folder.try_lock()
    assert not other.try_lock()
    folder.unlock()
    assert other.try_lock()
    other.close()
    assert folder.try_lock()


# -- sockets ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [pytest.param(lambda: os_sockets.poll(), marks=needs_poll), os_sockets._Select])
def test_poll(make: Callable[[], os_sockets.Poll]) -> None:
    mine, its = socket.socketpair()
    waiting = make()
    waiting.register(mine, POLLIN | POLLOUT)
    assert waiting.poll(1000) == [(mine.fileno(), POLLOUT)]
    its.send(b"x")
    assert waiting.poll(1000) == [(mine.fileno(), POLLIN | POLLOUT)]
    reading = make()
    reading.register(its.fileno(), POLLIN)
    assert reading.poll(10) == []
    mine.close()
    assert reading.poll(1000)[0][1] & POLLIN, "the end is something to read"
    its.close()
    assert reading.poll(0)[0][1] & ~(POLLIN | POLLOUT), "it is closed"


@pytest.fixture(params=[pytest.param("unix", marks=needs_unix), "loopback"])
def sockets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[os_datagrams.Datagrams]:
    """The sockets of a folder, by both ways."""
    (tmp_path / "wake").mkdir()
    pair: Any = (
        os_datagrams.datagrams(tmp_path / "wake", lambda: b"secret")
        if request.param == "unix"
        else os_datagrams._LoopbackDatagrams(tmp_path / "wake", lambda: b"secret")
    )
    yield pair
    pair.close()


def test_who_is_woken(sockets: os_datagrams.Datagrams, tmp_path: Path) -> None:
    bound, path = sockets.bind(f"channel.{os.getpid()}-0")
    bound.settimeout(5.0)
    assert Path(path).parent == tmp_path / "wake"
    assert len(list((tmp_path / "wake").iterdir())) == 1
    sockets.send(path)
    assert sockets.counts(bound.recv(64))
    bound.close()


def test_a_stranger_wakes_nobody(tmp_path: Path) -> None:
    datagrams = os_datagrams._LoopbackDatagrams(tmp_path, lambda: b"secret")
    bound, path = datagrams.bind(f"channel.{os.getpid()}-0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"!", ("127.0.0.1", int(path.rpartition("-")[2])))
    assert not datagrams.counts(bound.recv(64))
    bound.close()


@pytest.mark.process
def test_whose_process_has_ended_is_not_there(sockets: os_datagrams.Datagrams, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    bound, path = sockets.bind(f"channel.{child.pid}-0")
    bound.close()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        sockets.send(path)


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    with pytest.raises(UnsupportedError, match="give a host and a port"):
        os_sockets.unix_socket()


# -- processes --------------------------------------------------------------------


@pytest.mark.process
def test_when_a_process_started() -> None:
    mine = os_processes.started(os.getpid())
    assert mine is not None
    assert mine == os_processes.started(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert (os_processes.started(child.pid) == mine) is (mine == "")
    child.communicate(b"\n")
    assert os_processes.started(child.pid) is None
    assert os_processes.started(2**70) is None


def test_sleep_is_no_boot_where_a_boot_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_clocks, "_system_boot_id", lambda: None)
    names = []
    for slept in (0, 7200):
        monkeypatch.setattr(os_clocks, "since_boot", lambda slept=slept: 3000.0 + slept)
        monkeypatch.setattr(os_clocks.time, "time", lambda slept=slept: 1_800_003_000.0 + slept)
        names.append(os_clocks.find_boot_id())
    assert names == ["since-3000000"] * 2


@pytest.mark.parametrize(
    "name",
    ["C:x", "a:b", r"..\x", r"a\b", "a/b", "nul", "COM1.txt", "nul .txt", "CONIN$", "a.", "a ", "a\n", 'a"', "a?"],
)
def test_what_windows_takes_for_something_else(name: str) -> None:
    assert os_folders.NO_NAME.search(name)


@pytest.mark.parametrize("name", ["a", "a.b", ".a", "%%tmp", "console", "null.txt", "com", "ü", "a b"])
def test_names_that_windows_has_too(name: str) -> None:
    assert not os_folders.NO_NAME.search(name)


def test_every_store_has_a_folder_and_a_file_of_its_own_on_all_systems() -> None:
    stores = ["a", "a.", "a..", ".a", ".", "..", "%61", "nul", "NUL.x", "%6Eul", "nul.", "a:b", "a ", " ", "lpt1", "ü"]
    folders = [local.folder_name(store) for store in stores]
    assert [unquote(folder) for folder in folders] == stores
    for names in (folders, [sqlalchemy._file_name(store) for store in stores]):
        assert not [name for name in names if os_folders.NO_NAME.search(name) or name.startswith(".")]
        assert len(set(names)) == len(stores)


@pytest.mark.skipif(sys.platform == "win32", reason="not on this Python: without msvcrt")
@pytest.mark.process
def test_a_system_that_locks_no_files(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['fcntl'] = sys.modules['msvcrt'] = None\n"
        "from cloud_runtimes import CloudRuntimesClient; from cloud_runtimes.errors import UnsupportedError\n"
        "with CloudRuntimesClient(config={'capa': {'home': ':memory:'}}) as client: client.state.save('s', 'k', 1)\n"
        "with CloudRuntimesClient(config={'capa': {'home': sys.argv[1]}}) as client:\n"
        "    for call in (lambda: client.state.save('s', 'k', 1), lambda: client.file.put_file('s', 'k', b'')):\n"
        "        try: call()\n"
        "        except UnsupportedError as error: print(error)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "home")], capture_output=True, text=True, check=False
        )
    assert done.stdout.count("set CLOUD_RUNTIMES_HOME to :memory:") == 2, done.stderr
