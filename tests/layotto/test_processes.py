"""A forked child connects anew, and the parent's streams stay the parent's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import grpc_forks
from tests.support.fake_layotto import FakeLayotto

pytestmark = pytest.mark.process


def test_a_forked_child_connects_anew(fake: FakeLayotto) -> None:
    grpc_forks.check("connects_anew", endpoint=fake.endpoint, runtime="layotto", app_id="suite")


def test_a_child_that_is_forked_beside_a_stream_is_refused(fake: FakeLayotto) -> None:
    grpc_forks.check("is_refused_beside_a_stream", endpoint=fake.endpoint, runtime="layotto", app_id="suite")


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
