"""Names of files and the entries of folders that hold them.

A segment of a name is an entry of the same name, so that people and other programs see plain files and folders. Entries that begin with ``%%`` are the exceptions:

* ``%%=SEGMENT``: a segment that begins with ``%%`` itself.
* ``%%+HEAD``, a folder: the first part of a segment of more than 255 bytes; the rest is an entry in it.
* ``%%fSEGMENT``: the file of a name that is a folder too.
* ``%%tmp`` in the store's root: temporaries.

Whatever else begins with ``%%`` is not ours and not listed, as is what is not UTF-8. Case is kept; whether it counts is the file system's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["MARK", "TEMPORARIES", "Place", "aside", "place", "segment"]

MARK: Final = "%%"
TEMPORARIES: Final = "%%tmp"
_LIMIT: Final = 255  # NAME_MAX of every file system of Linux (limits.h)
_HEAD: Final = 240


class Place(NamedTuple):
    """Where a file is.

    Attributes:
        folders: entries from the root to the folder that holds it.
        entry: in that folder.
        aside: where it is instead once ``entry`` is a folder: entries from that folder on.
    """

    folders: tuple[str, ...]
    entry: str
    aside: tuple[str, ...]


def _split(text: str) -> tuple[str, str]:
    """Part a long segment at a character's border."""
    head = text.encode()[:_HEAD].decode(errors="ignore")
    return head, text[len(head) :]


def _plain(text: str) -> tuple[str, ...]:
    size = len(text.encode())
    marked = text.startswith(MARK)
    if size + (3 if marked else 0) <= _LIMIT:
        return (f"%%={text}" if marked else text,)
    head, rest = _split(text)
    return (f"%%+{head}", *_plain(rest))


def aside(entry: str) -> tuple[str, ...]:
    """Return where the file of ``entry`` goes when a folder takes its place."""
    text = entry.removeprefix("%%=")
    if len(text.encode()) + 3 <= _LIMIT:
        return (f"%%f{text}",)
    head, rest = _split(text)
    return (f"%%+{head}", f"%%f{rest}")


def place(name: str) -> Place:
    """Return the place of a checked name."""
    *folders, last = name.split("/")
    entries: list[str] = []
    for each in folders:
        entries += _plain(each)
    *heads, entry = _plain(last)
    return Place((*entries, *heads), entry, aside(entry))


def segment(entries: Sequence[str]) -> tuple[str, bool] | None:
    """Return the segment that entries stand for, heads before the last, and whether it is a file set aside; ``None`` where they are not ours."""
    text = "".join(each.removeprefix("%%+") for each in entries[:-1])
    last = entries[-1]
    try:
        last.encode()
    except UnicodeEncodeError:
        return None
    is_aside = last.startswith("%%f")
    text += last[3:] if last.startswith(("%%f", "%%=")) else last
    if is_aside:
        *heads, entry = _plain(text)
        return (text, True) if tuple(entries) == (*heads, *aside(entry)) else None
    return (text, False) if tuple(entries) == _plain(text) else None
