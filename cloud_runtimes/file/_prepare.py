"""Checks of the file service before any I/O, and sources of content as chunks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from .._core.arguments import check_metadata
from ..codec.payload import content_kind
from ..errors import InvalidArgumentError
from ..spi.file import Chunk, FileWrite

CHUNK: Final = 1024 * 1024
MAX_NAME_BYTES: Final = 1024
MAX_METADATA_BYTES: Final = 2048
"""As S3 has it, the narrowest."""
MAX_EXPIRES: Final = 7 * 86_400
"""Seconds; as S3 and Google have it."""
DEFAULT_TYPE: Final = "application/octet-stream"


def check_text(text: Any, what: str) -> str:
    """Return text that may be part of a name."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} must be str, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{what} {text!r}: a lone surrogate at {error.start} is not UTF-8; repair the text"
        ) from None
    if size > MAX_NAME_BYTES:
        raise InvalidArgumentError(
            f"{what} {text[:60]!r}…: {size} bytes; a name has at most {MAX_NAME_BYTES}: shorten it"
        )
    if "\0" in text:
        raise InvalidArgumentError(f"{what} {text!r} holds a NUL byte: leave it out")
    return text


def check_name(name: Any, what: str = "name") -> str:
    """Return ``name``: relative, ``/``-separated, without empty, ``.`` and ``..`` segments, 1 to 1,024 bytes of UTF-8 without NUL."""
    check_text(name, what)
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            raise InvalidArgumentError(
                f"{what} {name!r}: a name is relative, and no segment of it is empty, '.' or '..'; "
                f"give one such as 'reports/2026.csv'"
            )
    return str(name)


def check_limit(limit: Any) -> None:
    """Refuse a limit that is none."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidArgumentError(f"limit must be an int ≥ 1 or None, got {limit!r}")


def check_range(start: Any, length: Any) -> None:
    """Refuse what is no range."""
    for name, value in (("start", start), ("length", length)):
        if name == "length" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise InvalidArgumentError(f"{name} must be a number of bytes ≥ 0, got {value!r}")


def check_expires(expires: Any) -> float:
    """Return the seconds for which a URL holds."""
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 1 <= seconds <= MAX_EXPIRES:
        raise InvalidArgumentError(
            f"expires must be seconds or a timedelta, from 1 s to 7 days ({MAX_EXPIRES} s), got {expires!r}"
        )
    return float(seconds)


def file_write(content_type: Any, metadata: Mapping[str, str] | None, overwrite: Any) -> FileWrite:
    """Check how to store a file."""
    if content_type is None:
        content_type = DEFAULT_TYPE
    else:
        content_kind(content_type)
    if not isinstance(overwrite, bool):
        raise InvalidArgumentError(f"overwrite must be True or False, got {overwrite!r}")
    check_metadata(metadata)
    try:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in (metadata or {}).items())
    except UnicodeEncodeError:
        raise InvalidArgumentError("metadata holds a lone surrogate, which is not UTF-8; repair the text") from None
    if size > MAX_METADATA_BYTES:
        raise InvalidArgumentError(
            f"metadata has {size} bytes; a file keeps at most {MAX_METADATA_BYTES}: put the rest into a file"
        )
    if metadata is not None and "" in metadata:
        raise InvalidArgumentError("metadata: a name must not be empty")
    return FileWrite(content_type, None if metadata is None else dict(metadata), overwrite)


def view(data: Any) -> Chunk:
    """Return bytes-like data as bytes or a flat view of it."""
    if isinstance(data, (bytes, bytearray)):
        return data
    if isinstance(data, str):
        raise InvalidArgumentError(
            "a file's content is bytes, not str: encode it; the content of another file is given by a pathlib.Path"
        )
    try:
        buffer = memoryview(data)
    except TypeError:
        raise InvalidArgumentError(f"a file's content is bytes, not {type(data).__name__}") from None
    return buffer.cast("B") if buffer.c_contiguous else buffer.tobytes()


class Source:
    """Content given to ``put_file``, as chunks of at most 1 MiB where the size is ours to choose.

    Attributes:
        asynchronous: whether its chunks must be awaited.
        repeatable: whether they can be taken again from the start.
        failure: what the caller's iterator or file object raised.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self.failure: Exception | None = None
        self.asynchronous = self.repeatable = False
        if isinstance(data, (str, Mapping)):
            view("" if isinstance(data, str) else data)
        try:
            memoryview(data)
            self.repeatable = True
        except TypeError:
            if isinstance(data, AsyncIterable):  # also files of asynchronous libraries, whose read is no plain one
                self.asynchronous = True
            elif not isinstance(data, (os.PathLike, Iterable)) and not callable(getattr(data, "read", None)):
                raise InvalidArgumentError(
                    f"data must be bytes, a pathlib.Path, a binary file object or an iterable of bytes, not {type(data).__name__}"
                ) from None

    def __iter__(self) -> Iterator[Chunk]:
        chunks = self._chunks()
        while True:
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            except Exception as error:
                self.failure = error
                raise
            yield chunk

    def _chunks(self) -> Iterator[Chunk]:
        if self.repeatable:
            whole = memoryview(view(self._data))
            for start in range(0, len(whole), CHUNK):
                yield whole[start : start + CHUNK]
        elif isinstance(self._data, os.PathLike):
            try:
                file = open(self._data, "rb", buffering=0)  # noqa: SIM115  # the caller's file: closed below
            except OSError as error:
                raise InvalidArgumentError(f"{os.fspath(self._data)} cannot be read: {error.strerror}") from error
            with file:
                yield from self._read(file)
        elif callable(getattr(self._data, "read", None)):
            yield from self._read(self._data)
        else:
            for chunk in self._data:
                yield view(chunk)

    @staticmethod
    def _read(file: Any) -> Iterator[Chunk]:
        while True:
            data = file.read(CHUNK)
            if data is None:
                raise InvalidArgumentError("the file object does not block: give one that does")
            chunk = view(data)
            if not len(chunk):
                return
            yield chunk

    async def awaited(self) -> AsyncGenerator[Chunk, None]:
        """The chunks of an asynchronous source."""
        iterator = aiter(self._data)
        try:
            while True:
                try:
                    chunk = view(await anext(iterator))
                except StopAsyncIteration:
                    return
                except Exception as error:
                    self.failure = error
                    raise
                yield chunk
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
