"""A process that runs a body of a script and speaks JSON, a line each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Child", "Start"]


class Child:
    """Runs ``script BODY ARGUMENT…``; `environment` adds to that of this process, `prefix` is the command before it."""

    def __init__(
        self,
        script: Path,
        body: str,
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(script), body, *map(str, arguments)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        """Read what it says next."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"the child ended with {self.process.wait()}"
        message: dict[str, Any] = json.loads(text)
        return message

    def ready(self) -> Child:
        """Wait until it is ready."""
        assert self.line() == {"ready": True}
        return self

    def go(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> list[dict[str, Any]]:
        """SIGKILL it; returns all that it still said. A line cut by the kill was not said."""
        self.process.kill()
        return self.rest()

    def rest(self) -> list[dict[str, Any]]:
        """Wait for its end; returns what it said and was not read."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().split("\n")
        self.process.wait()
        return [json.loads(line) for line in lines[:-1]]

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


Start = Callable[..., Child]
"""A fixture that starts children, which are ended afterwards."""
