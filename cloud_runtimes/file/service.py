"""The file service: what ``client.file`` is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .._core.arguments import CLIENT_TIMEOUT
from .._service import error_context
from ..errors import CloudRuntimesError, InvalidArgumentError
from ..spi import file as spi
from ..spi.file import FileDriver, FileInfo, FileWrite
from ..spi.operation import Method, Operation, mark_interrupted
from ._prepare import Source, check_expires, check_name, file_write
from ._reads import FileReads
from .types import AsyncFileSource, FileSource, UrlMethod

_PUT = Method("file", "put_file", repeatable=True)
_DELETE = Method("file", "delete_file", repeatable=True)
_COPY = Method("file", "copy_file", repeatable=False)
_MOVE = Method("file", "move_file", repeatable=False)
_URL = Method("file", "url", repeatable=True, writes=False)


class FileService(FileReads):
    """Files by name.

    A name is relative and ``/``-separated, without NUL and without empty, ``.`` or ``..`` segments, at most 1,024 bytes of UTF-8, compared byte for byte. Content, etag, content type and metadata change together or not at all, and a file in the making is not visible.
    """

    def _putting(
        self,
        store_name: str,
        name: str,
        data: Any,
        content_type: str | None,
        metadata: Mapping[str, str] | None,
        overwrite: bool,
        timeout: float | None,
    ) -> tuple[Operation, FileDriver, Source, FileWrite]:
        check_name(name)
        source = Source(data)
        how = file_write(content_type, metadata, overwrite)
        self._writing(store_name, how, content_type)
        op, driver = self._prepare(_PUT, store_name, timeout, None)
        op.metadata = metadata
        op.repeatable = source.repeatable and overwrite
        return op, driver, source, how

    @error_context(_PUT)
    def put_file(
        self,
        store_name: str,
        name: str,
        data: FileSource,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = True,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> FileInfo:
        """Store a file, streamed: what is read is the old content or all of the new, never a part.

        >>> info = client.file.put_file("reports", "2026/q1.csv", b"item,total", content_type="text/csv")
        >>> info.size
        10

        Args:
            store_name: the component.
            name: of the file.
            data: bytes, a ``pathlib.Path`` or binary file object to copy from, or an iterable of bytes. No ``str``. `put_file_async` also takes an asynchronous iterable, and reads other iterables and file objects in a thread.
            content_type: ``application/octet-stream`` by default.
            metadata: kept with the file, at most 2,048 bytes; replaces what an earlier file of the name had.
            overwrite: ``False`` only creates.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.

        Raises:
            AlreadyExistsError: ``overwrite=False``, and there is one.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full. Nothing was stored.
            Exception: whatever the iterator or file object raises, as it is. Nothing was stored.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver, source, how = self._putting(store_name, name, data, content_type, metadata, overwrite, timeout)
        if source.asynchronous:
            raise InvalidArgumentError("data is an asynchronous iterable: await put_file_async")
        try:
            return self._frame.call(op, driver.write, name, source, how)
        except CloudRuntimesError:
            if source.failure is not None and not isinstance(source.failure, CloudRuntimesError):
                raise source.failure from None
            raise

    @error_context(_PUT)
    async def put_file_async(
        self,
        store_name: str,
        name: str,
        data: AsyncFileSource,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        overwrite: bool = True,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> FileInfo:
        """Store a file, streamed: what is read is the old content or all of the new, never a part.

        >>> info = client.file.put_file("reports", "2026/q1.csv", b"item,total", content_type="text/csv")
        >>> info.size
        10

        Args:
            store_name: the component.
            name: of the file.
            data: bytes, a ``pathlib.Path`` or binary file object to copy from, or an iterable of bytes. No ``str``. `put_file_async` also takes an asynchronous iterable, and reads other iterables and file objects in a thread.
            content_type: ``application/octet-stream`` by default.
            metadata: kept with the file, at most 2,048 bytes; replaces what an earlier file of the name had.
            overwrite: ``False`` only creates.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.

        Raises:
            AlreadyExistsError: ``overwrite=False``, and there is one.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full. Nothing was stored.
            Exception: whatever the iterator or file object raises, as it is. Nothing was stored.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver, source, how = self._putting(store_name, name, data, content_type, metadata, overwrite, timeout)
        try:
            if source.asynchronous:
                return await self._frame.call_async(op, self._stream, driver, name, source, how)
            return await self._frame.call_async(op, driver.write_async, name, source, how)
        except CloudRuntimesError:
            if source.failure is not None and not isinstance(source.failure, CloudRuntimesError):
                raise source.failure from None
            raise

    @staticmethod
    async def _stream(op: Operation, driver: FileDriver, name: str, source: Source, how: FileWrite) -> FileInfo:
        import asyncio
        from contextlib import aclosing

        writer = await driver.open_write_async(op, name, how)
        stored = False
        try:
            limit = asyncio.timeout(op.remaining())
            try:
                async with limit, aclosing(source.awaited()) as chunks:
                    async for chunk in chunks:
                        await writer.write_async(op, chunk)
            except TimeoutError as error:
                if limit.expired():
                    raise op.timed_out("the data") from error
                raise
            stored = True
            return await writer.commit_async(op)
        except BaseException as error:
            if not stored and not isinstance(error, Exception):
                mark_interrupted(error, False)
            raise
        finally:
            await writer.abort_async(op)

    @error_context(_DELETE)
    def delete_file(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete a file; an absent one is fine.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            PermissionDeniedError: the disk is read-only.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_DELETE, store_name, timeout, metadata)
        self._frame.call(op, driver.delete, name)

    @error_context(_DELETE)
    async def delete_file_async(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete a file; an absent one is fine.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            PermissionDeniedError: the disk is read-only.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_DELETE, store_name, timeout, metadata)
        await self._frame.call_async(op, driver.delete_async, name)

    def _pair(
        self, method: Method, feature: str, store_name: str, source: str, target: str, timeout: Any, metadata: Any
    ) -> tuple[Operation, FileDriver]:
        check_name(source, "source")
        check_name(target, "target")
        op, driver = self._prepare(method, store_name, timeout, metadata)
        self._frame.need(driver, feature, method.name, store_name)
        return op, driver

    @error_context(_COPY)
    def copy_file(
        self,
        store_name: str,
        source: str,
        target: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Store a file under a second name, with its content type and metadata, over an earlier file of that name.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            source: the name of the file.
            target: the second name.

        Raises:
            MissingFileError: there is no ``source``.
            UnsupportedError: the component cannot.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._pair(_COPY, spi.COPY, store_name, source, target, timeout, metadata)
        return self._required(self._frame.call(op, driver.copy, source, target), source, store_name)

    @error_context(_COPY)
    async def copy_file_async(
        self,
        store_name: str,
        source: str,
        target: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Store a file under a second name, with its content type and metadata, over an earlier file of that name.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            source: the name of the file.
            target: the second name.

        Raises:
            MissingFileError: there is no ``source``.
            UnsupportedError: the component cannot.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._pair(_COPY, spi.COPY, store_name, source, target, timeout, metadata)
        return self._required(await self._frame.call_async(op, driver.copy_async, source, target), source, store_name)

    @error_context(_MOVE)
    def move_file(
        self,
        store_name: str,
        source: str,
        target: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Give a file another name, in one step, over an earlier file of that name. Its etag stays.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            source: the name of the file.
            target: the new name.

        Raises:
            MissingFileError: there is no ``source``.
            UnsupportedError: the component cannot.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._pair(_MOVE, spi.MOVE, store_name, source, target, timeout, metadata)
        return self._required(self._frame.call(op, driver.move, source, target), source, store_name)

    @error_context(_MOVE)
    async def move_file_async(
        self,
        store_name: str,
        source: str,
        target: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Give a file another name, in one step, over an earlier file of that name. Its etag stays.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            source: the name of the file.
            target: the new name.

        Raises:
            MissingFileError: there is no ``source``.
            UnsupportedError: the component cannot.
            PermissionDeniedError, ResourceExhaustedError: the disk is read-only or full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._pair(_MOVE, spi.MOVE, store_name, source, target, timeout, metadata)
        return self._required(await self._frame.call_async(op, driver.move_async, source, target), source, store_name)

    def _signing(
        self, store_name: str, name: str, expires: Any, method: Any, timeout: float | None, metadata: Any
    ) -> tuple[Operation, FileDriver, float]:
        check_name(name)
        seconds = check_expires(expires)
        if method not in ("GET", "PUT"):
            raise InvalidArgumentError(f"method {method!r}: give 'GET' or 'PUT'")
        op, driver = self._prepare(_URL, store_name, timeout, metadata)
        self._frame.need(driver, spi.URL, "url", store_name)
        return op, driver, seconds

    @error_context(_URL)
    def url(
        self,
        store_name: str,
        name: str,
        *,
        expires: float | timedelta,
        method: UrlMethod = "GET",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Return a URL with which whoever has it may read or write a file for some time, without credentials.

        Nothing is sent: the file may be absent. A ``GET`` gives its content. A ``PUT`` stores what it carries, over an earlier file, without metadata. The URL is a secret while it holds. It ends sooner with credentials that do.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.
            expires: seconds, or a ``timedelta``; at most 7 days.
            method: what may be done, ``"GET"`` or ``"PUT"``.

        Raises:
            InvalidArgumentError: ``expires`` or ``method`` is wrong.
            UnsupportedError: the component has no such URLs.
            UnauthenticatedError: there are no credentials to sign with.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.

        >>> client.file.url("reports", "2026.csv", expires=600)  # doctest: +SKIP
        """
        op, driver, seconds = self._signing(store_name, name, expires, method, timeout, metadata)
        return self._frame.call(op, driver.url, name, method, seconds)

    @error_context(_URL)
    async def url_async(
        self,
        store_name: str,
        name: str,
        *,
        expires: float | timedelta,
        method: UrlMethod = "GET",
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Return a URL with which whoever has it may read or write a file for some time, without credentials.

        Nothing is sent: the file may be absent. A ``GET`` gives its content. A ``PUT`` stores what it carries, over an earlier file, without metadata. The URL is a secret while it holds. It ends sooner with credentials that do.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.
            expires: seconds, or a ``timedelta``; at most 7 days.
            method: what may be done, ``"GET"`` or ``"PUT"``.

        Raises:
            InvalidArgumentError: ``expires`` or ``method`` is wrong.
            UnsupportedError: the component has no such URLs.
            UnauthenticatedError: there are no credentials to sign with.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.

        >>> client.file.url("reports", "2026.csv", expires=600)  # doctest: +SKIP
        """
        op, driver, seconds = self._signing(store_name, name, expires, method, timeout, metadata)
        return await self._frame.call_async(op, driver.url_async, name, method, seconds)
