"""A MariaDB server for tests, which needs no login."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.servers import Missing, Server

__all__ = ["MariadbServer", "serve"]


class MariadbServer(Server):
    """A server that runs.

    Attributes:
        url: of its database ``test``, for SQLAlchemy.
    """

    def __init__(self, resources: ExitStack) -> None:
        super().__init__(resources, "mariadb")
        own = (f"--datadir={self.folder}/data", f"--socket={self.folder}/socket", "--user=root")
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", *own],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        made.check_returncode()
        self.url = f"mysql+pymysql://root@127.0.0.1:{self.port}/test"
        self.spawn("mariadbd", "--no-defaults", *own, f"--port={self.port}", "--bind-address=127.0.0.1")
        self.wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True


@contextmanager
def serve() -> Iterator[MariadbServer]:
    """Run a server until the block ends."""
    if not (shutil.which("mariadbd") and shutil.which("my_print_defaults")):
        raise Missing("MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core")
    with ExitStack() as resources:
        yield MariadbServer(resources)
