"""PostgreSQL servers of the test run's own: a folder, a free port, an unprivileged user. ``POSTGRES_BIN`` names the folder of another version's programs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from glob import glob
from pathlib import Path
from typing import Any, Self

from tests.support.ports import reserved_port
from tests.support.servers import Missing, new_folder

__all__ = ["GUARDED", "Missing", "PgBouncer", "PostgresServer", "processor_seconds", "program"]

GUARDED = "guarded"
"""A user of whom the server asks a password, once a test has made it; it trusts the others."""


def program(name: str) -> str:
    if chosen := os.environ.get("POSTGRES_BIN"):
        return f"{chosen}/{name}"
    candidates = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4])) or [
        path for path in [shutil.which(name)] if path
    ]
    if not candidates:
        raise Missing(f"PostgreSQL is not installed: no {name} (apt-get install postgresql)")
    return candidates[-1]


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


class _Program:
    """A server program in a folder of its own, on a port that stays its own while it is down: ``with`` starts and ends it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or new_folder("postgres")
        self.process: subprocess.Popen[bytes] | None = None
        self._account = _account()
        self._resources = ExitStack()
        self._resources.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.port = self._resources.enter_context(reserved_port())
        self.give(self.folder)

    def give(self, folder: Path) -> None:
        """Let its user have a folder."""
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)

    def mount(self, size: str) -> Path:
        """Return a folder on a disk of its own, so large."""
        folder = self.folder / "disk"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        self._resources.callback(subprocess.run, ["umount", folder], check=True)
        self.give(folder)
        return folder

    def options(self) -> dict[str, Any]:
        """How its programs are started."""
        options: dict[str, Any] = {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        if chosen := os.environ.get("POSTGRES_BIN"):  # its libraries too, since the system's may be older
            options["env"] = {**os.environ, "LD_LIBRARY_PATH": f"{chosen}/../lib"}
        if self._account is not None:
            options |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return options

    def run(self, name: str, *arguments: Any) -> None:
        """Run one of its programs to the end."""
        ended = subprocess.run(
            [program(name), *map(str, arguments)], capture_output=True, timeout=120, **self.options()
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr.decode())

    def spawn(self, *command: Any, **options: Any) -> None:
        """Start it."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, **(self.options() | options))

    def running(self) -> subprocess.Popen[bytes]:
        """Return its process."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"it does not run: {(self.folder / 'log').read_text()[-2000:]}")
        return self.process

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes, each of which leads a group of its own; new ones do not come in between."""
        parent = self.running().pid
        os.kill(parent, signal.SIGSTOP)
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)
        os.kill(parent, number)

    def kill(self) -> None:
        """End all of its processes in one moment, as the death of its machine would."""
        self.signal(signal.SIGKILL)
        self.running_ended(30)

    def running_ended(self, seconds: float) -> None:
        """Wait for its end."""
        assert self.process is not None
        self.process.wait(seconds)

    def close(self) -> None:
        """End it, and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)  # a fast shutdown
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self._resources.close()


class PostgresServer(_Program):
    """A server. ``settings`` are of its configuration; ``folder`` is for its data, else one of its own."""

    def __init__(self, folder: Path | None = None, **settings: Any) -> None:
        program("postgres")
        super().__init__(folder)
        self.data = self.folder / "data"
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 400,
            "log_min_messages": "panic",
            **settings,
        }

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        try:
            if not self.data.exists():
                # synced neither: what a test writes outlives processes, not machines
                self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
                access = self.data / "pg_hba.conf"  # the first that fits
                access.write_text(
                    f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\nhost all all samehost trust\n{access.read_text()}"
                )
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, **options: Any) -> None:
        """Start it, also after `kill` or `kill_postmaster`, and wait until it takes connections."""
        given = {"port": self.port, **self.settings}
        arguments = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        end = time.monotonic() + 60
        while self.process is None or self.process.poll() is not None or not self._answers():
            if self.process is None or self.process.poll() is not None:
                # processes of a postmaster that was killed may still have its memory
                self.spawn(program("postgres"), "-D", self.data, *arguments, **options)
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Return whether the server's own file says that it is ready (its line 8), and is of this process."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return self.process is not None and lines[0] == str(self.process.pid) and lines[7].strip() in _READY
        except (OSError, IndexError):
            return False

    def kill_postmaster(self) -> None:
        """SIGKILL the postmaster alone; the other processes find out, each when it waits next."""
        self.running().kill()
        self.running_ended(30)

    def restart(self) -> None:
        """Shut it down fast, and start it."""
        self.running().send_signal(signal.SIGINT)
        self.running_ended(30)
        self.start()

    def follow(self, primary: PostgresServer) -> None:
        """Make this one, which does not run, a standby of another: it begins with a copy of all that is there."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
        self.run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-d", source)

    def configure(self, **settings: str | None) -> None:
        """Change settings while it runs; ``None``: as they were."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = {'DEFAULT' if value is None else repr(value)}")  # type: ignore[arg-type]
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "promote", "-D", self.data, "-w", "-t", 60)


_READY = ("ready", "standby")


class PgBouncer(_Program):
    """PgBouncer in transaction mode before a server, with so few server connections that clients meet on them."""

    def __init__(self, server: PostgresServer, **settings: Any) -> None:
        self._binary = shutil.which("pgbouncer")
        if self._binary is None:
            raise Missing("PgBouncer is not installed (apt-get install pgbouncer)")
        super().__init__()
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "max_client_conn": 200,
            "logfile": self.folder / "pgbouncer.log",
            **settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in given.items())
        target = f"host=127.0.0.1 port={server.port} user=postgres"
        (self.folder / "pgbouncer.ini").write_text(f"[databases]\npostgres = {target}\n[pgbouncer]\n{lines}")
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        self.spawn(self._binary, "pgbouncer.ini")
        end = time.monotonic() + 30
        log = self.folder / "pgbouncer.log"
        while not (log.exists() and "process up" in log.read_text()):
            self.running()
            assert time.monotonic() < end, "PgBouncer did not start"
            time.sleep(0.02)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def processor_seconds(postmaster: int) -> float:
    """Return what the open sessions of a server have used; what writes back and vacuums is none."""
    seconds = 0.0
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        folder = Path("/proc") / child
        try:
            if (folder / "cmdline").read_bytes().startswith(b"postgres: postgres "):
                seconds += int((folder / "schedstat").read_text().split()[0]) / 1e9  # utime and stime are rounded
        except OSError:
            pass  # it ended
    return seconds
