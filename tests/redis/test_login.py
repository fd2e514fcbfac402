"""Login: certificates, passwords, rights. No password appears in an error, a log or a variable of a frame."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from cloud_runtimes.components.redis.settings import parse_url
from cloud_runtimes.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import PEM, Make
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.redis import RedisHome
from tests.support.redis import Serve

KINDS = pytest.mark.parametrize("kind", ["valkey", "redis"])


@pytest.fixture
def tls(home: RedisHome) -> Iterator[FaultProxy]:
    """Proxy that accepts TLS in front of the server."""
    with FaultProxy(home.server.port, pem=PEM) as proxy:
        yield proxy


def test_tls(tls: FaultProxy, client: Make, api: Api) -> None:
    state = client(f"rediss://localhost:{tls.port}/0?ssl_ca_certs={PEM}", prefix="tls").state
    data = bytes(range(256)) * 8192
    for _ in range(3):
        api.call(state, "save", "s", "k", data)
        assert api.call(state, "get", "s", "k") == data
    assert tls.accepted == 1
    tls.break_all("close")
    api.pause(0.05)
    assert api.call(state, "get", "s", "k") == data


def test_tls_of_a_server_itself(served: Serve, client: Make, api: Api) -> None:
    from tests.support.ports import reserved_port

    with reserved_port() as port:
        served(
            "redis", tls_port=port, tls_cert_file=PEM, tls_key_file=PEM, tls_ca_cert_file=PEM, tls_auth_clients="yes"
        )
        options = f"ssl_ca_certs={PEM}&ssl_certfile={PEM}&ssl_keyfile={PEM}"
        state = client(f"rediss://localhost:{port}/0?{options}").state
        data = bytes(range(256)) * 8192
        api.call(state, "save", "s", "k", data)
        assert api.call(state, "get", "s", "k") == data


@pytest.mark.parametrize("url", ["rediss://localhost:{}/0", "rediss://127.0.0.2:{}/0?ssl_ca_certs={}"])
def test_a_certificate_that_does_not_fit(tls: FaultProxy, client: Make, api: Api, url: str) -> None:
    # of an unknown issuer, or for another name
    error = api.fails(UnavailableError, match=r"(?i)certificate")(
        client(url.format(tls.port, PEM)).state, "save", "s", "k", 1
    )
    assert not error.maybe_applied


def test_checks_that_are_off(tls: FaultProxy, client: Make, api: Api) -> None:
    for options in ("ssl_cert_reqs=none", f"ssl_ca_certs={PEM}&ssl_check_hostname=false"):
        assert api.call(client(f"rediss://127.0.0.2:{tls.port}/0?{options}").state, "get", "s", "k") is None


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_certificate_that_is_not_there(home: RedisHome, client: Make, api: Api, canary: Canary, option: str) -> None:
    url = (
        f"rediss://:{canary.value()}@127.0.0.1:{home.server.port}/0?{option}=/nowhere.pem&ssl_password={canary.value()}"
    )
    error = api.fails(InvalidArgumentError, match="No such file")(client(url).state, "get", "s", "k")
    canary.look_through(error)


def test_tls_to_a_server_without(home: RedisHome, client: Make, api: Api) -> None:
    url = f"rediss://localhost:{home.server.port}/0?ssl_ca_certs={PEM}"
    assert not api.fails((UnavailableError, DeadlineExceededError))(
        client(url).state, "save", "s", "k", 1, timeout=0.5
    ).maybe_applied


def test_no_tls_to_a_server_with(tls: FaultProxy, client: Make, api: Api) -> None:
    url = f"redis://localhost:{tls.port}/0"
    assert not api.fails((UnavailableError, DeadlineExceededError))(
        client(url).state, "save", "s", "k", 1, timeout=0.5
    ).maybe_applied


@KINDS
def test_a_password(served: Serve, client: Make, api: Api, canary: Canary, kind: str) -> None:
    """The right one with all that a URL must quote, a wrong one, none."""
    right = f"{canary.value()} /@:%?#ü"
    server = served(kind, requirepass=right)
    address = f"127.0.0.1:{server.port}/0"
    for url in (f"redis://:{quote(right, safe='')}@{address}", f"redis://{address}?password={quote(right)}"):
        state = client(url).state
        api.call(state, "save", "s", "k", 1)
    for url in (
        f"redis://:{canary.value()}@{address}",
        f"redis://nobody:{canary.value()}@{address}",
        f"redis://{address}",
    ):
        error = api.fails(UnauthenticatedError, match="check the url")(client(url).state, "save", "s", "k", 1)
        assert not error.maybe_applied
        canary.look_through(error)


@KINDS
def test_a_user_with_few_rights(served: Serve, client: Make, api: Api, canary: Canary, kind: str) -> None:
    """A user that may only read and write its keys works. Errors name what it may not do."""
    server = served(kind)
    password = canary.value()
    few = ["+eval", "+evalsha", "+time", "+hget", "+hmget", "+hset", "+zadd", "+persist", "+auth"]
    server.command("ACL", "SETUSER", "few", "on", f">{password}", "~{few:*", *few)
    url = f"redis://few:{password}@127.0.0.1:{server.port}/0"
    state = client(url, prefix="few").state
    api.call(state, "save", "s", "k", 1)
    assert api.call(state, "get", "s", "k") == 1
    for failing, method, arguments, maybe_applied in (
        (state, "delete", ("s", "k"), True),  # a command, in the middle of a script
        (client(url, prefix="other").state, "get", ("s", "k"), False),  # a key
        (client(url, prefix="other").state, "save", ("s", "k", 1), False),
    ):
        error = api.fails(PermissionDeniedError, match="may not")(failing, method, *arguments)
        assert error.maybe_applied is maybe_applied
        canary.look_through(error)


@KINDS
def test_the_rules_that_the_documentation_names(served: Serve, client: Make, api: Api, kind: str) -> None:
    server = served(kind)
    server.command("ACL", "SETUSER", "app", "on", ">right", "~{cr:*", "&cr:*", "+@all", "-@dangerous", "+info")
    app_client = client(f"redis://app:right@127.0.0.1:{server.port}/0")
    seen: list[int] = []
    app_client.schedule.job("j")(lambda: seen.append(1))
    app_client.rpc.method("m")(lambda: 1)
    api.call(app_client.state, "save", "s", "k", 1)
    with api.opened(app_client.rpc.serving()):
        api.call(app_client.schedule, "schedule_job", "j", due_time=0)
        assert api.until(lambda: bool(seen))


def test_a_server_that_does_not_answer_learns_the_password_and_nobody_else(
    client: Make, api: Api, canary: Canary, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://user:{canary.value()}@127.0.0.1:{silent.getsockname()[1]}/0"
        error = api.fails(DeadlineExceededError)(client(url).state, "save", "s", "k", 1, timeout=0.2)
        assert not error.maybe_applied
        canary.look_through(error)
    client_ = client(url)
    for method, arguments in (("get", ("s", "k")), ("save", ("s", "k", 1))):
        error = api.fails(UnavailableError)(client_.state, method, *arguments)
        canary.look_through(error)
    assert not canary.shows(repr(client_))
    assert not canary.shows(parse_url(url))


def test_a_database_that_is_not_there(home: RedisHome, client: Make, api: Api) -> None:
    url = f"redis://127.0.0.1:{home.server.port}/99"
    api.fails(InvalidArgumentError, match="no database of this number")(client(url).state, "get", "s", "k")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("localhost", 6379, None, None, 0, None)),
        ("redis://u:p%40@h:1/2", ("h", 1, "u", "p@", 2, None)),
        ("redis://[::1]:1?db=3&username=u&password=p", ("::1", 1, "u", "p", 3, None)),
        ("rediss://h?ssl_cert_reqs=none", ("h", 6379, None, None, 0, (("ssl_cert_reqs", "none"),))),
        ("unix://u:p@/a%20b/sock?db=1", ("/a b/sock", 0, "u", "p", 1, None)),
    ],
)
def test_urls(url: str, expected: tuple[Any, ...]) -> None:
    assert parse_url(url) == expected
    assert not re.search("p@|p%40|'p'", repr(parse_url(url)))


def test_a_socket_file(served: Serve, client: Make, api: Api, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "sock"
    served(unixsocket=path)
    state = client(f"unix://{path}?db=1").state
    api.call(state, "save", "s", "k", 1)
    assert api.call(state, "get", "s", "k") == 1
