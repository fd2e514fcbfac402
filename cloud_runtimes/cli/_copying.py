"""Records from one store to another: what is missing there is written, then all of it is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from time import sleep
from typing import Any, Final, NamedTuple

from ..spi.file import FileDriver, FileInfo, FileWrite
from ..spi.operation import Method, Operation
from ..spi.portable import BATCH_RECORDS, EventsRecord, GroupRecord, Portable, Records

_COPY: Final = Method("copy", "copy", repeatable=True)  # what was written is found, and not written again
_CHUNK: Final = 1024 * 1024


@dataclass(slots=True)
class Result:
    """How source and target compare.

    Attributes:
        items: of the source: events, and records of other services.
        written: items, by this run.
        missing, different: items of the target.
        checksums: of source and target.
    """

    items: int = 0
    written: int = 0
    missing: int = 0
    different: int = 0
    checksums: tuple[str, str] = ("", "")

    @property
    def good(self) -> bool:
        return not self.missing and not self.different and self.checksums[0] == self.checksums[1]


@dataclass(slots=True)
class Transfer:
    """The data of one name.

    Attributes:
        service, name: at the source.
        target_name: at the target.
        timeout: seconds of one call.
    """

    service: str
    name: str
    target_name: str
    source: Portable
    target: Portable
    timeout: float | None
    result: Result = field(default_factory=Result)

    def call(self, method: Callable[..., Any], *values: Any) -> Any:
        """Call a driver's method; what is transient is tried again."""
        op = Operation(_COPY, self.name, self.timeout)
        while True:
            try:
                return method(op, *values)
            except Exception as error:
                sleep(op.failed(error, "capa"))

    def _batches(self) -> Iterator[tuple[Records, Mapping[Any, Any]]]:
        """Give the source's records, with those of the target by their keys."""
        after = None
        while records := self.call(self.source.export, after):
            yield records, self.call(self.target.find, [record.key for record in records])
            after = records[-1]

    def copy(self, overwrite: bool, advance: Callable[[int], None]) -> None:
        """Write what the target does not have, and with ``overwrite`` what is different there."""
        for records, matches in self._batches():
            missing = [
                record
                for record in records
                if (there := matches.get(record.key)) is None or (overwrite and _differ(record, there))
            ]
            if missing:
                self.call(self.target.put, missing)
                self.result.written += sum(map(_items, missing))
            advance(len(records))

    def verify(self, advance: Callable[[int], None]) -> None:
        """Compare all of it, record by record."""
        result, sums = self.result, (blake2b(digest_size=8), blake2b(digest_size=8))
        for records, matches in self._batches():
            for record in records:
                there, items = matches.get(record.key), _items(record)
                result.items += items
                mine = record.content(record)
                _feed(sums[0], mine)
                if there is None:
                    result.missing += items or 1
                    continue
                theirs = there.content(record)
                _feed(sums[1], theirs)
                if mine != theirs:
                    result.different += items or 1
            advance(len(records))
        result.checksums = (sums[0].hexdigest(), sums[1].hexdigest())


def _differ(record: Any, there: Any) -> bool:
    return bool(record.content(record) != there.content(record))


def _items(record: Any) -> int:
    if isinstance(record, EventsRecord):
        return record.events
    return 0 if isinstance(record, GroupRecord) else 1


def _feed(sum: Any, value: Any) -> None:
    """Add a value to a checksum; no two different values are the same bytes."""
    if isinstance(value, tuple):
        sum.update(b"(%d" % len(value))
        for each in value:
            _feed(sum, each)
        return
    data = value if isinstance(value, bytes) else repr(value).encode()
    sum.update(b"%s%d:" % (type(value).__name__.encode(), len(data)))
    sum.update(data)


class FileRecord(NamedTuple):
    """A file; its content is read when it is asked for."""

    key: str
    info: FileInfo
    files: PortableFiles

    def content(self, source: FileRecord) -> tuple[Any, ...]:
        """See `Record`."""
        info, sum = self.info, blake2b(digest_size=16)
        if info.size == source.info.size:  # else they differ anyway
            for data in self.files.read(self.key):
                sum.update(data)
        return info.size, info.content_type, tuple(sorted(info.metadata.items())), sum.digest()


class PortableFiles(Portable):
    """The files of a store, by its driver alone. ``operation`` makes that of one step, since a large file takes many."""

    def __init__(self, driver: FileDriver, operation: Callable[[], Operation]) -> None:
        self._driver = driver
        self._operation = operation

    def count(self, op: Operation, /) -> int:
        count, after = 0, None
        while files := self._driver.list_files(self._operation(), "", True, BATCH_RECORDS, after):
            count, after = count + len(files), files[-1].name
        return count

    def export(self, op: Operation, after: FileRecord | None, /) -> list[FileRecord]:
        names = self._driver.list_files(op, "", True, BATCH_RECORDS, after.key if after else None)
        return list(self.find(op, [info.name for info in names]).values())

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, FileRecord]:
        infos = {key: self._driver.stat(op, key) for key in keys}  # a listing may not tell all
        return {key: FileRecord(key, info, self) for key, info in infos.items() if info is not None}

    def put(self, op: Operation, records: Records, /) -> None:
        for record in records:
            how = FileWrite(record.info.content_type, record.info.metadata or None)
            writer = self._driver.open_write(self._operation(), record.key, how)
            try:
                for data in record.files.read(record.key):
                    writer.write(self._operation(), data)
                writer.commit(self._operation())
            finally:
                writer.abort(self._operation())

    def read(self, name: str) -> Iterator[bytes]:
        """Give the content of a file in pieces."""
        reader = self._driver.open_read(self._operation(), name)
        if reader is None:
            return
        try:
            offset = 0
            while data := reader.read(self._operation(), offset, _CHUNK):
                yield data
                offset += len(data)
        finally:
            reader.close(self._operation())
