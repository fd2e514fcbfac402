"""The reading half of the file service, and what both halves share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import Service, error_context
from ..errors import InvalidArgumentError, MissingFileError
from ..spi import file as spi
from ..spi.file import FileDriver, FileInfo, FileWrite
from ..spi.operation import Method, Operation
from ._prepare import check_limit, check_name, check_range, check_text, file_write
from .handle import OPEN_FILE, FileHandle
from .types import FileMode

T = TypeVar("T")

_GET = Method("file", "get_file", repeatable=True, writes=False)
_STAT = Method("file", "stat_file", repeatable=True, writes=False)
_EXISTS = Method("file", "exists", repeatable=True, writes=False)
_LIST = Method("file", "list_files", repeatable=True, writes=False)


class FileReads(Service):
    """Reading, listing, and the handle."""

    name = "file"

    def _prepare(
        self, method: Method, store_name: str, timeout: float | None, metadata: Any
    ) -> tuple[Operation, FileDriver]:
        driver: FileDriver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
        check_metadata(metadata)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, metadata), driver

    def _missing(self, name: str, store_name: str) -> MissingFileError:
        return MissingFileError(f"there is no file {name!r} in {store_name!r}: list_files shows what there is")

    def _required(self, value: T | None, name: str, store_name: str) -> T:
        if value is None:
            raise self._missing(name, store_name)
        return value

    def _writing(self, store_name: str, how: FileWrite, given_type: Any) -> None:
        driver = self._frame.driver(store_name)
        if given_type is not None:
            self._frame.need(driver, spi.CONTENT_TYPE, "content_type=", store_name)
        if how.metadata:
            self._frame.need(driver, spi.METADATA, "metadata= of a file", store_name)
        if not how.overwrite:
            self._frame.need(driver, spi.EXCLUSIVE, "overwrite=False", store_name)

    @error_context(_GET)
    def get_file(
        self,
        store_name: str,
        name: str,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return a file's content, or a part of it. For what does not fit into memory there is `open_file`.

        >>> info = client.file.put_file("reports", "2026/q1.csv", b"item,total")
        >>> client.file.get_file("reports", "2026/q1.csv")
        b'item,total'

        Args:
            store_name: the component.
            name: of the file.
            start: first byte, ≥ 0; behind the end there is nothing, ``b""``.
            length: how many bytes at most; ``None``: all to the end.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            MissingFileError: there is no such file.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
            PermissionDeniedError: what has this name is a symbolic link, device, socket or pipe.
        """
        op, driver = self._getting(store_name, name, start, length, timeout, metadata)
        return self._required(self._frame.call(op, driver.read, name, start, length), name, store_name)

    @error_context(_GET)
    async def get_file_async(
        self,
        store_name: str,
        name: str,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return a file's content, or a part of it. For what does not fit into memory there is `open_file`.

        >>> info = client.file.put_file("reports", "2026/q1.csv", b"item,total")
        >>> client.file.get_file("reports", "2026/q1.csv")
        b'item,total'

        Args:
            store_name: the component.
            name: of the file.
            start: first byte, ≥ 0; behind the end there is nothing, ``b""``.
            length: how many bytes at most; ``None``: all to the end.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            MissingFileError: there is no such file.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
            PermissionDeniedError: what has this name is a symbolic link, device, socket or pipe.
        """
        op, driver = self._getting(store_name, name, start, length, timeout, metadata)
        return self._required(
            await self._frame.call_async(op, driver.read_async, name, start, length), name, store_name
        )

    def _getting(
        self, store_name: str, name: str, start: int, length: int | None, timeout: float | None, metadata: Any
    ) -> tuple[Operation, FileDriver]:
        check_name(name)
        check_range(start, length)
        op, driver = self._prepare(_GET, store_name, timeout, metadata)
        if start or length is not None:
            self._frame.need(driver, spi.RANGE, "start= and length=", store_name)
        return op, driver

    @error_context(OPEN_FILE)
    def open_file(
        self,
        store_name: str,
        name: str,
        mode: FileMode = "rb",
        *,
        content_type: str | None = None,
        overwrite: bool = True,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileHandle:
        """Return a handle for reading (``"rb"``) or writing (``"wb"``) piece by piece; made without I/O.

        Args:
            store_name: the component.
            name: of the file.
            mode: ``"wb"`` stores the file, instead of an earlier one, when the block ends.
            content_type, overwrite: with ``"wb"``, as in `put_file`.
            timeout: seconds for each of its calls.
            metadata: with ``"wb"``, of the file, as in `put_file`.

        Raises:
            InvalidArgumentError: the name or the mode is wrong, or what is for writing is given for reading.
            UnsupportedError: the component has no such option.
            AlreadyExistsError: at the end of the block: the file exists, and ``overwrite`` is off.
            MissingFileError: at the first I/O: there is no such file to read.

        >>> with client.file.open_file("reports", "2026.csv", "wb") as file:  # doctest: +SKIP
        ...     file.write(b"a,b\\n")
        """
        check_name(name)
        check_timeout(timeout)
        if mode not in ("rb", "wb"):
            raise InvalidArgumentError(f"mode {mode!r}: give 'rb' or 'wb'")
        how = file_write(content_type, metadata, overwrite)
        if mode == "wb":
            self._writing(store_name, how, content_type)
        elif content_type is not None or not overwrite:
            raise InvalidArgumentError("content_type= and overwrite= are for mode 'wb'")
        return FileHandle(self, store_name, name, mode, how, timeout)

    @error_context(_STAT)
    def stat_file(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Return what is known of a file.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            MissingFileError: there is no such file.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_STAT, store_name, timeout, metadata)
        return self._required(self._frame.call(op, driver.stat, name), name, store_name)

    @error_context(_STAT)
    async def stat_file_async(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Return what is known of a file.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            MissingFileError: there is no such file.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_STAT, store_name, timeout, metadata)
        return self._required(await self._frame.call_async(op, driver.stat_async, name), name, store_name)

    @error_context(_EXISTS)
    def exists(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Return whether there is such a file; a folder is none.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_EXISTS, store_name, timeout, metadata)
        return self._frame.call(op, driver.stat, name) is not None

    @error_context(_EXISTS)
    async def exists_async(
        self,
        store_name: str,
        name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Return whether there is such a file; a folder is none.

        Args:
            store_name, name, timeout, metadata: as in `get_file`.

        Raises:
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        check_name(name)
        op, driver = self._prepare(_EXISTS, store_name, timeout, metadata)
        return await self._frame.call_async(op, driver.stat_async, name) is not None

    @error_context(_LIST)
    def list_files(
        self,
        store_name: str,
        prefix: str = "",
        *,
        recursive: bool = True,
        limit: int | None = None,
        after: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[FileInfo]:
        """Return files in the byte order of their names.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            prefix: with which names begin, literally: ``"a/b"`` also finds ``a/bc``.
            recursive: ``False`` stops at the next ``/`` behind the prefix. What lies deeper is one `FileInfo` whose name ends with it (``is_folder``).
            limit: how many at most; ``None``: all.
            after: only those behind this name, for paging: the last of the page before.

        Raises:
            InvalidArgumentError: ``prefix``, ``limit`` or ``after`` is wrong.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._listing(store_name, prefix, recursive, limit, after, timeout, metadata)
        return self._frame.call(op, driver.list_files, prefix, recursive, limit, after)

    @error_context(_LIST)
    async def list_files_async(
        self,
        store_name: str,
        prefix: str = "",
        *,
        recursive: bool = True,
        limit: int | None = None,
        after: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[FileInfo]:
        """Return files in the byte order of their names.

        Args:
            store_name, timeout, metadata: as in `get_file`.
            prefix: with which names begin, literally: ``"a/b"`` also finds ``a/bc``.
            recursive: ``False`` stops at the next ``/`` behind the prefix. What lies deeper is one `FileInfo` whose name ends with it (``is_folder``).
            limit: how many at most; ``None``: all.
            after: only those behind this name, for paging: the last of the page before.

        Raises:
            InvalidArgumentError: ``prefix``, ``limit`` or ``after`` is wrong.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_file`.
        """
        op, driver = self._listing(store_name, prefix, recursive, limit, after, timeout, metadata)
        return await self._frame.call_async(op, driver.list_files_async, prefix, recursive, limit, after)

    def _listing(
        self, store_name: str, prefix: Any, recursive: Any, limit: Any, after: Any, timeout: float | None, metadata: Any
    ) -> tuple[Operation, FileDriver]:
        check_text(prefix, "prefix")
        if after is not None:
            check_text(after, "after")
        if not isinstance(recursive, bool):
            raise InvalidArgumentError(f"recursive must be True or False, got {recursive!r}")
        check_limit(limit)
        return self._prepare(_LIST, store_name, timeout, metadata)
