"""``serve`` as others start it: where it listens, the command beside it, and how all of it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pytest

from cloud_runtimes.cli._daprd import Daprd, taken_out
from cloud_runtimes.cli._serve import _merged, _Signals
from tests.support.ports import reserved_port
from tests.support.waiting import until

CLI = [sys.executable, "-W", "error", "-m", "cloud_runtimes"]
FREE = ("--dapr-http-port", "0", "--dapr-grpc-port", "0")
LINE = re.compile(r"(http://\S+) for HTTP(?:, (\S+) for gRPC)?: the sidecar of (\S+)\n")


def _address(stream: IO[str]) -> re.Match[str]:
    # byte by byte: what a stream has read ahead of a line, communicate() leaves out
    output = ""
    while byte := os.read(stream.fileno(), 1):
        output += byte.decode("latin-1")
        if byte == b"\n" and (match := LINE.fullmatch(output.splitlines(keepends=True)[-1])):
            return match
    raise AssertionError(output)


@contextmanager
def _serving(*argv: str, own_output: bool = True, **options: Any) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*CLI, *argv], stdout=pipe, stderr=pipe, text=True, **options) as process:
        try:
            stream = process.stdout if own_output else process.stderr
            assert stream is not None
            yield process, _address(stream)
        finally:
            process.kill()


def _command(code: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code)


def _status(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_it_serves_both_protocols_until_a_signal(
    home: Path, number: int, code: int, signalled: Callable[[int, int], None]
) -> None:
    import grpc

    with _serving("serve", "--app-id", "shop", *FREE) as (process, match):
        assert match[3] == "shop"
        assert _status(f"{match[1]}/v1.0/state/store/absent") == 204
        with grpc.insecure_channel(match[2]) as channel:
            grpc.channel_ready_future(channel).result(60)
        signalled(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "")


@pytest.mark.process
def test_tokens_and_ports_come_from_options_and_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_API_TOKEN", "from the environment")
    monkeypatch.setenv("DAPR_HTTP_PORT", "1")  # of a sidecar around this one: neither a port to take nor a runtime
    with reserved_port() as port, _serving("serve", "-H", str(port), "--no-grpc") as (_, match):
        assert (match[1], match[2]) == (f"http://127.0.0.1:{port}", None)
        url = f"{match[1]}/v1.0/state/store/absent"
        assert _status(url) == 401
        assert _status(url, dapr_api_token="from the environment") == 204
    with _serving("serve", "-H", "-1", "--no-grpc", "--dapr-api-token", "given") as (_, match):
        url = f"{match[1]}/v1.0/state/store/absent"
        assert _status(url, dapr_api_token="from the environment") == 401
        assert _status(url, dapr_api_token="given") == 204


SHOW = """
import json, os
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(("APP_", "DAPR_"))}))
"""


@pytest.mark.process
def test_a_request_that_is_under_way_at_the_end_is_broken_off(home: Path) -> None:
    given = ("--dapr-graceful-shutdown-seconds", "0.3")
    with _serving("serve", "-H", "0", "--no-grpc", *given) as (process, match):
        address = match[1].removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=60) as caller:
            head = b"POST /v1.0/state/store HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n"
            caller.sendall(head + b"expect: 100-continue\r\n\r\n")
            assert caller.recv(100).startswith(b"HTTP/1.1 100 ")  # it waits for the body
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=60)[1]
            assert caller.recv(100).startswith(b"HTTP/1.1 500 ")
    assert process.returncode == 143
    assert err == "warning: requests under way 0.3 s after the stop are broken off: 1\n"


@pytest.mark.process
def test_the_command_finds_what_dapr_run_tells_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_GRPC_PORT", "1")
    monkeypatch.setenv("APP_PORT", "2")
    given = ("--app-port", "7001", "--app-protocol", "grpc", "--dapr-api-token", "t")
    with _serving("serve", "-a", "shop", *given, *FREE, *_command(SHOW), own_output=False) as (process, match):
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {
        "APP_CHANNEL_ADDRESS": "127.0.0.1",
        "APP_ID": "shop",
        "APP_PORT": "7001",
        "APP_PROTOCOL": "grpc",
        "DAPR_API_TOKEN": "t",
        "DAPR_GRPC_PORT": match[2].rpartition(":")[2],
        "DAPR_HTTP_PORT": match[1].rpartition(":")[2],
    }
    with _serving("serve", "--no-grpc", "-H", "0", *_command(SHOW), own_output=False) as (process, match):
        out = process.communicate(timeout=60)[0]
    assert json.loads(out) == {
        "APP_CHANNEL_ADDRESS": "127.0.0.1",
        "APP_ID": "cloud-runtimes",
        "APP_PROTOCOL": "http",
        "DAPR_HTTP_PORT": match[1].rpartition(":")[2],
    }


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_exit_code_is_the_commands(home: Path, code: str, exit_code: int) -> None:
    with _serving("serve", *FREE, *_command(code), own_output=False) as (process, _):
        assert process.wait(60) == exit_code


@pytest.mark.process
def test_input_and_output_are_the_commands(home: Path) -> None:
    code = "import sys; print(input(), flush=True); print('to stderr', file=sys.stderr)"
    with _serving("serve", *FREE, *_command(code), own_output=False, stdin=subprocess.PIPE) as (process, _):
        out, err = process.communicate("hello\n", timeout=60)
    assert (process.returncode, out, err) == (0, "hello\n", "to stderr\n")


ASKS_AT_THE_END = """
import os, signal, sys, time, urllib.request
def end(number, frame):
    url = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/state/store/absent"
    status = urllib.request.urlopen(url, timeout=60).status
    os.write(1, f"{signal.Signals(number).name} {status}\\n".encode())
    sys.exit(9)
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, end)
# not by print: a signal may come in the middle of one, which then refuses
signal.signal(signal.SIGUSR1, lambda number, frame: os.write(1, b"passed on\\n"))
print("ready", flush=True)
while True:
    time.sleep(0.05)  # no pause(), which a signal that comes just before it does not end
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_go_to_the_command_and_the_sidecar_outlives_it(home: Path, number: signal.Signals) -> None:
    with _serving("serve", *FREE, *_command(ASKS_AT_THE_END), own_output=False) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "passed on\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (9, f"{number.name} 204\n", "")


