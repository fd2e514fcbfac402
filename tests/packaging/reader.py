"""A new user, who does what a page says, block by block, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path

from tests.packaging.builds import environment

__all__ = ["Reader"]


class Reader:
    """An empty folder, a fresh virtual environment, and what was written and begun there.

    Attributes:
        said: what the commands wrote, each line after the command that wrote it.
        python: of the environment.
    """

    def __init__(self, folder: Path, wheel: Path, instead: Mapping[str, str]) -> None:
        """Take packages from the index, but this one from its wheel; ``instead`` has addresses of servers of the test."""
        self.folder = folder / "project"
        self.folder.mkdir()
        self.said = ""
        self._instead = instead
        venv.create(folder / "venv", symlinks=True)
        commands = folder / "venv" / "bin"
        self.python = commands / "python"
        pip = commands / "pip"  # as venv makes it in some seconds
        pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{self.python}" "$@"\n', encoding="utf-8")
        pip.chmod(0o755)
        self._environment = environment(None, PIP_NO_INDEX="0", PIP_FIND_LINKS=str(wheel.parent), PYTHONUNBUFFERED="1")
        self._environment["PATH"] = f"{commands}:{self._environment['PATH']}"
        self._running: list[subprocess.Popen[bytes]] = []
        self._log = folder / "running.log"
        self._log.touch()

    def follow(self, page: str) -> None:
        """Write the files of a page and type its commands, from top to bottom."""
        for language, text in re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL):
            for named, other in self._instead.items():
                text = text.replace(named, other)
            name = re.match(r"# ([\w.-]+)\n", text)
            if name is not None:
                (self.folder / name[1]).write_text(text, encoding="utf-8")
                continue
            assert not language, f"a block of {language} without the name of its file"
            for line in text.splitlines():
                self._type(line)

    def _type(self, line: str) -> None:
        if line.startswith("cloud-runtimes run "):  # which goes on while others are typed elsewhere
            began = self.heard().count(" subscriptions")
            with open(self._log, "ab") as log:
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self._environment, stdout=log, stderr=log
                )
            self._running.append(process)
            workers = re.search(r"--workers (\d+)", line)
            self.hear(" subscriptions", began + (int(workers[1]) if workers else 1))
            return
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=120
        )
        self.said += f"$ {line}\n{done.stdout}"
        assert (done.returncode, done.stderr) == (0, ""), f"{self.said}{done.stderr}"

    def heard(self) -> str:
        """Return what the programs that go on have written."""
        return self._log.read_text(encoding="utf-8")

    def hear(self, text: str, times: int = 1) -> None:
        """Wait until they have written it."""
        end = time.monotonic() + 30
        while self.heard().count(text) < times:
            assert time.monotonic() < end, self.heard()
            time.sleep(0.01)

    def stop(self) -> None:
        """End what goes on, by SIGTERM."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            assert process.wait(40) == 143, self.heard()
