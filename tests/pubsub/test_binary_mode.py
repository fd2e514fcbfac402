"""CloudEvents in binary mode, for drivers whose broker has headers."""

from __future__ import annotations

import pytest

from cloud_runtimes.errors import PayloadError
from cloud_runtimes.spi.events import make_event, read_binary, to_binary


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "cloudEvents:"])
def test_an_event_survives_as_headers_and_payload(prefix: str) -> None:
    event = make_event(
        b'{"n":1}',
        "application/json",
        "orders",
        id="e-1",
        type="order.placed",
        subject="o/1",
        time="2026-11-27T10:00:00Z",
        key="k",
        extensions={"priority": 7, "urgent": True},
    )
    headers, payload = to_binary(event, prefix=prefix)
    assert (headers[f"{prefix}specversion"], headers[f"{prefix}partitionkey"]) == ("1.0", "k")
    assert (headers[f"{prefix}priority"], headers[f"{prefix}urgent"]) == ("7", "true")
    back = read_binary(headers, payload, "orders", prefix=prefix)
    for name in ("id", "source", "type", "subject", "time_text", "key", "content_type", "payload"):
        assert getattr(back, name) == getattr(event, name), name


def test_a_message_without_attributes_is_refused() -> None:
    with pytest.raises(PayloadError, match="ce-specversion"):
        read_binary({"content-type": "text/plain"}, b"x", "orders")
