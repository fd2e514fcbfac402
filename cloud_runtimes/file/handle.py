"""The handle of the file service: one file, open for reading or writing."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._service import ServiceHandle, error_context
from ..errors import ClosedError, CloudRuntimesError, InvalidArgumentError, UnsupportedError
from ..spi import file as spi
from ..spi.file import FileInfo, FileReader, FileWrite, FileWriter
from ..spi.operation import Method, Operation, mark_interrupted
from ._prepare import CHUNK, view
from .types import FileMode

if TYPE_CHECKING:
    from ._reads import FileReads

OPEN_FILE: Final = Method("file", "open_file", repeatable=False, handle=True)
_READ: Final = Method("file", "open_file", repeatable=True, writes=False, handle=True)


class Chunks:
    """The rest of a file in pieces: ``for`` and ``async for``."""

    def __init__(self, handle: FileHandle, size: int) -> None:
        self._handle = handle
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        while data := self._handle.read(self._size):
            yield data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._handle.read_async(self._size):
            yield data


class FileHandle(ServiceHandle, io.RawIOBase):  # the first one's with block counts
    """A file, open for reading or writing; made without I/O, opened by ``with``, ``async with`` or its first I/O.

    Reading sees one version of the file, whatever is stored meanwhile. Writing stores the file when the block ends or by `close`, in one step; an exception in the block stores nothing, nor does a handle that nobody closes. It serves one thread at a time, or one loop.
    """

    def __init__(
        self, service: FileReads, store_name: str, name: str, mode: FileMode, how: FileWrite, timeout: float | None
    ) -> None:
        super().__init__(service)
        self.name = name
        self.mode = mode
        self._service = service
        self._store_name = store_name
        self._how = how
        self._timeout = timeout
        self._reader: FileReader | None = None
        self._writer: FileWriter | None = None
        self._position = 0
        self._info: FileInfo | None = None
        self._broken: BaseException | None = None
        self._ended = False

    def __repr__(self) -> str:
        state = "closed" if self._ended else "open" if self._reader or self._writer else "not open yet"
        return f"<FileHandle {self.name!r} of {self._store_name!r} mode={self.mode!r} {state}>"

    @property
    def info(self) -> FileInfo:
        """Metadata of the file: when reading, once it is open; when writing, once it is stored.

        Raises:
            ClosedError: it is not.
        """
        if self._info is None:
            raise ClosedError("there is nothing known of the file yet: read something, or close what you write")
        return self._info

    # -- opening ----------------------------------------------------------

    def _operation(self, writes: bool) -> tuple[Operation, Any]:
        self._check_process()
        if self._ended:
            raise ClosedError(f"the file {self.name!r} is closed: open it again")
        return self._service._prepare(OPEN_FILE if writes else _READ, self._store_name, self._timeout, None)

    def _opened(self, stream: Any) -> None:
        if self.mode == "wb":
            self._writer = stream
        elif stream is None:
            raise self._service._missing(self.name, self._store_name)
        else:
            self._reader, self._info = stream, stream.info
        self._frame.context.handles.add(self, loose=True)

    @error_context(_READ, named=False)
    def _open(self) -> None:
        op, driver = self._operation(self.mode == "wb")
        if self._reader is None and self._writer is None:
            if self.mode == "rb":
                self._opened(self._frame.call(op, driver.open_read, self.name))
            else:
                self._opened(self._frame.call(op, driver.open_write, self.name, self._how))

    @error_context(_READ, named=False)
    async def _open_async(self) -> None:
        op, driver = self._operation(self.mode == "wb")
        if self._reader is None and self._writer is None:
            if self.mode == "rb":
                self._opened(await self._frame.call_async(op, driver.open_read_async, self.name))
            else:
                self._opened(await self._frame.call_async(op, driver.open_write_async, self.name, self._how))

    def _add_context(self, error: BaseException, method: Method, component: Any) -> None:
        """Complete an error, for `error_context`; only closing stores anything."""
        if method is _READ and not isinstance(error, Exception):
            mark_interrupted(error, False)
        self._frame.add_context(error, OPEN_FILE, self._store_name)

    # -- reading ----------------------------------------------------------

    def readable(self) -> bool:
        """Whether it is open for reading."""
        return self.mode == "rb"

    def writable(self) -> bool:
        """Whether it is open for writing."""
        return self.mode == "wb"

    def seekable(self) -> bool:
        """Whether `seek` works: when reading, where the component declares ``range``."""
        return self.mode == "rb" and spi.RANGE in self._frame.driver(self._store_name).features

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Set the position and return it.

        Args:
            offset: bytes from the place that ``whence`` names.
            whence: 0: the start; 1: the position; 2: the end, for which the file must be open.

        Raises:
            UnsupportedError: the file is open for writing, or the component has no ranges.
            InvalidArgumentError: the position is before the start.
            ClosedError: from the end, and the file is not open.
        """
        if not self.seekable():
            raise UnsupportedError(
                f"seek in a file open for {self.mode!r} of {self._store_name!r}: it has no positions"
            )
        if whence not in (0, 1, 2) or isinstance(offset, bool) or not isinstance(offset, int):
            raise InvalidArgumentError(f"seek: an int, and from 0, 1 or 2; got {offset!r} and {whence!r}")
        position = offset + (0, self._position, (self.info.size or 0) if whence == 2 else 0)[whence]
        if position < 0:
            raise InvalidArgumentError(f"seek: position {position} is before the start")
        self._position = position
        return position

    def _size(self, size: int | None) -> int:
        if self.mode != "rb":
            raise UnsupportedError(f"the file {self.name!r} is open for writing: open it with 'rb' to read")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
            raise InvalidArgumentError(f"size must be a number of bytes, or -1 for all, got {size!r}")
        return -1 if size is None or size < 0 else size

    def _some(self, size: int) -> bytes:
        op, _ = self._operation(False)
        assert self._reader is not None
        data = self._frame.call(op, self._reader.read, self._position, size)
        self._position += len(data)
        return data

    async def _some_async(self, size: int) -> bytes:
        op, _ = self._operation(False)
        assert self._reader is not None
        data = await self._frame.call_async(op, self._reader.read_async, self._position, size)
        self._position += len(data)
        return data

    @error_context(_READ, named=False)
    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, without a size all that are left; ``b""`` at the end.

        Args:
            size: bytes at most; ``None`` or below 0: all that are left.

        Raises:
            MissingFileError: at the first I/O: there is no such file.
            UnsupportedError: the file is open for writing.
            ClosedError: it is closed.
        """
        wanted = self._size(size)
        self._open()
        if wanted >= 0:
            return self._some(wanted) if wanted else b""
        return b"".join(iter(lambda: self._some(CHUNK), b""))

    @error_context(_READ, named=False)
    async def read_async(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, without a size all that are left; ``b""`` at the end.

        Args:
            size: bytes at most; ``None`` or below 0: all that are left.

        Raises:
            MissingFileError: at the first I/O: there is no such file.
            UnsupportedError: the file is open for writing.
            ClosedError: it is closed.
        """
        wanted = self._size(size)
        await self._open_async()
        if wanted >= 0:
            return await self._some_async(wanted) if wanted else b""
        parts = []
        while data := await self._some_async(CHUNK):
            parts.append(data)
        return b"".join(parts)

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; return how many bytes came, 0 at the end.

        Args:
            buffer: writable and bytes-like.

        Raises:
            MissingFileError, UnsupportedError, ClosedError: as in `read`.
        """
        target = memoryview(buffer).cast("B")
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Read all that is left.

        Raises:
            MissingFileError, UnsupportedError, ClosedError: as in `read`.
        """
        return self.read()

    def chunks(self, size: int = CHUNK) -> Chunks:
        """Return what is left in pieces, for ``for`` or ``async for``.

        Args:
            size: bytes of a piece at most.

        Raises:
            InvalidArgumentError: ``size`` is no number of at least 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidArgumentError(f"size must be a number of bytes ≥ 1, got {size!r}")
        return Chunks(self, size)

    # -- writing ----------------------------------------------------------

    def _chunk(self, data: Any) -> spi.Chunk:
        if self.mode != "wb":
            raise UnsupportedError(f"the file {self.name!r} is open for reading: open it with 'wb' to write")
        self._whole()
        return view(data)

    def _whole(self) -> None:
        if self._broken is not None:
            raise ClosedError(
                f"an earlier write to {self.name!r} failed, so nothing is stored: begin again"
            ) from self._broken

    @error_context(_READ, named=False)
    def write(self, data: Any, /) -> int:
        """Append data, all of it; return how many bytes that were.

        Args:
            data: bytes-like.

        Raises:
            ResourceExhaustedError: the disk is full. After any error nothing will be stored.
            UnsupportedError: the file is open for reading.
            ClosedError: it is closed, or an earlier write failed.
        """
        chunk = self._chunk(data)
        self._open()
        op, _ = self._operation(True)
        assert self._writer is not None
        try:
            self._frame.call(op, self._writer.write, chunk)
        except BaseException as error:
            self._broken = error
            raise
        self._position += len(chunk)
        return len(chunk)

    @error_context(_READ, named=False)
    async def write_async(self, data: Any, /) -> int:
        """Append data, all of it; return how many bytes that were.

        Args:
            data: bytes-like.

        Raises:
            ResourceExhaustedError: the disk is full. After any error nothing will be stored.
            UnsupportedError: the file is open for reading.
            ClosedError: it is closed, or an earlier write failed.
        """
        chunk = self._chunk(data)
        await self._open_async()
        op, _ = self._operation(True)
        assert self._writer is not None
        try:
            await self._frame.call_async(op, self._writer.write_async, chunk)
        except BaseException as error:
            self._broken = error
            raise
        self._position += len(chunk)
        return len(chunk)

    # -- ending -----------------------------------------------------------

    def _ends(self, storing: bool) -> Operation | None:
        """Mark it closed; ``None`` where nothing is left to do."""
        if self._ended:
            return None
        op, _ = self._operation(storing)
        self._ended = True
        io.RawIOBase.close(self)
        return op

    @error_context(OPEN_FILE, named=False)
    def close(self) -> None:
        """Close it; what was written is stored now. A second time does nothing.

        Raises:
            AlreadyExistsError, ResourceExhaustedError, PermissionDeniedError: nothing was stored.
        """
        if self._ended:
            return
        if self.mode == "wb" and self._generation == fork.generation():
            self._open()  # an empty file
        self._close(self._broken is None)
        self._whole()

    @error_context(OPEN_FILE, named=False)
    async def close_async(self) -> None:
        """Close it; what was written is stored now. A second time does nothing.

        Raises:
            AlreadyExistsError, ResourceExhaustedError, PermissionDeniedError: nothing was stored.
        """
        if self._ended:
            return
        if self.mode == "wb" and self._generation == fork.generation():
            await self._open_async()
        await self._close_async(self._broken is None)
        self._whole()

    def _close(self, storing: bool) -> None:
        op = self._ends(storing and self.mode == "wb")
        if op is None:
            return
        if self._reader is not None:
            self._reader.close(op)
        if self._writer is not None:
            try:
                if storing:
                    self._info = self._frame.call(op, self._writer.commit)
            finally:
                self._writer.abort(op)

    async def _close_async(self, storing: bool) -> None:
        op = self._ends(storing and self.mode == "wb")
        if op is None:
            return
        if self._reader is not None:
            await self._reader.close_async(op)
        if self._writer is not None:
            try:
                if storing:
                    self._info = await self._frame.call_async(op, self._writer.commit_async)
            finally:
                await self._writer.abort_async(op)

    def _exit(self, error: BaseException | None) -> None:
        if error is None:
            self.close()
        else:
            self._close(False)

    async def _exit_async(self, error: BaseException | None) -> None:
        if error is None:
            await self.close_async()
        else:
            await self._close_async(False)

    def _close_by_client(self, end: float | None) -> None:
        """Store nothing: nobody said that what was written is whole."""
        if self._ended or self._generation != fork.generation():
            return
        self._ended = True
        io.RawIOBase.close(self)
        op = Operation(OPEN_FILE, self._store_name, None)
        if self._reader is not None:
            self._reader.close(op)
        if self._writer is not None:
            self._writer.abort(op)

    def __del__(self) -> None:
        # not that of IOBase, which would store what is half-written
        try:
            self._close_by_client(None)
        except (CloudRuntimesError, OSError, AttributeError, TypeError):
            return  # the interpreter is ending, or it was never made
