"""Bases of harnesses: clients that are closed at the end, names of their own, clocks that cannot be set."""

from __future__ import annotations

import itertools
import os
import time
from functools import cached_property
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness

__all__ = ["Clients", "RealTime", "own_name"]

_numbers = itertools.count(1)


def own_name(separator: str = "-") -> str:
    """Return a name that no other harness has on the servers of this run."""
    return separator.join(("home", str(os.getpid()), str(next(_numbers))))


class Clients(Harness):
    """Makes clients of a configuration. A subclass has `config`, or `make` where more is needed."""

    @cached_property
    def _clients(self) -> list[CloudRuntimesClient]:
        return []

    def config(self) -> dict[str, Any]:
        """The configuration of each client."""
        raise NotImplementedError

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        """Make a client."""
        return CloudRuntimesClient(config=self.config(), **arguments)

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        self._clients.append(self.make(**arguments))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()


class RealTime(Clients):
    """On a server whose clock cannot be set; a test may wait for ``longest`` seconds."""

    longest = 1.0
    server_kind: ClassVar[str]
    """The name of the server, and the folder of tests that set its clock otherwise."""
    folder: ClassVar[str]

    def advance(self, seconds: float) -> None:
        if seconds > self.longest:
            pytest.skip(
                f"the clock of {self.server_kind} cannot be set, and {seconds:g} s are long: see tests/{self.folder}"
            )
        time.sleep(seconds)
