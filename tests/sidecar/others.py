"""Processes of ``load.py`` and of the command line, as the tests of load and limits use them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar import load

LINE = re.compile(r"(http://\S+) for HTTP, (\S+) for gRPC: the sidecar of shop\n")
PATIENCE = 120


class Other:
    """A process of ``load.py``; it ends when its input does."""

    def __init__(self, *words: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, load.__file__, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # of large blocks the C library gives back each that is free, so that what is measured is what is held
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
            text=True,
        )

    def line(self) -> Any:
        """Return what it says next."""
        assert self.process.stdout is not None
        late = threading.Timer(PATIENCE, self.process.kill)
        late.start()
        try:
            said = self.process.stdout.readline()
        finally:
            late.cancel()
        assert said, self.process.communicate()[1]
        return json.loads(said)

    def ask(self) -> Any:
        """Have it say something."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self) -> list[Any]:
        """Kill it; returns all that it has said and nobody has read."""
        self.process.kill()
        assert self.process.stdout is not None
        out = self.process.stdout.read()  # communicate() would leave out what was read ahead of lines
        return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]

    def rest(self) -> Any:
        """End it; returns what it says at last."""
        out, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, errors) == (0, "")
        return json.loads(out) if out else None


@contextmanager
def other(*words: Any) -> Iterator[Other]:
    """Start a process of ``load.py``, which is killed if it has not ended."""
    program = Other(*words)
    try:
        yield program
    finally:
        program.process.kill()
        with program.process:  # closes its pipes and waits for it
            pass


def run(*words: Any) -> Any:
    """Run ``load.py`` to its end and return what it says."""
    command = [sys.executable, load.__file__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@contextmanager
def command(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Start ``cloud-runtimes serve`` on its defaults; gives the process and its addresses."""
    environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(home)}
    for name in ("CLOUD_RUNTIMES_CONFIG", "CLOUD_RUNTIMES_DURABILITY", "DAPR_API_TOKEN", "APP_API_TOKEN"):
        environment.pop(name, None)
    argv = [sys.executable, "-m", "cloud_runtimes", "serve", "--app-id", "shop", "-H", "0", "-G", "0", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=home) as process:
        try:
            assert process.stdout is not None
            match = LINE.fullmatch(process.stdout.readline())
            if match is None:
                pytest.fail(process.communicate()[1])
            yield process, match[1], match[2]
        finally:
            process.kill()


def times(summary: Any, *, kinds: bool = True) -> str:
    """Return a load's p50 and p99 for people, in milliseconds."""
    rows = {"all": summary, **summary["kinds"]} if kinds else {"": summary}
    return ", ".join(f"{name} {each['p50'] * 1e3:.1f}/{each['p99'] * 1e3:.1f}".strip() for name, each in rows.items())
