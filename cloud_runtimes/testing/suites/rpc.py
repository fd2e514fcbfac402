"""Conformance of an `RpcDriver`, through the service: the same calls in the process and between processes."""

from __future__ import annotations

import io
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ... import errors
from ..._http.limits import MAX_BODY
from ...client import CloudRuntimesClient
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
from ..faces import Face
from ..harness import Harness, requires
from ._base import Suite, values
from .rpc_methods import CANARY, Order

__all__ = ["RpcHarness", "RpcSuite"]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class RpcHarness(Harness):
    """A harness that also offers the methods of `cloud_runtimes.testing.suites.rpc_methods`.

    Attributes:
        service: the ``app_id`` that has them.
    """

    service: str


class RpcSuite(Suite):
    """What a caller and a handler are promised, wherever the other one is."""

    service = "rpc"

    @pytest.fixture
    def store(self, harness: Harness) -> str:
        """The service that is called."""
        assert isinstance(harness, RpcHarness)
        return harness.service

    # -- payloads ---------------------------------------------------------

    @pytest.mark.parametrize(
        "value", [each for each in values() if each is not None], ids=lambda value: repr(value)[:20]
    )
    def test_round_trip(self, client: CloudRuntimesClient, face: Face, store: str, value: Any) -> None:
        got = face.call(client.rpc, "invoke_method", store, "echo", value)
        assert got == value
        assert type(got) is type(value)
        assert face.call(client.rpc, "invoke_method", store, "echo-async", value) == value

    @pytest.mark.parametrize("data", [b"x", b"\x00\xff" * 50, b'{"json": 1}', bytes(range(256)) * 4096])
    def test_bytes(self, client: CloudRuntimesClient, face: Face, store: str, data: bytes) -> None:
        for given in (data, bytearray(data), memoryview(data)):
            assert face.call(client.rpc, "invoke_method", store, "echo", given) == data

    def test_none_is_no_body_both_ways(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        assert face.call(client.rpc, "invoke_method", store, "nothing") is None
        assert face.call(client.rpc, "invoke_method", store, "nothing", {"not": "looked at"}) is None
        seen = face.call(client.rpc, "invoke_method", store, "describe")
        assert (seen["data"], seen["content_type"], seen["size"]) == (None, None, 0)
        response = face.call(client.rpc, "invoke", store, "nothing")
        assert (response.status, response.data, response.content_type) == (200, b"", None)
        assert face.call(client.rpc, "invoke_method", store, "nothing", type=bytes) == b""
        assert face.call(client.rpc, "invoke_method", store, "nothing", type=Order | None) is None
        with pytest.raises(PayloadError):
            face.call(client.rpc, "invoke_method", store, "nothing", type=Order)

    def test_content_types(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        def told(data: Any, content_type: str | None = None) -> Any:
            return face.call(client.rpc, "invoke_method", store, "describe", data, content_type=content_type)

        assert told({"a": 1})["content_type"] == "application/json"
        assert told(b"x")["content_type"] == "application/octet-stream"
        assert told("grüße", "text/plain; charset=utf-8")["data"] == "grüße"
        assert told("<é/>", "application/xml")["data"] == "<é/>"
        assert told({"a": [1]}, "application/msgpack")["data"] == {"a": [1]}
        assert told({"a": 1}, "application/vnd.test+json")["data"] == {"a": 1}
        response = face.call(client.rpc, "invoke", store, "raw", b"%PDF", content_type="application/pdf")
        assert response.content_type == "application/pdf"

    def test_typed(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        got = face.call(client.rpc, "invoke_method", store, "typed", Order(1, ["a"]), type=Order)
        assert got == Order(2, ["a", "seen"])
        assert face.call(client.rpc, "invoke_method", store, "typed", {"id": 1, "tags": []})["id"] == 2
        with pytest.raises(InvalidArgumentError) as caught:
            face.call(client.rpc, "invoke_method", store, "typed", {"id": "one", "tags": []})
        # where an error's class is not told, it is that of its status
        told = isinstance(caught.value, PayloadError)
        assert told or self.lacks(client, "rpc.status", store)
        assert "$.id" in str(caught.value) or not told
        with pytest.raises(PayloadError, match=r"\$\.id"):
            face.call(client.rpc, "invoke_method", store, "echo", {"id": "one", "tags": []}, type=Order)

    def test_nobody_shares_what_can_change(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        mine = {"list": [1]}
        got = face.call(client.rpc, "invoke_method", store, "mutate", mine)
        assert (mine, got) == ({"list": [1]}, {"list": [1, "changed"]})

    @pytest.mark.parametrize("kind", ["file", "iterator", "async"])
    def test_streamed_request(self, client: CloudRuntimesClient, face: Face, store: str, kind: str) -> None:
        pieces = [b"a" * 100_000, b"", b"b" * 300_001, b"c"]

        async def generate() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        if kind == "async" and face.name == "sync":
            with pytest.raises(InvalidArgumentError, match="_async"):
                face.call(client.rpc, "invoke_method", store, "describe", generate())
            return
        data: Any = {"file": io.BytesIO(b"".join(pieces)), "iterator": iter(pieces), "async": generate()}[kind]
        seen = face.call(client.rpc, "invoke_method", store, "raw", data, type=bytes)
        assert seen == b"".join(pieces)

    @pytest.mark.parametrize("kind", ["text", "error"])
    def test_a_stream_that_fails(self, client: CloudRuntimesClient, face: Face, store: str, kind: str) -> None:
        def generate() -> Iterator[Any]:
            yield b"a"
            if kind == "error":
                raise KeyError("mine")
            yield "text"

        with pytest.raises((InvalidArgumentError, InternalError)):
            face.call(client.rpc, "invoke_method", store, "describe", generate())
        assert face.call(client.rpc, "invoke_method", store, "echo", 1) == 1

    # -- the call ---------------------------------------------------------

    @requires("rpc.headers", "rpc.http_method")
    def test_what_a_handler_sees(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        seen = face.call(
            client.rpc,
            "invoke_method",
            store,
            "describe",
            {"a": 1},
            http_method="PUT",
            headers={"X-Mine": "some value", "traceparent": TRACE},
            query={"q": "a b&c=ü\r\nx: y", "n": 1, "list": ["1", "2"], "yes": True, "empty": ""},
            timeout=20,
        )
        assert (seen["method"], seen["http_method"], seen["caller"]) == ("describe", "PUT", "suite")
        assert seen["headers"] == {"x-mine": "some value", "traceparent": TRACE}
        assert seen["query"] == {
            "q": ["a b&c=ü\r\nx: y"],
            "n": ["1"],
            "list": ["1", "2"],
            "yes": ["true"],
            "empty": [""],
        }
        assert 15 < seen["remaining"] <= 20.01
        assert seen["traceparent"] == TRACE

    def test_no_limit(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        seen = face.call(client.rpc, "invoke_method", store, "describe", timeout=None)
        assert seen["remaining"] is None or seen["remaining"] > 20  # the server's own

    @requires("rpc.http_method")
    @pytest.mark.parametrize("http_method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
    @pytest.mark.parametrize("data", [None, {"a": 1}])
    def test_http_methods(
        self, client: CloudRuntimesClient, face: Face, store: str, http_method: str, data: Any, harness: Harness
    ) -> None:
        if http_method == "PURGE" and not harness.any_http_method:
            with pytest.raises(UnsupportedError, match="PURGE"):
                face.call(client.rpc, "invoke_method", store, "describe", data, http_method=http_method)
            return
        seen = face.call(client.rpc, "invoke_method", store, "describe", data, http_method=http_method)
        assert (seen["http_method"], seen["data"]) == (http_method, data)

    def test_a_method_s_name_is_data(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        assert face.call(client.rpc, "invoke_method", store, "a/deep/näme%20%")["method"] == "a/deep/näme%20%"

    def test_invoke_returns_every_status(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        response = face.call(client.rpc, "invoke", store, "raw", b"abc", content_type="text/csv")
        assert isinstance(response, RpcResponse)
        assert (response.status, response.content_type, response.data) == (201, "text/csv", b"abc")
        assert response.headers["x-answer"] == "yes"
        assert response.decode() == "abc"
        for status in (200, 204, 404, 418, 500, 503):
            response = face.call(client.rpc, "invoke", store, "status", status)
            assert response.status == status
            assert response.data == (b"" if status == 204 else b"told")
        assert face.call(client.rpc, "invoke", store, "no-such").status == 404
        assert face.call(client.rpc, "invoke", store, "crash").status == 500

    def test_many_at_once(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        calls: list[Any] = [(client.rpc, "invoke_method", (store, "echo", n), {}) for n in range(50)]
        assert face.together(calls) == list(range(50))

    def test_a_body_that_is_too_large(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for data in (bytes(MAX_BODY + 1), iter([bytes(MAX_BODY), b"a"])):
            with pytest.raises((ResourceExhaustedError, UnavailableError)):  # between processes a reset may be faster
                face.call(client.rpc, "invoke_method", store, "nothing", data)
        assert face.call(client.rpc, "invoke_method", store, "nothing", bytes(MAX_BODY)) is None

    # -- failures ---------------------------------------------------------

    @requires("rpc.status")
    @pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "CloudRuntimesError"])
    def test_an_error_of_ours_arrives(self, client: CloudRuntimesClient, face: Face, store: str, name: str) -> None:
        for method in ("fail", "fail-async"):
            with pytest.raises(CloudRuntimesError) as caught:
                face.call(client.rpc, "invoke_method", store, method, {"error": name, "message": "mäßig ✗"})
            error = caught.value
            assert type(error) is getattr(errors, name)
            assert error.message == "mäßig ✗"
            assert error.code == getattr(errors, name).code
            assert error.retryable is getattr(errors, name).retryable
            assert (error.service, error.operation, error.component) == ("rpc", "invoke_method", store)
            assert error.response is not None
            assert error.response.status >= 400

    @requires("rpc.status")
    def test_what_an_error_says_of_itself_arrives(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        arguments = {"code": "MINE", "retryable": True, "maybe_applied": True}
        with pytest.raises(ConflictError) as caught:
            face.call(client.rpc, "invoke_method", store, "fail", {"error": "UserError", "arguments": arguments})
        assert type(caught.value) is ConflictError  # an application's own class: the nearest of ours
        assert (caught.value.code, caught.value.retryable, caught.value.maybe_applied) == ("MINE", True, True)

    @pytest.mark.parametrize("method", ["crash", "crash-async", "exit", "cancel", "garbage"])
    def test_any_other_failure_is_bare(self, client: CloudRuntimesClient, face: Face, store: str, method: str) -> None:
        with pytest.raises(InternalError) as caught:
            face.call(client.rpc, "invoke_method", store, method)
        assert caught.value.response is not None
        assert (caught.value.response.status, caught.value.response.data) == (500, b"")
        assert caught.value.maybe_applied
        assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.response!r} {caught.value.__cause__!r}"
        assert face.call(client.rpc, "invoke_method", store, "echo", 1) == 1

    @pytest.mark.parametrize("kind", ["status", "header", "framing", "data"])
    def test_a_response_that_cannot_be_sent(
        self, client: CloudRuntimesClient, face: Face, store: str, kind: str
    ) -> None:
        response = face.call(client.rpc, "invoke", store, "bad-response", kind)
        assert (response.status, response.data) == (500, b"")
        assert "set-cookie" not in response.headers

    @requires("rpc.status")
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (408, "DEADLINE_EXCEEDED"),
            (409, "ABORTED"),
            (418, "INVALID_ARGUMENT"),
            (429, "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL"),
            (501, "UNIMPLEMENTED"),
            (502, "INTERNAL"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
        ],
    )
    def test_a_status_raises(self, client: CloudRuntimesClient, face: Face, store: str, status: int, code: str) -> None:
        with pytest.raises(CloudRuntimesError) as caught:
            face.call(client.rpc, "invoke_method", store, "status", status)
        assert caught.value.code == code
        response = caught.value.response
        assert response is not None
        assert (response.status, response.content_type, response.data) == (status, "text/plain", b"told")
        assert response.headers["x-told"] == "1"

    def test_redirects_are_never_followed(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for target in ("http://127.0.0.1:1/", "http://169.254.169.254/latest", "file:///etc/passwd", "echo"):
            response = face.call(client.rpc, "invoke", store, "redirect", target)
            assert (response.status, response.headers["location"]) == (307, target)
            with pytest.raises(InternalError, match="never followed"):
                face.call(client.rpc, "invoke_method", store, "redirect", target)

    def test_an_unknown_method(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with pytest.raises(NotFoundError, match="no-such") as caught:
            face.call(client.rpc, "invoke_method", store, "no-such", {"a": 1})
        assert not caught.value.maybe_applied

    def test_an_unknown_service(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        for method in ("invoke_method", "invoke"):
            with pytest.raises(UnavailableError, match=r"'no-such'.*address") as caught:
                face.call(client.rpc, method, "no-such", "m")
            assert caught.value.maybe_applied is not harness.knows_services
            assert caught.value.response is None

    def test_after_close(self, harness: Harness, face: Face, store: str) -> None:
        client = harness.client()
        face.call(client.rpc, "invoke_method", store, "echo", 1)
        face.call(client, "close")
        with pytest.raises(ClosedError):
            face.call(client.rpc, "invoke_method", store, "echo", 1)
        with pytest.raises(ClosedError):
            client.rpc.register_method("late", lambda: None)

    # -- time -------------------------------------------------------------

    @pytest.mark.parametrize("method", ["sleep-async", "deaf"])
    @pytest.mark.timing
    def test_a_deadline(self, client: CloudRuntimesClient, face: Face, store: str, method: str) -> None:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            face.call(client.rpc, "invoke_method", store, method, 2.0, timeout=0.2)
        assert time.monotonic() - begin < 1.8
        assert caught.value.maybe_applied
        here = face.call(client.rpc, "invoke_method", store, "describe")["process"] == os.getpid()
        # what does not heed its cancellation may still run in this loop
        face.pause(2.1 if here and method == "deaf" and face.name == "async" else 0)

    def test_a_plain_handler_past_the_deadline(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            face.call(client.rpc, "invoke_method", store, "sleep", 0.5, timeout=0.2)
        assert caught.value.maybe_applied

    @pytest.mark.parametrize("method", ["chain", "chain-async"])
    def test_a_handler_s_own_calls_inherit(
        self, client: CloudRuntimesClient, face: Face, store: str, method: str
    ) -> None:
        headers = {"traceparent": TRACE, "tracestate": "a=b"}
        seen = face.call(client.rpc, "invoke_method", store, method, {"a": 1}, headers=headers, timeout=5)
        assert seen["headers"] == headers
        assert seen["remaining"] <= 5
        assert seen["caller"] == store
        for bad in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense"):
            seen = face.call(client.rpc, "invoke_method", store, method, headers={"traceparent": bad})
            assert seen["headers"] == {}

    # -- refusals, before anything is sent --------------------------------

    @pytest.mark.parametrize(
        "service",
        [
            "",
            "a@b",
            "../x",
            "http://127.0.0.1",
            "a/b",
            "a b",
            "a\r\nx: y",
            "a\0",
            "127.0.0.1:80",
            "[::1]",
            "ü",
            "x" * 129,
            None,
            5,
        ],
    )
    def test_bad_services(self, client: CloudRuntimesClient, face: Face, service: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", service, "m")

    @pytest.mark.parametrize(
        "method",
        [
            "",
            "/m",
            "m/",
            "a//b",
            "../m",
            "a/../b",
            "./m",
            "a b",
            "m\r\nx: y",
            "m\0",
            "m?q=1",
            "m#f",
            "a\\b",
            "\ud800",
            None,
            "x" * 513,
            "m\x7f",
            "http://a/b",
        ],
    )
    def test_bad_methods(self, client: CloudRuntimesClient, face: Face, store: str, method: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", store, method)

    @pytest.mark.parametrize(
        "headers",
        [
            {"x": "a\r\ny: b"},
            {"x": "a\nb"},
            {"x": "a\0"},
            {"x": "ü"},
            {"x": " a"},
            {"x": "a\t"},
            {"x\r\ny": "a"},
            {"x y": "a"},
            {"x:": "a"},
            {"": "a"},
            {"x": 1},
            {1: "x"},
            {"x": "1", "X": "2"},
            {"Host": "evil"},
            {"content-length": "0"},
            {"Transfer-Encoding": "chunked"},
            {"connection": "close"},
            {"content-type": "text/plain"},
            {"cloud-runtimes-token": "x"},
            {"Proxy-Authorization": "x"},
            {"x": "a" * 20_000},
            [("x", "y")],
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_bad_headers(self, client: CloudRuntimesClient, face: Face, store: str, headers: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", store, "echo", 1, headers=headers)

    @pytest.mark.parametrize(
        "http_method", ["", "get", "GET / HTTP/1.1\r\n", "P\0", "CONNECT", "TRACE", "A" * 21, None]
    )
    def test_bad_http_methods(self, client: CloudRuntimesClient, face: Face, store: str, http_method: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", store, "echo", 1, http_method=http_method)

    @pytest.mark.parametrize(
        "query", [[("a", "b")], {"": "a"}, {1: "a"}, {"a": None}, {"a": "\ud800"}, {"a": "b" * 20_000}]
    )
    def test_bad_queries(self, client: CloudRuntimesClient, face: Face, store: str, query: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", store, "echo", 1, query=query)

    @pytest.mark.parametrize(
        "options", [{"timeout": 0}, {"timeout": -1}, {"metadata": {"a": 1}}, {"content_type": "x"}]
    )
    def test_other_bad_arguments(
        self, client: CloudRuntimesClient, face: Face, store: str, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgumentError):
            face.call(client.rpc, "invoke_method", store, "echo", 1, **options)
        with pytest.raises(PayloadError):
            face.call(client.rpc, "invoke_method", store, "echo", {1, 2})
