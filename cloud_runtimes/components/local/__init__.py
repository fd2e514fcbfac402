"""Files in a local folder: the embedded default of the file service. Other programs see plain files in plain folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from ..._core.home import home_folder, is_durable, is_memory
from ..._core.os_folders import NO_NAME
from ..._core.threads import Mutex
from ...config import ClientSettings, setting
from ...errors import UnsupportedError
from ...spi.component import Component, no_native

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from ...spi.operation import Operation
    from .memory import Space
    from .tree import Tree

__all__ = ["LocalComponent", "LocalSettings", "component"]

FILES = "files"
_LONGEST = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """Settings of the component.

    Attributes:
        home: folder below which each store has one of its own, ``files/<store>``; else ``CLOUD_RUNTIMES_HOME``, else ``./.cloud_runtimes``; ``":memory:"`` keeps files in the process.
        path: the store's folder itself, instead of one below ``home``; made if it does not exist.
        durability: ``"full"``: a stored file survives a power cut; ``"relaxed"``: it survives a crash of the process, a power cut may cost the last moments. Default: ``CLOUD_RUNTIMES_DURABILITY``, else full.
    """

    home: str | None = setting(None, help="folder of all stores")
    path: str | None = setting(None, help="folder of this store")
    durability: Literal["full", "relaxed"] | None = setting(None, help="full or relaxed")

    def __post_init__(self) -> None:
        if self.home is not None and self.path is not None:
            raise ValueError("give home or path, not both")
        if self.path is not None and is_memory(self.path):
            raise ValueError('path must be a folder; home = ":memory:" keeps files in the process')


class LocalComponent(Component):
    """Drivers over one open folder each."""

    name = "local"
    Settings = LocalSettings
    services = ("file",)

    settings: LocalSettings

    def __init__(self, settings: LocalSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self.durable = is_durable(settings.durability)
        self._lock = Mutex()
        self._trees: dict[str, Tree] = {}
        self._space: Space | None = None

    def driver(self, service: str, name: str) -> Driver:
        home, path = self._folders(name)
        if is_memory(home):
            return self._in_memory(home, name)
        from .files import LocalFiles
        from .tree import Tree

        with self._lock:
            tree = self._trees.get(path)
            if tree is None:
                tree = self._trees[path] = Tree(path, home, self.durable)
        return LocalFiles(self, tree)

    def native(self, service: str, name: str) -> Path:
        """Return the folder of a store, which may not be there yet."""
        home, path = self._folders(name)
        if is_memory(home):
            raise no_native(service, name)
        return Path(path)

    def _folders(self, name: str) -> tuple[str, str]:
        """Return the home, and the folder of a store."""
        home = home_folder(self.settings.path or self.settings.home)
        return home, home if self.settings.path is not None else os.path.join(home, FILES, folder_name(name))

    def _in_memory(self, home: str, name: str) -> Driver:
        from .memory import MemoryFiles, acquire

        with self._lock:
            if self._space is None:
                self._space = acquire(home)
            return MemoryFiles(self.executor, self._space, name)

    def names(self, op: Operation, service: str) -> list[str]:
        """Return the stores below the home; a store with a folder of its own is known by its table alone."""
        home = home_folder(self.settings.home)
        if self.settings.path is not None or is_memory(home):
            return super().names(op, service)  # type: ignore[return-value]
        try:
            folders = sorted(entry.name for entry in os.scandir(os.path.join(home, FILES)) if entry.is_dir())
        except FileNotFoundError:
            return []
        if longest := next((name for name in folders if len(name) > _LONGEST), None):
            raise UnsupportedError(
                f"{FILES}/{longest} was made for a name that is too long for a folder: declare its store in the configuration"
            )
        return sorted(map(unquote, folders))

    def ready(self) -> None:
        """A folder is there or can be made; only a write tells."""

    def close(self, timeout: float | None) -> None:
        with self._lock:
            trees, self._trees = self._trees, {}
            space, self._space = self._space, None
        for tree in trees.values():
            tree.close()
        if space is not None:
            space.release()


def folder_name(store: str) -> str:
    """Return the folder of a store: its name, with what is more than letters, digits, ``_``, ``-``, ``~`` and ``.`` percent-encoded.

    So is what some system takes for something else: a dot at either end, and the first letter of a device of Windows.
    """
    name = quote(store, safe="")
    if name.endswith("."):
        name = f"{name[:-1]}%2E"
    if name.startswith(".") or NO_NAME.search(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{sha256(store.encode()).hexdigest()[:32]}"


component = LocalComponent
