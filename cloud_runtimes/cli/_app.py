"""The front with the extra ``[cli]``: options and help by typer; what a command does is in a module of its own, imported when it runs.

A command here returns its work as a callable, and `run` calls it once typer has let go: typer has ideas of its own about interrupts and closed pipes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias

import typer

from .. import __version__
from ._app_telemetry import telemetry_app
from ._session import Invocation
from ._streams import complain, note, write

__all__ = ["run"]

Work: TypeAlias = Callable[[], int]

app = typer.Typer(
    name="cloud-runtimes",
    help="RPC, state, pub/sub, configuration, secrets, files, locks, databases and scheduled jobs of an application, over the runtime it uses.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
state_app = typer.Typer(help="Read and write keys.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(state_app, name="state")
secret_app = typer.Typer(help="Read secrets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(secret_app, name="secret")
config_app = typer.Typer(help="Read, write and follow configuration.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")
lock_app = typer.Typer(help="Hold locks.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lock_app, name="lock")
file_app = typer.Typer(help="Store and read files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(file_app, name="file")
schedule_app = typer.Typer(help="Store, list and run jobs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(schedule_app, name="schedule")
app.add_typer(telemetry_app, name="telemetry")

JobName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", show_default=False)]
PubSub = Annotated[str, typer.Argument(help="Name of the pub/sub component.", show_default=False)]
Topic = Annotated[str, typer.Argument(help="Topic.", show_default=False)]
Store = Annotated[str, typer.Argument(help="Name of the state component.", show_default=False)]
Files = Annotated[str, typer.Argument(help="Name of the file component.", show_default=False)]
FileName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the file.", show_default=False)]
Key = Annotated[str, typer.Argument(help="Key.", show_default=False)]
ConfigurationStore = Annotated[str, typer.Argument(help="Name of the configuration component.", show_default=False)]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys; none: all.", show_default=False)]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="Namespace within the store.")]
Label = Annotated[str | None, typer.Option("--label", metavar="NAME", help="Variant of the values.")]


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


@app.command("serve-app", short_help="Serve the methods of an application.")
def serve_app(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:CLIENT", help="E.g. shop.main:client.", show_default=False)],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Else APP_PORT, else a free one.")] = None,
) -> Work:
    """Import a module and serve the methods that its client has registered, until interrupted. The options before the command do not matter: the module's own client is served."""
    from ._rpc import serve_app as run_serve

    return partial(run_serve, context.obj, target, host, port)


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

    The lease is renewed meanwhile. When it is lost the command gets SIGTERM, after 5 s SIGKILL, and the exit code is 4; what the command itself started is not ended, nor is the command when this process is killed by SIGKILL. Exit code 5: the lock was not free in time; 126, 127: the command cannot be run. Signals are passed on. The command finds its fencing token in CLOUD_RUNTIMES_LOCK_TOKEN (for: state save --fence).
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


