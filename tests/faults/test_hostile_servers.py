"""Hostile servers against our own protocol parsers, in both APIs.

A call ends in time, with an error of ours, in little memory, and holds no event loop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile import PROTOCOLS, HostileServer

pytestmark = pytest.mark.process

_ROOT = Path(__file__).parents[2]
_SHORT, _LONG = 0.5, 20.0
"""Seconds of a call: of one that ends with its deadline, of one that ends before."""
_MEMORY = 64 << 20


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_answers(kind: str, request: pytest.FixtureRequest, figure: Callable[[str, Any], None]) -> None:
    protocol, strict = PROTOCOLS[kind], request.config.getoption("--soak")
    with ExitStack() as stack:
        servers = [stack.enter_context(closing(HostileServer(protocol.greet, answer))) for answer in protocol.answers]
        nobody = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        closed = nobody.getsockname()[1]
        nobody.close()
        limits = {each.answer.name: _LONG if each.answer.foreign else _SHORT for each in servers}
        task = {
            "kind": kind,
            "closed": closed,
            "at_once": 4 if strict else 20,
            "servers": {each.answer.name: (each.port, limits[each.answer.name]) for each in servers},
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.hostile_calls"],
            input=json.dumps(task), capture_output=True, text=True, cwd=_ROOT, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        by_name = {each.answer.name: each for each in servers}
        for each in report["results"]:
            assert each["ours"], each
            assert each["seconds"] < limits[each["name"]] + (0.5 if strict else 10), each
            if by_name[each["name"]].answer.foreign:
                where = f"127.0.0.1:{by_name[each['name']].port} does not speak {protocol.speaks}"
                assert where in each["text"], each
        for server in servers:  # the next attempt has a connection of its own
            if server.answer.foreign:
                assert server.connections >= 4, server.answer.name
        assert report["grown"] < _MEMORY
        assert report["turn"] < (0.2 if strict else 1.0)
        assert "Traceback" not in done.stderr, done.stderr
        figure(
            f"{kind}: hostile answers",
            f"{len(servers)} in both APIs: {report['grown'] / (1 << 20):.1f} MiB, longest turn of a loop {report['turn'] * 1000:.0f} ms",
        )
