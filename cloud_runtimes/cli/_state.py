"""``state get|save|delete|list`` and ``secret get``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ._completing import stores
from ._errors import NOT_FOUND, UsageError
from ._output import Output, is_table, record
from ._session import connect
from ._streams import complain, write
from ._tables import Table

state_app = typer.Typer(help="Read and write keys.", no_args_is_help=True, rich_markup_mode=None)
secret_app = typer.Typer(help="Read secrets.", no_args_is_help=True, rich_markup_mode=None)

Store = Annotated[
    str, typer.Argument(help="Name of the state component.", show_default=False, autocompletion=stores("state"))
]
Key = Annotated[str, typer.Argument(help="Key.", show_default=False)]


@state_app.command("get", short_help="Write a value.")
def get(
    context: typer.Context,
    store: Store,
    key: Key,
    item: Annotated[bool, typer.Option("--item", help="A JSON object with etag, content type and expiry.")] = False,
    output: Output = None,
) -> int:
    """Write a value: JSON on a line, text and bytes as they are. Exit code 3 where there is none."""
    from ..codec import json
    from ..codec.payload import decode_payload
    from ._values import is_json

    with connect(context.obj) as client:
        stored = client.state.get_item(store, key, type=bytes)
    if stored is None:
        complain(f"no key {key!r} in {store!r}")
        return NOT_FOUND
    if not item and is_json(stored.content_type):
        write(stored.value + b"\n")  # the stored bytes: exact, whatever the size of a number
        return 0
    value: Any = decode_payload(stored.value, stored.content_type)
    if not item:
        write(stored.value if isinstance(value, (bytes, str)) else json.encode(value) + b"\n")
        return 0
    shown: dict[str, Any] = {"key": key}
    if isinstance(value, bytes):
        import base64

        shown["value_base64"] = base64.b64encode(value).decode()
    else:
        shown["value"] = value
    shown |= {
        "etag": stored.etag,
        "content_type": stored.content_type,
        "ttl": stored.ttl,
        "expires_at": None if stored.expires_at is None else stored.expires_at.isoformat(),
        "metadata": dict(stored.metadata),
    }
    record(shown, output)
    return 0


@state_app.command("save", short_help="Save a value.")
def save(
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
) -> int:
    """Save a value. Exit code 4 where a condition does not hold."""
    from . import _values

    if (value is None) == (file is None):
        raise UsageError("give a VALUE (- is stdin) or --file PATH, one of them")
    if text and (file is not None or content_type is not None):
        raise UsageError("--text says what VALUE is: it does not go with --file or --content-type")
    if etag is not None and first_write:
        raise UsageError("--etag and --first-write exclude each other")
    data: Any
    if file is not None:
        data = _values.read(file)
    else:
        assert value is not None
        data, content_type = _values.value(value, "text/plain" if text else content_type)
    concurrency: Any = "first-write" if first_write else None
    with connect(context.obj) as client:
        client.state.save(
            store, key, data, etag=etag, ttl=ttl, concurrency=concurrency, content_type=content_type, fence=fence
        )
    return 0


@state_app.command("delete")
def delete(
    context: typer.Context,
    store: Store,
    key: Key,
    etag: Annotated[str | None, typer.Option(metavar="ETAG", help="Only if this is still current.")] = None,
) -> int:
    """Delete a key; an absent one is fine."""
    with connect(context.obj) as client:
        client.state.delete(store, key, etag=etag)
    return 0


@state_app.command("list")
def list_keys(
    context: typer.Context,
    store: Store,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="With which keys begin.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many at most.")] = None,
    after: Annotated[str | None, typer.Option(metavar="KEY", help="Only those behind this key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As --format json: each key as a JSON string.")] = False,
    output: Output = None,
) -> int:
    """Write the keys in byte order: a table on a terminal, else one a line."""
    from ..codec.json import encode

    with connect(context.obj) as client:
        keys = client.state.list_keys(store, prefix, limit=limit, after=after)
    json = json or output == "json"
    if keys and not json and is_table(output):
        Table(("key",), whole=True).add([[key] for key in keys])
    else:
        write(b"".join((encode(key) if json else key.encode()) + b"\n" for key in keys))
    return 0


@secret_app.command("get", short_help="Write a secret.")
def get_secret(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Name of the secret store.", show_default=False)],
    key: Annotated[str, typer.Argument(help="Key of the secret.", show_default=False)],
    entry: Annotated[str | None, typer.Option(metavar="NAME", help="Which entry, where it has several.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Write it to a terminal too.")] = False,
) -> int:
    """Write a secret, as it is, to a pipe or file. Exit code 3 where there is none."""
    terminal = sys.stdout.isatty()
    if terminal and not reveal:
        raise UsageError("stdout is a terminal, so the secret is not read: send it to a pipe or file, or give --reveal")
    with connect(context.obj) as client:
        secret = client.secret.get_secret(store, key)
    if entry is None and len(secret) != 1:
        raise UsageError(f"{secret!r} has {len(secret)} entries: give --entry NAME")
    if entry is not None and entry not in secret:
        raise UsageError(f"{secret!r} has no entry {entry!r}")
    write((secret.value if entry is None else secret[entry]).encode() + (b"\n" if terminal else b""))
    return 0
