"""Conformance of an `RpcDriver`, through the service: the same calls in the process and between processes."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Iterator
from itertools import product
from typing import Any

import pytest

from ... import errors
from ..._http.limits import MAX_BODY
from ...errors import (
    ClosedError,
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from ...rpc import RpcResponse
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite, values
from ._stopwatch import Stopwatch
from .rpc_methods import CANARY, Order

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# fmt: off
STATUSES: list[Any] = [
    (400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"),
    (408, "DEADLINE_EXCEEDED"), (409, "ABORTED"), (418, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"),
    (500, "INTERNAL"), (501, "UNIMPLEMENTED"), (502, "INTERNAL"), (503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED"),
]
# fmt: on


class RpcHarness(Harness):
    """A harness that also offers the methods of `cloud_runtimes.testing.suites.rpc_methods`.

    Attributes:
        service: the ``app_id`` that has them.
    """

    service: str


class RpcSuite(Suite):
    """Guarantees to a caller and a handler, wherever the other one is."""

    service = "rpc"

    @pytest.fixture
    def store(self, harness: Harness) -> str:
        """The service that is called."""
        assert isinstance(harness, RpcHarness)
        return harness.service

    # -- payloads -------------------------------------------------------------

    def test_round_trip(self, call: Call, subtests: pytest.Subtests) -> None:
        for value in values():
            if value is not None:
                with subtests.test(value=value):
                    got = call("invoke_method", "echo", value)
                    assert got == value
                    assert type(got) is type(value)
                    assert call("invoke_method", "echo-async", value) == value

    def test_bytes(self, call: Call, subtests: pytest.Subtests) -> None:
        for data in (b"x", b"\x00\xff" * 50, b'{"json": 1}', bytes(range(256)) * 4096):
            with subtests.test(data=data):
                for given in (data, bytearray(data), memoryview(data)):
                    assert call("invoke_method", "echo", given) == data

    def test_none_is_no_body_both_ways(self, call: Call) -> None:
        assert call("invoke_method", "nothing") is None
        assert call("invoke_method", "nothing", {"not": "looked at"}) is None
        seen = call("invoke_method", "describe")
        assert (seen["data"], seen["content_type"], seen["size"]) == (None, None, 0)
        response = call("invoke", "nothing")
        assert (response.status, response.data, response.content_type) == (200, b"", None)
        assert call("invoke_method", "nothing", type=bytes) == b""
        assert call("invoke_method", "nothing", type=Order | None) is None
        call.fails(PayloadError)("invoke_method", "nothing", type=Order)

    def test_content_types(self, call: Call) -> None:
        def describe(data: Any, content_type: str | None = None) -> Any:
            return call("invoke_method", "describe", data, content_type=content_type)

        assert describe({"a": 1})["content_type"] == "application/json"
        assert describe(b"x")["content_type"] == "application/octet-stream"
        assert describe("grüße", "text/plain; charset=utf-8")["data"] == "grüße"
        assert describe("<é/>", "application/xml")["data"] == "<é/>"
        assert describe({"a": [1]}, "application/msgpack")["data"] == {"a": [1]}
        assert describe({"a": 1}, "application/vnd.test+json")["data"] == {"a": 1}
        response = call("invoke", "raw", b"%PDF", content_type="application/pdf")
        assert response.content_type == "application/pdf"

    def test_typed(self, call: Call) -> None:
        got = call("invoke_method", "typed", Order(1, ["a"]), type=Order)
        assert got == Order(2, ["a", "seen"])
        assert call("invoke_method", "typed", {"id": 1, "tags": []})["id"] == 2
        caught = call.fails(InvalidArgumentError)("invoke_method", "typed", {"id": "one", "tags": []})
        # where an error's class is not told, it is that of its status
        has_details = isinstance(caught, PayloadError)
        assert has_details or call.lacks("rpc.status")
        assert "$.id" in str(caught) or not has_details
        call.fails(PayloadError, match=r"\$\.id")("invoke_method", "echo", {"id": "one", "tags": []}, type=Order)

    def test_nobody_shares_what_can_change(self, call: Call) -> None:
        mine = {"list": [1]}
        got = call("invoke_method", "mutate", mine)
        assert (mine, got) == ({"list": [1]}, {"list": [1, "changed"]})

    def test_streamed_request(self, call: Call, api: Api, subtests: pytest.Subtests) -> None:
        pieces = [b"a" * 100_000, b"", b"b" * 300_001, b"c"]

        async def generate() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        for data in (io.BytesIO(b"".join(pieces)), iter(pieces), generate()):
            with subtests.test(data=type(data)):
                if isinstance(data, AsyncIterator) and api.name == "sync":
                    call.fails(InvalidArgumentError, match="_async")("invoke_method", "describe", data)
                else:
                    assert call("invoke_method", "raw", data, type=bytes) == b"".join(pieces)

    def test_a_stream_that_fails(self, call: Call, subtests: pytest.Subtests) -> None:
        def text() -> Iterator[Any]:
            yield b"a"
            yield "text"

        def error() -> Iterator[Any]:
            yield b"a"
            raise KeyError("mine")

        for stream in (text, error):
            with subtests.test(stream.__name__):
                call.fails((InvalidArgumentError, InternalError))("invoke_method", "describe", stream())
                assert call("invoke_method", "echo", 1) == 1

    # -- the call -------------------------------------------------------------

    @requires("rpc.headers", "rpc.http_method")
    def test_what_a_handler_sees(self, call: Call) -> None:
        query = {"q": "a b&c=ü\r\nx: y", "n": 1, "list": ["1", "2"], "yes": True, "empty": ""}
        options = {"http_method": "PUT", "headers": {"X-Mine": "some value", "traceparent": TRACE}, "query": query}
        seen = call("invoke_method", "describe", {"a": 1}, timeout=20, **options)
        assert (seen["method"], seen["http_method"], seen["caller"]) == ("describe", "PUT", "suite")
        assert seen["headers"] == {"x-mine": "some value", "traceparent": TRACE}
        assert seen["query"] == query | {"q": [query["q"]], "n": ["1"], "yes": ["true"], "empty": [""]}
        assert 15 < seen["remaining"] <= 20.01
        assert seen["traceparent"] == TRACE

    def test_no_limit(self, call: Call) -> None:
        seen = call("invoke_method", "describe", timeout=None)
        assert seen["remaining"] is None or seen["remaining"] > 20  # the server's own

    HTTP_METHODS: tuple[str, ...] = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")

    @requires("rpc.http_method")
    def test_http_methods(self, call: Call, harness: Harness, subtests: pytest.Subtests) -> None:
        for http_method, data in product(self.HTTP_METHODS, (None, {"a": 1})):
            with subtests.test(http_method=http_method, data=data):
                if http_method == "PURGE" and not harness.any_http_method:
                    refused = call.fails(UnsupportedError, match="PURGE")
                    refused("invoke_method", "describe", data, http_method=http_method)
                else:
                    seen = call("invoke_method", "describe", data, http_method=http_method)
                    assert (seen["http_method"], seen["data"]) == (http_method, data)

    def test_a_method_s_name_is_data(self, call: Call) -> None:
        assert call("invoke_method", "a/deep/näme%20%")["method"] == "a/deep/näme%20%"

    def test_invoke_returns_every_status(self, call: Call) -> None:
        response = call("invoke", "raw", b"abc", content_type="text/csv")
        assert isinstance(response, RpcResponse)
        assert (response.status, response.content_type, response.data) == (201, "text/csv", b"abc")
        assert response.headers["x-answer"] == "yes"
        assert response.decode() == "abc"
        for status in (200, 204, 404, 418, 500, 503):
            response = call("invoke", "status", status)
            assert response.status == status
            assert response.data == (b"" if status == 204 else b"told")
        assert call("invoke", "no-such").status == 404
        assert call("invoke", "crash").status == 500

    def test_many_at_once(self, call: Call) -> None:
        assert call.together(*[("invoke_method", "echo", n) for n in range(50)]) == list(range(50))

    def test_a_body_that_is_too_large(self, call: Call, harness: Harness) -> None:
        for data in (bytes(MAX_BODY + 1), iter([bytes(MAX_BODY), b"a"])):
            with pytest.raises((ResourceExhaustedError, UnavailableError)):  # between processes a reset may be faster
                call("invoke_method", "nothing", data)
        assert call("invoke_method", "nothing", bytes(harness.largest_body)) is None

    # -- failures -------------------------------------------------------------

    @requires("rpc.status")
    def test_an_error_of_ours_arrives(self, call: Call, store: str, subtests: pytest.Subtests) -> None:
        names = (name for name in errors.__all__ if name != "CloudRuntimesError")
        for name, method in product(names, ("fail", "fail-async")):
            with subtests.test(method, error=name):
                kind = getattr(errors, name)
                error = call.fails(CloudRuntimesError)("invoke_method", method, {"error": name, "message": "mäßig ✗"})
                assert (type(error), error.message, error.code) == (kind, "mäßig ✗", kind.code)
                assert error.retryable is kind.retryable
                assert (error.service, error.operation, error.component) == ("rpc", "invoke_method", store)
                assert error.response is not None
                assert error.response.status >= 400

    @requires("rpc.status")
    def test_what_an_error_says_of_itself_arrives(self, call: Call) -> None:
        arguments = {"code": "MINE", "retryable": True, "maybe_applied": True}
        caught = call.fails(ConflictError)("invoke_method", "fail", {"error": "UserError", "arguments": arguments})
        assert type(caught) is ConflictError  # an application's own class: the nearest of ours
        assert (caught.code, caught.retryable, caught.maybe_applied) == ("MINE", True, True)

    def test_any_other_failure_is_bare(self, call: Call, subtests: pytest.Subtests) -> None:
        for method in ("crash", "crash-async", "exit", "cancel", "garbage"):
            with subtests.test(method):
                caught = call.fails(InternalError)("invoke_method", method)
                assert caught.response is not None
                assert (caught.response.status, caught.response.data) == (500, b"")
                assert caught.maybe_applied
                assert CANARY not in f"{caught!r} {caught} {caught.response!r} {caught.__cause__!r}"
                assert call("invoke_method", "echo", 1) == 1

    def test_a_response_that_cannot_be_sent(self, call: Call, subtests: pytest.Subtests) -> None:
        for kind in ("status", "header", "framing", "data"):
            with subtests.test(kind):
                response = call("invoke", "bad-response", kind)
                assert (response.status, response.data) == (500, b"")
                assert "set-cookie" not in response.headers

    @requires("rpc.status")
    def test_a_status_raises(self, call: Call, subtests: pytest.Subtests) -> None:
        for status, code in STATUSES:
            with subtests.test(status=status):
                caught = call.fails(CloudRuntimesError)("invoke_method", "status", status)
                assert caught.code == code
                response = caught.response
                assert response is not None
                assert (response.status, response.content_type, response.data) == (status, "text/plain", b"told")
                assert response.headers["x-told"] == "1"

    def test_redirects_are_never_followed(self, call: Call) -> None:
        for target in ("http://127.0.0.1:1/", "http://169.254.169.254/latest", "file:///etc/passwd", "echo"):
            response = call("invoke", "redirect", target)
            assert (response.status, response.headers["location"]) == (307, target)
            call.fails(InternalError, match="never followed")("invoke_method", "redirect", target)

    def test_an_unknown_method(self, call: Call) -> None:
        caught = call.fails(NotFoundError, match="no-such")("invoke_method", "no-such", {"a": 1})
        assert not caught.maybe_applied

    def test_an_unknown_service(self, call: Call, harness: Harness) -> None:
        nobody = call.on(store="no-such")
        for method in ("invoke_method", "invoke"):
            error = nobody.fails(UnavailableError, match=r"'no-such'.*address")(method, "m")
            assert error.maybe_applied is not harness.knows_services
            assert error.response is None

    def test_after_close(self, call: Call, harness: Harness, api: Api) -> None:
        client = harness.client()
        other = call.on(client)
        other("invoke_method", "echo", 1)
        api.call(client, "close")
        other.fails(ClosedError)("invoke_method", "echo", 1)
        with pytest.raises(ClosedError):
            client.rpc.register_method("late", lambda: None)

    # -- time -----------------------------------------------------------------

    @staticmethod
    def comes_too_late(call: Call, method: str, seconds: float) -> bool:
        """Call a handler that takes longer than the call has, and return whether it may have run; again where a busy machine had not sent it by then."""
        for _ in range(5):
            with Stopwatch() as watch:
                error = call.fails(DeadlineExceededError)("invoke_method", method, seconds, timeout=0.2)
                assert watch.seconds < 1.8
            if error.maybe_applied:
                return True
        return False

    def test_a_deadline(self, call: Call, api: Api, subtests: pytest.Subtests) -> None:
        here = call("invoke_method", "describe")["process"] == os.getpid()  # and the service is found
        for method in ("sleep-async", "deaf"):
            with subtests.test(method):
                assert self.comes_too_late(call, method, 2.0)
        # what does not heed its cancellation may still run in this loop
        api.pause(2.1 if here and api.name == "async" else 0)

    def test_a_plain_handler_past_the_deadline(self, call: Call) -> None:
        call("invoke_method", "describe")  # now the service is found
        assert self.comes_too_late(call, "sleep", 1.0)

    def test_a_handler_s_own_calls_inherit(self, call: Call, store: str, subtests: pytest.Subtests) -> None:
        headers = {"traceparent": TRACE, "tracestate": "a=b"}
        for method in ("chain", "chain-async"):
            with subtests.test(method):
                seen = call("invoke_method", method, {"a": 1}, headers=headers, timeout=5)
                assert seen["headers"] == headers
                assert seen["remaining"] <= 5
                assert seen["caller"] == store
                for bad in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense"):
                    seen = call("invoke_method", method, headers={"traceparent": bad})
                    assert seen["headers"] == {}
