"""Results of ``client.admin`` about locks, services and jobs, as drivers tell them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["InstanceInfo", "JobInfo", "LockInfo", "ServiceInfo"]


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock that is held, or that others wait for. ``None``: its component does not tell.

    Attributes:
        resource_id: what is locked.
        owner: who holds it, as `try_lock` was told; ``None``: nobody any more, and who waits may take it.
        token: of the lease.
        since: when the lease was given.
        expires_at: when it ends unless it is renewed.
        waiting: how many wait.
    """

    resource_id: str
    owner: str | None
    token: int | None
    since: datetime | None
    expires_at: datetime | None
    waiting: int | None


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """A process that serves the methods of an application. ``None``: it does not tell.

    Attributes:
        address: where it is called.
        host, pid: where it runs.
        since: when it began to serve.
        version: of this package.
    """

    address: str
    host: str | None = None
    pid: int | None = None
    since: datetime | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """An application that can be called.

    Attributes:
        app_id: of the application.
        methods: that its instances have, up to 200; ``None``: they do not tell.
        instances: its processes.
    """

    app_id: str
    methods: tuple[str, ...] | None
    instances: tuple[InstanceInfo, ...]


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job of any application, and how its runs went.

    Attributes:
        name, app_id: of the job and its application.
        schedule: as in `cloud_runtimes.schedule.Job`.
        next_run: the next occurrence; ``None``: it is paused, or the last one is under way.
        last_run: when the last run ended; ``None``: none has, as far as the history goes.
        last_error: what it failed with, or why the job itself cannot be read; ``None``: it went well.
        failed: how many runs failed since one succeeded, as far as the history goes.
        running: whether a run is under way; that of a process that died, until another has it.
        paused: whether it gets no occurrences at the moment.
    """

    name: str
    app_id: str
    schedule: str | None
    next_run: datetime | None
    last_run: datetime | None
    last_error: str | None
    failed: int
    running: bool
    paused: bool
