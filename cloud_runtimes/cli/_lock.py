"""``lock run|list|break``: a command that runs while a lock is held, and the locks that others hold."""

from __future__ import annotations

import os
import subprocess
import threading
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .._core.os_commands import in_foreground, wait_for_end
from .._core.os_signals import ENDING, HANGING_UP, PASSED, handling, signals
from .._core.threads import Background
from ..errors import CloudRuntimesError, LeaseLostError
from ._completing import stores
from ._errors import NOT_FOUND
from ._output import Output, fields_of, rows
from ._session import connect
from ._streams import agree, complain, note

if TYPE_CHECKING:
    from ..lock import Lease

TOKEN: Final = "CLOUD_RUNTIMES_LOCK_TOKEN"
_FORWARDED: Final = (*ENDING, *HANGING_UP, *PASSED)
_BY_KEY: Final = signals("SIGINT", "SIGQUIT", "SIGBREAK")
"""Those that a terminal sends to its whole foreground group, so that they reach the command by themselves."""
_NOT_FOUND: Final = 127
_NOT_RUN: Final = 126
_PATIENCE: Final = 5.0
"""Seconds from SIGTERM to SIGKILL."""

lock_app = typer.Typer(help="Hold, list and break locks.", no_args_is_help=True, rich_markup_mode=None)


@lock_app.callback()
def _lock() -> None:
    """Hold, list and break locks."""


Store = Annotated[
    str, typer.Argument(help="Name of the lock component.", show_default=False, autocompletion=stores("lock"))
]
Resource = Annotated[str, typer.Argument(help="What is locked.", show_default=False)]


@lock_app.command("list", short_help="Write the locks that are held.")
def list_locks(
    context: typer.Context,
    store: Store,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only locks whose names begin so.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Locks at most.")] = 1000,
    output: Output = None,
) -> int:
    """Write the locks that are held or waited for: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        found = client.admin.locks(store, prefix=prefix, limit=limit)
        rows(map(fields_of, found), ("resource_id", "owner", "token", "since", "expires_at", "waiting"), output)
    return 0


@lock_app.command("break", short_help="End the lease of whoever holds a lock.")
def break_lock(
    context: typer.Context,
    store: Store,
    resource: Resource,
    token: Annotated[
        int | None, typer.Option(metavar="TOKEN", help="Only if the lease has this token; else the present one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell who holds it.")] = False,
) -> int:
    """End the lease of whoever holds a lock, so that the next one gets it. It tells who that is first, and asks on a terminal. Exit code 3: nobody holds it; 4: somebody else does by now."""
    with connect(context.obj) as client:
        found = client.admin.locks(store, prefix=resource, limit=1)
        held = next((each for each in found if each.resource_id == resource and each.token is not None), None)
        if held is None or held.token is None:
            complain(f"nobody holds {resource!r} of {store!r}")
            return NOT_FOUND
        since = f" since {held.since.isoformat()}" if held.since else ""
        note(f"{resource} is held by {held.owner}{since}, token {held.token}, {held.waiting or 0} wait")
        if dry_run:
            return 0
        agree("Break it?", yes)
        client.admin.break_lock(store, resource, held.token if token is None else token)
    return 0


@lock_app.command("run", short_help="Run a command while holding a lock.")
def run(
    context: typer.Context,
    store: Store,
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
) -> int:
    """Run a command while holding a lock, and exit with its code (128 + the signal that ended it).

    The lease is renewed meanwhile. When the lease is lost, the command gets SIGTERM, and SIGKILL 5 s later. Processes that the command started are not ended. A SIGKILL of this process leaves the command running. Exit code 4: the lease was lost; 5: the lock was not free in time; 126, 127: the command cannot be run. Signals are passed on. The command finds its fencing token in CLOUD_RUNTIMES_LOCK_TOKEN (for: state save --fence).
    """
    code: int | None = None
    signals = _Signals()
    try:
        with connect(context.obj) as client, handling(_FORWARDED, signals.handle, ignored=False):
            try:
                with client.lock.hold(store, resource, expiry=expiry, wait=wait) as lease:
                    code = _run(command, lease, signals, interval=min(0.2, expiry / 10), keep=keep)
            except CloudRuntimesError as error:
                if code is None or (isinstance(error, LeaseLostError) and not keep):
                    raise
                note(f"warning: {error}")  # the command has run: its exit code counts
    except KeyboardInterrupt:
        if not signals.number:
            raise
        return 128 + signals.number
    assert code is not None
    return code


def _run(command: list[str], lease: Lease, signals: _Signals, *, interval: float, keep: bool) -> int:
    environment = dict(os.environ)
    environment.pop(TOKEN, None)
    if lease.token is not None:
        environment[TOKEN] = str(lease.token)
    signals.starting = True
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        complain(f"{command[0]}: {error.strerror}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN
    signals.forward_to(child)

    running = Background(partial(wait_for_end, child), "cloud-runtimes-command")
    running.start()

    def watch() -> None:
        while not running.join(interval):
            if lease.lost:
                if keep:
                    note(f"warning: the lease of {lease.resource_id!r} was lost while the command runs")
                    return
                child.terminate()
                if not running.join(_PATIENCE):
                    child.kill()
                return

    watcher = threading.Thread(target=watch, name="cloud-runtimes-watcher", daemon=True)
    watcher.start()
    running.join(None)  # which hears signals that come just before it waits; Popen.wait does not
    code = child.wait()
    watcher.join()
    return 128 - code if code < 0 else code


class _Signals:
    """Handles signals: before the command starts they end the wait, then they go to the command."""

    def __init__(self) -> None:
        self.number = 0
        self.starting = False
        self._child: subprocess.Popen[bytes] | None = None
        self._pending: list[int] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if not self.starting:
            self.number = number
            raise KeyboardInterrupt
        if self._child is None:
            self._pending.append(number)
        elif number not in _BY_KEY or not in_foreground():
            self._child.send_signal(number)

    def forward_to(self, child: subprocess.Popen[bytes]) -> None:
        """Send the command what came and what comes."""
        self._child = child
        for number in self._pending:
            child.send_signal(number)
