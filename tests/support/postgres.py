"""A PostgreSQL server of the test run's own: a folder, a free port, an unprivileged user. ``POSTGRES_BIN`` names the folder of another version's programs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from glob import glob
from pathlib import Path

from tests.support.ports import reserved_port

__all__ = ["GUARDED", "Missing", "program", "serve"]

GUARDED = "guarded"
"""A user of whom the server asks a password, once a test has made it; it trusts the others."""


class Missing(Exception):
    """There is no server to start."""


def program(name: str) -> str:
    """Return the path of one of the server's programs."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        return f"{chosen}/{name}"
    found = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4])) or [
        path for path in [shutil.which(name)] if path
    ]
    if not found:
        raise Missing(f"PostgreSQL is not installed: no {name} (apt-get install postgresql)")
    return found[-1]


def _account() -> pwd.struct_passwd | None:
    """The user that the server runs as where the tests run as root, which it refuses."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Missing("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def serve() -> Iterator[str]:
    """Give the URL of a running server, which ends with the block."""
    initdb, postgres = program("initdb"), program("postgres")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="cloud-runtimes-postgres-"))
    options: dict[str, object] = {"cwd": folder, "stdin": subprocess.DEVNULL}
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    server: subprocess.Popen[bytes] | None = None
    resources = ExitStack()
    try:
        made = subprocess.run(  # type: ignore[call-overload]
            [initdb, "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
            capture_output=True,
            timeout=120,
            **options,
        )
        if made.returncode:
            raise RuntimeError(made.stderr.decode())
        access = folder / "data" / "pg_hba.conf"
        access.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")  # the first that fits
        port = resources.enter_context(reserved_port())
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 200,
            "log_min_messages": "panic",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(  # type: ignore[call-overload]
                [postgres, "-D", folder / "data", *arguments], stdout=log, stderr=log, **options
            )
        assert server is not None
        end = time.monotonic() + 60
        while not _answers(folder / "data" / "postmaster.pid"):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
            time.sleep(0.02)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGINT)  # a fast shutdown
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
        resources.close()


def _answers(file: Path) -> bool:
    """Tell whether the server's own file says that it is ready (its line 8)."""
    try:
        return file.read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False
