"""``schedule add|list|rm|history|run|pause|resume|retry``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import NOT_FOUND, UsageError
from ._output import Output, fields_of, rows
from ._session import connect
from ._streams import agree, complain, note, write

if TYPE_CHECKING:
    from ..schedule import RpcTarget, TopicTarget

schedule_app = typer.Typer(help="Store, list, run and pause jobs.", no_args_is_help=True, rich_markup_mode=None)

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
def list_jobs(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Those of all applications, with how their last runs went.")
    ] = False,
    output: Output = None,
) -> int:
    """Write all jobs of the application: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        if everything:
            columns = (
                "app_id",
                "name",
                "schedule",
                "next_run",
                "last_run",
                "failed",
                "running",
                "paused",
                "last_error",
            )
            rows(map(fields_of, client.admin.jobs(limit=1_000_000)), columns, output)
            return 0
        jobs = client.schedule.list_jobs()
        errors = ("error",) if any(job.error for job in jobs) else ()
        rows(map(fields_of, jobs), ("name", "schedule", "next_run", "target", "data", *errors), output)
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
def history(context: typer.Context, name: Name, output: Output = None) -> int:
    """Write the runs of a job, oldest first: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        columns = ("run_id", "fire_time", "status", "attempt", "error")
        rows(map(fields_of, client.schedule.list_runs(name)), columns, output)
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


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing.")]


@schedule_app.command("pause", short_help="Let a job have no occurrences.")
def pause(context: typer.Context, name: Name, yes: Yes = False, dry_run: DryRun = False) -> int:
    """Let a job have no occurrences until it is resumed; a run under way goes on. It asks on a terminal. Exit code 3: there is no such job."""
    with connect(context.obj) as client:
        job = client.schedule.get_job(name)
        when = "none" if job.next_run is None else job.next_run.isoformat()
        note(f"{name}: {job.schedule or 'once'}, next run {when}" + (", paused already" if job.paused else ""))
        if not dry_run and not job.paused:
            agree("Pause it?", yes)
            client.admin.pause_job(name)
    return 0


@schedule_app.command("resume", short_help="Let a paused job have its occurrences again.")
def resume(context: typer.Context, name: Name, yes: Yes = False, dry_run: DryRun = False) -> int:
    """Let a paused job have its occurrences again. Its --misfire says what becomes of those it has missed. It asks on a terminal. Exit code 3: there is no such job."""
    with connect(context.obj) as client:
        job = client.schedule.get_job(name)
        note(f"{name}: {job.schedule or 'once'}, {'paused' if job.paused else 'not paused'}, misfire {job.misfire}")
        if not dry_run and job.paused:
            agree("Resume it?", yes)
            client.admin.resume_job(name)
    return 0


@schedule_app.command("retry", short_help="Run what failed once more.")
def retry(
    context: typer.Context,
    name: Name,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of the run; else the latest that failed.", show_default=False),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Run a run that failed once more, under its id. It asks on a terminal. Exit code 3: there is no such run; 4: it has not failed."""
    with connect(context.obj) as client:
        failed = [run for run in client.schedule.list_runs(name) if run.status == "failed"]
        run = next((each for each in reversed(failed) if run_id in (None, each.run_id)), None)
        if run is not None:
            run_id = run.run_id
            note(f"{run_id} of {run.fire_time.isoformat()}: {run.error}")
        if run_id is None:
            complain(f"no run of {name!r} has failed")
            return NOT_FOUND
        if not dry_run:
            agree("Run it once more?", yes)
            client.admin.retry_run(name, run_id)
    return 0
