"""The front with the extra ``[cli]``: the program and its commands.

A command and its options are one function. Its body imports what `--help` does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from .. import __version__
from ._admin import dead_app, groups, peek, purge, seek, topics
from ._app_serve import serve
from ._config import config_app
from ._copy import copy
from ._daprd import ServeCommand
from ._dashboard import dashboard
from ._file import file_app
from ._lock import lock_app
from ._operating import services, stores
from ._publish import publish
from ._rpc import invoke
from ._run import run as run_application
from ._schedule import schedule_app
from ._session import Invocation
from ._settings_file import init
from ._spool import spool_app
from ._sql import sql
from ._state import secret_app, state_app
from ._steering import delete_group, delete_topic, pause, restore, resume
from ._streams import complain, note, write
from ._subscribe import subscribe
from ._telemetry import telemetry_app
from ._top import overview, top

_parts: Final[dict[str, typer.Typer]] = {}


def _part(name: str) -> typer.Typer:
    """Return what a command is added to, or a group of some."""
    _parts[name] = part = typer.Typer(add_completion=False, rich_markup_mode=None)
    return part


def _add(work: Callable[..., int], short_help: str, *, name: str | None = None, cls: Any = None) -> None:
    """Add a command, by default under the name of its function."""
    name = name or work.__name__.replace("_", "-")
    _part(name).command(name, cls=cls, short_help=short_help)(work)


class _Commands(Mapping[str, Any]):
    """Commands by name. Each is made when somebody looks at it, since to make all takes longer than most of them."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            made: Any = typer.main.get_command(_parts[name])
            self._made[name] = made.commands[name] if hasattr(made, "commands") else made
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_parts)

    def __len__(self) -> int:
        return len(_parts)


class _Program(TyperGroup):
    """Group of commands that parses its own options and returns the rest as a callable.

    `run` calls it once typer has let go, which has ideas of its own about interrupts and closed pipes.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        commands: Any = _Commands()
        self.commands = commands

    def invoke(self, ctx: Any) -> Any:
        return partial(super().invoke, ctx)


app = typer.Typer(
    name="cloud-runtimes",
    cls=_Program,
    help="RPC, state, pub/sub, configuration, secrets, files, locks, databases and scheduled jobs of an application, over the runtime it uses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: list[str], invocation: Invocation) -> int:
    """Parse and run."""
    command: Any = typer.main.get_command(app)
    try:
        work = command.main(args=arguments, prog_name="cloud-runtimes", standalone_mode=False, obj=invocation)
        return int(work() if callable(work) else work or 0)  # else help or the version were shown
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if (moved := _moved(arguments, getattr(error, "option_name", None), command)) is not None:
            return run(moved, invocation)
        # typer's own usage errors; their class has moved between its versions, these two attributes have not
        code, message = getattr(error, "exit_code", None), getattr(error, "format_message", None)
        if not isinstance(code, int) or message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            note(message())
        else:
            context: Any = getattr(error, "ctx", None)
            hint = f" (see: {context.command_path} --help)" if context is not None else ""
            complain(" ".join(message().split()) + hint)
        return code


def _moved(arguments: list[str], unknown: str | None, command: Any) -> list[str] | None:
    """Return the arguments with an option that the command does not have before it, where it belongs; ``None``: it is none of those, or is there already."""
    option = next((each for each in command.params if unknown in each.opts), None)
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    at = next((index for index, word in enumerate(words) if word.partition("=")[0] == unknown), 0)
    if option is None or not at:
        return None
    end = at + (1 if option.is_flag or "=" in words[at] else 2)
    if end > len(words):
        return None
    return [*arguments[at:end], *arguments[:at], *arguments[end:]]


def _show_version(wanted: bool) -> None:
    if wanted:
        write(f"cloud-runtimes {__version__}\n".encode())
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Option(metavar="PATH", help="TOML, JSON or YAML file, or a folder of such files.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime, e.g. capa.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Where a sidecar listens.")] = None,
    app_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The application: event source and consumer group.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit of every call (30).")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    invocation: Invocation = context.obj
    invocation.config, invocation.runtime, invocation.endpoint = config, runtime, endpoint
    invocation.app_id, invocation.timeout, invocation.debug = app_id, timeout, debug


def doctor(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> int:
    """Tell what is installed and whether it works: exit code 0 when ready, else 1."""
    from ._doctor import doctor as examine

    return examine(context.obj, json)


_add(copy, "Copy the data of one home to another.")
_add(serve, "Serve the API of a Dapr sidecar.", cls=ServeCommand)
_add(doctor, "Tell what is installed and whether it works.")
_add(init, "Write a configuration file with comments.")
_add(publish, "Publish lines of JSON.")
_add(subscribe, "Write events to stdout.")
_add(topics, "Write the topics of a pub/sub component.")
_add(groups, "Write the groups of a topic.")
_add(peek, "Write events and leave them there.")
_add(purge, "Remove the events of a topic for good.")
_add(seek, "Move a group to another place of its topic.")
_add(pause, "Have a group get nothing for a time.")
_add(resume, "Let a group that was paused go on.")
_add(delete_group, "Delete a group.")
_add(delete_topic, "Delete a topic.")
_add(restore, "Publish events that were saved, as they were.")
_add(invoke, "Call a method of a service.")
_add(services, "Write the applications that can be called.")
_add(stores, "Write the stores that there are.")
_add(overview, "Write what needs a look.")
_add(top, "Show what needs a look, live.")
_add(run_application, "Run an application: its methods, subscriptions and jobs.", name="run")
_add(sql, "Run an SQL statement.")
_add(dashboard, "Show what services hold, on a page.")
for _name, _group in {
    "dead": dead_app,
    "state": state_app,
    "secret": secret_app,
    "config": config_app,
    "lock": lock_app,
    "file": file_app,
    "schedule": schedule_app,
    "spool": spool_app,
    "telemetry": telemetry_app,
}.items():
    _part(_name).add_typer(_group, name=_name)
