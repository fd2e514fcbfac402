"""The front with the extra ``[cli]``: options and help by typer; what a command does is in a module of its own, imported when it runs.

A command here returns its work as a callable, and `run` calls it once typer has let go: typer has ideas of its own about interrupts and closed pipes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias

import typer

from .. import __version__
from ._session import Invocation
from ._streams import complain, note, write

__all__ = ["run"]

Work: TypeAlias = Callable[[], int]

app = typer.Typer(
    name="cloud-runtimes",
    help="State, pub/sub and databases of an application, over the runtime it uses.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
state_app = typer.Typer(help="Read and write keys.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(state_app, name="state")

PubSub = Annotated[str, typer.Argument(help="Name of the pub/sub component.", show_default=False)]
Topic = Annotated[str, typer.Argument(help="Topic.", show_default=False)]
Store = Annotated[str, typer.Argument(help="Name of the state component.", show_default=False)]
Key = Annotated[str, typer.Argument(help="Key.", show_default=False)]


def run(arguments: list[str], invocation: Invocation) -> int:
    """Parse and run."""
    command: Any = typer.main.get_command(app)
    try:
        work = command.main(args=arguments, prog_name="cloud-runtimes", standalone_mode=False, obj=invocation)
    except Exception as error:
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
    start: Annotated[str | None, typer.Option(metavar="earliest|latest", help="Where a new group begins.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N events.")] = None,
    idle: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Stop when nothing came for so long.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Events written and acknowledged at once.")] = 100,
    no_ack: Annotated[bool, typer.Option("--no-ack", help="Leave the events to be delivered again.")] = False,
    data_only: Annotated[bool, typer.Option("--data-only", help="Write the data, not the CloudEvent.")] = False,
) -> Work:
    """Write events to stdout, one line of CloudEvents JSON each, acknowledged once written; until interrupted."""
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


@state_app.command("get", short_help="Write a value.")
def state_get(
    context: typer.Context,
    store: Store,
    key: Key,
    item: Annotated[bool, typer.Option("--item", help="A JSON object with etag, content type and expiry.")] = False,
) -> Work:
    """Write a value: JSON on a line, text and bytes as they are. Exit code 3 where there is none."""
    from . import _state

    return partial(_state.get, context.obj, store, key, item)


@state_app.command("save", short_help="Save a value.")
def state_save(
    context: typer.Context,
    store: Store,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="JSON, else text; - is stdin.", show_default=False)] = None,
    text: Annotated[bool, typer.Option("--text", help="VALUE is text/plain, whatever it looks like.")] = False,
    file: Annotated[str | None, typer.Option(metavar="PATH", help="The bytes of a file (- is stdin).")] = None,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What the value is.")] = None,
    ttl: Annotated[float | None, typer.Option(metavar="SECONDS", help="Time to live.")] = None,
    etag: Annotated[str | None, typer.Option(metavar="ETAG", help="Only if this is still current.")] = None,
    first_write: Annotated[bool, typer.Option("--first-write", help="Only if there is no value yet.")] = False,
) -> Work:
    """Save a value. Exit code 4 where a condition does not hold."""
    from . import _state

    return partial(
        _state.save,
        context.obj,
        store,
        key,
        value,
        text=text,
        file=file,
        content_type=content_type,
        ttl=ttl,
        etag=etag,
        first_write=first_write,
    )


@state_app.command("delete")
def state_delete(
    context: typer.Context,
    store: Store,
    key: Key,
    etag: Annotated[str | None, typer.Option(metavar="ETAG", help="Only if this is still current.")] = None,
) -> Work:
    """Delete a key; an absent one is fine."""
    from . import _state

    return partial(_state.delete, context.obj, store, key, etag)


@state_app.command("list")
def state_list(
    context: typer.Context,
    store: Store,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="With which keys begin.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many at most.")] = None,
    after: Annotated[str | None, typer.Option(metavar="KEY", help="Only those behind this key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Each key as a JSON string.")] = False,
) -> Work:
    """Write the keys, one a line, in byte order."""
    from . import _state

    return partial(_state.list_keys, context.obj, store, prefix=prefix, limit=limit, after=after, as_json=json)
