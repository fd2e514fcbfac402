"""moto's server for tests: services of AWS, in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.support.servers import Missing, Server

__all__ = ["REGION", "MotoServer", "aws", "serve"]

REGION = "eu-west-1"
_PROGRAM = """
import io, sys, threading
import moto.server
app, one = moto.server.DomainDispatcherApplication(moto.server.create_backend_app), threading.Lock()

def serve(environ, start):
    # a request at a time: moto looks whether a condition holds and stores later, and stores an object before its metadata
    body = environ["wsgi.input"]
    whole = body.read() if environ.get("wsgi.input_terminated") else body.read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(whole)
    with one:
        return app(environ, start)

moto.server.run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=moto.server.MotoRequestHandler)
"""


class MotoServer(Server):
    """A server that runs.

    Attributes:
        url: of all its services.
    """

    def __init__(self, resources: ExitStack) -> None:
        if find_spec("moto") is None:
            raise Missing('moto is not installed: pip install "moto[server]"')
        super().__init__(resources, "moto")
        self.url = f"http://127.0.0.1:{self.port}"
        self.spawn(sys.executable, "-c", _PROGRAM, self.port)
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            urlopen(f"{self.url}/moto-api/", timeout=5).close()
        except HTTPError:
            return True
        except OSError:
            return False
        return True


@contextmanager
def serve() -> Iterator[MotoServer]:
    """Start one."""
    with ExitStack() as resources:
        yield MotoServer(resources)


@cache
def aws(url: str, service: str, **options: Any) -> Any:
    """Return AWS's own client of a service there; one for all who ask."""
    import botocore.session

    options = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION, **options}
    return botocore.session.Session().create_client(service, endpoint_url=url, **options)
