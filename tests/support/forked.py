"""A forked child, for which nobody waits for ever.

A child that hangs would keep the pipes of its test worker open, and so the whole run, even after the worker has gone.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from cloud_runtimes import CloudRuntimesClient

__all__ = ["Forked", "connects_anew", "in_child"]


class Forked:
    """Runs ``body`` in a forked child."""

    def __init__(self, body: Callable[[], Any]) -> None:
        self._answer, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                # what earlier tests left, such as clients of gRPC and librdkafka, has threads that are not here
                gc.disable()
                faulthandler.register(signal.SIGUSR1, file=sys.__stderr__)
                os.close(self._answer)
                try:
                    answer = {"result": body()}
                except BaseException as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                os.write(writing, json.dumps(answer).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)

    def result(self, timeout: float = 60.0) -> Any:
        """Return what ``body`` returned, of what JSON has; fails when it raised or hangs, and then shows where."""
        end = time.monotonic() + timeout
        try:
            while not (outcome := os.waitpid(self.pid, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGUSR1)
                    time.sleep(0.5)
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    raise AssertionError("the child hangs")
                time.sleep(0.002)
            with os.fdopen(self._answer, "rb", closefd=False) as stream:
                answer = json.loads(stream.read() or "{}")
        finally:
            os.close(self._answer)
        assert outcome[1] == 0
        assert "error" not in answer, answer["error"]
        return answer["result"]


def in_child(body: Callable[[], Any]) -> Any:
    """Return what ``body`` returns in a forked child; see `Forked`."""
    return Forked(body).result()


def connects_anew(client: CloudRuntimesClient) -> None:
    """A child makes calls of its own, and the parent goes on."""
    client.state.save("s", "k", 1)
    in_child(lambda: client.state.save("s", "child", client.state.get("s", "k") + 1))
    assert client.state.get("s", "child") == 2