@schedule_app.command("add", short_help="Store a job.")
def schedule_add(
    context: typer.Context,
    name: JobName,
    data: Annotated[
        str | None, typer.Argument(help="What the target gets: JSON, else text.", show_default=False)
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Cron of 5 or 6 fields, '@every 5s', '@hourly' …")
    ] = None,
    due: Annotated[str | None, typer.Option(metavar="TIME", help="First run: RFC 3339, or a delay such as 5s.")] = None,
    repeats: Annotated[int | None, typer.Option(metavar="N", help="Occurrences at most.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="No occurrence after it, or so long.")] = None,
    rpc: Annotated[str | None, typer.Option(metavar="SERVICE/METHOD", help="Call a method.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="PUBSUB/TOPIC", help="Publish to a topic.")] = None,
    timezone: Annotated[str, typer.Option(metavar="NAME", help="Of cron text, e.g. Europe/Paris.")] = "UTC",
    misfire: Annotated[str, typer.Option(metavar="once|skip|all", help="What becomes of what was missed.")] = "once",
    retries: Annotated[int, typer.Option(metavar="N", help="How often a failed run is tried again.")] = 3,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between its tries.")] = 1.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a job of the name.")] = False,
) -> Work:
    """Store a job of the application named by --app-id. Without --rpc and --topic it runs the handler of its name, in a process that has it. Exit code 4: there is one of the name."""
    from ._schedule import add

    return partial(
        add,
        context.obj,
        name,
        data,
        schedule=schedule,
        due=due,
        repeats=repeats,
        ttl=ttl,
        rpc=rpc,
        topic=topic,
        timezone=timezone,
        misfire=misfire,
        retries=retries,
        interval=interval,
        overwrite=overwrite,
    )


@schedule_app.command("list", short_help="Write all jobs.")
def schedule_list(context: typer.Context) -> Work:
    """Write all jobs of the application, a JSON object a line."""
    from ._schedule import listing

    return partial(listing, context.obj)


@schedule_app.command("rm", short_help="Delete jobs.")
def schedule_rm(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of jobs.", show_default=False)],
) -> Work:
    """Delete jobs; what is not there is no error."""
    from ._schedule import remove

    return partial(remove, context.obj, names)


@schedule_app.command("history", short_help="Write the runs of a job.")
def schedule_history(context: typer.Context, name: JobName) -> Work:
    """Write the runs of a job, oldest first, a JSON object a line."""
    from ._schedule import history

    return partial(history, context.obj, name)


@schedule_app.command("run", short_help="Run a job now, or due jobs.")
def schedule_run(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A job to run at once; none: see above.", show_default=False)
    ] = None,
) -> Work:
    """Have a job run at once and write the run's id; or, without a name, run the application's due jobs until a signal comes: those that call a method or publish, since a handler is in its own process. Exit code 3: there is no such job."""
    from ._schedule import run as run_jobs

    return partial(run_jobs, context.obj, name)


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
    fence: Annotated[
        int | None, typer.Option(metavar="TOKEN", help="A lock's token: only if the key saw no higher one.")
    ] = None,
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
        fence=fence,
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


@secret_app.command("get", short_help="Write a secret.")
def secret_get(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Name of the secret store.", show_default=False)],
    key: Annotated[str, typer.Argument(help="Key of the secret.", show_default=False)],
    entry: Annotated[str | None, typer.Option(metavar="NAME", help="Which entry, where it has several.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Write it to a terminal too.")] = False,
) -> Work:
    """Write a secret, as it is, to a pipe or file. Exit code 3 where there is none."""
    from . import _secret

    return partial(_secret.get, context.obj, store, key, entry=entry, reveal=reveal)


@config_app.command("get", short_help="Write values.")
def config_get(
    context: typer.Context,
    store: ConfigurationStore,
    keys: Keys = None,
    group: Group = None,
    label: Label = None,
    items: Annotated[bool, typer.Option("--items", help="A line of JSON per item, with version and tags.")] = False,
) -> Work:
    """Write the value of one KEY, or a JSON object of several. Exit code 3 where a key has none."""
    from . import _config

    return partial(_config.get, context.obj, store, keys or [], group=group, label=label, items=items)


@config_app.command("set", short_help="Save a value.")
def config_set(
    context: typer.Context,
    store: ConfigurationStore,
    key: Key,
    value: Annotated[str, typer.Argument(help="Text; - is stdin.", show_default=False)],
    group: Group = None,
    label: Label = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Tag of the item; repeatable.")] = None,
) -> Work:
    """Save a value; its tags become those given."""
    from . import _config

    return partial(_config.save, context.obj, store, key, value, group=group, label=label, tags=tag or [])


@config_app.command("delete")
def config_delete(
    context: typer.Context,
    store: ConfigurationStore,
    keys: Annotated[list[str], typer.Argument(help="Keys.", show_default=False)],
    group: Group = None,
    label: Label = None,
) -> Work:
    """Delete keys; absent ones are fine."""
    from . import _config

    return partial(_config.delete, context.obj, store, keys, group=group, label=label)


@config_app.command("watch", short_help="Follow values.")
def config_watch(
    context: typer.Context,
    store: ConfigurationStore,
    keys: Keys = None,
    group: Group = None,
    label: Label = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N lines.")] = None,
) -> Work:
    """Write current values, then what changes, a line of JSON each; until interrupted."""
    from . import _config

    return partial(_config.watch, context.obj, store, keys or [], group=group, label=label, count=count)


@file_app.command("put", short_help="Store a file.")
def file_put(
    context: typer.Context,
    store: Files,
    name: FileName,
    path: Annotated[str, typer.Argument(help="Where the content is; - is stdin.")] = "-",
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What it is, e.g. text/csv.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the file; repeatable.")
    ] = None,
    no_overwrite: Annotated[bool, typer.Option("--no-overwrite", help="Only if there is none of that name.")] = False,
) -> Work:
    """Store a file, whole or not at all. Exit code 4 where --no-overwrite finds one."""
    from . import _file

    return partial(
        _file.put,
        context.obj,
        store,
        name,
        path,
        content_type=content_type,
        metadata=metadata or [],
        overwrite=not no_overwrite,
    )


@file_app.command("get", short_help="Write a file.")
def file_get(
    context: typer.Context,
    store: Files,
    name: FileName,
    path: Annotated[str, typer.Argument(help="Where to; - is stdout.")] = "-",
    start: Annotated[int, typer.Option(metavar="N", help="First byte.")] = 0,
    length: Annotated[int | None, typer.Option(metavar="N", help="How many bytes at most.")] = None,
) -> Work:
    """Write a file's content to stdout or a path. Exit code 3 where there is none."""
    from . import _file

    return partial(_file.get, context.obj, store, name, path, start=start, length=length)


@file_app.command("ls", short_help="List files.")
def file_list(
    context: typer.Context,
    store: Files,
    prefix: Annotated[str, typer.Argument(help="With which names begin.", show_default=False)] = "",
    level: Annotated[bool, typer.Option("--level", help="Stop at the next /: folders end with it.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many at most.")] = None,
    after: Annotated[str | None, typer.Option(metavar="NAME", help="Only those behind this name.")] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Size and time before the name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Each as a JSON object.")] = False,
) -> Work:
    """Write the names, one a line, in byte order."""
    from . import _file

    return partial(
        _file.list_files,
        context.obj,
        store,
        prefix,
        recursive=not level,
        limit=limit,
        after=after,
        long=long,
        as_json=json,
    )


@file_app.command("rm")
def file_remove(
    context: typer.Context,
    store: Files,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of files.", show_default=False)],
) -> Work:
    """Delete files; absent ones are fine."""
    from . import _file

    return partial(_file.remove, context.obj, store, names)


@file_app.command("stat")
def file_stat(context: typer.Context, store: Files, name: FileName) -> Work:
    """Write what is known of a file as a JSON object. Exit code 3 where there is none."""
    from . import _file

    return partial(_file.stat, context.obj, store, name)
