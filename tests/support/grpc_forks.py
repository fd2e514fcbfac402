"""Use of a parent's gRPC client in a forked child, with any sidecar.

Each check runs in a process of its own. Where grpcio's server is in the process, as with a sidecar in a test,
one child in some thousands hangs or crashes within ``fork`` itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ClosedError, UnsupportedError
from tests.support.forked import connects_anew, in_child

__all__ = ["check"]

SOON = 20.0


def check(what: str, **arguments: Any) -> None:
    """Run a check with a client that is made with these arguments."""
    command = [sys.executable, "-m", __name__, what, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr


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

        in_child(child)
        client.pubsub.publish("bus", "forked", "again")
        came = []
        for _ in range(2):
            event = sub.receive(SOON)
            assert event is not None
            event.ack()
            came.append(event.data)
        assert sorted(came) == ["again", "parent"]


if __name__ == "__main__":
    with CloudRuntimesClient(**json.loads(sys.argv[2])) as client:
        {"connects_anew": connects_anew, "is_refused_beside_a_stream": is_refused_beside_a_stream}[sys.argv[1]](client)
