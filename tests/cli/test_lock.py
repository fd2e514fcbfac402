"""``lock run``: exit codes, signals, a lost lease, the token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.lock import UnlockStatus
from tests.support.waiting import until

pytestmark = pytest.mark.process

CLI = [sys.executable, "-m", "cloud_runtimes"]
Signalled = Callable[[int, int], None]


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, "lock", "run", *argv], capture_output=True, text=True, timeout=60)


@contextmanager
def _started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Start one whose command says ``ready``."""
    command = [*CLI, "lock", "run", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _python(code: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code)


def _free(client: CloudRuntimesClient, resource: str) -> bool:
    lease = client.lock.try_lock("locks", resource)
    if lease is not None:
        lease.release()
    return lease is not None


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_exit_code_is_the_commands(client: CloudRuntimesClient, code: str, exit_code: int) -> None:
    done = _run("locks", "r", *_python(code))
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", "")
    assert _free(client, "r")


def test_the_lock_is_held_and_the_token_is_given(client: CloudRuntimesClient) -> None:
    assert _free(client, "r")
    tokens = []
    for _ in range(2):
        wait = "import os; print(os.environ['CLOUD_RUNTIMES_LOCK_TOKEN'], flush=True); input()"
        with subprocess.Popen(
            [*CLI, "lock", "run", "locks", "r", *_python(wait)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            tokens.append(int(process.stdout.readline()))
            assert client.lock.try_lock("locks", "r") is None
            process.communicate("\n", timeout=30)
        assert process.returncode == 0
    assert 1 < tokens[0] < tokens[1]


def test_the_token_fences(client: CloudRuntimesClient, cli: Any) -> None:
    assert cli("state", "save", "s", "k", "1", "--fence", "5").code == 0
    assert cli("state", "save", "s", "k", "2", "--fence", "4").code == 4
    assert client.state.get("s", "k") == 1


def test_not_free_in_time(client: CloudRuntimesClient) -> None:
    assert client.lock.try_lock("locks", "r") is not None
    for wait in ("0", "0.1"):
        done = _run("locks", "r", "--wait", wait, *_python("print('ran')"))
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith("error: the lock 'r' of 'locks' was not free ")


@pytest.mark.parametrize(("command", "code"), [("/nowhere/at/all", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run(client: CloudRuntimesClient, command: str, code: int) -> None:
    done = _run("locks", "r", "--", command)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {command}: ")
    assert _free(client, "r")


def test_usage(cli: Any) -> None:
    assert cli("lock", "run", "locks", "r").code == 2
    assert cli("lock", "run", "locks", "r", "--expiry", "0", "--", "true").code == 2
    assert "fencing token" in " ".join(cli("lock", "run", "--help").out.decode().split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(client: CloudRuntimesClient, number: signal.Signals, signalled: Signalled) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda n, f: sys.exit(40))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)"  # a long sleep would not be ended by a signal that comes just before it
    )
    # a session of its own: without a terminal, whose interrupt key reaches the command by itself
    command = [*CLI, "lock", "run", "locks", "r", *_python(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        signalled(process.pid, number)
        assert process.wait(30) == 40
    assert _free(client, "r")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait(
    client: CloudRuntimesClient, number: signal.Signals, code: int, signalled: Signalled
) -> None:
    lease = client.lock.try_lock("locks", "r", expiry=60)
    assert lease is not None
    with _started("locks", "r", *_python("print('ran')")) as process:
        engine = client.state._frame.driver("s")._engine
        until(lambda: engine.query(None, "SELECT 1 FROM lock_line"), seconds=30)
        signalled(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "")
    lease.release()
    assert _free(client, "r")  # nobody is in line any more


@pytest.mark.parametrize("stubborn", [False, True], ids=["gives-in", "stubborn"])
def test_a_lost_lease_ends_the_command(client: CloudRuntimesClient, stubborn: bool) -> None:
    ignore = "signal.signal(15, signal.SIG_IGN)\n" if stubborn else ""
    code = f"import os, signal, time\n{ignore}print(os.getpid(), flush=True)\ntime.sleep(60)"
    assert _free(client, "r")
    with _started("locks", "r", "--expiry", "3", *_python(code)) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        (owner,) = client.lock._frame.driver("locks")._engine.query(None, "SELECT owner FROM locks")[0]
        assert client.lock.unlock("locks", "r", owner) is UnlockStatus.SUCCESS
        _, err = process.communicate(timeout=40)
    assert process.returncode == 4
    assert "the lease of 'r'" in err
    assert "lost" in err
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_lost_lease_with_keep(client: CloudRuntimesClient, home: Path) -> None:
    code = "import sys\nprint('ready', flush=True)\ninput()\nsys.exit(9)"
    assert _free(client, "r")
    command = [*CLI, "lock", "run", "locks", "r", "--keep", "--expiry", "3", *_python(code)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        (owner,) = client.lock._frame.driver("locks")._engine.query(None, "SELECT owner FROM locks")[0]
        assert client.lock.unlock("locks", "r", owner) is UnlockStatus.SUCCESS
        while "warning: the lease of 'r' was lost while the command runs" not in (line := process.stderr.readline()):
            assert line
        _, err = process.communicate("\n", timeout=30)
    assert process.returncode == 9
    assert err.startswith("warning: the lease of 'r'")


def test_what_is_ignored_stays_ignored(client: CloudRuntimesClient) -> None:
    """As under nohup."""
    code = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *CLI, "lock", "run", "locks", "r", *_python(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "True\n")
