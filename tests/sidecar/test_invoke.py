"""Service invocation: what passes through, to the own application and to others, and Dapr's own refusals."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.running import declared
from tests.support.waiting import until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def beside(app: App | GrpcApp | None, home: Path | str, app_id: str = "app", **settings: Any) -> Iterator[Sidecar]:
    """Serve a sidecar of that application id."""
    if app is not None:
        settings |= {"app_port": app.port, "app_protocol": "http" if isinstance(app, App) else "grpc"}
    config = declared(str(home)) if isinstance(home, Path) else {"capa": {"home": home}}
    with CloudRuntimesClient(config=config, app_id=app_id) as client:
        options = SidecarSettings(**{"app_id": app_id, "http_port": 0, "grpc_port": 0, "grace": 1.0, **settings})
        with Sidecar(client, options) as sidecar:
            if app is not None:
                until(lambda: sidecar.context.app is not None and sidecar.context.app.is_ready)
            yield sidecar


@pytest.fixture(params=["folder", "nats"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """What applications share: a folder, or a NATS server."""
    return tmp_path if request.param == "folder" else str(request.getfixturevalue("nats_server").url)


def invoked(sidecar: Sidecar, method: str, path: str, body: bytes | None = None, headers: Any = ()) -> Any:
    """Send one request; headers may come twice. Returns status, headers and body."""
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    found = response.status, response.getheaders(), response.read()
    connection.close()
    return found


@pytest.mark.parametrize("status", [200, 201, 204, 302, 400, 404, 500, 503])
def test_status_headers_and_body_of_the_application_pass_through(tmp_path: Path, status: int) -> None:
    headers = [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-mine", "1"),
        ("content-type", "a/b"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]
    body = b"" if status == 204 else b"\x00of the application"
    with App(answer=lambda got: Reply(status, body, headers)) as app, beside(app, tmp_path) as sidecar:
        found, pairs, data = invoked(sidecar, "POST", "/v1.0/invoke/app/method/a/b%20c?x=1&x=%20", b"in")
    assert (found, data) == (status, body)
    assert [value for name, value in pairs if name == "set-cookie"] == ["a=1", "b=2"]
    told = {name.lower(): value for name, value in pairs}
    assert told["x-mine"] == "1"
    assert told["content-type"] == "a/b"
    assert "x-hop" not in told
    (got,) = app.got
    assert (got.method, got.path, got.body) == ("POST", "/a/b%20c?x=1&x=%20", b"in")


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_every_verb(tmp_path: Path, verb: str) -> None:
    with App(answer=lambda got: Reply(200, b"body")) as app, beside(app, tmp_path) as sidecar:
        status, _, data = invoked(sidecar, verb, "/v1.0/invoke/app/method/x")
    assert (status, data, app.got[0].method) == (200, b"" if verb == "HEAD" else b"body", verb)


def test_headers_of_the_call(tmp_path: Path) -> None:
    given = [
        ("x-two", "1"),
        ("x-two", "2"),
        ("cookie", "a=b"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("traceparent", TRACE),
        ("dapr-caller-app-id", "lie"),
        ("dapr-api-token", "of the sidecar"),
        ("content-type", "text/x"),
    ]
    with App() as app, beside(app, tmp_path, app_token="of the application", api_token="of the sidecar") as sidecar:
        assert invoked(sidecar, "POST", "/v1.0/invoke/app/method/x", b"1", given)[0] == 200
    (got,) = app.got
    names = [name for name, _ in got.headers]
    assert [value for name, value in got.headers if name == "x-two"] == ["1", "2"]
    assert (got.header("cookie"), got.header("traceparent"), got.header("content-type")) == ("a=b", TRACE, "text/x")
    assert (got.header("dapr-caller-app-id"), got.header("dapr-callee-app-id")) == ("app", "app")
    assert got.header("dapr-caller-namespace") == "default"
    assert names.count("dapr-caller-app-id") == 1
    assert [value for name, value in got.headers if name == "dapr-api-token"] == ["of the application"]
    assert "x-hop" not in names
    assert "te" not in names
    assert "http2-settings" not in names


@pytest.mark.parametrize(
    ("path", "headers", "arrives"),
    [
        ("/any/path?q=1", [("dapr-app-id", "app")], "/any/path?q=1"),
        ("/", [("dapr-app-id", "app")], "/"),
        ("/x", [("authorization", "Basic " + base64.b64encode(b"dapr-app-id:app").decode())], "/x"),
        ("/v1.0/invoke/app/method/a/../../b//c/./d", [], "/b/c/d"),
        ("/v1.0/invoke/app/method/a/%2e%2e/b", [], "/b"),
        ("/v1.0/invoke/app/method/..%2f..%2Fadmin", [], "/admin"),
        ("/v1.0/invoke/app/method/a/%2e%2e%2F%2E./b%2Fc", [], "/b/c"),
        ("/v1.0/invoke/app/method/..%252f..%252fadmin", [], "/..%252f..%252fadmin"),
        ("/..%2f..%2fadmin", [("dapr-app-id", "app")], "/admin"),
        ("/v1.0/invoke/app.default/method/x", [], "/x"),
        ("/v1.0/invoke/a%70p/method/x", [], "/x"),
    ],
)
def test_where_the_target_stands(tmp_path: Path, path: str, headers: Any, arrives: str) -> None:
    with App() as app, beside(app, tmp_path) as sidecar:
        assert invoked(sidecar, "GET", path, None, headers)[0] == 200
    (got,) = app.got
    assert got.path == arrives
    assert got.header("dapr-app-id") is None


@pytest.mark.parametrize("target", ["app", "other"])
def test_the_namespace_of_the_caller(tmp_path: Path, target: str) -> None:
    with ExitStack() as stack:
        over_http, over_grpc = stack.enter_context(App()), stack.enter_context(serving_grpc(Streams()))
        for number, app in enumerate((over_http, over_grpc)):
            home = tmp_path / str(number)
            callee = stack.enter_context(beside(app, home, target, namespace="shops"))
            sidecar = callee if target == "app" else stack.enter_context(beside(None, home, namespace="shops"))
            if app is over_http:
                path = f"/v1.0/invoke/{target}.shops/method/x"
                assert invoked(sidecar, "GET", path)[0] == 200
                assert invoked(sidecar, "GET", path.replace("shops", "default"))[0] == 500
            else:
                channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
                hello = channel.unary_unary("/mine.Greeter/Hello")
                assert hello(b"", metadata=(("dapr-app-id", f"{target}.shops"),), timeout=30) == b"hello "
    (got,) = over_http.got
    hello_got = next(metadata for method, _, metadata in over_grpc.got if method == "/mine.Greeter/Hello")
    for told in (dict(got.headers), hello_got):
        names = [told[f"dapr-{name}"] for name in ("caller-app-id", "caller-namespace", "callee-app-id")]
        assert names == ["app", "shops", target]


def test_what_nobody_takes_is_not_found(tmp_path: Path) -> None:
    with beside(None, tmp_path) as sidecar:
        answer = send(sidecar.http_address, "GET", "/any/path")
        assert (answer.status, answer.error) == (404, "ERR_DIRECT_INVOKE")
        for path in ("/v1.0/invoke/app", "/v1.0/invoke/app/x", "/v1.0/invoke/app/method"):
            answer = send(sidecar.http_address, "GET", path)
            assert (answer.status, answer.error) == (404, "ERR_DIRECT_INVOKE")


def refused(sidecar: Sidecar, target: str) -> str:
    answer = send(sidecar.http_address, "POST", f"/v1.0/invoke/{target}/method/x", b"1")
    assert (answer.status, answer.error) == (500, "ERR_DIRECT_INVOKE"), answer.body
    assert answer.json["message"].startswith(f"failed to invoke, id: {target}, err: ")
    request = messages().InvokeServiceRequest(id=target, message={"method": "x", "http_extension": {"verb": 3}})
    over = call(sidecar.grpc_address, "InvokeService", request, "InvokeResponse")
    assert (over.code, over.reason) == ("INTERNAL", None)
    assert over.text.startswith("failed to invoke, id: ")
    return str(answer.json["message"])


@pytest.mark.parametrize("text", ["a#b", "a?b", "a\0b", "a\r/b", "\x7f"])
def test_a_method_with_what_a_path_cannot_have_is_refused(tmp_path: Path, text: str) -> None:
    with App() as app, beside(app, tmp_path) as sidecar:
        answer = send(sidecar.http_address, "POST", f"/v1.0/invoke/app/method/{quote(text)}", b"1")
        over = service(sidecar, "app", text, 3)
    assert (answer.status, answer.error, over.code) == (500, "ERR_DIRECT_INVOKE", "INTERNAL")
    assert "invalid method" in over.text
    assert app.got == []


def test_who_is_not_there(tmp_path: Path) -> None:
    app = App()
    app.closing = True
    with ExitStack() as stack:
        with app:
            sidecar = stack.enter_context(beside(app, tmp_path))
        with stack:
            assert "the application at 127.0.0.1:" in refused(sidecar, "app")
            assert "no service 'nobody'" in refused(sidecar, "nobody")
    with beside(None, tmp_path) as sidecar:
        assert "no port" in refused(sidecar, "app")


# -- gRPC -------------------------------------------------------------------


def service(sidecar: Sidecar, target: str, method: str, verb: int, data: bytes = b"", **more: Any) -> Any:
    kinds = messages()
    message = kinds.InvokeRequest(
        method=method,
        data=kinds.Any(value=data),
        content_type=more.pop("content_type", ""),
        http_extension=kinds.HTTPExtension(verb=verb, querystring=more.pop("query", "")),
    )
    request = kinds.InvokeServiceRequest(id=target, message=message)
    return call(sidecar.grpc_address, "InvokeService", request, "InvokeResponse", **more)


def test_invoke_service_of_an_application_over_http(tmp_path: Path) -> None:
    def answer(got: Got) -> Reply:
        if got.path == "/fails":
            return Reply(404, b"x" * 100)
        return Reply(201, got.body[::-1], [("content-type", "a/b"), ("x-back", "1")])

    with App(answer=answer) as app, beside(app, tmp_path) as sidecar:
        done = service(sidecar, "app", "a b/c", 4, b"in", content_type="text/x", query="q=1", metadata={"x-one": "1"})
        assert (done.code, done.message.data.value, done.message.content_type) == ("OK", b"ni", "a/b")
        assert (done.headers["dapr-http-status"], done.headers["x-back"]) == ("201", "1")
        failed = service(sidecar, "app", "fails", 1)
        assert (failed.code, failed.text, failed.reason) == ("NOT_FOUND", "Not Found", "Not Found")
        info = failed.details["ErrorInfo"]
        assert dict(info.metadata) == {"http.code": "404", "http.error_message": "x" * 63}
        wrong = service(sidecar, "app", "x", 0)
        assert wrong.code == "INTERNAL"
        assert "invalid HTTP verb" in wrong.text
    got = app.got[0]
    assert (got.method, got.path, got.body) == ("PUT", "/a%20b/c?q=1", b"in")
    assert (got.header("content-type"), got.header("x-one")) == ("text/x", "1")


def grpc_app() -> GrpcApp:
    def answer(request: Any, context: Any) -> Any:
        kinds = messages()
        if request.method == "fails":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "what is that")
        context.send_initial_metadata((("x-back", "1"),))
        return kinds.InvokeResponse(
            data=kinds.Any(type_url=request.data.type_url, value=request.data.value[::-1]), content_type="a/b"
        )

    return GrpcApp(OnInvoke=("InvokeRequest", answer))


def test_an_application_over_grpc_is_on_invoke(tmp_path: Path) -> None:
    with serving_grpc(grpc_app()) as app, beside(app, tmp_path) as sidecar:
        status, headers, data = invoked(
            sidecar, "POST", "/v1.0/invoke/app/method/m/n?q=1", b"abc", [("content-type", "t/x")]
        )
        assert (status, data, dict(headers)["content-type"]) == (200, b"cba", "a/b")
        request = app.named("OnInvoke")[0]
        assert (request.method, request.http_extension.verb, request.http_extension.querystring) == ("m/n", 3, "q=1")
        assert request.content_type == "t/x"
        answer = send(sidecar.http_address, "POST", "/v1.0/invoke/app/method/fails", b"")
        assert (answer.status, answer.json) == (400, {"code": 3, "message": "what is that"})
        done = service(sidecar, "app", "m", 0, b"in")
        assert (done.code, done.message.data.value, done.headers["x-back"]) == ("OK", b"ni", "1")
        assert "dapr-http-status" not in done.headers
        failed = service(sidecar, "app", "fails", 0)
        assert (failed.code, failed.text) == ("INVALID_ARGUMENT", "what is that")


@pytest.mark.parametrize("target", ["app", "other"])
@pytest.mark.parametrize(
    ("method", "arrives"),
    [
        ("50%25", "50%25"),
        ("50%", "50%"),
        ("admin%2F..%2Fpublic", "admin%2F..%2Fpublic"),
        ("admin/../public", "public"),
        ('a "b"*\\ü', 'a "b"*\\ü'),
    ],
)
def test_the_name_of_a_method_over_grpc_is_text(tmp_path: Path, target: str, method: str, arrives: str) -> None:
    with ExitStack() as stack:
        over_grpc = stack.enter_context(serving_grpc(grpc_app()))
        over_http = stack.enter_context(App())
        for number, app in enumerate((over_grpc, over_http)):
            home = tmp_path / str(number)
            callee = stack.enter_context(beside(app, home, target))
            sidecar = callee if target == "app" else stack.enter_context(beside(None, home))
            assert service(sidecar, target, method, 3).code == "OK"
    assert over_grpc.named("OnInvoke")[0].method == arrives
    assert unquote(over_http.got[0].path) == f"/{arrives}"


@pytest.mark.parametrize("target", ["app", "other"])
def test_the_type_of_an_any_passes_through(tmp_path: Path, target: str) -> None:
    kinds = messages()
    url = "type.googleapis.com/mine.Order ü"
    request = kinds.InvokeServiceRequest(
        id=target, message={"method": "m", "data": kinds.Any(type_url=url, value=b"in"), "content_type": "a/b"}
    )
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(grpc_app()))
        callee = stack.enter_context(beside(app, tmp_path, target))
        sidecar = callee if target == "app" else stack.enter_context(beside(None, tmp_path))
        done = call(sidecar.grpc_address, "InvokeService", request, "InvokeResponse")
    assert app.named("OnInvoke")[0].data.type_url == url
    assert (done.message.data.type_url, done.message.data.value) == (url, b"ni")
    assert not [name for _, _, metadata in app.got for name in metadata if name.startswith("cloud-runtimes-")]


# -- others -----------------------------------------------------------------


def test_another_application_of_the_home_is_found(tmp_path: Path) -> None:
    def answer(got: Got) -> Reply:
        return Reply(418, got.body[::-1], [("x-back", "1"), ("content-type", "a/b")])

    with ExitStack() as stack:
        app = stack.enter_context(App(answer=answer))
        stack.enter_context(beside(app, tmp_path, "other", app_token="its own", api_token="of the other"))
        sidecar = stack.enter_context(beside(None, tmp_path))
        given = [("content-type", "t/x"), ("x-one", "1"), ("x-one", "2"), ("cookie", "a=1"), ("cookie", "b=2")]
        status, headers, data = invoked(sidecar, "PUT", "/v1.0/invoke/other/method/a/b?q=%20", b"in", given)
        assert (status, data) == (418, b"ni")
        assert dict(headers)["x-back"] == "1"
        assert dict(headers)["content-type"] == "a/b"
        got = app.got[0]
        assert (got.method, got.path, got.body) == ("PUT", "/a/b?q=%20", b"in")
        assert (got.header("dapr-caller-app-id"), got.header("dapr-callee-app-id")) == ("app", "other")
        assert (got.header("x-one"), got.header("cookie")) == ("1, 2", "a=1; b=2")
        assert got.header("x-forwarded-host")
        assert "by=" in (got.header("forwarded") or "")
        assert got.header("dapr-api-token") == "its own"
        assert got.header("cloud-runtimes-token") is None
        over = service(sidecar, "other", "x", 3, b"in")
        assert (over.code, dict(over.details["ErrorInfo"].metadata)["http.code"]) == ("UNKNOWN", "418")


def test_a_plain_client_calls_the_application_and_the_sidecar_a_plain_service(home: Path | str) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(
            App(answer=lambda got: Reply(200, b'{"n":1}', [("content-type", "application/json")]))
        )
        sidecar = stack.enter_context(beside(app, home, "beside"))
        client = stack.enter_context(CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="plain"))
        assert client.rpc.invoke_method("beside", "orders/42", {"x": 1}) == {"n": 1}
        got = app.got[0]
        assert (got.method, got.path, got.json) == ("POST", "/orders/42", {"x": 1})
        assert (got.header("dapr-caller-app-id"), got.header("dapr-callee-app-id")) == ("plain", "beside")
        client.rpc.register_method("greet", lambda data: {"hello": data})
        with client.rpc.serving():
            answer = send(sidecar.http_address, "POST", "/v1.0/invoke/plain/method/greet", "Ada")
            assert (answer.status, answer.json) == (200, {"hello": "Ada"})
            assert send(sidecar.http_address, "POST", "/v1.0/invoke/plain/method/gone", "x").status == 404


def test_after_the_end_nobody_is_found(home: Path | str) -> None:
    with App() as app, beside(None, home) as sidecar:
        with beside(app, home, "other"):
            assert invoked(sidecar, "GET", "/v1.0/invoke/other/method/x")[0] == 200
        until(lambda: send(sidecar.http_address, "GET", "/v1.0/invoke/other/method/x").status == 500)


def test_a_failure_of_an_application_over_grpc_keeps_its_code(tmp_path: Path) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(grpc_app()))
        stack.enter_context(beside(app, tmp_path, "other"))
        sidecar = stack.enter_context(beside(None, tmp_path))
        failed = service(sidecar, "other", "fails", 0)
        assert (failed.code, failed.text) == ("INVALID_ARGUMENT", "what is that")
        done = service(sidecar, "other", "m", 0, b"in")
        assert (done.code, done.message.data.value) == ("OK", b"ni")
        assert "dapr-http-status" not in done.headers


# -- calls of gRPC that are passed on ---------------------------------------


class Streams(GrpcApp):
    """An application with methods of its own, whose messages nobody else knows."""

    def service(self, handler_call_details: Any) -> Any:
        self.got.append((handler_call_details.method, None, dict(handler_call_details.invocation_metadata)))
        return {
            "/mine.Greeter/Hello": grpc.unary_unary_rpc_method_handler(self.hello),
            "/mine.Greeter/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "/mine.Greeter/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }.get(handler_call_details.method)

    def hello(self, request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "2"), ("x-bytes-bin", b"\x00\xff")))
        return b"hello " + request

    def chat(self, requests: Any, context: Any) -> Iterator[bytes]:
        for each in requests:
            yield b"> " + each

    def fail(self, request: bytes, context: Any) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


@pytest.mark.parametrize("target", ["app", "other"])
def test_calls_of_grpc_are_passed_on(tmp_path: Path, target: str) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Streams()))
        own = app if target == "app" else None
        sidecar = stack.enter_context(beside(own, tmp_path, app_token="token" if own else None))
        if own is None:
            stack.enter_context(beside(app, tmp_path, "other", app_token="token", api_token="of the other"))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        metadata = (("dapr-app-id", target), ("x-mine", "1"), ("dapr-caller-app-id", "lie"))
        reply, done = channel.unary_unary("/mine.Greeter/Hello").with_call(b"Ada", metadata=metadata, timeout=30)
        assert reply == b"hello Ada"
        assert dict(done.initial_metadata())["x-initial"] == "1"
        trailing = dict(done.trailing_metadata())
        assert (trailing["x-trailing"], trailing["x-bytes-bin"]) == ("2", b"\x00\xff")
        told = next(metadata for method, _, metadata in app.got if method == "/mine.Greeter/Hello")
        assert (told["x-mine"], told["dapr-api-token"], told["dapr-callee-app-id"]) == ("1", "token", target)
        assert (told["dapr-caller-app-id"], told["dapr-caller-namespace"]) == ("app", "default")
        assert "dapr-app-id" not in told

        chat: Any = channel.stream_stream("/mine.Greeter/Chat")
        given = iter([b"%d" % number for number in range(100)])
        assert list(chat(given, metadata=metadata, timeout=30)) == [b"> %d" % number for number in range(100)]

        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/mine.Greeter/Fail")(b"", metadata=metadata, timeout=30)
        error: Any = caught.value
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert dict(error.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x05"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/mine.Greeter/Gone")(b"", metadata=metadata, timeout=30)
        error = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Streams()))
        sidecar = stack.enter_context(beside(app, tmp_path))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        sent: list[bytes] = []

        def requests() -> Iterator[bytes]:
            while len(sent) < 3:
                # the next one is sent when the last one was answered
                until(lambda: len(received) == len(sent))
                sent.append(b"%d" % len(sent))
                yield sent[-1]

        received: list[bytes] = []
        chat: Any = channel.stream_stream("/mine.Greeter/Chat")
        for each in chat(requests(), metadata=(("dapr-app-id", "app"),), timeout=60):
            received.append(each)
        assert received == [b"> 0", b"> 1", b"> 2"]


def test_calls_of_grpc_that_cannot_be_passed_on(tmp_path: Path) -> None:
    with App() as app, beside(app, tmp_path, "app") as sidecar:
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            for target, text in (("app", "it speaks HTTP"), ("nobody", "no service 'nobody'")):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary("/mine.Greeter/Hello")(b"", metadata=(("dapr-app-id", target),), timeout=30)
                error: Any = caught.value
                assert error.code() is grpc.StatusCode.UNKNOWN
                assert text in error.details()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/mine.Greeter/Hello")(b"", timeout=30)
            error = caught.value
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_way_in_for_other_sidecars_is_for_calls_of_the_application_alone(tmp_path: Path) -> None:
    with serving_grpc(Streams()) as app, beside(app, tmp_path, "app", api_token="secret") as sidecar:
        peer = sidecar.context.peer_token
        assert peer
        with grpc.insecure_channel(sidecar.grpc_address) as channel:
            metadata = (("dapr-app-id", "app"), ("dapr-api-token", peer))
            assert channel.unary_unary("/mine.Greeter/Hello")(b"", metadata=metadata, timeout=30) == b"hello "
        request = messages().GetStateRequest(store_name="store", key="k")
        answer = call(sidecar.grpc_address, "GetState", request, "GetStateResponse", {"dapr-api-token": peer})
        assert answer.code == "UNAUTHENTICATED"
        assert peer not in repr(sidecar.context)


def test_calls_under_way_end_before_the_sidecar(tmp_path: Path) -> None:
    leave = threading.Event()
    entered: list[str] = []

    class Slow(Streams):
        def hello(self, request: bytes, context: Any) -> bytes:
            entered.append("hello")
            assert leave.wait(60)
            return b"hello " + request

    def invoked_slowly(request: Any, context: Any) -> Any:
        entered.append("invoke")
        assert leave.wait(60)
        return messages().InvokeResponse()

    class Both(Slow):
        def service(self, handler_call_details: Any) -> Any:
            return super().service(handler_call_details) or GrpcApp.service(self, handler_call_details)

    with ExitStack() as stack:
        app = stack.enter_context(serving_grpc(Both(OnInvoke=("InvokeRequest", invoked_slowly))))
        sidecar = stack.enter_context(beside(app, tmp_path, grace=60.0))
        channel = stack.enter_context(grpc.insecure_channel(sidecar.grpc_address))
        hello = channel.unary_unary("/mine.Greeter/Hello").future(
            b"Ada", metadata=(("dapr-app-id", "app"),), timeout=60
        )
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(send, sidecar.http_address, "POST", "/v1.0/invoke/app/method/x", b"1")
            until(lambda: sorted(entered) == ["hello", "invoke"])
            sidecar.stop()
            threading.Timer(0.3, leave.set).start()
            assert hello.result() == b"hello Ada"
            assert other.result(60).status == 200


# -- answers that come piece by piece ---------------------------------------


class Events:
    """An application that sends server-sent events, one whenever it is told to."""

    def __init__(self) -> None:
        self.next = threading.Semaphore(0)
        self.gone = threading.Event()
        self.breaks = False
        self.count = 5
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while head := connection.recv(65536):
                if b" /events " not in head:
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=1\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for number in range(self.count):
                    assert self.next.acquire(timeout=60)
                    if self.breaks:
                        return
                    try:
                        data = b"data: %d\n\n" % number
                        connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
                    except OSError:
                        self.gone.set()
                        return
                connection.sendall(b"0\r\n\r\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def events(tmp_path: Path) -> Iterator[tuple[Events, Sidecar]]:
    app = Events()
    with CloudRuntimesClient(config=declared(str(tmp_path)), app_id="app") as client:
        settings = SidecarSettings(
            app_id="app", app_port=app.port, http_port=0, grpc_port=None, timeout=30.0, grace=1.0
        )
        with Sidecar(client, settings) as sidecar:
            until(lambda: sidecar.context.app is not None and sidecar.context.app.is_ready)
            yield app, sidecar
    app.close()


def test_an_answer_without_a_length_comes_as_it_is_sent(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    for _ in range(2):  # the connection is good for another one
        connection.request("GET", "/v1.0/invoke/app/method/events")
        response = connection.getresponse()  # the head is there before the first event
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["set-cookie"] == "a=1"
        for number in range(5):
            app.next.release()
            assert response.readline() + response.readline() == b"data: %d\n\n" % number
        assert response.read() == b""
    connection.close()


def test_who_goes_away_ends_the_answer(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    app.count = 1_000_000
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    connection.request("GET", "/v1.0/invoke/app/method/events")
    response = connection.getresponse()
    app.next.release()
    assert response.readline() == b"data: 0\n"
    response.close()
    connection.close()

    def told() -> bool:
        app.next.release()  # the application tries to send, and finds nobody
        return app.gone.wait(0.05)

    until(told, "the end of the connection")


def test_an_answer_that_breaks_off_does_so_for_the_caller(events: tuple[Events, Sidecar]) -> None:
    app, sidecar = events
    connection = http.client.HTTPConnection(urlsplit(sidecar.http_address).netloc, timeout=30)
    connection.request("GET", "/v1.0/invoke/app/method/events")
    response = connection.getresponse()
    app.next.release()
    assert response.readline() == b"data: 0\n"
    app.breaks = True
    app.next.release()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
