"""The viewer under load for long: memory and file stay flat while the oldest records go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import Figure, Rounds
from tests.telemetry.viewing import JSON, START, attributes, spans

_RATE = 5_000
"""Spans in a second."""
_PER_REQUEST = 500
_SERVE = """
import sys
from cloud_runtimes.dashboard.server import Viewer
with Viewer(sys.argv[1], port=0, max_bytes=64 << 20) as viewer:
    print(viewer.address, flush=True)
    sys.stdin.read()
"""


def _resident(pid: int) -> int:
    """Return the bytes of memory that a process has; 0 where the system does not tell."""
    if not Path("/proc").exists():
        return 0
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _request(number: int) -> bytes:
    begin = START + number * 10**8
    given = [
        {
            "traceId": f"{number * _PER_REQUEST + n // 10 + 1:032x}",
            "spanId": f"{n + 1:016x}",
            "name": f"GET /orders/{n % 7}",
            "startTimeUnixNano": str(begin + n),
            "endTimeUnixNano": str(begin + n + 10**6),
            "attributes": attributes(http__route="/orders/{id}", tier=f"{n % 3}"),
        }
        for n in range(_PER_REQUEST)
    ]
    return json.dumps(spans(*given, service=f"shop-{number % 5}")).encode()


def load(address: str, pid: int, seconds: float) -> tuple[int, list[int], float]:
    """Send spans for so long, and return how many came, the memory after each second, and the slowest list of traces."""
    url = urlsplit(address)
    sender, reader = (HTTPConnection(url.hostname or "", url.port, timeout=60) for _ in range(2))
    sent, memory, slowest = 0, list[int](), 0.0
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        if passed < sent / _RATE:
            time.sleep(sent / _RATE - passed)
        sender.request("POST", "/v1/traces", _request(sent // _PER_REQUEST), JSON)
        reply = sender.getresponse()
        assert (reply.status, reply.read()) == (200, b"{}")
        sent += _PER_REQUEST
        if sent % _RATE == 0:
            memory.append(_resident(pid))
            asked = time.monotonic()
            reader.request("GET", "/api/traces?attributes=tier%3D1&limit=100")
            assert len(json.loads(reader.getresponse().read())["traces"]) == 100
            slowest = max(slowest, time.monotonic() - asked)
    for each in (sender, reader):
        each.close()
    return sent, memory, slowest


@pytest.mark.process
def test_memory_is_flat(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    seconds = rounds(5, 1800)
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        sent, memory, slowest = load(served.stdout.readline().strip(), served.pid, seconds)
        served.communicate("")
    assert served.returncode == 0
    # what is read at first, and SQLite's caches, are there after a minute; then nothing is added
    early, late = max(memory[: max(1, len(memory) // 5)]), max(memory[-max(1, len(memory) // 5) :])
    assert late < 1.2 * early + (32 << 20)
    assert (tmp_path / "telemetry.db").stat().st_size < (64 << 20) * 1.3
    figure(
        "telemetry serve under spans, a list of traces by attribute each second",
        f"{sent / seconds:,.0f} spans/s for {seconds} s: {early >> 20} MiB, at the end {late >> 20} MiB, slowest list {slowest:.2f} s",
    )
