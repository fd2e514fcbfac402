"""Requests that web pages send to local servers, in a real browser: foreign and rebound origins do not get through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar
from tests.support.apps import App
from tests.support.browsing import FOREIGN, OtherOrigin
from tests.support.ports import reserved_port
from tests.support.running import SECRET, declared, serving

pytestmark = pytest.mark.process

CANARY = "what no page may read"
WRITES = (
    ("POST", "/v1.0/state/store", '[{"key": "k", "value": "forged"}]'),
    ("POST", "/v1.0/publish/store/topic", "forged"),
    ("POST", "/v1.0/invoke/app/method/order", "forged"),
    ("GET", "/v1.0/invoke/app/method/order", None),
    ("POST", "/v1.0-alpha1/lock/store", '{"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 60}'),
    ("POST", "/v1.0-alpha1/jobs/forged", '{"schedule": "@every 1s"}'),
    ("POST", "/v1.0/bindings/sql", '{"operation": "exec", "metadata": {"sql": "CREATE TABLE forged (x)"}}'),
    ("PUT", "/v1.0/metadata/forged", "forged"),
    ("DELETE", "/v1.0/state/store/kept", None),
    ("POST", "/echo", '"forged"'),
    ("GET", "/echo", None),
    ("POST", "/v1.0/shutdown", ""),
)
READS = (
    "/v1.0/state/store/kept",
    "/v1.0/secrets/store/KEY",
    "/v1.0/secrets/store/bulk",
    "/v1.0/metadata",
    "/v1.0/configuration/store?key=kept",
    "/v1.0/healthz",
    "/healthz",
    "/dapr/subscribe",
    f"/cloud-runtimes/hello?nonce={'0' * 32}",
)
SCRIPT = """
    const [url, grpc, writes, reads, done] = arguments;
    const found = [];
    const attempt = (where, options) => fetch(where, options)
        .then((reply) => reply.text().then((text) => found.push([where, reply.type, reply.status, text])))
        .catch((error) => found.push([where, "error", 0, ""]));
    const show = (kind, where) => new Promise((resolve) => {
        const element = document.createElement(kind);
        element.onload = element.onerror = resolve;
        element.src = where;
        document.body.append(element);
        setTimeout(resolve, 2000);
    });
    const submit = (where, body) => {
        const frame = document.createElement("iframe");
        frame.name = "f" + Math.random();
        const form = document.createElement("form");
        Object.assign(form, {method: "POST", action: where, enctype: "text/plain", target: frame.name});
        const field = document.createElement("input");
        [field.name, field.value] = [body, ""];
        form.append(field);
        document.body.append(frame, form);
        form.submit();
    };
    const all = [];
    for (const path of reads)
        for (const mode of ["cors", "no-cors", "same-origin"]) all.push(attempt(url + path, {mode}));
    for (const [method, path, body] of writes) {
        const options = body === null ? {method} : {method, body};
        for (const mode of ["cors", "no-cors"]) all.push(attempt(url + path, {...options, mode}));
        all.push(attempt(url + path, {...options, headers: {"content-type": "application/json", "dapr-app-id": "app"}}));
        if (method === "GET") all.push(show("img", url + path), show("script", url + path), show("iframe", url + path));
        if (method === "POST") {
            submit(url + path, body);
            navigator.sendBeacon(url + path, new Blob([body], {type: "text/plain"}));
        }
    }
    for (const mode of ["cors", "no-cors"])
        for (const name of ["SaveState", "PublishEvent", "Shutdown", "GetSecret"])
            all.push(attempt(grpc + "/dapr.proto.runtime.v1.Dapr/" + name, {method: "POST", body: "\\0\\0\\0\\0\\0", mode}));
    try { new WebSocket(url.replace("http", "ws") + "/v1.0/state/store"); } catch (error) { /* refused, too */ }
    Promise.all(all).then(() => setTimeout(() => done(found), 300));
