"""Kernels import nothing above `_native`; what they call above is there whichever module is imported first."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_runtimes import _native

ROOT = Path(__file__).parents[2]
ABOVE = re.compile(
    r"^\s*(?:from|import)\s+(?:cloud_runtimes\.(?!_native\b|errors\b)|\.\.(?!errors\b))\S*", re.MULTILINE
)

FIRST = {
    "a dataclass as MessagePack": """
from cloud_runtimes.codec import msgpack
import dataclasses
made = dataclasses.make_dataclass("Point", [("x", int)])
assert msgpack.decode(msgpack.encode(made(1)), type=made) == made(1)
""",
    "JSON into a type": """
from cloud_runtimes.codec import json
assert json.decode(b"[1]", type=tuple[int]) == (1,)
""",
    "a payload into a type": """
from cloud_runtimes.codec.payload import decode_payload
assert decode_payload(b"\\x91\\x01", "application/msgpack", tuple[int]) == (1,)
""",
    "an event of text": """
from cloud_runtimes.codec import cloudevents
event = cloudevents.decode(cloudevents.encode("x", "/s", "t", content_type="text/plain"))
from cloud_runtimes.pubsub import Event
assert type(event) is Event and event.data == "x"
""",
    "limits": """
from cloud_runtimes import codec
codec.limits(depth=1)
try:
    codec.msgpack.decode(b"\\x91\\x91\\x01")
except codec.json.PayloadError:
    pass
else:
    raise SystemExit("decoded")
""",
}


@pytest.mark.parametrize("program", FIRST.values(), ids=FIRST)
def test_whatever_is_imported_first(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_kernels_import_nothing_above() -> None:
    # of an installed wheel where the tests run on one
    package = Path(_native.__file__).parent
    sources = [*package.glob("*.py"), *(ROOT / "src_ext").glob("*.p*")]
    assert len(sources) > 50
    assert not [(path.name, match) for path in sources for match in ABOVE.findall(path.read_text("utf-8"))]
    assert ABOVE.findall("    from ..codec import json\nimport cloud_runtimes.pubsub.types\n")
