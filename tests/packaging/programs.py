"""The programs of the documentation, and how they are run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging.builds import ROOT, environment, run
from tests.tutorial.pages import STEPS

RUNNABLE = (
    "README.md",
    "docs/explanation/schedule.md",
    "docs/how-to/telemetry.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/services").glob("*.md")),
)
"""The pages whose programs run with the standard extras too."""
ELSEWHERE = {
    *(f"docs/tutorial/{step}" for step in STEPS),
    *("docs/how-to/fastapi.md", "docs/how-to/django.md", "docs/how-to/deploy.md"),
    *("docs/how-to/write-a-component.md", "docs/how-to/testing.md", "docs/reference/layotto.md"),
    "docs/reference/sidecar.md",
}
"""Pages whose programs other tests run; Layotto's need one."""


def programs(path: str) -> list[str]:
    """Return the Python programs of a page but for modules of packages; none where the page is not among the test's files.

    A block that imports nothing of ours goes on where the one before it ends.
    """
    page = ROOT / path
    sources: list[str] = []
    for block in blocks(page, "python") if page.exists() else []:
        if re.match(r"# \w+/", block):
            continue
        if sources and "cloud_runtimes" not in block:
            sources[-1] += "\n\n" + block
        else:
            sources.append(block)
    return sources


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def check_program(python: str | Path, text: str, folder: Path) -> None:
    """Run a program in a folder: it ends well, and prints what its comments say it prints."""
    program = folder / "program.py"
    program.write_text(text, encoding="utf-8")
    done = run(python, "-W", "error", program, env=environment(None), cwd=folder, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for name in re.findall(r'schedule\.job\("(\w+)"\)\n +def ', text):
        assert f"\n{name} " in f"\n{done.stdout}", "the job has run"
    if " as client" in text and re.search(r"client\.(state|pubsub|telemetry)\.", text):
        assert (folder / ".cloud_runtimes").is_dir()
    for line in text.splitlines():
        if re.search(r"print\(|log\.info\(|\.success\(", line) and "  # " in line:  # what it says it prints
            assert line.partition("  # ")[2] in done.stdout