"""


class Target:
    """A sidecar with its application, and an RPC server that takes calls without a token."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        self._stack = stack
        self._config = declared(str(home))
        self._config["capa"]["rpc_open"] = True
        self.app = stack.enter_context(App())
        self.calls: list[Any] = []
        self.sidecar: Sidecar

    def serve_sidecar(self, port: int = 0) -> str:
        bindings = {"sql": ("database", "store")}
        settings = {"app_port": self.app.port, "bindings": bindings, "http_port": port}
        self.sidecar = self._stack.enter_context(serving(self._config, **settings))
        client = self.sidecar.context.client
        client.state.save("store", "kept", CANARY)
        client.configuration.save_configuration("store", {"kept": CANARY})
        return self.sidecar.http_address

    def serve_rpc(self, port: int = 0) -> str:
        self.serve_sidecar()
        client = self._stack.enter_context(CloudRuntimesClient(app_id="open", config=self._config))
        client.rpc.register_method("echo", lambda data: self.calls.append(data) or data)
        return self._stack.enter_context(client.rpc.serving(port=port)).address

    def is_untouched(self) -> None:
        """See that nothing was written, published, invoked or ended."""
        client = self.sidecar.context.client
        assert client.state.list_keys("store") == ["kept"]
        assert client.state.get("store", "kept") == CANARY
        with client.pubsub.subscribe("store", "topic") as events:
            assert events.receive(timeout=0.2) is None
        assert client.lock.try_lock("store", "r") is not None
        assert client.schedule.list_jobs() == []
        assert client.database.tables("store") == []
        assert self.sidecar.context.attributes == {}
        assert not self.sidecar.signal
        assert [got for got in self.app.got if got.path not in ("/healthz", "/")] == []
        assert self.calls == []


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv(SECRET, CANARY)
    with ExitStack() as stack:
        yield Target(stack, tmp_path / "home")


def attack(browser: Chrome, target: Target, url: str) -> None:
    grpc = f"http://{target.sidecar.grpc_address}"
    results = browser.execute_async_script(SCRIPT, url, grpc, WRITES, READS)
    browser.get("about:blank")
    assert len(results) > 30
    assert CANARY not in str(results)
    # a rebound page may read that it is refused, and nothing else
    assert {status for _, kind, status, _ in results if kind not in ("opaque", "error")} <= {403, 421}
    target.is_untouched()


@pytest.mark.parametrize(
    ("server", "host", "by"),
    [
        ("sidecar", FOREIGN, "127.0.0.1"),
        ("sidecar", FOREIGN, "localhost"),
        ("sidecar", FOREIGN, "0.0.0.0"),
        ("sidecar", FOREIGN, "[::ffff:127.0.0.1]"),
        ("sidecar", "localhost", "localhost"),
        ("rpc", FOREIGN, "127.0.0.1"),
        ("rpc", "localhost", "0.0.0.0"),
    ],
)
def test_a_page_of_another_origin(browser: Chrome, target: Target, server: str, host: str, by: str) -> None:
    address = target.serve_sidecar() if server == "sidecar" else target.serve_rpc()
    with OtherOrigin() as other:
        browser.get(other.url(host))
        attack(browser, target, address.replace("127.0.0.1", by))


@pytest.mark.parametrize("server", ["sidecar", "rpc"])
def test_a_page_whose_name_was_rebound(browser: Chrome, target: Target, server: str) -> None:
    """The page was loaded from its own server under its own name; then that name and port are the sidecar's."""
    with reserved_port() as port:
        _rebound(browser, target, server, port)


def _rebound(browser: Chrome, target: Target, server: str, port: int) -> None:
    with OtherOrigin(port) as other:
        browser.get(other.url(FOREIGN))
    serve = target.serve_sidecar if server == "sidecar" else target.serve_rpc
    address = serve(other.port)
    assert address.endswith(f":{other.port}")
    attack(browser, target, other.url(FOREIGN).rstrip("/"))
