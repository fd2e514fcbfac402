"""``secret get``."""

from __future__ import annotations

import sys

from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import write

__all__ = ["get"]


def get(invocation: Invocation, store: str, key: str, *, entry: str | None, reveal: bool) -> int:
    """Write the value of a secret: to a pipe or file as it is, to a terminal only if asked to, and then with a line end."""
    terminal = sys.stdout.isatty()
    if terminal and not reveal:
        raise UsageError("stdout is a terminal, so the secret is not read: send it to a pipe or file, or give --reveal")
    with connect(invocation) as client:
        secret = client.secret.get_secret(store, key)
    if entry is None and len(secret) != 1:
        raise UsageError(f"{secret!r} has {len(secret)} entries: give --entry NAME")
    if entry is not None and entry not in secret:
        raise UsageError(f"{secret!r} has no entry {entry!r}")
    write((secret.value if entry is None else secret[entry]).encode() + (b"\n" if terminal else b""))
    return 0
