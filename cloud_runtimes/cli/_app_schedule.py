"""The front of ``schedule``; see `_app`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeAlias

import typer

__all__ = ["schedule_app"]

Work: TypeAlias = Callable[[], int]

schedule_app = typer.Typer(help="Store, list and run jobs.", no_args_is_help=True, rich_markup_mode=None)

JobName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", show_default=False)]


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
    """Write all jobs of the application: a table on a terminal, else a JSON object a line."""
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
    """Write the runs of a job, oldest first: a table on a terminal, else a JSON object a line."""
    from ._schedule import history

    return partial(history, context.obj, name)


@schedule_app.command("run", short_help="Run a job now, or due jobs.")
def schedule_run(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A job to run at once; none: see above.", show_default=False)
    ] = None,
) -> Work:
    """Run a job at once and write the run's id. Without a name, run the application's due jobs until a signal comes: those that call a method or publish. A job with a handler needs its own process. Exit code 3: there is no such job."""
    from ._schedule import run as run_jobs

    return partial(run_jobs, context.obj, name)
