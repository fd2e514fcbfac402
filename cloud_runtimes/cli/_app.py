"""The front with the extra ``[cli]``: options and help by typer; what a command does is in a module of its own, imported when it runs.

A command here returns its work as a callable, and `run` calls it once typer has let go: typer has ideas of its own about interrupts and closed pipes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias

import typer

from .. import __version__
from ._app_copy import copy
from ._app_file import file_app
from ._app_schedule import schedule_app
from ._app_serve import serve
from ._app_stores import config_app, secret_app, state_app
from ._app_telemetry import telemetry_app
from ._daprd import ServeCommand
from ._session import Invocation
from ._streams import complain, note, write

__all__ = ["run"]

Work: TypeAlias = Callable[[], int]

app = typer.Typer(
    name="cloud-runtimes",
    help="RPC, state, pub/sub, configuration, secrets, files, locks, databases and scheduled jobs of an application, over the runtime it uses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(state_app, name="state")
app.add_typer(secret_app, name="secret")
app.add_typer(config_app, name="config")
lock_app = typer.Typer(help="Hold locks.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lock_app, name="lock")
app.add_typer(file_app, name="file")
app.add_typer(schedule_app, name="schedule")
app.add_typer(telemetry_app, name="telemetry")
app.command(short_help="Copy the data of one home to another.")(copy)
app.command(short_help="Serve the API of a Dapr sidecar.", cls=ServeCommand)(serve)

PubSub = Annotated[str, typer.Argument(help="Name of the pub/sub component.", show_default=False)]
Topic = Annotated[str, typer.Argument(help="Topic.", show_default=False)]


def run(arguments: list[str], invocation: Invocation) -> int:
    """Parse and run."""
    command: Any = typer.main.get_command(app)
    try:
        work = command.main(args=arguments, prog_name="cloud-runtimes", standalone_mode=False, obj=invocation)
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
    return int(work() if callable(work) else work or 0)  # else help or the version were shown


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


@app.command(short_help="Tell what is installed and whether it works.")
def doctor(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> Work:
    """Tell what is installed and whether it works: exit code 0 when ready, else 1."""
    from ._doctor import doctor as examine

    return partial(examine, context.obj, json)


@app.command(short_help="Write a configuration file with comments.")
def init(context: typer.Context) -> Work:
    """Write cloud-runtimes.toml, with comments, in the working directory. It is found there and in all folders below."""
    from ._settings_file import init as write_it

    return partial(write_it, context.obj)


@app.command(short_help="Publish lines of JSON.")
def publish(
    context: typer.Context,
    pubsub: PubSub,
    topic: Topic,
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
) -> Work:
    """Publish lines, one JSON value each, as they are; blank lines are skipped. Stops at a bad line."""
    from ._publish import publish as run_publish

    return partial(
        run_publish,
        context.obj,
        pubsub,
        topic,
        file,
        key=key,
        attributes=attribute or [],
        raw_lines=raw_lines,
        batch_events=batch_events,
        linger=linger,
    )


@app.command(short_help="Write events to stdout.")
def subscribe(
    context: typer.Context,
    pubsub: PubSub,
    topic: Topic,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Consumer group; else the app id.")] = None,
    start: Annotated[
        str | None, typer.Option(metavar="earliest|latest|TIME", help="Where a new group begins: TIME in ISO 8601.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N events.")] = None,
    idle: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Stop when nothing came for so long.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Events written and acknowledged at once.")] = 100,
    no_ack: Annotated[bool, typer.Option("--no-ack", help="Leave the events to be delivered again.")] = False,
    data_only: Annotated[bool, typer.Option("--data-only", help="Write the data, not the CloudEvent.")] = False,
) -> Work:
    """Write events until interrupted: a table on a terminal, else a line of CloudEvents JSON each. An event is acknowledged once it is written."""
    from ._subscribe import subscribe as run_subscribe

    return partial(
        run_subscribe,
        context.obj,
        pubsub,
        topic,
        group=group,
        start=start,
        count=count,
        idle=idle,
        batch=batch,
        ack=not no_ack,
        data_only=data_only,
    )


@app.command(short_help="Call a method of a service.")
def invoke(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service: its app id.", show_default=False)],
    method: Annotated[str, typer.Argument(help="Name of the method.", show_default=False)],
    data: Annotated[str | None, typer.Argument(help="JSON, else text; - is stdin.", show_default=False)] = None,
    text: Annotated[bool, typer.Option("--text", help="DATA is text/plain, whatever it looks like.")] = False,
    file: Annotated[
        str | None, typer.Option(metavar="PATH", help="The bytes of a file (- is stdin), streamed.")
    ] = None,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What the data is.")] = None,
    http_method: Annotated[str, typer.Option(metavar="VERB", help="POST, GET, PUT …")] = "POST",
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; repeatable.")] = None,
    query: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the query; repeatable.")] = None,
    include: Annotated[bool, typer.Option("--include", help="Write status and headers to stderr.")] = False,
) -> Work:
    """Call a method and write its reply: JSON on a line, text and bytes as they are. Exit codes: 3 no such method, 5 not reached, 1 status 400 and above."""
    from ._rpc import invoke as run_invoke

    return partial(
        run_invoke,
        context.obj,
        service,
        method,
        data,
        text=text,
        file=file,
        content_type=content_type,
        http_method=http_method,
        headers=header or [],
        query=query or [],
        include=include,
    )


@app.command("run", short_help="Run an application: its methods, subscriptions and jobs.")
def run_application(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:CLIENT", help="E.g. shop.main:client.", show_default=False)],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; fd://3: a socket that is inherited.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Of all workers; else APP_PORT, else a free one for each.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes; one that dies is replaced.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Begin anew when a module below changes.")] = False,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True, help="End with the parent process.")] = False,
) -> Work:
    """Import a module and run what its client has registered, until interrupted: methods of RPC, subscriptions and due jobs. What is in hand is finished at the end.

    With methods, or a port, it serves HTTP, with a health check at /healthz. Logs go to stderr unless the module configures logging. --config, --runtime and --app-id hold for clients that are made without these.
    """
    from ._run import RunOptions
    from ._run import run as run_it

    options = RunOptions(target=target, host=host, port=port, workers=workers, reload=reload, supervised=supervised)
    return partial(run_it, context.obj, options)


@lock_app.callback()
def _lock() -> None:
    """Hold locks."""


@lock_app.command("run", short_help="Run a command while holding a lock.")
def lock_run(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Name of the lock component.", show_default=False)],
    resource: Annotated[str, typer.Argument(help="What to lock.", show_default=False)],
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run.", show_default=False)
    ],
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="How long to wait for the lock; else for ever.")
    ] = None,
    expiry: Annotated[
        float, typer.Option(metavar="SECONDS", help="After which others get the lock when this process dies.")
    ] = 30.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Let the command go on when the lease is lost, with a warning.")
    ] = False,
) -> Work:
    """Run a command while holding a lock, and exit with its code (128 + the signal that ended it).

    The lease is renewed meanwhile. When the lease is lost, the command gets SIGTERM, and SIGKILL 5 s later. Processes that the command started are not ended. A SIGKILL of this process leaves the command running. Exit code 4: the lease was lost; 5: the lock was not free in time; 126, 127: the command cannot be run. Signals are passed on. The command finds its fencing token in CLOUD_RUNTIMES_LOCK_TOKEN (for: state save --fence).
    """
    from ._lock import run as run_locked

    return partial(run_locked, context.obj, store, resource, command, wait=wait, expiry=expiry, keep=keep)


@app.command(short_help="Run an SQL statement.")
def sql(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Name of the database component.", show_default=False)],
    statement: Annotated[str, typer.Argument(help="One statement; - is stdin.", show_default=False)],
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter :NAME, JSON, else text; repeatable.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--format", metavar="table|csv|json", help="By default table to a terminal, else csv.")
    ] = None,
) -> Work:
    """Run one statement, in a transaction of its own: rows to stdout, as they come; else their number to stderr."""
    from ._sql import sql as run_sql

    return partial(run_sql, context.obj, store, statement, param or [], output)
