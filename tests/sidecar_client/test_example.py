"""The first example of the project's mission, over ``cloud-runtimes serve``, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import reserved_port

pytestmark = pytest.mark.process

# word for word
EXAMPLE = """
from cloud_runtimes import CloudRuntimesClient

# Initialize client
client = CloudRuntimesClient(endpoint="http://localhost:3500", timeout=30.0)

# Use the RPC service
response = client.rpc.invoke_method(
    service="service-name", method="my-method", data={"key": "value"})

# Use the State service
client.state.save(store_name="state-store", key="my-key", value={"data": "value"})

# Retrieve state
state = client.state.get(store_name="state-store", key="my-key")
"""

PLAIN = """
import http.server, json, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(404, b"")

    def do_POST(self):
        data = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/my-method", self.path
        self.answer(200, b'{"answer":' + data + b"}")

    def answer(self, status, data):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), Handler)
print("ready", flush=True)
server.serve_forever()
"""

# an application of ours: its client finds the sidecar by DAPR_HTTP_PORT, serve() the port by APP_PORT
OURS = """
import signal
import threading
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient()
over = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: over.set())


@client.rpc.method("my-method")
def my_method(data):
    client.state.save("state-store", "seen", data)
    return {"answer": data}


with client.rpc.serving():
    print("ready", flush=True)
    while not over.wait(0.1):
        pass
client.close()
"""

SHOW = "\nimport json\nprint(json.dumps([response, state]))\nclient.close()\n"


def _environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("CLOUD_RUNTIMES_", "DAPR_", "APP_"))} | more


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as reserved:
        yield reserved


@pytest.mark.parametrize("application", [PLAIN, OURS], ids=["plain HTTP", "of ours"])
@pytest.mark.parametrize("token", ["", "a token"], ids=["open", "with tokens"])
def test_the_example(tmp_path: Path, port: int, application: str, token: str) -> None:
    app = tmp_path / "app.py"
    app.write_text(application)
    tokens = {"DAPR_API_TOKEN": token, "APP_API_TOKEN": f"{token} of the application"} if token else {}
    command = [sys.executable, "-W", "error", "-m", "cloud_runtimes", "serve", "--app-id", "service-name"]
    command += [
        "--app-port",
        str(port),
        "--dapr-http-port",
        "0",
        "--dapr-grpc-port",
        "0",
        "--",
        sys.executable,
        str(app),
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=_environment(**tokens)
    ) as sidecar:
        try:
            assert sidecar.stderr is not None
            assert sidecar.stdout is not None
            line = sidecar.stderr.readline()
            match = re.match(r"http://127\.0\.0\.1:(\d+) for HTTP", line)
            assert match, line + sidecar.stderr.read()
            assert sidecar.stdout.readline() == "ready\n"
            program = EXAMPLE.replace("3500", match[1]) + SHOW
            done = subprocess.run(
                [sys.executable, "-W", "error", "-X", "dev", "-c", program],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=_environment(**tokens),
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == '[{"answer": {"key": "value"}}, {"data": "value"}]\n'
            sidecar.terminate()
            out, err = sidecar.communicate(timeout=60)
            assert (out, err) == ("", "")
            assert sidecar.returncode == (143 if application is PLAIN else 0)
        finally:
            sidecar.kill()
