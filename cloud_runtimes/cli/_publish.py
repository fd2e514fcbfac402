"""``publish``: lines → events, through the batching publisher.

A line is parsed to see that it is JSON, and its own bytes are published: numbers and spaces stay as they were written. At a bad line reading ends, and what came before is still delivered.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import CloudRuntimesError, InvalidArgumentError, PayloadError, ResourceExhaustedError
from ._completing import stores
from ._completing import topics as complete_topics
from ._errors import UsageError, exit_code, explain
from ._session import connect
from ._streams import Advance, complain, note, progress, stopping

if TYPE_CHECKING:
    from ..pubsub import Publisher

_MAX_LINE: Final = 64 * 1024 * 1024
"""A file without line ends must not fill the memory."""
_LAST_FLUSH: Final = 5.0


class _BadLine(Exception):
    """Says which line, and what is wrong with it."""


def publish(
    context: typer.Context,
    pubsub: Annotated[
        str,
        typer.Argument(help="Name of the pub/sub component.", show_default=False, autocompletion=stores("pubsub")),
    ],
    topic: Annotated[str, typer.Argument(help="Topic.", show_default=False, autocompletion=complete_topics)],
    file: Annotated[str, typer.Argument(help="Where lines come from; - is stdin.")] = "-",
    key: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Ordering key: a field of each object, e.g. order.id.")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="CloudEvents attribute of all events; repeatable.")
    ] = None,
    raw_lines: Annotated[bool, typer.Option("--raw-lines", help="Lines are text/plain, not JSON.")] = False,
    batch_events: Annotated[int, typer.Option(metavar="N", help="Events of a batch at most.")] = 1000,
    linger: Annotated[float, typer.Option(metavar="SECONDS", help="How long a batch waits to fill.")] = 0.005,
) -> int:
    """Publish lines, one JSON value each, as they are; blank lines are skipped. Stops at a bad line."""
    from ..client import context_of
    from ._values import pairs

    if key is not None and raw_lines:
        raise UsageError("--key names a field of JSON: it does not go with --raw-lines")
    if file.lstrip()[:1] in ("{", "[", '"') and not os.path.exists(file):
        raise UsageError(
            f"{file:.60}: events come from a file or stdin, as in: echo '{{\"id\": 1}}' | cloud-runtimes publish …"
        )
    path = None if key is None else key.split(".")
    attributes = dict(pairs(attribute, "--attribute"))
    if "id" in attributes:
        raise UsageError("--attribute id=…: every event needs an id of its own")
    with opened(file) as (lines, name, size), connect(context.obj) as client:
        context_of(client).frame("pubsub").driver(pubsub)  # a wrong name is told before any line is read
        publisher = client.pubsub.publisher(
            pubsub,
            topic,
            batch_events=batch_events,
            linger=linger,
            content_type="text/plain" if raw_lines else "application/json",
            attributes=attributes or None,
        )
        started = monotonic()
        code = 0
        with stopping(interrupt=True) as stop:
            try:
                with progress(size) as advance:
                    _send(publisher, lines, name, path, raw_lines, advance)
            except _BadLine as error:
                complain(str(error))
                code = 1
            except KeyboardInterrupt:
                code = stop.code
            code = _finish(publisher, code, stop)
        seconds = monotonic() - started
        done = publisher.stats()
    note(
        f"{done.delivered:,} event{'' if done.delivered == 1 else 's'} in {seconds:.2f} s, {done.delivered / max(seconds, 1e-9):,.0f} events/s, "
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
    from ..codec import json

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
    for index, field in enumerate(path):
        if not isinstance(value, dict) or field not in value:
            raise PayloadError(f"no field {'.'.join(path[: index + 1])!r} for --key")
        value = value[field]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise PayloadError(f"the field {'.'.join(path)!r} is no text and no integer, so it cannot be the key")
    return str(value)


@contextmanager
def opened(source: str) -> Iterator[tuple[IO[bytes], str, int | None]]:
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