def test_a_signal_that_comes_while_the_command_starts_is_passed_on() -> None:
    class Started:
        def __init__(self) -> None:
            self.heard: list[int] = []

        def send(self, number: int) -> None:
            self.heard.append(number)

    child: Any = Started()
    signals = _Signals(cast(Any, None))
    signals.handle(signal.SIGUSR1, None)  # for nobody: there is no command yet
    signals.starting = True
    signals.handle(signal.SIGUSR2, None)
    signals.forward_to(child)
    signals.handle(signal.SIGUSR1, None)
    assert child.heard == [signal.SIGUSR2, signal.SIGUSR1]


DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"heard\\n"))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
while True:
    time.sleep(0.05)  # no pause(), which a signal that comes just before it does not end
"""


@pytest.mark.process
@pytest.mark.parametrize("times", [1, 2])
def test_what_does_not_hear_is_killed_with_all_it_started(home: Path, times: int) -> None:
    grace = "0.2" if times == 1 else "600"  # the second signal does not wait
    deaf = ("serve", *FREE, "--dapr-graceful-shutdown-seconds", grace, *_command(DEAF))
    with _serving(*deaf, own_output=False) as (process, _):
        assert process.stdout is not None
        pids = [int(each) for each in process.stdout.readline().split()]
        assert all(map(_runs, pids))
        process.send_signal(signal.SIGTERM)
        if times == 2:
            assert process.stdout.readline() == "heard\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137
    until(lambda: not any(map(_runs, pids)))


LEAVES = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
"""


