"""There is one line that installs this package, the helper's, on every page, in every Dockerfile and message."""

from __future__ import annotations

import re
import tomllib

from cloud_runtimes._core.extras import PACKAGE, WHERE, install_line, missing
from tests.packaging.builds import ROOT

PLACES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "cloud_runtimes", "src_ext", "tools", ".github"]
KINDS = {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".cfg", ".sh", ""}
# a wheel that somebody has built, and what will hold once there is a release
ELSEWHERE = {"docs/explanation/packaging.md", "docs/explanation/releasing.md"}
_NAMED = re.compile(r"(?:pip|pipx|uv|poetry|pdm|conda)(?: tool| pip)? (?:install|add|wheel|run)\b[^`\n]*")
_OURS = re.compile(r"cloud[-_]runtimes[-_]python|(?<![\w/])\.\[")
_LINE = re.compile(r'install (?:-e |--no-cache-dir )?"([^"\[]+)\[([a-z-]+(?:,[a-z-]+)*)\]"')


def texts() -> list[str]:
    files = [
        file
        for path in PLACES
        for file in ([ROOT / path] if (ROOT / path).is_file() else sorted((ROOT / path).rglob("*")))
        if file.is_file() and file.suffix in KINDS and "__pycache__" not in file.parts
    ]
    return [str(file.relative_to(ROOT)) for file in files if str(file.relative_to(ROOT)) not in ELSEWHERE]


def test_every_line_that_installs_this_package_is_the_one() -> None:
    """On PyPI the name is another project's, so neither an example of requirements nor a message may have it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in texts():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"""cloud-runtimes-python(\[|\s*[=>~]=)|["']cloud-runtimes-python["']""", text), name
        for command in filter(_OURS.search, _NAMED.findall(text)):
            line = _LINE.search(command)
            assert line is not None, f"{name}: {command}: give {install_line('standard')}"
            assert line[1] == PACKAGE, f"{name}: {command}: give {install_line(*line[2].split(','))}"
            assert set(line[2].split(",")) <= set(extras), command


def test_messages_have_the_line() -> None:
    assert install_line("redis", "yaml") == f'pip install "{PACKAGE}[redis,yaml]"'
    assert str(missing("this", "redis")) == f"this needs an extra: {install_line('redis')} {WHERE}".rstrip()
