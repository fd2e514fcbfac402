"""The front with the extra ``[cli]``: the program and its commands.

A command and its options are one function. Its body imports what `--help` does not need.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

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


class _Program(TyperGroup):
    """Group of commands that parses its own options and returns the rest as a callable.

    `run` calls it once typer has let go, which has ideas of its own about interrupts and closed pipes.
    """

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


app.command(short_help="Copy the data of one home to another.")(copy)
app.command(short_help="Serve the API of a Dapr sidecar.", cls=ServeCommand)(serve)
app.command(short_help="Tell what is installed and whether it works.")(doctor)
app.command(short_help="Write a configuration file with comments.")(init)
app.command(short_help="Publish lines of JSON.")(publish)
app.command(short_help="Write events to stdout.")(subscribe)
app.command(short_help="Write the topics of a pub/sub component.")(topics)
app.command(short_help="Write the groups of a topic.")(groups)
app.command(short_help="Write events and leave them there.")(peek)
app.command(short_help="Remove the events of a topic for good.")(purge)
app.command(short_help="Move a group to another place of its topic.")(seek)
app.command(short_help="Have a group get nothing for a time.")(pause)
app.command(short_help="Let a group that was paused go on.")(resume)
app.command(short_help="Delete a group.")(delete_group)
app.command(short_help="Delete a topic.")(delete_topic)
app.command(short_help="Publish events that were saved, as they were.")(restore)
app.command(short_help="Call a method of a service.")(invoke)
app.command(short_help="Write the applications that can be called.")(services)
app.command(short_help="Write the stores that there are.")(stores)
app.command(short_help="Write what needs a look.")(overview)
app.command(short_help="Show what needs a look, live.")(top)
app.command("run", short_help="Run an application: its methods, subscriptions and jobs.")(run_application)
app.command(short_help="Run an SQL statement.")(sql)
app.command(short_help="Show what services hold, on a page.")(dashboard)
app.add_typer(dead_app, name="dead")
app.add_typer(state_app, name="state")
app.add_typer(secret_app, name="secret")
app.add_typer(config_app, name="config")
app.add_typer(lock_app, name="lock")
app.add_typer(file_app, name="file")
app.add_typer(schedule_app, name="schedule")
app.add_typer(spool_app, name="spool")
app.add_typer(telemetry_app, name="telemetry")