@pytest.mark.process
def test_what_the_command_leaves_behind_is_ended(home: Path) -> None:
    with _serving("serve", *FREE, *_command(LEAVES), own_output=False) as (process, _):
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.wait(60) == 0
    until(lambda: not _runs(pid))


@pytest.mark.process
@pytest.mark.parametrize(("content", "code"), [(None, 127), ("not to be run", 126)])
def test_a_command_that_cannot_be_run(home: Path, tmp_path: Path, content: str | None, code: int) -> None:
    file = tmp_path / "command"
    if content is not None:
        file.write_text(content)
    with _serving("serve", *FREE, "--", str(file), own_output=False) as (process, _):
        err = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert err.startswith(f"error: {file}: ")


@pytest.mark.process
def test_resource_files_are_read_and_what_has_no_effect_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESPACE", "shops")
    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "statestore.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: statestore}\n"
        "spec:\n  type: state.in-memory\n  version: v1\n  metadata: [{name: actorStateStore, value: 'true'}]\n"
    )
    (folder / "other.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: other, namespace: others}\n"
        "spec: {type: state.in-memory, version: v1}\n"
    )
    with _serving("serve", "--resources-path", str(folder), *FREE) as (process, match):
        assert _status(f"{match[1]}/v1.0/state/statestore/absent") == 204
        assert _status(f"{match[1]}/v1.0/state/other/absent") == 400
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=60)[1]
    assert err.startswith("warning: ")
    assert "actorStateStore" in err
    assert not home.exists()


DAPRD = """
--mode standalone --log-level=debug --config config.yaml --metrics-port 9090 --dapr-internal-grpc-port 50002
--placement-host-address localhost:50005 --scheduler-host-address localhost:50006 --enable-api-logging
--enable-metrics=false --app-ssl=false --app-max-concurrency -1 --unix-domain-socket= --dapr-http-max-request-size 1
--log-level info
"""


@pytest.mark.process
def test_a_command_line_of_daprd_is_taken(home: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {tracing: {samplingRate: '1'}}\n"
    )
    (tmp_path / "empty").mkdir()
    with _serving("serve", "--app-id", "shop", "-d", "empty", *FREE, *DAPRD.split()) as (process, match):
        assert match[3] == "shop"
        # with a folder of resources no name is there that it does not declare
        assert _status(f"{match[1]}/v1.0/state/other/absent") == 500
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=60)[1]
    ignored, config = err.splitlines()
    assert ignored == (
        "warning: without effect here: --mode, --log-level, --metrics-port, --dapr-internal-grpc-port, "
        "--placement-host-address, --scheduler-host-address, --enable-api-logging, --enable-metrics, --app-ssl, "
        "--app-max-concurrency, --unix-domain-socket"
    )
    assert config.endswith("config.yaml (Configuration 'c'): its settings have no effect")


def test_options_behind_the_separator_are_the_commands() -> None:
    given = ["--app-id", "shop", "--log-level", "info", "--", "app", "--log-level", "debug", "--mode"]
    rest, options = taken_out(given)
    assert rest == ["--app-id", "shop", "--", "app", "--log-level", "debug", "--mode"]
    assert options == Daprd(ignored=["--log-level"])
    assert taken_out(["--dapr-http-max-request-size=8"])[1].max_body_size == "8Mi"


def test_what_is_wrong_in_resource_files_is_told_before_anything_runs(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "redis.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec: {type: pubsub.reddis, version: v1}\n"
    )
    result = cli("serve", "-d", str(tmp_path), *FREE, "--", "true")
    assert (result.code, result.out) == (2, b"")
    assert "unknown type 'pubsub.reddis'; did you mean 'pubsub.redis'" in result.err
    assert result.err.count("\n") == 1


