"""Send the requests of `recorded` to a real daprd and to a sidecar of ours, and show each difference.

``python -m tests.sidecar.against_daprd PATH_OF_DAPRD [--scheduler PATH] [--redis HOST:PORT] [--texts] [--all]``

Both read the same resource files, but for the stores of state, locks and configuration in Redis, which ours has in memory. What is published must reach the application alike too. What is random or of the machine (etags, ids, times, ports, traces) is masked, and so are the words of refusals without ``--texts``. Whatever is left is a difference; those known are told in docs/reference/sidecar.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import Answer, call, send
from tests.sidecar.recorded import DELIVERIES, HTTP, LOCKS, RPC, SUBSCRIPTIONS
from tests.sidecar.rows import Http
from tests.support.apps import App, Got, Reply
from tests.support.waiting import until

COMPONENT = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {}}}\nspec:\n  type: {}\n  version: v1\n  metadata: {}\n"
_HEADERS = ("content-type", "etag", "metadata.ttlexpiretime", "dapr-http-status", "dapr-status", "allow", "x-mine")
_MASKS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0\d"), "<trace>"),
    (re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):\d+"), "<address>"),
)


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _answer(got: Got) -> Reply:
    if got.path.startswith("/status/"):
        return Reply(
            int(got.path.rpartition("/")[2]), b'{"of":"the application"}', [("content-type", "application/json")]
        )
    if got.path.partition("?")[0] in ("/echo", "/echo/deep"):
        names = {name for name, _ in got.headers} - {
            "accept-encoding",
            "user-agent",
            "baggage",
            "tracestate",
            "grpc-trace-bin",
        }
        details = {"method": got.method, "path": got.path, "headers": sorted(names), "body": got.body.decode()}
        return Reply(200, json.dumps(details).encode(), [("content-type", "application/json"), ("x-mine", "kept")])
    return Reply(404)


@contextmanager
def _process(command: list[str], ready: str | None, log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent) as process:
        try:
            end = time.monotonic() + 60
            while ready is not None:
                try:
                    if send(ready, "GET", "/v1.0/healthz").status == 204:
                        break
                except OSError:
                    pass
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{command[0]} does not answer:\n{log.read_text()[-3000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _resources(folder: Path, redis: str | None, stores: dict[str, str]) -> Path:
    resources = folder / "resources"
    resources.mkdir()
    (folder / "secrets.json").write_text('{"one": "1", "nested": {"inner": "2"}}')
    (folder / "files").mkdir()
    state = ("state.redis", f"[{{name: redisHost, value: '{redis}'}}]") if redis else ("state.in-memory", "[]")
    host = f"[{{name: redisHost, value: '{redis}'}}]" if redis else "[]"
    more = [(name, f"{kind}.{'redis' if redis else 'in-memory'}", host) for name, kind in stores.items()]
    for name, kind, metadata in (
        *more,
        ("store", *state),
        ("bus", "pubsub.in-memory", "[]"),
        ("vault", "secretstores.local.file", f"[{{name: secretsFile, value: '{folder}/secrets.json'}}]"),
        ("files", "bindings.localstorage", f"[{{name: rootPath, value: '{folder}/files'}}]"),
    ):
        (resources / f"{name}.yaml").write_text(COMPONENT.format(name, kind, metadata))
    return resources


@contextmanager
def _sidecar(
    program: list[str], folder: Path, more: list[str], redis: str | None, stores: dict[str, str]
) -> Iterator[tuple[str, str, App]]:
    http, grpc = _port(), _port()
    folder.mkdir()
    with App(list(SUBSCRIPTIONS), _answer) as app:
        options = ["--app-id", "app", "--app-port", str(app.port), "--dapr-http-port", str(http)]
        options += ["--dapr-grpc-port", str(grpc), "--resources-path", str(_resources(folder, redis, stores)), *more]
        with _process([*program, *options], f"http://127.0.0.1:{http}", folder / "log"):
            end = time.monotonic() + 60
            while send(f"http://127.0.0.1:{http}", "GET", "/v1.0/invoke/app/method/echo").status != 200:
                if time.monotonic() > end:
                    raise SystemExit("the application is not reached")
                time.sleep(0.05)
            until(
                lambda: len(send(f"http://127.0.0.1:{http}", "GET", "/v1.0/metadata").json.get("subscriptions", ()))
                == 4
            )
            yield f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", app


def _filled(value: Any, etag: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, etag) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, etag) for each in value]
    return etag if value == "{etag}" else value


def _describe(answer: Answer, texts: bool) -> list[str]:
    """Return an answer as lines, masked."""
    lines = [f"status {answer.status}"] if answer.status else [f"code {answer.code}"]
    if answer.status:
        lines += [
            f"{name}: {answer.headers[name] if name != 'etag' else '<etag>'}"
            for name in _HEADERS
            if name in answer.headers
        ]
        try:
            lines.append("body " + json.dumps(_plain(answer.json, texts or answer.status < 400), sort_keys=True)[:3000])
        except ValueError:
            lines.append(f"body {answer.body[:300]!r}")
    elif answer.message is None:
        lines.append(f"text {answer.text if texts else '<text>'}")
        lines += sorted(f"{name} {_plain(MessageToDict(detail), texts)}" for name, detail in answer.details.items())
    else:
        lines.append(f"reply {_message(answer.message)}"[:3000])
    for pattern, mask in _MASKS:
        lines = [pattern.sub(mask, line) for line in lines]
    return lines


def _message(message: Any) -> str:
    try:
        return json.dumps(_plain(MessageToDict(message), True), sort_keys=True)
    except TypeError:  # an Any that does not say of what
        return " ".join(str(message).split())


def _plain(value: Any, texts: bool) -> Any:
    if isinstance(value, dict):
        result = {key: "<etag>" if key == "etag" else _plain(each, texts) for key, each in value.items()}
        if not texts:
            result |= {key: "<text>" for key in ("message", "description") if result.get(key)}
        return result
    if isinstance(value, list):
        return sorted((_plain(each, texts) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def _delivered(http: str, app: App) -> Iterator[tuple[str, list[str]]]:
    """Publish, and tell what the application got."""
    for published in DELIVERIES:
        app.got.clear()
        for request in published:
            send(http, request.method, request.path, request.body, request.headers)
        events = list(until(lambda: [got for got in app.got if got.method == "POST"], str(published)))
        lines = []
        for got in events:
            names = sorted(
                name for name, _ in got.headers if name.startswith(("content-type", "metadata", "pubsub", "rawpayload"))
            )
            lines += [f"path {got.path}", *(f"{name}: {got.header(name)}" for name in names)]
            lines.append("body " + json.dumps(_plain(got.json, True), sort_keys=True))
        for pattern, mask in _MASKS:
            lines = [pattern.sub(mask, line) for line in lines]
        yield f"delivered: {_name(published[0])}", [re.sub(r"[0-9a-f]{32}|<trace>", "<trace>", line) for line in lines]


def _record(http: str, grpc: str, app: App, texts: bool, locks: bool) -> list[tuple[str, list[str]]]:
    entries: list[tuple[str, list[str]]] = []
    etag = ""
    entries += _delivered(http, app)
    for request in (*HTTP, *(LOCKS if locks else ())):
        body = request.body if isinstance(request.body, bytes) else _filled(request.body, etag)
        try:
            answer = send(http, request.method, request.path, body, _filled(dict(request.headers), etag))
        except OSError as error:
            entries.append((_name(request), [f"the connection broke: {type(error).__name__}"]))
            continue
        etag = answer.headers.get("etag", etag)
        entries.append((_name(request), _describe(answer, texts)))
    etag = ""
    for step in RPC:
        message = getattr(messages(), step.request)(**_filled(step.fields, etag))
        answer = call(grpc, step.method, message, step.reply)
        etag = getattr(answer.message, "etag", "") or etag
        entries.append((f"{step.method} {str(step.fields)[:160]}", _describe(answer, texts)))
    return entries


def _name(request: Http) -> str:
    headers = f" {dict(request.headers)}" if request.headers else ""
    return f"{request.method} {request.path}{headers} {request.body!r}"[:200]


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("daprd")
    parser.add_argument("--scheduler")
    parser.add_argument("--redis")
    parser.add_argument("--texts", action="store_true", help="compare the words of refusals too")
    parser.add_argument("--all", action="store_true", help="show what is the same too")
    given = parser.parse_args()
    stores = {"locks": "lock", "settings": "configuration"} if given.redis else {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        more = ["--enable-metrics=false", "--log-level", "info", "--dapr-internal-grpc-port", str(_port())]
        if given.scheduler:
            ports = [str(_port()) for _ in range(5)]
            (folder / "scheduler").mkdir()
            command = [
                given.scheduler,
                "--port",
                ports[0],
                "--etcd-data-dir",
                str(folder / "etcd"),
                "--healthz-port",
                ports[1],
            ]
            command += ["--metrics-port", ports[2], "--etcd-client-port", ports[3], "--listen-address", "127.0.0.1"]
            command += ["--etcd-initial-cluster", f"dapr-scheduler-server-0=http://127.0.0.1:{ports[4]}"]
            stack.enter_context(_process(command, None, folder / "scheduler" / "log"))
            more += ["--scheduler-host-address", f"127.0.0.1:{ports[0]}"]
        with _sidecar([given.daprd], folder / "daprd", more, given.redis, stores) as endpoints:
            theirs = _record(*endpoints, given.texts, bool(stores))
        os.environ["CLOUD_RUNTIMES_HOME"] = str(folder / "home")
        with _sidecar(
            [sys.executable, "-m", "cloud_runtimes", "serve"], folder / "ours", [], None, stores
        ) as endpoints:
            ours = _record(*endpoints, given.texts, bool(stores))
    masked = str(folder)
    same = 0
    for (what, one), (_, other) in zip(theirs, ours, strict=True):
        one = [line.replace(f"{masked}/daprd", "<folder>") for line in one]
        other = [line.replace(f"{masked}/ours", "<folder>") for line in other]
        same += one == other
        if one == other and not given.all:
            continue
        sys.stdout.write(f"\n{'=' if one == other else '#'} {what}\n")
        for line in one:
            sys.stdout.write(f"  {' ' if line in other else '-'} {line}\n")
        for line in other:
            if line not in one:
                sys.stdout.write(f"  + {line}\n")
    sys.stdout.write(f"\n{same} of {len(theirs)} answers are the same\n")


if __name__ == "__main__":
    main()
