"""The engines of `tests/engines.toml`; ``python tests/support/engines.py`` prints the packages of Debian that are missing here."""

from __future__ import annotations

import glob
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

__all__ = ["ENGINES"]

ENGINES: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (Path(__file__).parents[1] / "engines.toml").read_text(encoding="utf-8")
)

if __name__ == "__main__":
    for engine in ENGINES.values():
        for package, file in engine.get("packages", {}).items():
            if not (shutil.which(file) or glob.glob(file)):
                sys.stdout.write(f"{package}\n")
