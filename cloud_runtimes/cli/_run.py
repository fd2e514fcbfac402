"""``run``: an application in this process, or in workers that are mended and reloaded."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from .._core import extras
from .._core.backoff import NONE, Backoff
from .._core.os_commands import KILL, send, start
from .._core.os_signals import ending_signals
from .._core.threads import Background, Changes
from .._service import run_until_closed
from ..client import CloudRuntimesClient, context_of
from ..config import DEFAULT_TIMEOUT
from ._errors import USAGE, UsageError
from ._session import Invocation
from ._streams import complain, note

if TYPE_CHECKING:
    import socket

_FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_STEADY: Final = 5.0
"""Seconds after which a worker that ends is begun anew at once; one that ends before waits."""
_PAUSES: Final = Backoff(0.1, 10.0, jitter=NONE)
_GRACE: Final = 5.0
"""Seconds beyond the time that a worker gives itself to end."""
_IMPATIENT: Final = 0.5
"""Seconds for what runs to end after a second signal."""


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:CLIENT", help="E.g. shop.main:client.", show_default=False)],
    factory: Annotated[
        bool, typer.Option("--factory", help="The target is a function that returns the client.")
    ] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; fd://3: a socket that is inherited.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Of all workers; else APP_PORT, else a free one for each.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes; one that dies is replaced.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Begin anew when a module below changes.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(
            metavar="LEVEL",
            help="debug, info, warning or error: from where logs are written; else info, or what the module configures.",
        ),
    ] = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True, help="End with the parent process.")] = False,
) -> int:
    """Import a module and run what its client has registered, until interrupted: methods of RPC, subscriptions and due jobs. What is in hand is finished at the end.

    With methods, or a port, it serves HTTP, with a health check at /healthz. Logs go to stderr unless the module configures logging. --config, --runtime and --app-id hold for clients that are made without these.
    """
    invocation: Invocation = context.obj
    _export(invocation)
    if reload:
        os.environ.setdefault("CLOUD_RUNTIMES_DEV", "1")
    if workers == 1 and not reload:
        if supervised:  # before an import that takes its time
            Background(_end_with_supervisor, "cloud-runtimes-supervisor-watch").start()
        return _run_here(_client(target, factory), host, port, invocation.timeout, log_level)
    with _listening(host, port) as listening:
        timeout = DEFAULT_TIMEOUT if invocation.timeout is None else invocation.timeout
        inherited = () if listening is None else (listening.fileno(),)
        command = [*_command(invocation, target, host, inherited), *["--factory"] * factory]
        command += ["--log-level", log_level] if log_level else []
        changes = Changes()
        processes = [_Worker(command, inherited, changes) for _ in range(workers)]
        return _Workers(processes, changes, reload, timeout + _GRACE).run()


def _command(invocation: Invocation, target: str, host: str, inherited: Sequence[int]) -> list[str]:
    """Return the command line of a worker."""
    from .._http.threaded import INHERITED

    command = [sys.executable, "-m", "cloud_runtimes"]
    if invocation.timeout is not None:
        command += ["--timeout", str(invocation.timeout)]
    command += ["--debug"] * invocation.debug
    address = [f"{INHERITED}{inherited[0]}", "--port", "0"] if inherited else [host]
    return [*command, "run", target, "--supervised", "--host", *address]


@contextmanager
def _listening(host: str, port: int | None) -> Iterator[socket.socket | None]:
    """Listen on a port that is given, for all workers; without one each takes a free one."""
    from .._http.threaded import listen
    from ..rpc.server import checked_place

    if port is None and not os.environ.get("APP_PORT"):
        yield None
        return
    sock, _ = listen(*checked_place(host, port), "give another --host or --port, or unset APP_PORT")
    with sock:
        yield sock


def _export(invocation: Invocation) -> None:
    """Hand the options before the command to the application, whose client reads its environment."""
    for name, value in (
        ("CLOUD_RUNTIMES_CONFIG", invocation.config),
        ("CLOUD_RUNTIMES_RUNTIME", invocation.runtime),
        ("APP_ID", invocation.app_id),
    ):
        if value is not None:
            os.environ[name] = value


# -- one process ----------------------------------------------------------


def _run_here(
    client: CloudRuntimesClient, host: str, port: int | None, timeout: float | None, log_level: str | None
) -> int:
    import logging

    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format=_FORMAT)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if log_level is not None:
        logging.getLogger().setLevel(log_level.upper())
    limits = {} if timeout is None else {"timeout": timeout}
    with client:
        application = client.running(host=host, port=port, **limits)
        try:
            run_until_closed(application, lambda: note(f"{context_of(client).settings.app_id} {application.summary}"))
        except KeyboardInterrupt:  # the second one: whoever sends it has waited
            client.close(timeout=_IMPATIENT)
            raise
    return 128 + application.signal if application.signal else 0


def _end_with_supervisor() -> None:
    """End this process as by SIGTERM once its supervisor was killed, which ends the standard input."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _client(target: str, factory: bool) -> CloudRuntimesClient:
    """Import the client that ``MODULE:NAME`` is, or call what makes it."""
    module, colon, name = target.partition(":")
    if not colon or not module or not name.isidentifier():
        raise UsageError(f"{target!r}: give MODULE:CLIENT, e.g. shop.main:client")
    sys.path.insert(0, os.getcwd())  # as python -m does
    try:
        value: Any = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"there is no module {module!r} in {os.getcwd()} or among the installed ones") from error
    except AttributeError as error:
        raise UsageError(f"the module {module!r} has no {name!r}") from error
    if factory:
        if not callable(value):
            raise UsageError(f"{target} is {type(value).__name__}, not a function: leave out --factory")
        value = value()
    if not isinstance(value, CloudRuntimesClient):
        hint = ": give --factory if it returns one" if inspect.isfunction(value) else ""
        raise UsageError(f"{target} is {type(value).__name__}, not a CloudRuntimesClient{hint}")
    return value


