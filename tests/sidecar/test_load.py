"""A sidecar on its defaults under a steady load, and its end meanwhile."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.others import command, other, run, times
from tests.sidecar.raw import SERVICE, send
from tests.support import Figure, Rounds
from tests.support.apps import App, Got, Reply
from tests.support.waiting import until

pytestmark = pytest.mark.process


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.timing
def test_a_steady_load(home: Path, rounds: Rounds, figure: Figure) -> None:
    rate, seconds = 2_000, rounds(1, 60)
    with command(home) as (process, url, _):
        steady = run("steady", url, rate, seconds, 16)
        maximum = run("steady", url, 0, rounds(0, 20) or 0.5, 16)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", "")
    figure(
        f"the sidecar on its defaults, {seconds} s at {rate:,} requests a second over HTTP",
        f"{steady['rate']:,.0f} answered a second, p50/p99 in ms: {times(steady)}",
    )
    figure(
        "the sidecar on its defaults, as fast as it answers", f"{maximum['rate']:,.0f} a second, ms: {times(maximum)}"
    )
    for each in steady, maximum:
        assert each["sent"] == each["answered"] > 0
        assert each["refused"] == each["unanswered"] == 0
    if rounds(0, 1):
        assert steady["sent"] >= 0.99 * rate * seconds
        assert steady["rate"] >= 0.99 * rate
        assert steady["p99"] <= 0.1


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=10).close()
    except OSError:
        return False
    return True


def test_the_end_under_load(home: Path, rounds: Rounds) -> None:
    """SIGTERM: what is under way is answered, over both protocols, and the rest goes back."""
    gate = Event()

    def answer(got: Got) -> Reply:
        if got.path == "/events":
            return Reply(200, b'{"status":"RETRY"}')
        gate.wait(60)
        return Reply(200, b"done")

    route = [{"pubsubname": "bus", "topic": "work", "route": "/events"}]
    kinds = messages()
    with App(route, answer) as app, command(home, "--app-port", str(app.port)) as (process, url, rpc):
        with ThreadPoolExecutor(40) as pool, grpc.insecure_channel(rpc) as channel:
            for number in range(5):
                assert send(url, "POST", "/v1.0/publish/bus/work", number).status == 204
            until(lambda: len(app.at("/events")) >= 5)
            invoke = channel.unary_unary(
                f"{SERVICE}InvokeService", lambda each: each.SerializeToString(), kinds.InvokeResponse.FromString
            )
            post = kinds.HTTPExtension(verb=3)
            message = kinds.InvokeRequest(method="slow", http_extension=post)
            request = kinds.InvokeServiceRequest(id="shop", message=message)
            over_grpc = [pool.submit(invoke, request, timeout=60) for _ in range(20)]
            over_http = [pool.submit(send, url, "POST", "/v1.0/invoke/shop/method/slow", n) for n in range(20)]
            until(lambda: len(app.at("/slow")) == 40, "all calls")
            with other("steady", url, 500, 60, 16) as load:
                until(lambda: send(url, "GET", "/v1.0/state/store/key-9").status == 200)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                until(lambda: not _listens(url))
                gate.set()
                assert [(each.result().status, each.result().body) for each in over_http] == [(200, b"done")] * 20
                assert [each.result().data.value for each in over_grpc] == [b"done"] * 20
                assert process.wait(60) == 143
                took = time.monotonic() - began
                result = load.line()
        assert process.communicate() == ("", "")
    assert took < 30
    assert result["refused"] == 0
    assert result["unanswered"] <= 16  # sent to a connection that was being closed, which HTTP cannot tell
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="shop") as client:
        saved = result["kinds"]["save"]["answered"]
        assert all(client.state.get("store", f"key-{number}") is not None for number in range(min(saved, 1000)))
        got = set()
        with client.pubsub.subscribe("bus", "work") as events:
            for event in events:
                got.add(event.data)
                event.ack()
                if len(got) == 5:
                    break
    assert got == set(range(5))
