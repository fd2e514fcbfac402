"""Files in the process, for ``home = ":memory:"``: one space per process and name, there as long as a client has it open."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import AlreadyExistsError, ClosedError
from ...spi import file as spi
from ...spi.executor import Executor
from ...spi.file import Chunk, FileDriver, FileInfo, FileReader, FileWrite, FileWriter
from ...spi.operation import Operation
from .streams import Guard, change

_Store = dict[str, tuple[bytes, FileInfo]]


class Space:
    """All stores of one ``:memory:`` home. A forked child begins with an empty one."""

    def __init__(self, home: str) -> None:
        self.lock = Mutex()
        self.stores: dict[str, _Store] = {}
        self._home = home
        self.users = 0
        fork.register(self)

    def forked(self) -> None:
        """Forget the parent's."""
        self.stores = {}

    def release(self) -> None:
        """Let go of it; with its last user it is gone."""
        with self.lock:
            self.users -= 1
            if not self.users:
                _spaces.pop(self._home, None)


_spaces: Final[dict[str, Space]] = {}


def acquire(home: str) -> Space:
    """Return the space of a home."""
    space = _spaces.setdefault(home, Space(home))
    with space.lock:
        space.users += 1
    return space


class _Reader(FileReader):
    """Reader of one version of a file."""

    def __init__(self, executor: Executor, content: bytes, info: FileInfo) -> None:
        self.executor = executor
        self.info = info
        self._content = content

    def read(self, op: Operation, offset: int, size: int, /) -> bytes:
        return self._content[offset : offset + size]

    def close(self, op: Operation, /) -> None:
        self._content = b""


class _Writer(FileWriter):
    """Writer of a new version of a file."""

    def __init__(self, files: MemoryFiles, name: str, how: FileWrite) -> None:
        self.executor = files.executor
        self._files = files
        self._name = name
        self._how = how
        self._content: bytearray | None = bytearray()

    def _open(self) -> bytearray:
        if self._content is None:
            raise ClosedError(f"{self._name!r} is stored or given up: begin again")
        return self._content

    def write(self, op: Operation, data: Chunk, /) -> None:
        self._open().extend(data)
        if op.remaining() == 0:
            raise op.timed_out("the data")

    def commit(self, op: Operation, /) -> FileInfo:
        content = bytes(self._open())
        self._content = None
        return self._files.store(self._name, content, self._how, Guard())

    def abort(self, op: Operation, /) -> None:
        self._content = None


class MemoryFiles(FileDriver):
    """File store in a memory space."""

    features = frozenset(
        {spi.CONTENT_TYPE, spi.COPY, spi.ETAG, spi.EXCLUSIVE, spi.LISTED, spi.METADATA, spi.MOVE, spi.RANGE, spi.SIZES}
    )

    def __init__(self, executor: Executor, space: Space, store: str) -> None:
        self.executor = executor
        self._space = space
        self._store = store

    @property
    def _files(self) -> _Store:
        return self._space.stores.setdefault(self._store, {})

    def store(self, name: str, content: bytes, how: FileWrite, guard: Guard) -> FileInfo:
        """Make it visible."""
        info = FileInfo(name, len(content), datetime.now(UTC), token_hex(8), how.content_type, dict(how.metadata or {}))
        with self._space.lock:
            if not how.overwrite and name in self._files:
                raise AlreadyExistsError(f"{name!r} exists in {self._store!r}: give overwrite=True to replace it")
            guard.begin()
            self._files[name] = content, info
        return info

    def stat(self, op: Operation, name: str, /) -> FileInfo | None:
        return self._files[name][1] if name in self._files else None

    def read(self, op: Operation, name: str, start: int, length: int | None, /) -> bytes | None:
        held = self._files.get(name)
        return None if held is None else held[0][start : None if length is None else start + length]

    def open_read(self, op: Operation, name: str, /) -> FileReader | None:
        held = self._files.get(name)
        return None if held is None else _Reader(self.executor, *held)

    def open_write(self, op: Operation, name: str, how: FileWrite, /) -> FileWriter:
        return _Writer(self, name, how)

    def _write(self, op: Operation, guard: Guard, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        content = bytearray()
        for chunk in chunks:
            content += chunk
            if op.remaining() == 0:
                raise op.timed_out("the data")
            guard.check()
        return self.store(name, bytes(content), how, guard)

    write, write_async = change(_write)

    def list_files(
        self, op: Operation, prefix: str, recursive: bool, limit: int | None, after: str | None, /
    ) -> list[FileInfo]:
        entries: dict[str, FileInfo] = {}
        with self._space.lock:
            held = {name: known for name, (_, known) in self._files.items()}
        for name in sorted(held):
            if not name.startswith(prefix):
                continue
            head, slash, _ = name[len(prefix) :].partition("/")
            shown = prefix + head + slash if slash and not recursive else name
            if shown not in entries and shown > (after or ""):
                entries[shown] = held[name] if shown == name else FileInfo(shown, 0, held[name].modified)
                if len(entries) == limit:
                    break
        return list(entries.values())

    def delete(self, op: Operation, name: str, /) -> None:
        with self._space.lock:
            self._files.pop(name, None)

    def copy(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        with self._space.lock:
            held = self._files.get(source)
            if held is None:
                return None
            how = FileWrite(held[1].content_type, held[1].metadata)
            return self.store(target, held[0], how, Guard())

    def move(self, op: Operation, source: str, target: str, /) -> FileInfo | None:
        with self._space.lock:
            held = self._files.pop(source, None)
            if held is None:
                return None
            old = held[1]
            info = FileInfo(target, old.size, old.modified, old.etag, old.content_type, old.metadata)
            self._files[target] = held[0], info
            return info
