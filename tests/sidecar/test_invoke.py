"""Service invocation: what passes through, to the own application and to others, and Dapr's own refusals."""

from __future__ import annotations

import base64
import http.client
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import grpc
import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.servers import own_server
from tests.support.sidecar_calls import Streams, beside
from tests.support.waiting import until

# where nobody else has these names of applications
nats_server = own_server("nats:serve")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["folder", "nats"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Home that the applications share: a folder, or a NATS server."""
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
    result = response.status, response.getheaders(), response.read()
    connection.close()
    return result


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
        code, pairs, data = invoked(sidecar, "POST", "/v1.0/invoke/app/method/a/b%20c?x=1&x=%20", b"in")
    assert (code, data) == (status, body)
    assert [value for name, value in pairs if name == "set-cookie"] == ["a=1", "b=2"]
    received = {name.lower(): value for name, value in pairs}
    assert received["x-mine"] == "1"
    assert received["content-type"] == "a/b"
    assert "x-hop" not in received
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
    for headers in (dict(got.headers), hello_got):
        names = [headers[f"dapr-{name}"] for name in ("caller-app-id", "caller-namespace", "callee-app-id")]
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
