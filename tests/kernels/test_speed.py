"""Speed cannot rot unseen: ratios to peers in the same process, timed by processor time, in turn, against floors far below what `make bench` shows."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Any

import pytest

from benches.race import Call, race, ratio
from cloud_runtimes.codec import cloudevents, json, msgpack

orjson = pytest.importorskip("orjson")
peer = pytest.importorskip("msgpack")
EVENT: dict[str, Any] = orjson.loads((Path(__file__).parents[2] / "benches" / "data" / "small_event.json").read_bytes())
PACKED: bytes = peer.packb(EVENT)
TEXT = cloudevents.encode(EVENT, "/test", "test.event")


def by_hand() -> Any:
    now = datetime.datetime.now(datetime.UTC).isoformat()
    context = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/test", "type": "test.event", "time": now}
    return orjson.dumps({**context, "datacontenttype": "application/json", "data": EVENT})


CASES: dict[str, tuple[Call, Call, float]] = {
    "MessagePack encode, msgpack": (lambda: msgpack.encode(EVENT), lambda: peer.packb(EVENT), 2.0),
    "MessagePack decode, msgpack": (lambda: msgpack.decode(PACKED), lambda: peer.unpackb(PACKED), 1.0),
    "JSON encode, orjson": (lambda: json.encode(EVENT), lambda: orjson.dumps(EVENT), 0.4),
    "envelope, by hand": (lambda: cloudevents.encode(EVENT, "/test", "test.event"), by_hand, 2.0),
    "envelope parse, orjson": (lambda: cloudevents.decode(TEXT).id, lambda: orjson.loads(TEXT)["id"], 1.0),
}


@pytest.mark.soak
@pytest.mark.native_only
@pytest.mark.parametrize("case", CASES)
def test_ratio(case: str) -> None:
    ours, theirs, floor = CASES[case]
    times = race({"ours": ours, "theirs": theirs}, 45)
    assert ratio(times["ours"], times["theirs"]) >= floor
