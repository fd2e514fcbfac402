"""The commands and their options; ``python -m tests.support.commands`` writes docs/reference/commands.md from the parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cloud_runtimes.cli._app import app

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"

_HEAD = """# Commands and options

Written by `make docs` from the parser. `--help` after a command says the same.
"""


def render() -> str:
    """Return the document."""
    return "\n".join([_HEAD, *_command(typer.main.get_command(app), "cloud-runtimes")]) + "\n"


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"## {path}\n"
    if not hasattr(command, "commands"):
        named = [each for each in command.params if each.param_type_name == "argument"]
        yield f"`{' '.join([path, *(_shown(each) for each in named)])}`\n"
    yield _text(command.help) + "\n"
    rows = [row for each in command.params if not getattr(each, "hidden", False) if (row := _row(each))]
    if rows:
        yield "| argument or option | meaning |\n|---|---|"
        yield from rows
        yield ""
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _command(below, f"{path} {name}")


def _shown(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("{}[]")
    return name if argument.required else f"[{name}]"


def _row(each: Any) -> str:
    if each.param_type_name == "argument":
        name = f"`{_shown(each)}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*each.opts, *each.secondary_opts])
        name += "" if each.is_flag or not each.metavar else f" `{each.metavar}`"
    description = _text(getattr(each, "help", None))
    default = "" if each.default in (None, False, ()) or callable(each.default) else f" Default: `{each.default}`."
    return (
        "| {} | {} |".format(*(cell.replace("|", "\\|") for cell in (name, description + default)))
        if description
        else ""
    )


def _text(text: str | None) -> str:
    return re.sub(r"(?<![`\w-])(--[a-z-]+)", r"`\1`", " ".join((text or "").split()))


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
