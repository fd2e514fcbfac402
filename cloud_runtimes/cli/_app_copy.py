"""The front of ``copy``; see `_app`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

__all__ = ["copy"]


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
) -> Callable[[], int]:
    """Copy state, configuration, files, jobs and events to another home, and compare both. Stop the application first: what it writes meanwhile may be missed.

    HOME is a folder or a URL. For a URL with a password, give env:VARIABLE, a variable that holds it. config:FILE is the home of another configuration. A name stands for the component tables of that name, such as [state.NAME]. Without --from or --to, that side is the home of the application.

    Events keep their ids, keys and times, and each group finds what it had not settled. Running it again goes on where it was interrupted, and changes nothing where it was not. What the target has otherwise stays, and the exit code is 1.
    """
    from ._copy import copy as run_copy

    return partial(run_copy, context.obj, source, target, services=service or [], names=name or [], overwrite=overwrite)
