"""Application on the base install alone: all base services by both APIs, then the features that need an extra."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from cloud_runtimes import CloudRuntimesClient, telemetry
from cloud_runtimes.errors import UnsupportedError
from cloud_runtimes.testing.apis import Api, AsyncApi, SyncApi

os.environ["CLOUD_RUNTIMES_SECRET_SHOP_PASSWORD"] = "hunter2"


class Http(BaseHTTPRequestHandler):
    """A service that is no application of ours."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is told."""


def base_services(api: Api, url: str) -> None:
    config = {"rpc": {"stock": {"address": url}}}
    name = api.name
    with CloudRuntimesClient(app_id=name, config=config) as client:
        api.call(client.state, "save", name, "order", {"total": 12.5})
        assert api.call(client.state, "get", name, "order") == {"total": 12.5}

        opened = api.call(client.pubsub, "subscribe", name, "orders", start="earliest")
        with api.opened(opened) as events:
            api.call(client.pubsub, "publish", name, "orders", {"id": 1})
            assert api.call(events, "receive", timeout=10).data == {"id": 1}

        with api.opened(client.lock.hold(name, "till")) as lease:
            api.call(lease, "renew")

        api.call(client.configuration, "save_configuration", name, {"host": "localhost"})
        assert api.call(client.configuration, "get_configuration", name, ["host"]) == {"host": "localhost"}

        assert api.call(client.secret, "get_secret", "shop", "password").value == "hunter2"

        with client.telemetry.tracer("t").span("s"):
            client.telemetry.logger("t").info("l")
        assert api.call(client.telemetry, "flush", timeout=10)

        api.call(client.file, "put_file", name, "a/b", b"bytes")
        assert api.call(client.file, "get_file", name, "a/b") == b"bytes"

        client.rpc.register_method("double", lambda number: 2 * number)
        assert api.call(client.rpc, "invoke_method", name, "double", 21) == 42
        assert api.call(client.rpc, "invoke_method", "stock", "echo", {"id": 1}) == {"id": 1}
        assert api.call(client.rpc, "invoke", "stock", "echo", [1]).status == 200

        ran = {job: threading.Event() for job in ("every", "delta", "due")}
        for job, event in ran.items():
            client.schedule.job(job)(event.set)
        api.call(client.schedule, "schedule_job", "every", schedule="@every 50ms", repeats=1)
        api.call(client.schedule, "schedule_job", "delta", schedule=timedelta(milliseconds=50), repeats=1)
        api.call(client.schedule, "schedule_job", "due", due_time=datetime.now(UTC))
        with client.schedule.running():
            assert all(event.wait(20) for event in ran.values())


def needs(extra: str, what: str, call: Callable[[], Any]) -> None:
    message = ""
    try:
        call()
    except UnsupportedError as error:
        message = str(error)
    assert message == f'{what} needs an extra: pip install ".[{extra}]" in the checkout', (what, message)


def extras(api: Api) -> None:
    call = api.call

    def serve() -> None:
        with api.opened(client.rpc.serving()):
            pass

    def client_of(**arguments: Any) -> None:
        with CloudRuntimesClient(**arguments) as app_client:
            call(app_client.state, "get", "s", "k")

    with CloudRuntimesClient(
        app_id="extras",
        config={
            "secret": {"keys": {"component": "keyring"}},
            "configuration": {"app": {"component": "config_file", "path": "app.toml", "watch": "watchfiles"}},
            "database": {"bank": {"component": "sqlalchemy", "url": "postgresql://h/d"}},
        },
    ) as client:
        needs("rpc", "serving over HTTP", serve)
        needs("rpc", "serving over HTTP", lambda: call(client.rpc, "serve"))
        needs("database", "database 'bank'", lambda: call(client.database, "query", "bank", "SELECT 1"))
        client.schedule.job("j")(print)
        for schedule in ("0 3 * * *", "@hourly"):
            job = {"schedule": schedule}
            needs(
                "schedule", f"schedule {schedule!r}", lambda job=job: call(client.schedule, "schedule_job", "j", **job)
            )
        needs("keyring", "component 'keyring'", lambda: call(client.secret, "get_secret", "keys", "k"))
        watch = 'watch = "watchfiles"'
        needs("watch", watch, lambda: call(client.configuration, "subscribe_configuration", "app"))
    with CloudRuntimesClient() as client:
        needs("database", "database 'bank'", lambda: call(client.database, "query", "bank", "SELECT 1"))
    needs("yaml", "app.yaml: YAML", lambda: client_of(config="app.yaml"))
    needs("otel", "telemetry: OpenTelemetry's API", telemetry.install)
    grpc = {"telemetry": {"exporter": "otlp", "endpoint": "http://localhost:4317", "protocol": "grpc"}}
    needs("otlp-grpc", 'telemetry: protocol = "grpc"', lambda: CloudRuntimesClient(config=grpc).telemetry)
    if sys.version_info < (3, 14):
        zstd = {"telemetry": {"endpoint": "http://localhost:4318", "compression": "zstd"}}
        needs("zstd", 'telemetry: compression = "zstd"', lambda: CloudRuntimesClient(config=zstd).telemetry)
    for runtime in ("dapr", "layotto"):
        address = {"endpoint": "grpc://localhost:1", "runtime": runtime}
        needs(runtime, "endpoint: the address is gRPC, which", lambda address=address: client_of(**address))


def serve_sidecar() -> None:
    from cloud_runtimes.testing import serve

    with serve():
        pass


def show_telemetry() -> None:
    from cloud_runtimes.dashboard.server import Viewer

    Viewer(":memory:")


def main() -> None:
    for name in ("app.toml", "app.yaml"):
        with open(name, "w", encoding="utf-8") as file:
            file.write("")
    server = HTTPServer(("127.0.0.1", 0), Http)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for api_class in (SyncApi, AsyncApi):
        api: Api = api_class()
        base_services(api, f"http://127.0.0.1:{server.server_port}")
        extras(api)
        api.close()
    server.shutdown()
    server.server_close()
    needs("rpc", "serving over HTTP", serve_sidecar)
    needs("rpc", "serving over HTTP", show_telemetry)


main()
