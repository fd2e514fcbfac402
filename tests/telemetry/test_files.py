"""Rotating files: their bound, other processes' files, a file that is removed, a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.telemetry._file import FileExporter, MemoryExporter, read_batches


def sizes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_newest_are_kept_within_the_bound(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "a" / "b", 8000)
    for number in range(200):
        assert exporter.export("traces", b"%03d" % number * 100, 1.0) == 0
        assert sizes(tmp_path / "a" / "b") <= 8000
    exporter.close()
    files = sorted((tmp_path / "a" / "b").iterdir(), key=lambda file: int(file.stem.rsplit("-", 1)[1]))
    kept = [int(batch[:3]) for file in files for batch in read_batches(file)]
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) >= 18
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_two_exporters_share_a_folder(tmp_path: Path) -> None:
    one, other = FileExporter(tmp_path, 100_000), FileExporter(tmp_path, 100_000)
    for exporter in (one, other) * 3:
        exporter.export("logs", b"x", 1.0)
    one.close()
    other.close()
    assert sorted(len(read_batches(file)) for file in tmp_path.iterdir()) == [3, 3]


def test_a_removed_file_is_made_anew(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path, 100_000)
    exporter.export("logs", b"x", 1.0)
    for file in tmp_path.iterdir():
        file.unlink()
    exporter.export("logs", b"y", 1.0)
    exporter.close()
    assert [read_batches(file) for file in tmp_path.iterdir()] == [[b"y"]]


def test_a_failed_write_leaves_no_half_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = FileExporter(tmp_path, 1_000_000)
    exporter.export("logs", b"first", 1.0)
    write = os.write
    remaining = [10]

    def full(fd: int, data: Any) -> int:
        if not remaining[0]:
            raise OSError(errno.ENOSPC, "full")
        count, remaining[0] = min(remaining[0], len(data)), 0
        return write(fd, bytes(data[:count]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="full"):
            exporter.export("logs", b"second" * 100, 1.0)
    exporter.export("logs", b"third", 1.0)
    exporter.close()
    assert [read_batches(file) for file in tmp_path.iterdir()] == [[b"first", b"third"]]


def test_a_file_that_was_cut_off_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\x00\x00\x00\x01a\x00\x00\x00\x09bc")
    assert read_batches(file) == [b"a"]


def test_memory_keeps_the_newest() -> None:
    exporter = MemoryExporter(100)
    for number in range(10):
        exporter.export("logs", bytes([number]) * 30, 1.0)
    assert [body[0] for _, body in exporter.batches] == [7, 8, 9]
