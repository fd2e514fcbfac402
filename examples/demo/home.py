"""The demo's folder: emptied before the start, and only ever one that the demo made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

__all__ = ["HomeError", "prepare", "remove"]

_MARK: Final = "made-by-cloud-runtimes-demo"


class HomeError(Exception):
    """The folder cannot be used."""


def prepare(folder: Path) -> None:
    """Make the folder, empty.

    Raises:
        HomeError: it holds something that is not the demo's.
    """
    try:
        remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
    except OSError as error:
        raise HomeError(f"{folder}: {error.strerror}: give another folder with --home") from error


def remove(folder: Path) -> None:
    """Remove the folder, if it is there.

    Raises:
        HomeError: it holds something that is not the demo's.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / _MARK).is_file():
        raise HomeError(f"{folder} was not made by the demo, so it is not emptied: give another folder with --home")
    shutil.rmtree(folder)
