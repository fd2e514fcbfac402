"""``publish``: lines → events, through the batching publisher.

A line is parsed to see that it is JSON, and its own bytes are published: numbers and spaces stay as they were written. At a bad line reading ends, and what came before is still delivered.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import IO, Any, Final

from ..codec import json
from ..codec.payload import JSON
from ..errors import CloudRuntimesError, InvalidArgumentError, PayloadError, ResourceExhaustedError
from ..pubsub import Publisher
from ._errors import UsageError, exit_code, explain
from ._progress import Advance, progress
from ._session import Invocation, connect
from ._streams import complain, note, stopping

__all__ = ["publish"]

TEXT: Final = "text/plain"
_MAX_LINE: Final = 64 * 1024 * 1024
"""A file without line ends must not fill the memory."""
_LAST_FLUSH: Final = 5.0


class _BadLine(Exception):
    """Says which line, and what is wrong with it."""


def publish(
    invocation: Invocation,
    pubsub: str,
    topic: str,
    source: str,
    *,
    key: str | None,
    attributes: Sequence[str],
    raw_lines: bool,
    batch_events: int,
    linger: float,
) -> int:
    """Publish the lines of ``source``; return the exit code."""
    if key is not None and raw_lines:
        raise UsageError("--key names a field of JSON: it does not go with --raw-lines")
    path = None if key is None else key.split(".")
    common = _attributes(attributes)
    with _opened(source) as (file, name, size), connect(invocation) as client:
        client.pubsub._driver(pubsub)  # a wrong name is told before any line is read
        publisher = client.pubsub.publisher(
            pubsub,
            topic,
            batch_events=batch_events,
            linger=linger,
            content_type=TEXT if raw_lines else JSON,
            attributes=common or None,
        )
        started = monotonic()
        code = 0
        with stopping(interrupt=True) as stop:
            try:
                with progress(size) as advance:
                    _send(publisher, file, name, path, raw_lines, advance)
            except _BadLine as error:
                complain(str(error))
                code = 1
            except KeyboardInterrupt:
                code = stop.code
            code = _finish(publisher, code, stop)
        seconds = monotonic() - started
        done = publisher.stats()
    note(
        f"{done.delivered:,} events in {seconds:.2f} s, {done.delivered / max(seconds, 1e-9):,.0f} events/s, "
        f"{done.failed:,} failed"
    )
    return code


def _finish(publisher: Publisher, code: int, stop: Any) -> int:
    """Wait until all is settled; return the exit code, in which an earlier failure counts before a later one."""
    try:
        # each event ends by itself, at delivery_timeout at the latest
        publisher.flush(timeout=_LAST_FLUSH if stop.signal else None)
        publisher.close()
    except KeyboardInterrupt:
        publisher.close(timeout=0.1)
        return int(stop.code)
    except CloudRuntimesError as error:
        complain(explain(error))
        publisher.close(timeout=0.1)
        return code or exit_code(error)
    return code


def _send(
    publisher: Publisher, file: IO[bytes], name: str, path: list[str] | None, raw_lines: bool, advance: Advance
) -> None:
    events = read = number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        read += len(line)
        if line.isspace():
            continue
        line = line.rstrip(b"\r\n")
        try:
            if len(line) >= _MAX_LINE:
                raise PayloadError(f"longer than {_MAX_LINE:,} bytes")
            if raw_lines:
                line.decode()
                key = None
            else:
                value = json.decode(line)
                key = None if path is None else _key(value, path)
            # no limit here: while the broker is away, what waits fails by itself and makes room
            publisher.send(line, key=key, timeout=None)
        except UnicodeDecodeError as error:
            raise _BadLine(f"{name}, line {number}: not UTF-8 at byte {error.start}") from None
        except (InvalidArgumentError, ResourceExhaustedError) as error:
            raise _BadLine(f"{name}, line {number}: {error}") from error
        events += 1
        advance(events, read)


def _key(value: Any, path: list[str]) -> str:
    for place, field in enumerate(path):
        if not isinstance(value, dict) or field not in value:
            raise PayloadError(f"no field {'.'.join(path[: place + 1])!r} for --key")
        value = value[field]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise PayloadError(f"the field {'.'.join(path)!r} is no text and no integer, so it cannot be the key")
    return str(value)


def _attributes(given: Sequence[str]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise UsageError(f"--attribute {each!r}: give NAME=VALUE")
        if name == "id":
            raise UsageError("--attribute id=…: every event needs an id of its own")
        attributes[name] = value
    return attributes


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], str, int | None]]:
    """Give the file, its name for messages, and its size where it has one."""
    if source == "-":
        yield sys.stdin.buffer, "stdin", None
        return
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from error
    with file:
        status = os.fstat(file.fileno())
        yield file, source, status.st_size if stat.S_ISREG(status.st_mode) else None
