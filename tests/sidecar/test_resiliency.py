"""Policies of resource files that the sidecar holds, for calls of its own application and of others."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.resources import load
from cloud_runtimes.errors import GRPC_CODES
from cloud_runtimes.protocols.dapr.messages import messages
from cloud_runtimes.resiliency.policies import Policy, Resiliency, Retries
from tests.sidecar.raw import call, send
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.ports import reserved_port
from tests.support.running import declared, serving
from tests.support.sidecar_calls import Streams, beside
from tests.support.waiting import until

PATH = "/v1.0/invoke/app/method/m"


def policies(timeout: float | None = None, **retries: object) -> Resiliency:
    return Resiliency(apps={"app": Policy(timeout, Retries(interval=0.01, **retries) if retries else None)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("retries", "statuses", "status", "calls"),
    [
        ({}, [503, 200], 503, 1),
        ({"max_retries": 3}, [503, 404, 200], 200, 3),
        ({"max_retries": 1}, [503, 503, 200], 503, 2),
        ({"max_retries": 3, "http": ((500, 599),)}, [503, 404, 200], 404, 2),
        ({"max_retries": 3}, [201], 201, 1),
    ],
)
def test_answers_are_tried_again(retries: dict[str, object], statuses: list[int], status: int, calls: int) -> None:
    answers = itertools.chain(statuses, itertools.repeat(200))
    with App(answer=lambda got: Reply(next(answers) if got.path == "/m" else 200)) as app:
        with serving(declared(":memory:retries"), app_port=app.port, resiliency=policies(**retries)) as sidecar:
            assert send(sidecar.http_address, "POST", PATH, {"a": 1}).status == status
        assert [got.body for got in app.got if got.path == "/m"] == [b'{"a": 1}'] * calls


def test_an_application_that_is_not_there_yet_is_tried_again() -> None:
    retries = policies(max_retries=None)
    with reserved_port() as port, serving(declared(":memory:late"), app_port=port, resiliency=retries) as sidecar:
        done: list[int] = []
        caller = threading.Thread(target=lambda: done.append(send(sidecar.http_address, "POST", PATH, 1).status))
        caller.start()
        with App(port=port):
            caller.join(60)
    assert done == [200]


def test_an_attempt_has_a_limit_of_its_own() -> None:
    hold = threading.Event()

    def answer(got: Got) -> Reply:
        if got.path == "/m" and not hold.is_set():
            hold.set()
            time.sleep(2)
        return Reply()

    with App(answer=answer) as app:
        limited = policies(timeout=0.3, max_retries=5)
        with serving(declared(":memory:limit"), app_port=app.port, resiliency=limited) as sidecar:
            begin = time.monotonic()
            assert send(sidecar.http_address, "POST", PATH, 1).status == 200
            assert time.monotonic() - begin >= 0.3
    assert hold.is_set()


# -- from one sidecar to another: the cases of Dapr's suite, suite/daprd/resiliency/apps ----------

DEFAULT = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: myresiliency}}
spec:
  policies:
    timeouts: {{{timeout}}}
    retries: {{DefaultAppRetryPolicy: {{policy: constant, duration: 1ms, maxRetries: 2, matching: {{{matching}}}}}}}
"""
BREAKER = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: myresiliency}
spec:
  policies:
    circuitBreakers: {breaker: {maxRequests: 1, interval: 0, timeout: 300ms, trip: consecutiveFailures >= 3}}
  targets: {apps: {server: {circuitBreaker: breaker}}}
"""


@contextmanager
def calling(home: Path, app: App | GrpcApp, text: str) -> Iterator[Sidecar]:
    """Serve the sidecar of a caller under policies, and that of ``server``, the application."""
    (home / "policies").mkdir()
    (home / "policies" / "all.yaml").write_text(text)
    resources = load([home / "policies"], "client")
    assert not resources.warnings
    with (
        beside(app, home / "home", "server"),
        beside(None, home / "home", "client", resiliency=resources.resiliency) as one,
    ):
        until(lambda: send(one.http_address, "GET", "/v1.0/invoke/server/method/up").status != 500)
        yield one


class Counted(Streams):
    """An application over gRPC that answers with the code that a call names, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = {"OnInvoke": ("InvokeRequest", self.invoked)}
        self.calls: list[bytes] = []

    def service(self, handler_call_details: Any) -> Any:
        return super().service(handler_call_details) or GrpcApp.service(self, handler_call_details)

    def hello(self, request: bytes, context: Any) -> bytes:
        self.calls.append(request)
        if request != b"0":
            context.abort(next(each for each in grpc.StatusCode if each.value[0] == int(request)), "as told")
        return b"ok"

    def invoked(self, request: Any, context: Any) -> Any:
        self.hello(request.data.value or b"0", context)
        return messages().InvokeResponse()


