"""Files of servers: a whole one is written piece by piece, as an open one is."""

from __future__ import annotations

from collections.abc import Iterable

from ..spi.file import Chunk, FileDriver, FileInfo, FileWrite
from ..spi.operation import Operation


class ServerFiles(FileDriver):
    """See the module."""

    async def write_async(self, op: Operation, name: str, chunks: Iterable[Chunk], how: FileWrite, /) -> FileInfo:
        writer = await self.open_write_async(op, name, how)
        try:
            if getattr(chunks, "repeatable", False):
                for chunk in chunks:
                    await writer.write_async(op, chunk)
            else:
                iterator = iter(chunks)
                while (taken := await self.executor.in_thread(lambda: next(iterator, None), op)) is not None:
                    await writer.write_async(op, taken)
            return await writer.commit_async(op)
        finally:
            await writer.abort_async(op)
