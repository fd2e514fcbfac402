"""Which configuration file counts: the argument, the one that ``CLOUD_RUNTIMES_CONFIG`` names, or the nearest one from the working directory upward."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import InvalidArgumentError
from .config_formats import read_tables
from .os_files import user_id

HOME: Final = ".cloud_runtimes"
PYPROJECT: Final = "pyproject.toml"
_NAMES: Final = ("cloud-runtimes.toml", PYPROJECT)
_VARIABLE: Final = "CLOUD_RUNTIMES_CONFIG"
_TABLE: Final = re.compile(rb"""tool\s*\.\s*["']?cloud-runtimes["']?\s*[].=]""")


class Discovered(NamedTuple):
    """A file or folder of configuration, and why it counts."""

    path: Path
    why: str


def find(given: str | os.PathLike[str] | None) -> Discovered | None:
    """Return what counts; ``None``: there is no file."""
    if given is not None:
        return Discovered(Path(os.fspath(given)), "given as an argument")
    if named := os.environ.get(_VARIABLE):
        path = Path(named).expanduser()
        if not path.exists():
            raise InvalidArgumentError(f"{_VARIABLE}: {path} does not exist; name a file or folder, or unset it")
        return Discovered(path, f"named by {_VARIABLE}")
    for folder in _upward():
        for name in _NAMES:
            if _counts(path := folder / name):
                return Discovered(path, "the nearest one from the working directory upward")
    return None


def _upward() -> Iterator[Path]:
    """Yield the working directory and those above it, to the first with ``.git``, the user's home or the root."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return  # it was removed
    last = os.path.expanduser("~")
    for folder in (here, *here.parents):
        yield folder
        if str(folder) == last or os.path.exists(folder / ".git"):
            return


def _counts(path: Path) -> bool:
    """Return whether a file is there, is meant for us, and may be believed."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or (path.name == PYPROJECT and table_of(path.read_bytes(), path) is None):
            return False
        open_to_all = path.parent.stat().st_mode & stat.S_IWOTH
        owners = {status.st_uid, path.lstat().st_uid}  # a link's too
    except OSError:
        return False  # not there, or in a folder that is closed to us
    if open_to_all and not owners <= {0, user_id()}:
        from .logs import repeated

        repeated(
            f"configuration {path}",
            "%s is not taken: it belongs to another user, in a folder where every user may write; if you trust it, name it by %s",
            path,
            _VARIABLE,
        )
        return False
    return True


def table_of(data: bytes, path: Path) -> dict[Any, Any] | None:
    """Return the table ``[tool.cloud-runtimes]`` of a ``pyproject.toml``; ``None``: it has none. Only with one a syntax error is refused."""
    if b"cloud-runtimes" not in data:
        return None
    tables = read_tables(data, "toml")
    if isinstance(tables, str):
        if _TABLE.search(data):
            raise InvalidArgumentError(f"{path}: {tables}")
        return None
    tool = tables.get("tool")
    table = tool.get("cloud-runtimes") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None


def beside(tables: dict[str, Any], path: Path) -> None:
    """Let the relative homes of a file, and the default home, lie beside it."""
    folder = os.path.abspath(path if path.is_dir() else path.parent)
    capa = tables.get("capa", {})
    candidates = [capa, *(table for each in tables.values() if isinstance(each, dict) for table in each.values())]
    for table in candidates:
        if isinstance(table, dict) and isinstance(home := table.get("home"), str) and _relative(home):
            table["home"] = os.path.join(folder, home)
    if isinstance(capa, dict) and isinstance(homes := capa.get("homes"), dict):
        for service, home in homes.items():
            if isinstance(home, str) and _relative(home):
                homes[service] = os.path.join(folder, home)
    if isinstance(capa, dict) and "home" not in capa and not os.environ.get("CLOUD_RUNTIMES_HOME"):
        tables["capa"] = {**capa, "home": os.path.join(folder, HOME)}


def _relative(home: str) -> bool:
    return bool(home) and not home.startswith(("~", ":")) and not os.path.isabs(home) and "://" not in home


def elsewhere(home: Path) -> Path | None:
    """Return another default home, above the working directory, where `home` is the default because nothing is configured."""
    if home.name != HOME or os.environ.get("CLOUD_RUNTIMES_HOME") or find(None) is not None:
        return None
    here, *above = [*_upward()] or [home]
    if home.parent != here:
        return None
    return next((folder / HOME for folder in above if (folder / HOME).is_dir()), None)