# -- workers --------------------------------------------------------------


class _Worker:
    """The place of one worker: a process, or the pause before the next.

    Attributes:
        code: with which the last process ended; ``None``: it runs.
        is_news: whether that is not told yet.
        begin_at: when the next one begins, by `time.monotonic`; ``None``: there is none.
    """

    def __init__(self, command: list[str], inherited: Sequence[int], changes: Changes) -> None:
        self._command = command
        self._inherited = inherited
        self._changes = changes
        self._failures = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = 0
        self.is_news = False
        self.begin_at: float | None = 0.0

    @property
    def is_over(self) -> bool:
        """Whether none runs, and none begins."""
        return self.code is not None and self.begin_at is None

    def begin(self) -> None:
        """Start a process."""
        self._began = monotonic()
        self.begin_at = self.code = None
        self.process = process = start(self._command, self._inherited)
        Background(partial(self._watch, process), "cloud-runtimes-worker-watch").start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._failures = 0 if monotonic() - self._began >= _STEADY else self._failures + 1
        self.begin_at = monotonic() + _PAUSES.after(self._failures)
        self.code, self.is_news = code, True
        self._changes.announce()

    def renew(self) -> None:
        """Have the next process begin at once, and forget how the last ones ended."""
        self._failures, self.begin_at = 0, 0.0

    def send(self, number: int) -> None:
        """Signal the process, if one runs."""
        if self.process is not None and self.code is None:
            send(self.process, number)


class _Workers:
    """Several workers, or one that is reloaded."""

    def __init__(self, workers: Sequence[_Worker], changes: Changes, reload: bool, timeout: float) -> None:
        self._workers = workers
        self._changes = changes
        self._reload = reload
        self._timeout = timeout
        self._changed: str | None = None
        self._signal = 0

    def run(self) -> int:
        """Run until a signal, or until no worker is left; return the exit code."""
        with ending_signals(self._signalled), self._watching():
            while not self._signal:
                if self._changed is not None:
                    self._begin_anew(self._changed)
                now = monotonic()
                for worker in self._workers:
                    if worker.begin_at is not None and worker.begin_at <= now:
                        worker.begin()
                self._changes.wait_for(self._has_news, self._until_next())
                for worker in self._workers:
                    if worker.is_news:
                        self._ended(worker)
                if not self._reload and all(worker.is_over for worker in self._workers):
                    break
            self._end(self._signal or signal.SIGTERM)
        return 128 + self._signal if self._signal else max(worker.code or 0 for worker in self._workers)

    def _has_news(self) -> bool:
        return bool(self._signal or self._changed is not None or any(worker.is_news for worker in self._workers))

    def _until_next(self) -> float | None:
        times = [worker.begin_at for worker in self._workers if worker.begin_at is not None]
        return max(0.0, min(times) - monotonic()) if times else None

    def _ended(self, worker: _Worker) -> None:
        """Say what ended a worker, and whether another begins."""
        worker.is_news = False
        code = worker.code or 0
        if code in (0, USAGE) or (self._reload and code > 0):
            worker.begin_at = None  # it is over, or the next one would fail as it did
        if code:
            then = "waiting for a change" if self._reload else "not begun again"
            if worker.begin_at is not None:
                then = "another one begins"
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            complain(f"a worker has ended with {how}: {then}")

    def _begin_anew(self, path: str) -> None:
        note(f"{path} has changed: reloading")
        self._changed = None
        self._end(signal.SIGTERM)
        for worker in self._workers:
            worker.renew()

    def _signalled(self, number: int) -> None:
        again, self._signal = self._signal, number
        self._changes.announce()
        if again:
            for worker in self._workers:
                worker.send(KILL)

    def _end(self, number: int) -> None:
        """End all processes: they finish what they have in hand."""
        for worker in self._workers:
            worker.send(number)
        if not self._changes.wait_for(self._all_ended, self._timeout):
            complain(f"workers did not end within {self._timeout:g} s, and are killed")
            for worker in self._workers:
                worker.send(KILL)
            self._changes.wait_for(self._all_ended, None)

    def _all_ended(self) -> bool:
        return all(worker.code is not None for worker in self._workers)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Watch the modules below the working directory."""
        if not self._reload:
            yield
            return
        try:
            from watchfiles import PythonFilter, watch
        except ImportError:
            raise UsageError(str(extras.missing("--reload", "watch"))) from None
        import threading

        stop, folder = threading.Event(), os.getcwd()

        def look() -> None:
            for changes in watch(folder, watch_filter=PythonFilter(), stop_event=stop, debounce=200):
                self._changed = os.path.relpath(min(path for _, path in changes), folder)
                self._changes.announce()

        thread = Background(look, "cloud-runtimes-reload")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5.0)
