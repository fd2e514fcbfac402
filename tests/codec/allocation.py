"""Program of the allocation tests: measures the peak of memory while it decodes each document of a table, in a process for each.

Memory that another document left behind would be used again unseen.
"""

from __future__ import annotations

import gc
import importlib
import json as standard
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud_runtimes.errors import PayloadError

N = 1_500_000

# of MessagePack; the second element of each is the number of items where it is accepted
BAD: dict[str, Callable[[], bytes]] = {
    "array bomb": lambda: b"\xdd\xff\xff\xff\xff" + b"\x01" * N,
    "map bomb": lambda: b"\xdf\xff\xff\xff\xff" + b"\x01" * N,
    "bin bomb": lambda: b"\xc6\xff\xff\xff\xff" + b"\x01" * N,
    "bombs within each other": lambda: b"".join(b"\xdd" + (N - 5 * i).to_bytes(4, "big") for i in range(120))
    + b"\x90" * N,
    "short bombs within each other": lambda: b"\xdc\x1f\x00" * 120 + b"\x90" * 7800,
    "deep": lambda: b"\x91" * N,
    "deep, maps": lambda: b"\x81\xa0" * (N // 2),
    "a list cut off": lambda: b"\xdd" + N.to_bytes(4, "big") + b"\x90" * (N - 1),
    "small maps cut off": lambda: b"\xdd" + (N // 3).to_bytes(4, "big") + b"\x81\x00\xc0" * (N // 3 - 1),
    "something behind": lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\x90" * (N // 2) + b"\x01",
    "too many items": lambda: b"\xdd" + N.to_bytes(4, "big") + b"\x90" * N,
    "no UTF-8 at the end": lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\x90" * (N // 2 - 1) + b"\xa1\xff",
    "long text, no UTF-8 at its end": lambda: b"\xdb"
    + (4 * N + 1).to_bytes(4, "big")
    + b"\xf0\x9f\x98\x80" * N
    + b"\xff",
    "long text, something behind": lambda: b"\xdb"
    + (N + 4).to_bytes(4, "big")
    + b"\xf0\x9f\x98\x80"
    + b"x" * N
    + b"\x01",
    "an extension": lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\x90" * (N // 2 - 1) + b"\xd4\x05\x00",
}
GOOD: dict[str, tuple[int, Callable[[], bytes]]] = {
    "None": (N // 2, lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\xc0" * (N // 2)),
    "small ints": (N // 2, lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\x05" * (N // 2)),
    "ints": (
        N // 4,
        lambda: b"\xdd" + (N // 4).to_bytes(4, "big") + b"\xcf\x80\x00\x00\x00\x00\x00\x00\x01" * (N // 4),
    ),
    "floats": (
        N // 4,
        lambda: b"\xdd" + (N // 4).to_bytes(4, "big") + b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x01" * (N // 4),
    ),
    "empty lists": (N // 2, lambda: b"\xdd" + (N // 2).to_bytes(4, "big") + b"\x90" * (N // 2)),
    "small lists": (N // 2, lambda: b"\xdd" + (N // 8).to_bytes(4, "big") + b"\x93\x01\x02\x03" * (N // 8)),
    "texts": (N // 4, lambda: b"\xdd" + (N // 4).to_bytes(4, "big") + b"\xa4abcd" * (N // 4)),
    "empty maps": (N // 4, lambda: b"\xdd" + (N // 4).to_bytes(4, "big") + b"\x80" * (N // 4)),
    "small maps": (N // 4, lambda: b"\xdd" + (N // 8).to_bytes(4, "big") + b"\x81\xa2id\x01" * (N // 8)),
    "one map": (
        N // 8,
        lambda: b"\xdf"
        + (N // 8).to_bytes(4, "big")
        + b"".join(b"\xce" + i.to_bytes(4, "big") + b"\x01" for i in range(N // 8)),
    ),
}
JSON: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b"[" * N,
    "deep, objects": lambda: b'{"a":' * (N // 5),
    "cut off": lambda: b"[" + b"1," * (N // 2),
    "lists cut off": lambda: b"[" + b"[]," * (N // 3),
    "too many items": lambda: b"[" + b"1," * N + b"1]",
    "something behind": lambda: b"[" + b"1," * (N // 2) + b"1]]",
}


def status(name: str) -> int:
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def peak(decode: Callable[[bytes], Any], data: bytes) -> tuple[int, bool]:
    """Return by how many bytes the resident memory grew at most, and whether it was decoded."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = status("VmRSS:")
    try:
        value = decode(data)
    except PayloadError:
        value = None
    grown = status("VmHWM:") - before
    return grown, value is not None


if __name__ == "__main__":
    module, function, table = sys.argv[1:]
    from cloud_runtimes.codec import json as _codec

    decode = getattr(importlib.import_module(module), function)
    if function == "decode_json":
        importlib.import_module(module).use(*_codec.reader())
    # what is loaded by the first call is no part of it
    decode(b"[]" if function == "decode_json" else b"\x90")
    for name, case in globals()[table].items():
        if not os.fork():
            items, make = case if isinstance(case, tuple) else (0, case)
            data = make()
            grown, accepted = peak(decode, data)
            result = {"name": name, "bytes": len(data), "items": items, "grown": grown, "accepted": accepted}
            os.write(1, standard.dumps(result).encode() + b"\n")
            os._exit(0)
        os.wait()
