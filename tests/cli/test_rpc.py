"""``invoke``, and an application that ``run`` serves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run

APPLICATION = """
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError
from cloud_runtimes.rpc import RpcResponse

client = CloudRuntimesClient(app_id="shop")

@client.rpc.method("echo")
def echo(data, request):
    return RpcResponse(200, {"x-verb": request.http_method, "x-q": str(sorted(request.query.items()))}, request.content_type, request.data)

@client.rpc.method("fail")
def fail():
    raise ConflictError("sold out")

@client.rpc.method("crash")
def crash():
    raise ValueError("crashed here")

@client.rpc.method("nothing")
def nothing():
    return None
"""

pytestmark = pytest.mark.process
CLI = [sys.executable, "-W", "error", "-m", "cloud_runtimes"]


@pytest.fixture
def shop(home: Path) -> Iterator[subprocess.Popen[str]]:
    """An application that is served."""
    Path("shop.py").write_text(APPLICATION, encoding="utf-8")
    with subprocess.Popen([*CLI, "run", "shop:client"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("shop at http://127.0.0.1:"), line + process.stderr.read()
        yield process
        process.kill()


def test_invoke(shop: subprocess.Popen[str], cli: Run) -> None:
    for arguments, out in (
        (["echo", '{"a": 1.50}'], b'{"a": 1.50}\n'),
        (["echo", "plain"], b'"plain"\n'),
        (["echo", "5", "--text"], b"5"),
        (["echo", "-"], b"[1]\n"),
        (["nothing"], b""),
    ):
        assert cli("invoke", "shop", *arguments, stdin=b"[1]") == (0, out, "")
    done = subprocess.run([*CLI, "invoke", "shop", "echo", "--file", "-"], input=b"\0\1", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\0\1", b"")
    code, out, err = cli(
        "invoke", "shop", "echo", "1", "--http-method", "PUT", "--query", "a=1", "--query", "a=2", "--include"
    )
    assert (code, out) == (0, b"1\n")
    for line in ("200\n", "x-verb: PUT\n", "x-q: [('a', ['1', '2'])]\n"):
        assert line in err


def test_failures(shop: subprocess.Popen[str], cli: Run) -> None:
    assert cli("invoke", "shop", "fail") == (4, b"", "error: sold out\n")
    for arguments, expected, said in (
        (["shop", "no-such"], 3, "'no-such'"),
        (["shop", "crash"], 1, "status 500"),
        (["nobody", "m"], 5, "address"),
    ):
        code, _, err = cli("invoke", *arguments)
        assert (code, said in err, "crashed here" in err) == (expected, True, False)
    for wrong in (["--header", "x"], ["--query", "=1"], ["--file", "no-such-file"], ["--header", "a=\r\nb: c"]):
        assert cli("invoke", "shop", "echo", *wrong).code == 2
    shop.terminate()
    assert shop.stderr is not None
    assert "crashed here" in shop.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_an_application(shop: subprocess.Popen[str], number: int, code: int) -> None:
    shop.send_signal(number)
    _, err = shop.communicate(timeout=60)
    assert (shop.returncode, err) == (code, "")


def test_applications_that_are_none(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("no_shop.py").write_text("other = 5", encoding="utf-8")
    monkeypatch.syspath_prepend(".")
    for target, said in (
        ("no_shop", "MODULE:CLIENT"),
        ("no_such:client", "no module"),
        ("no_shop:nothing_there", "has no"),
        ("no_shop:other", "int"),
    ):
        code, out, err = cli("run", target)
        assert (code, out) == (2, b"")
        assert said in err
