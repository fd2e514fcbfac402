"""Redis as the home of all services that it has, and what is said of those that it has not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import redis

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError, InvalidArgumentError, UnsupportedError
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support.harnesses.redis import RedisHome
from tests.support.homes import Homes
from tests.support.ports import reserved_port


class TestHome(Homes):
    engine = "redis"
    url_help = "url of a redis component"
    durable: ClassVar = {"appendonly": "yes", "appendfsync": "always"}
    wrong_urls = (
        "redis://:{}@host:port/0", "redis://:{}@host/zero", "redis://:{}@host/-1", "redis://{}@[host/0", "redis://host/0?{}",
        "redis://host/0?{}=1", "redis://:{}@host?ssl_cert_reqs=none", "rediss://:{}@host/0?ssl_cert_reqs={}",
        "rediss://:{}@host/0?ssl_ca_cert=x", "unix://:{}@", "unix:///s?db={}", "redis://:{}\udc80@host/0",
        "redis+sentinel://:{}@h:1", "redis+sentinel://:{}@h/m/{}", "redis+sentinel://h/m?{}", "redis+sentinel://h/m?{}=1",
        "redis+sentinel://:{}@h:port/m", "redis+cluster://:{}@h:1,i:port", "redis+cluster://:{}@[h", "redis+cluster://h?sentinel_password={}",
    )  # fmt: skip

    @pytest.mark.parametrize("where", ["environment", "file"])
    def test_doctor_shows_the_home(self, home: RedisHome, tmp_path: Path, where: str) -> None:
        url = f"redis://default:canary-password@127.0.0.1:{home.server.port}/3?password=canary-password"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RUNTIMES")}
        if where == "environment":
            environment["CLOUD_RUNTIMES_HOME"] = url
        else:
            (tmp_path / "cloud-runtimes.toml").write_text(f'[capa.home]\nurl = "{url}"\n')
        command = [sys.executable, "-m", "cloud_runtimes", "doctor", "--json"]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert "canary" not in result.stdout + result.stderr
        report = json.loads(result.stdout)
        assert report["home"] == f"redis://127.0.0.1:{home.server.port}/3"
        assert report["ready"]
        (component,) = [each for each in report["components"] if each["name"] == "redis"]
        assert component["services"]["rpc"] == ["headers", "host", "http_method", "services", "status"]


@pytest.mark.parametrize("service", ["file", "database"])
def test_what_it_has_not_says_what_to_declare(
    home: RedisHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.chdir(tmp_path)
    client = home.client()
    with pytest.raises(UnsupportedError, match=rf"\[capa\.homes\] {service} .* \[{service}\.docs\]"):
        if service == "file":
            client.file.get_file("docs", "a")
        else:
            client.database.query("docs", "SELECT 1")
    assert not list(tmp_path.iterdir())


def test_what_is_declared_beside_it(home: RedisHome, tmp_path: Path, api: Api) -> None:
    """A component of the home's kind has the home's server; one with a server of its own has that."""
    files = {"docs": {"component": "local", "path": str(tmp_path / "docs")}}
    with reserved_port() as port:
        elsewhere = {"component": "redis", "url": f"redis://127.0.0.1:{port}/0"}
        states = {"s": {"component": "redis"}, "t": elsewhere}
        home_ = {"url": home.server.url, "prefix": home.prefix}
        with CloudRuntimesClient(config={"capa": {"home": home_}, "file": files, "state": states}) as client:
            api.call(client.file, "put_file", "docs", "a", b"1")
            api.call(client.state, "save", "s", "k", 1)
            assert api.call(home.client().state, "get", "s", "k") == 1
            api.call(client.state, "save", "u", "k", 2)
            assert api.call(home.client().state, "get", "u", "k") == 2, "undeclared names are on the home"
            with pytest.raises(DeadlineExceededError):
                client.wait_ready(timeout=0.2)


@pytest.mark.parametrize("scheme", ["redis+tls", "valkey", "memcached"])
def test_a_home_of_an_unknown_kind(canary: Canary, scheme: str) -> None:
    with CloudRuntimesClient(config={"capa": {"home": f"{scheme}://user:{canary.value()}@host/0"}}) as client:
        with canary.raises(InvalidArgumentError, match="rediss"):
            client.state.get("s", "k")


def test_native_is_redis_py(home: RedisHome) -> None:
    client = home.client()
    store = home.store()
    client.state.save(store, "k", b"\x00")
    with client.native("state", store) as connection, client.native("pubsub", "bus") as another:
        assert isinstance(connection, redis.Redis)
        assert connection is not another
        assert connection.hget(f"{{{home.prefix}:state:{store}}}:v:k", "d") == b"\x00"
        pipeline = connection.pipeline()
        pipeline.set(f"{{{home.prefix}:own}}", "1", ex=60)
        pipeline.get(f"{{{home.prefix}:own}}")
        assert pipeline.execute() == [True, b"1"]
    client.close()
    with another:
        assert another.ping(), "it is its caller's"


def test_redis_py_is_the_applications(home: RedisHome) -> None:
    """No call of ours loads it; without it `native` says what to install."""
    program = """
import sys
sys.modules["redis"] = None  # as where it is not installed
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import UnsupportedError
with CloudRuntimesClient(app_id="suite") as client:
    client.state.save("s", "native", 1)
    assert client.lock.try_lock("l", "native") is not None
    client.configuration.save_configuration("c", {"native": "1"})
    client.pubsub.publish("bus", "native", 1)
    try:
        client.native("state", "s")
    except UnsupportedError as error:
        print(error.message)
"""
    environment = {**os.environ, "CLOUD_RUNTIMES_HOME": home.server.url}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "redis" in done.stdout
    assert "pip install" in done.stdout
