"""``copy``: the data of one home, or of one name's components, to another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from urllib.parse import urlsplit

import typer

from .. import config, registry
from .._core.arguments import HIDDEN
from ..client import SERVICES
from ..errors import UnsupportedError
from ..spi.executor import Executor
from ..spi.operation import Method, Operation
from ._errors import NOT_FOUND, UsageError
from ._session import Invocation, logging_to_stderr
from ._streams import BOLD, complain, note, progress, styled, write

if TYPE_CHECKING:
    from ..runtimes.capa import CapaRuntime
    from ..spi.component import Component
    from ..spi.file import FileDriver
    from ..spi.portable import Portable
    from ._copying import Transfer

COPIED: Final = ("pubsub", "configuration", "state", "file", "schedule")
"""The services with data that is copied, in this order: events may be refused, so they come first."""
_NOT_COPIED: Final = (
    "secrets, telemetry, locks, the registry of services and events that wait in an outbox or a spool are not copied; "
    "for databases use pg_dump, .backup or the like"
)
_LIST: Final = Method("copy", "list", repeatable=True, writes=False)


@dataclass(slots=True)
class _Side:
    """The source or the target.

    Attributes:
        option: that names it.
        runtime: with its components.
        table: the name of the tables that are meant; ``None``: all that there is.
        settings: of its configuration.
        timeout: seconds of a call.
    """

    option: str
    runtime: CapaRuntime
    table: str | None
    settings: config.ClientSettings
    timeout: float | None

    def component(self, service: str, name: str) -> Component:
        """Return the component with the data of a name."""
        declared = sorted(self.settings.components.get(service, ()))
        if service == "schedule" and declared:  # its names are applications
            if self.table is None and len(declared) > 1:
                raise UsageError(f"{self.option}: there are several tables [schedule.…]: give the name of one")
            return self.runtime.component(service, self.table or declared[0])
        if self.table is not None and self.table not in declared:
            raise UsageError(
                f"{self.option} {self.table}: there is no table [{service}.{self.table}]: add it, or choose the others with --service"
            )
        return self.runtime.component(service, self.table or name)

    def names(self, service: str) -> Sequence[str]:
        """Return the names of a service that have data, or may have."""
        declared = [name for name in self.settings.components.get(service, ()) if self.table in (None, name)]
        if service == "schedule" and declared:
            return self.component(service, "").names(self.operation(service), service)
        all_names = set(declared)
        if self.table is None and (home := self.runtime.undeclared(service)) is not None:
            all_names.update(home.names(self.operation(service), service))
        return sorted(name for name in all_names if not name.startswith(HIDDEN))

    def operation(self, name: str) -> Operation:
        """Return that of one step."""
        return Operation(_LIST, name, self.timeout)

    def portable(self, service: str, name: str) -> Portable:
        """Return the data of a name."""
        component = self.component(service, name)
        name = name if service == "schedule" else self.table or name
        if service not in component.services:
            raise UnsupportedError(
                f"the component {component.name!r} has no {service}: choose the others with --service",
                service=service,
                component=name,
            )
        if service == "file":
            from ._copying import PortableFiles

            driver = cast("FileDriver", component.driver(service, name))
            driver.executor = self.runtime.executor
            return PortableFiles(driver, lambda: self.operation(name))
        return component.portable(service, name)


def copy(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="HOME", help="Where the data is; else the application's home.", show_default=False
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="HOME", help="Where it goes; else the application's home.", show_default=False),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="state, pubsub, configuration, file or schedule; repeatable; else all."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Store, pub/sub name or application; repeatable; else all.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is different on the target; never events.")
    ] = False,
) -> int:
    """Copy state, configuration, files, jobs and events to another home, and compare both. Stop the application first: what it writes meanwhile may be missed.

    HOME is a folder or a URL. For a URL with a password, give env:VARIABLE, a variable that holds it. config:FILE is the home of another configuration. A name stands for the component tables of that name, such as [state.NAME]. Without --from or --to, that side is the home of the application.

    Events keep their ids, keys and times, and each group finds what it had not settled. Running it again goes on where it was interrupted, and changes nothing where it was not. What the target has otherwise stays, and the exit code is 1.
    """
    if source is None and target is None:
        raise UsageError("give --from or --to; the one that is not given is the home of the application")
    for each in service or ():
        if each not in COPIED:
            raise UsageError(f"--service {each!r}: {', '.join(COPIED)} are copied; {_NOT_COPIED}")
    with logging_to_stderr(), ExitStack() as stack:
        one = stack.enter_context(_opened(context.obj, "--from", source))
        two = stack.enter_context(_opened(context.obj, "--to", target))
        transfers = list(_plan(one, two, service or COPIED, name or ()))
        if not transfers:
            complain("--from has nothing that is copied")
            return NOT_FOUND
        for transfer in transfers:
            if user := transfer.call(transfer.source.in_use):
                note(f"warning: {transfer.service} {transfer.name!r} is in use: {user}; stop the application first")
        total = sum(transfer.call(transfer.source.count) for transfer in transfers)
        done = 0
        with progress(total * 2, "records") as show:

            def advance(records: int) -> None:
                nonlocal done
                done += records
                show(done, done)

            for transfer in transfers:
                transfer.copy(overwrite, advance)
            for transfer in transfers:
                transfer.verify(advance)
    head, *lines = _table(transfers)
    write("".join(f"{line}\n" for line in (styled(head, BOLD), *lines)).encode())
    note(_NOT_COPIED)
    if all(transfer.result.good for transfer in transfers):
        return 0
    complain(
        "source and target differ: what is different was left as it is on the target, where it may be newer; "
        "--overwrite replaces it, but for events"
    )
    return 1


def _plan(one: _Side, two: _Side, services: Sequence[str], names: Sequence[str]) -> Iterator[Transfer]:
    """Give what is to be copied; what cannot be is refused before anything is written."""
    from ._copying import Transfer

    seen: set[str] = set()
    for service in services:
        for name in one.names(service):
            if names and name not in names:
                continue
            seen.add(name)
            if _location(one, service, name) == _location(two, service, name):
                raise UsageError(f"{service} {name!r} of --from and of --to are the same: name two places")
            target = name if two.table is None or service == "schedule" else two.table
            yield Transfer(service, name, target, one.portable(service, name), two.portable(service, name), one.timeout)
    if absent := [name for name in names if name not in seen]:
        raise UsageError(f"--name {absent[0]!r}: --from has no data of that name")


def _location(side: _Side, service: str, name: str) -> tuple[Any, ...]:
    component = side.component(service, name)
    location = getattr(component, "path", None) or getattr(component.settings, "url", None) or component.settings
    within = (getattr(component.settings, each, None) for each in ("schema", "prefix"))
    return component.name, location, *within, side.table or name


@contextmanager
def _opened(invocation: Invocation, option: str, given: str | None) -> Iterator[_Side]:
    """Open a side; its runtime ends with the block."""
    source: Any = invocation.config
    table = None
    kind, colon, rest = (given or "").partition(":")
    if kind == "config" and colon:
        source = rest
    elif kind == "env" and colon:
        if not os.environ.get(rest):
            raise UsageError(f"{option} env:{rest}: the environment has no such variable")
        source = _home(option, os.environ[rest])
    elif given is not None:
        declared = config.read(invocation.config)[0] if "://" not in given else {}
        if any(given in declared[service] for service in COPIED if isinstance(declared.get(service), dict)):
            table = given
        else:
            if urlsplit(given).password:
                note(f"warning: every user of this machine may see the password of {option}: give env:NAME instead")
            source = _home(option, given)
    settings = config.load(
        source,
        services=SERVICES,
        endpoint=None,
        timeout=_timeout(invocation),
        runtime="capa",
        app_id=None,
        api_token=None,
    )
    executor = Executor()
    runtime = cast("CapaRuntime", registry.find(registry.RUNTIMES, "capa")(settings, executor))
    try:
        yield _Side(option, runtime, table, settings, settings.timeout)
    finally:
        runtime.close(5.0)
        executor.close(5.0)


def _timeout(invocation: Invocation) -> float | None:
    return config.DEFAULT_TIMEOUT if invocation.timeout is None else invocation.timeout


def _home(option: str, home: str) -> dict[str, Any]:
    """Return the configuration of a home. A source is not made."""
    from .._core.home import is_memory
    from ..components.local import FILES
    from ..components.sqlite.files import DATABASE
    from ..runtimes.capa.homes import Home

    if is_memory(home):
        raise UsageError(f"{option}: a home in memory ends with its process")
    source = option == "--from"
    if "://" in home:
        makes = hasattr(getattr(Home(home, option).component, "Settings", None), "ensure")
        return {"capa": {"home": {"url": home, "ensure": "check"} if source and makes else home}}
    folder = os.path.abspath(os.path.expanduser(home))
    if source and not any(os.path.exists(os.path.join(folder, name)) for name in (DATABASE, FILES)):
        raise UsageError(f"{option} {home!r}: there is no home in such a folder, and no component of that name")
    return {"capa": {"home": folder}}


def _table(transfers: Sequence[Transfer]) -> list[str]:
    heads = ("service", "name", "items", "written", "missing", "different", "checksum")
    rows: list[tuple[str, ...]] = [heads]
    for each in transfers:
        result = each.result
        numbers = (f"{number:,}" for number in (result.items, result.written, result.missing, result.different))
        name = each.name if each.name == each.target_name else f"{each.name} → {each.target_name}"
        sums = result.checksums
        rows.append((each.service, name, *numbers, sums[0] if sums[0] == sums[1] else f"{sums[0]} ≠ {sums[1]}"))
    widths = [max(len(row[index]) for row in rows) for index in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if 2 <= index <= 5 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
