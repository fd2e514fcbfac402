"""``schedule add|list|rm|history|run``."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import UsageError
from ._session import connect
from ._streams import write
from ._tables import rows

if TYPE_CHECKING:
    from ..schedule import Job, RpcTarget, RunRecord, TopicTarget

schedule_app = typer.Typer(help="Store, list and run jobs.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", show_default=False)]


@schedule_app.command("add", short_help="Store a job.")
def add(
    context: typer.Context,
    name: Name,
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
) -> int:
    """Store a job of the application named by --app-id. Without --rpc and --topic it runs the handler of its name, in a process that has it. Exit code 4: there is one of the name."""
    from ..schedule import Retry
    from ._values import json_or_text

    target = _target(rpc, topic)
    how: Any = misfire  # the service says what there is
    with connect(context.obj) as client:
        client.schedule.schedule_job(
            name,
            schedule=schedule,
            due_time=due,
            repeats=repeats,
            ttl=ttl,
            timezone=timezone,
            data=None if data is None else json_or_text(data),
            target=target,
            misfire=how,
            failure_policy=Retry(retries, interval) if retries else "drop",
            overwrite=overwrite,
        )
    return 0


def _target(rpc: str | None, topic: str | None) -> RpcTarget | TopicTarget | None:
    from ..schedule import RpcTarget, TopicTarget

    if rpc is not None and topic is not None:
        raise UsageError("give --rpc or --topic, not both")
    if rpc is not None:
        service, _, method = rpc.partition("/")
        return RpcTarget(service, method)
    if topic is not None:
        pubsub_name, _, name = topic.partition("/")
        return TopicTarget(pubsub_name, name)
    return None


@schedule_app.command("list", short_help="Write all jobs.")
def list_jobs(context: typer.Context) -> int:
    """Write all jobs of the application: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        jobs = client.schedule.list_jobs()
        errors = ("error",) if any(job.error for job in jobs) else ()
        rows(map(_fields, jobs), ("name", "schedule", "next_run", "target", "data", *errors))
    return 0


@schedule_app.command("rm", short_help="Delete jobs.")
def remove(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of jobs.", show_default=False)],
) -> int:
    """Delete jobs; what is not there is no error."""
    with connect(context.obj) as client:
        for name in names:
            client.schedule.delete_job(name)
    return 0


@schedule_app.command("history", short_help="Write the runs of a job.")
def history(context: typer.Context, name: Name) -> int:
    """Write the runs of a job, oldest first: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        rows(map(_fields, client.schedule.list_runs(name)), ("run_id", "fire_time", "status", "attempt", "error"))
    return 0


@schedule_app.command("run", short_help="Run a job now, or due jobs.")
def run(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A job to run at once; none: see above.", show_default=False)
    ] = None,
) -> int:
    """Run a job at once and write the run's id. Without a name, run the application's due jobs until a signal comes: those that call a method or publish. A job with a handler needs its own process. Exit code 3: there is no such job."""
    with connect(context.obj) as client:
        if name is not None:
            write(client.schedule.run_now(name).encode() + b"\n")
        else:
            client.schedule.run()
    return 0


def _fields(item: Job | RunRecord) -> dict[str, Any]:
    return {field.name: _plain(getattr(item, field.name)) for field in dataclasses.fields(item)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