def test_jobs_are_where_the_configuration_has_them() -> None:
    mine = {"schedule": {"jobs": {"component": "sqlite", "home": "mine"}}}
    assert _merged(mine, "cloud.toml", {"schedule": {"jobs": {"component": "sqlite"}}}) == {
        "capa": {"strict": True},
        **mine,
    }


def test_a_component_that_stands_twice(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\nspec: {type: state.in-memory, version: v1}\n"
    )
    config = tmp_path / "cloud.toml"
    config.write_text('[state.s]\ncomponent = "sqlite"\n')
    result = cli("--config", str(config), "serve", "-d", str(tmp_path / "a.yaml"), *FREE)
    assert result.code == 2
    assert "[state.s] stands in" in result.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--app-protocol", "h2c"), "there are http and grpc"),
        (("--max-body-size", "huge"), "--max-body-size 'huge'"),
        (("--max-body-size", "0"), "--max-body-size '0'"),
        (("--dapr-listen-addresses", "127.0.0.1,::1"), "one address"),
        (("--dapr-http-port", "70000"), "--dapr-http-port"),
        (("--resources-path", "nowhere"), "does not exist"),
        (("--app-id", "no app"), "app_id: use letters"),
        (("--enable-mtls",), "--enable-mtls: sidecars speak without TLS"),
        (("--app-ssl=true",), "--app-ssl: the application is called without TLS"),
        (("--mode", "kubernetes"), "--mode: there is standalone"),
        (("--unix-domain-socket", "/tmp"), "--unix-domain-socket: ports of TCP"),
        (("--app-max-concurrency", "1"), "--app-max-concurrency: calls of the application have no limit"),
        (("--config", "cloud.toml"), "ours stands before"),
        (("--config", "nowhere.yaml"), "does not exist"),
        (("--log-level",), "--log-level needs a value"),
        (("--dapr-http-max-request-size", "many"), "'manyMi'"),
    ],
)
def test_wrong_usage(cli: Any, home: Path, argv: tuple[str, ...], said: str) -> None:
    result = cli("serve", *([] if "--dapr-http-port" in argv else FREE), *argv)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not home.exists()


@pytest.mark.parametrize("runtime", ["dapr", "layotto"])
def test_a_sidecar_over_a_sidecar(cli: Any, runtime: str) -> None:
    result = cli("--runtime", runtime, "serve", *FREE)
    assert result.code == 2
    assert "is itself a sidecar" in result.err


@pytest.mark.parametrize("option", ["--dapr-http-port", "--dapr-grpc-port"])
def test_a_port_that_is_taken(cli: Any, home: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli("serve", *FREE, option, port)
    assert (result.code, result.out) == (5, b"")
    assert f"127.0.0.1:{port} cannot be listened on" in result.err
    assert option in result.err


def test_without_the_extra_for_grpc(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends by itself
        result = cli("serve", "-H", str(taken.getsockname()[1]))
        assert result.err.startswith("note: HTTP alone, since gRPC needs an extra")
        result = cli("serve", "-H", "0", "-G", "0")
    assert result.code == 1
    assert result.err.endswith('error: gRPC needs an extra: pip install ".[dapr]" in the checkout\n')


def test_an_address_that_others_reach_is_warned_of(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli("serve", "--host", "0.0.0.0", "-H", port, "--no-grpc")
        assert "set DAPR_API_TOKEN" in result.err
        monkeypatch.setenv("DAPR_API_TOKEN", "t")
        result = cli("serve", "--host", "0.0.0.0", "-H", port, "--no-grpc")
    assert result.code == 5
    assert "DAPR_API_TOKEN" not in result.err


def test_help_says_what_it_is_for(cli: Any) -> None:
    text = cli("serve", "--help").out.decode()
    for part in ("development", "run Dapr itself", "--resources-path", "DAPR_HTTP_PORT"):
        assert part in text


def test_the_environment_of_this_process_is_left_alone(home: Path) -> None:
    assert "DAPR_HTTP_PORT" not in os.environ
