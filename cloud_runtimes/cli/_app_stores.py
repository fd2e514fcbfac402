"""The front of ``state``, ``secret`` and ``config``; see `_app`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeAlias

import typer

__all__ = ["config_app", "secret_app", "state_app"]

Work: TypeAlias = Callable[[], int]

state_app = typer.Typer(help="Read and write keys.", no_args_is_help=True, rich_markup_mode=None)
secret_app = typer.Typer(help="Read secrets.", no_args_is_help=True, rich_markup_mode=None)
config_app = typer.Typer(help="Read, write and follow configuration.", no_args_is_help=True, rich_markup_mode=None)

Store = Annotated[str, typer.Argument(help="Name of the state component.", show_default=False)]
Key = Annotated[str, typer.Argument(help="Key.", show_default=False)]
ConfigurationStore = Annotated[str, typer.Argument(help="Name of the configuration component.", show_default=False)]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys; none: all.", show_default=False)]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="Namespace within the store.")]
Label = Annotated[str | None, typer.Option("--label", metavar="NAME", help="Variant of the values.")]


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
    """Write the keys in byte order: a table on a terminal, else one a line."""
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


@config_app.command("validate", short_help="Check a configuration file.")
def config_validate(
    context: typer.Context,
    path: Annotated[
        str | None, typer.Argument(help="File or folder; else the one that counts here.", show_default=False)
    ] = None,
) -> Work:
    """Check the configuration of this command and of applications here, without reaching any server. Exit code 2 where something is wrong."""
    from ._settings_file import validate

    return partial(validate, context.obj, path)


@config_app.command("get", short_help="Write values.")
def config_get(
    context: typer.Context,
    store: ConfigurationStore,
    keys: Keys = None,
    group: Group = None,
    label: Label = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items", help="All that is known of each item: a table on a terminal, else a JSON object a line."
        ),
    ] = False,
) -> Work:
    """Write the value of one KEY. Several are a table on a terminal, else a JSON object. Exit code 3 where a key has none."""
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
    """Write current values, then what changes, until interrupted: a table on a terminal, else a JSON object a line."""
    from . import _config

    return partial(_config.watch, context.obj, store, keys or [], group=group, label=label, count=count)
