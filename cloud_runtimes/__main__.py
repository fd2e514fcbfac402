"""``python -m cloud_runtimes``: the same as the console script ``cloud-runtimes``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
