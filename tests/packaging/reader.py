"""A new user, who does what a page says, block by block, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.packaging.builds import environment, pip_of

__all__ = ["Reader"]

LASTING: Final = {
    "cloud-runtimes run ": " subscription",
    "cloud-runtimes dashboard": " for a browser",
    "cloud-runtimes telemetry serve": " for a browser",
    "cloud-runtimes config watch ": '"version":',
    "nats-server ": "Server is ready",
    "uvicorn ": "Uvicorn running",
}
"""Commands that go on while others are typed elsewhere, and what they write once they are ready."""


class Reader:
    """An empty folder, a fresh virtual environment, and what was written and begun there.

    Attributes:
        said: what the commands wrote, each line after the command that wrote it.
        python: of the environment.
        replacements: text of the page → text for the test, such as ports and addresses.
    """

    def __init__(self, folder: Path, wheel: Path | None, replacements: Mapping[str, str]) -> None:
        """Take packages from the index, but this one from its wheel; without a wheel, install nothing and take what is installed for these tests."""
        self.folder = folder / "project"
        self.folder.mkdir()
        self.said = ""
        self.replacements = replacements
        commands = folder / "venv" / "bin"
        self._environment = environment(None, PIP_NO_INDEX="0", PYTHONUNBUFFERED="1")
        if wheel is None:
            commands.mkdir(parents=True)
            self.python = Path(sys.executable)
            (commands / "pip").symlink_to(shutil.which("true") or "true")
        else:
            venv.create(commands.parent, symlinks=True)
            self.python = commands / "python"
            pip_of(commands.parent)  # one of its own takes seconds to make
            self._environment["PIP_FIND_LINKS"] = str(wheel.parent)
        self._environment["PATH"] = f"{commands}:{self.python.parent}:{self._environment['PATH']}"
        self._running: list[subprocess.Popen[bytes]] = []
        self._log = folder / "running.log"
        self._log.touch()

    def follow(self, page: str) -> None:
        """Write the files of a page and type its commands, from top to bottom; programs without a name are run too."""
        for language, text in re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL):
            for named, other in self.replacements.items():
                text = text.replace(named, other)
            text = re.sub(
                r'"\.\[([a-z,-]+)\]"', r'"cloud-runtimes-python[\1]"', text
            )  # the wheel is that of the checkout
            name = re.match(r"# ([\w./-]+)\n", text)
            if name is not None or language:
                file = name[1] if name is not None else "program.py"
                self.write(file, text)
            if not language:
                for line in text.splitlines():
                    self.type(line)
            elif name is None:
                assert language == "python"
                self.type("python program.py")

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def type(self, line: str) -> None:
        """Type one line into a shell in the folder."""
        variable = re.fullmatch(r"export (\w+)=(\S+)", line)
        if variable is not None:
            self._environment[variable[1]] = variable[2].strip("'")
            return
        for ready in (text for begin, text in LASTING.items() if line.startswith(begin)):
            began = self.heard().count(ready)
            with open(self._log, "ab") as log:
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self._environment, stdout=log, stderr=log
                )
            self._running.append(process)
            workers = re.search(r"--workers (\d+)", line)
            self.hear(ready, began + (int(workers[1]) if workers else 1))
            return
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=120
        )
        self.said += f"$ {line}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, self.said

    def heard(self) -> str:
        """Return what the programs that go on have written."""
        return self._log.read_text(encoding="utf-8")

    def hear(self, text: str, times: int = 1) -> None:
        """Wait until they have written it."""
        end = time.monotonic() + 60
        while self.heard().count(text) < times:
            assert time.monotonic() < end, self.heard()
            time.sleep(0.01)

    def stop(self) -> None:
        """End what goes on, by SIGTERM."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            ends = (143, -15) if "nats-server" not in str(process.args) else (0,)
            assert process.wait(40) in ends, self.heard()
