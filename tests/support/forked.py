"""What a forked child may do with its parent's client over gRPC, whichever the sidecar."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ClosedError, UnsupportedError

__all__ = ["connects_anew", "is_refused_beside_a_stream"]

SOON = 20.0


def connects_anew(client: CloudRuntimesClient) -> None:
    """It makes calls of its own, and the parent goes on."""
    client.state.save("s", "k", 1)
    _in_a_child(lambda: client.state.save("s", "child", client.state.get("s", "k") + 1))
    assert client.state.get("s", "child") == 2


def is_refused_beside_a_stream(client: CloudRuntimesClient) -> None:
    """Beside an open stream gRPC's library crashes or hangs in a child now and then, so it is refused there; the parent goes on."""
    with client.pubsub.subscribe("bus", "forked") as sub:
        client.pubsub.publish("bus", "forked", "parent")

        def child() -> None:
            with pytest.raises(ClosedError):
                sub.receive(1)
            for call in (lambda: client.pubsub.publish("bus", "forked", "child"), lambda: client.state.get("s", "k")):
                with pytest.raises(UnsupportedError, match="spawn") as caught:
                    call()
                assert not caught.value.maybe_applied

        _in_a_child(child)
        client.pubsub.publish("bus", "forked", "again")
        came = []
        for _ in range(2):
            event = sub.receive(SOON)
            assert event is not None
            event.ack()
            came.append(event.data)
        assert sorted(came) == ["again", "parent"]


def _in_a_child(body: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