@pytest.mark.parametrize(
    ("codes", "again", "once"),
    [
        ("", [400, 404, 500], [200, 201, 304]),
        ("200,301", [], [200, 301, 500]),
        ("500", [500], [200, 503]),
        ("200-320", [], [201, 301]),
        ("200,400-500,501", [400, 401, 420, 500, 501], [200, 301, 502]),
    ],
)
def test_answers_of_another_application_are_tried_again(
    tmp_path: Path, codes: str, again: list[int], once: list[int]
) -> None:
    text = DEFAULT.format(timeout="", matching=f"httpStatusCodes: '{codes}'" if codes else "")
    with App(answer=lambda got: Reply(int(got.body or 200))) as app, calling(tmp_path, app, text) as sidecar:
        for status in again + once:
            answer = send(sidecar.http_address, "POST", f"/v1.0/invoke/server/method/{status}", b"%d" % status)
            assert answer.status == status
            assert len(app.at(f"/{status}")) == (3 if status in again else 1)


@pytest.mark.parametrize(
    ("codes", "again", "once"),
    [("", [1, 14], [0]), ("1,12", [12], [0, 2, 11]), ("6-14", [6, 13], [2, 15]), ("2,3-5,7", [3, 7], [1, 6])],
)
def test_answers_over_grpc_are_tried_again(tmp_path: Path, codes: str, again: list[int], once: list[int]) -> None:
    names = {number: name for name, number in GRPC_CODES.items()}
    text = DEFAULT.format(timeout="", matching=f"gRPCStatusCodes: '{codes}'" if codes else "")
    app = Counted()
    with serving_grpc(app), calling(tmp_path, app, text) as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            hello = channel.unary_unary("/mine.Greeter/Hello")
            for number, stream in [(number, "") for number in again + once] + [(number, "true") for number in again]:
                app.calls.clear()
                metadata = (("dapr-app-id", "server"), ("dapr-stream", stream))
                future = hello.future(b"%d" % number, metadata=metadata, timeout=30)
                assert future.code().value[0] == number
                # a stream that says so is begun once: what came of it cannot be taken back
                assert len(app.calls) == (3 if number in again and not stream else 1)
        for number in again + once:
            app.calls.clear()
            kinds = messages()
            invoked = kinds.InvokeRequest(method="m", data=kinds.Any(value=b"%d" % number))
            invoked.http_extension.verb = 3
            request = kinds.InvokeServiceRequest(id="server", message=invoked)
            assert call(sidecar.grpc_address, "InvokeService", request, "InvokeResponse").code == names[number]
            assert len(app.calls) == (3 if number in again else 1)


def test_a_call_of_several_messages_is_made_once(tmp_path: Path) -> None:
    app = Counted()
    with serving_grpc(app), calling(tmp_path, app, DEFAULT.format(timeout="", matching="")) as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            chat = channel.stream_stream("/mine.Greeter/Chat")
            metadata = (("dapr-app-id", "server"),)
            assert list(chat(iter([b"1", b"2"]), metadata=metadata, timeout=30)) == [b"> 1", b"> 2"]


def test_an_attempt_of_another_application_has_a_limit(tmp_path: Path) -> None:
    waited = threading.Event()

    def answer(got: Got) -> Reply:
        if got.path == "/slow" and not waited.is_set():
            waited.set()
            time.sleep(2)
        return Reply()

    text = DEFAULT.format(timeout="DefaultAppTimeoutPolicy: 500ms", matching="")
    with App(answer=answer) as app, calling(tmp_path, app, text) as sidecar:
        assert send(sidecar.http_address, "GET", "/v1.0/invoke/server/method/slow").status == 200
        assert len(app.at("/slow")) == 2


def test_a_circuit_breaker_of_another_application(tmp_path: Path) -> None:
    statuses = itertools.chain([500] * 3, itertools.repeat(200))
    with App(answer=lambda got: Reply(next(statuses) if got.path == "/fail" else 200)) as app:
        with calling(tmp_path, app, BREAKER) as sidecar:

            def get(method: str) -> Any:
                return send(sidecar.http_address, "GET", f"/v1.0/invoke/server/method/{method}")

            assert [get("ok").status for _ in range(4)] == [200] * 4
            assert [get("fail").status for _ in range(3)] == [500] * 3
            refused = get("fail")
            assert (refused.status, refused.error) == (500, "ERR_DIRECT_INVOKE")
            assert "circuit breaker is open" in refused.json["message"]
            assert get("ok").status == 200  # each method has one of its own
            until(lambda: get("fail").status == 200)
            assert get("fail").status == 200
    assert len(app.at("/fail")) == 5
