"""The programs of the documentation, and how they are run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging.builds import ROOT, environment, run

RUNNABLE = (
    "README.md",
    "docs/explanation/schedule.md",
    "docs/how-to/telemetry.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/services").glob("*.md")),
)
"""The pages whose programs run as they are."""


def programs(path: str) -> list[str]:
    """Return the Python programs of a page but for modules of packages; none where the page is not among the test's files."""
    page = ROOT / path
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return re.findall(r"```python\n(?!# \w+/)(.*?)```", text, re.DOTALL)


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
