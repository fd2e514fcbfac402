"""``invoke``, and an application that ``run`` serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

APPLICATION = """
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError
from cloud_runtimes.rpc import RpcResponse

client = CloudRuntimesClient(app_id="shop")
other = 5

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
CLI = [sys.executable, "-m", "cloud_runtimes"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APPLICATION, encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "CLOUD_RUNTIMES_HOME": str(folder / "home"), "PYTHONWARNINGS": "error"}


@pytest.fixture
def shop(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """An application that is served."""
    with subprocess.Popen(
        [*CLI, "run", "shop:client"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("shop at http://127.0.0.1:"), line + process.stderr.read()
        yield process
        process.kill()


@pytest.fixture
def call(folder: Path, environment: dict[str, str]) -> Callable[..., Any]:
    def run(*arguments: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [*CLI, *arguments], input=given, capture_output=True, cwd=folder, env=environment, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_invoke(shop: subprocess.Popen[str], call: Callable[..., Any]) -> None:
    assert call("invoke", "shop", "echo", '{"a": 1.50}') == (0, b'{"a": 1.50}\n', b"")
    assert call("invoke", "shop", "echo", "plain") == (0, b'"plain"\n', b"")
    assert call("invoke", "shop", "echo", "5", "--text") == (0, b"5", b"")
    assert call("invoke", "shop", "echo", "-", given=b"[1]") == (0, b"[1]\n", b"")
    assert call("invoke", "shop", "echo", "--file", "-", given=b"\0\1") == (0, b"\0\1", b"")
    assert call("invoke", "shop", "nothing") == (0, b"", b"")
    code, out, err = call(
        "invoke", "shop", "echo", "1", "--http-method", "PUT", "--query", "a=1", "--query", "a=2", "--include"
    )
    assert (code, out) == (0, b"1\n")
    assert b"200\n" in err
    assert b"x-verb: PUT\n" in err
    assert b"x-q: [('a', ['1', '2'])]\n" in err


def test_failures(shop: subprocess.Popen[str], call: Callable[..., Any]) -> None:
    assert call("invoke", "shop", "fail") == (4, b"", b"error: sold out\n")
    code, _, err = call("invoke", "shop", "no-such")
    assert (code, b"'no-such'" in err) == (3, True)
    code, _, err = call("invoke", "shop", "crash")
    assert (code, b"status 500" in err, b"crashed here" in err) == (1, True, False)
    code, _, err = call("invoke", "nobody", "m")
    assert (code, b"address" in err) == (5, True)
    for arguments in (["--header", "x"], ["--query", "=1"], ["--file", "no-such-file"], ["--header", "a=\r\nb: c"]):
        assert call("invoke", "shop", "echo", *arguments)[0] == 2
    shop.terminate()
    assert shop.stderr is not None
    assert "crashed here" in shop.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_an_application(shop: subprocess.Popen[str], number: int, code: int) -> None:
    shop.send_signal(number)
    _, err = shop.communicate(timeout=60)
    assert (shop.returncode, err) == (code, "")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop", "MODULE:CLIENT"),
        ("no_such:client", "no module"),
        ("shop:nothing_there", "has no"),
        ("shop:other", "int"),
    ],
)
def test_applications_that_are_none(call: Callable[..., Any], target: str, said: str) -> None:
    code, out, err = call("run", target)
    assert (code, out) == (2, b"")
    assert said in err.decode()
