"""A small disk, and a volume as the kubelet mounts it: values in a folder of their own, a link to it that is swapped, and a link for each value."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

__all__ = ["Mount", "small_disk"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


class Mount:
    """Volume that is updated as in Kubernetes (``pkg/volume/util/atomic_writer.go``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        path.mkdir(exist_ok=True)

    def change(self, values: Mapping[str, str | bytes]) -> None:
        """Write all values anew, swap the link, and remove what was before."""
        old = {each.name for each in self._path.iterdir()}
        name = f"..2026_11_27_{next(self._numbers)}"
        folder = self._path / name
        folder.mkdir()
        for key, value in values.items():
            file = folder / key
            file.write_bytes(value if isinstance(value, bytes) else value.encode())
            file.chmod(0o600)
        os.symlink(name, self._path / "..data_tmp")
        os.replace(self._path / "..data_tmp", self._path / "..data")
        for key in values:
            if key not in old:
                os.symlink(f"..data/{key}", self._path / key)
        for each in old - {"..data"} - {*values}:
            path = self._path / each
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)
