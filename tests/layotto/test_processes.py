"""A forked child connects anew, and the parent's streams stay the parent's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fake_layotto import FakeLayotto

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ClosedError, UnsupportedError

pytestmark = pytest.mark.process
SOON = 20.0


def test_a_forked_child_connects_anew(client: CloudRuntimesClient) -> None:
    client.state.save("s", "k", 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.state.save("s", "child", client.state.get("s", "k") + 1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert client.state.get("s", "child") == 2


def test_a_child_that_is_forked_beside_a_stream_is_refused(client: CloudRuntimesClient) -> None:
    with client.pubsub.subscribe("bus", "forked") as sub:
        client.pubsub.publish("bus", "forked", "parent")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                try:
                    sub.receive(1)
                except ClosedError:
                    try:
                        client.state.get("s", "k")
                    except UnsupportedError:  # gRPC would hang in it
                        code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        event = sub.receive(SOON)
        assert event is not None
        event.ack()
        assert event.data == "parent"


def test_another_process(fake: FakeLayotto) -> None:
    program = """
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="suite") as client:
    client.wait_ready(timeout=20)
    client.state.save("s", "k", {"n": 9007199254740993})
    assert client.state.get("s", "k") == {"n": 9007199254740993}
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", b"x")
        assert sub.receive(20).data == b"x"
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "LAYOTTO_GRPC_ENDPOINT": fake.endpoint},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
