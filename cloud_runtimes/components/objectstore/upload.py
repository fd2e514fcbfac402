"""A file in the making. A small one is sent at once; a large one by parts, which are nothing until the upload is completed.

A file that may not replace another is sent at once too, since no store takes that condition with parts through obstore.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore import exceptions

from ...errors import ClosedError, CloudRuntimesError, ResourceExhaustedError
from ...spi.file import Chunk, FileInfo, FileWrite, FileWriter
from ...spi.operation import Operation
from .attributes import Stamp, at, headers
from .bucket import Flow, Step
from .failures import map_error, same_name
from .settings import PARTS

if TYPE_CHECKING:
    from .file import ObjectFiles

_AT_ONCE: Final = 4
"""Parts that are on their way."""
_PIECE: Final = 1024 * 1024
_SMALL: Final = 64 * 1024


class Upload(FileWriter):
    """See the module; made without I/O."""

    def __init__(self, files: ObjectFiles, name: str, how: FileWrite) -> None:
        self.executor = files.executor
        self._files = files
        self._name = name
        self._how = how
        self._key = files.names.key(name)
        self._stamp = Stamp(name)
        self._headers = headers(how, self._stamp, files.component.settings.scheme == "az")
        self._rest = bytearray()
        self._size = 0
        self._parts: Any = None
        self._ended = False
        self._sending = threading.Lock()

    def write(self, op: Operation, data: Chunk, /) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            if self._take(view[start : start + _PIECE]):
                self._send(op)

    async def write_async(self, op: Operation, data: Chunk, /) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            if self._take(view[start : start + _PIECE]):
                await self._in_thread(self._send, op)

    def _take(self, data: memoryview) -> bool:
        """Append some bytes; return whether it is time to send."""
        self._check()
        self._count(len(data))
        self._rest += data
        part = self._files.component.settings.part_size
        return self._how.overwrite and len(self._rest) >= (part if self._parts is None else _PIECE)

    def _count(self, size: int) -> None:
        """Refuse what is too large."""
        self._size += size
        settings = self._files.component.settings
        if not self._how.overwrite:
            if self._size > settings.exclusive_bytes:
                raise ResourceExhaustedError(
                    f"{self._files.name}/{self._name} has more than {settings.exclusive_bytes:,} bytes, which are held in memory "
                    "for overwrite=False: raise exclusive_bytes, or give overwrite=True"
                )
        elif self._size > PARTS * settings.part_size:
            raise ResourceExhaustedError(
                f"{self._files.name}/{self._name} has more than {PARTS:,} parts of {settings.part_size:,} bytes: raise part_size"
            )

    def _check(self) -> None:
        if self._ended:
            raise ClosedError(f"{self._files.name}/{self._name} is stored or given up: begin again")

    def _send(self, op: Operation, complete: bool = False) -> None:
        """Give obstore what there is; it sends parts of it, and waits while too many are on their way."""
        error: BaseException | None = None
        bucket = self._files.component.bucket
        if op.remaining() == 0:
            raise op.timed_out("a part to be sent")
        with self._sending:
            try:
                if self._parts is None:
                    size = self._files.component.settings.part_size
                    self._parts = obstore.open_writer(
                        bucket.store(op),
                        self._key,
                        attributes=self._headers,
                        buffer_size=size,
                        max_concurrency=_AT_ONCE,
                    )
                self._parts.write(self._rest)
                self._rest = bytearray()
                if complete and not self._ended:
                    self._ended = True
                    self._parts.close()
            except (CloudRuntimesError, ClosedError):
                raise
            except Exception as failure:
                error = failure
            finally:
                if self._ended and (error is not None or not complete):
                    self._give_up()
        if error is not None:
            raise map_error(bucket.where, error, op)

    def commit(self, op: Operation, /) -> FileInfo:
        self._check()
        if self._parts is None:
            return self._files.flows.run(op, self._put(self._rest))
        self._send(op, True)
        return self._files.flows.run(op, self._stored())

    async def commit_async(self, op: Operation, /) -> FileInfo:
        self._check()
        if self._parts is None:
            return await self._files.flows.run_async(op, self._put(self._rest))
        await self._in_thread(self._send, op, True)
        return await self._files.flows.run_async(op, self._stored())

    def _info(self, etag: str | None) -> FileInfo:
        how = self._how
        return FileInfo(
            self._name, self._size, at(self._stamp.ms), self._stamp.etag(etag), self._headers["Content-Type"], dict(how.metadata or {})
        )  # fmt: skip

    def whole(self, data: Chunk) -> Flow[FileInfo]:
        """Store all of a file."""
        self._count(len(data))
        # a view is let go of by obstore's threads, which wait for the interpreter for it
        return (yield from self._put(bytes(data) if len(data) < _SMALL else data))

    def _put(self, data: Chunk) -> Flow[FileInfo]:
        self._ended = True
        mode = "overwrite" if self._how.overwrite else "create"
        options = {"attributes": self._headers, "mode": mode, "use_multipart": False}
        try:
            result = yield Step("put", (self._key, data), options)
        except exceptions.AlreadyExistsError as error:
            if self._how.overwrite or same_name(error):
                raise
            # an answer that was lost, and a request sent again, look like another's file
            info = yield from self._files.find(self._name)
            if info is not None and self._stamp.nonce in (info.etag or ""):
                return info
            raise self._files.exists(self._name) from None
        return self._info(result["e_tag"])

    def _stored(self) -> Flow[FileInfo]:
        """Return what is known of the file; obstore does not tell the etag of parts."""
        try:
            info: FileInfo | None = yield from self._files.find(self._name)
        except Exception:  # it is stored, whatever becomes of the question
            info = None
        if info is not None and info.etag is not None and info.etag.startswith(self._stamp.nonce):
            return info
        return self._info(None)  # or replaced by now

    def abort(self, op: Operation, /) -> None:
        if self._ended:
            return
        self._ended = True
        self._rest = bytearray()
        if self._parts is not None and self._sending.acquire(blocking=False):
            # else the thread that sends does it
            try:
                self._give_up()
            finally:
                self._sending.release()

    async def abort_async(self, op: Operation, /) -> None:
        if self._parts is None:
            self.abort(op)
        else:
            # whatever time the call has left, and should its task be cancelled again
            await asyncio.shield(asyncio.to_thread(self.abort, op))

    def _give_up(self) -> None:
        """Have the store remove the parts; those that it does not remove go by the bucket's rule for unfinished uploads."""
        parts, self._parts = self._parts, None
        if parts is not None:
            try:
                parts.__exit__(ClosedError, ClosedError("given up"), None)
            except Exception:
                return
