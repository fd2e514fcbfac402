"""Logins and permissions: each refusal names the thing and the remedy, and no password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.rabbitmq.connection import Connection
from cloud_runtimes.components.rabbitmq.settings import parse_url
from cloud_runtimes.errors import (
    CloudRuntimesError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.rabbitmq import RabbitHome


@pytest.mark.parametrize(
    ("login", "path", "kind", "match"),
    [
        ("guest:wr0ng", "", UnauthenticatedError, "check user and password in the url"),
        ("guest:guest", "/absent", PermissionDeniedError, "vhost absent not found: check the virtual host"),
        ("nobody:nobody", "", PermissionDeniedError, "access to exchange.*rabbitmqctl set_permissions.*ensure"),
    ],
)
def test_a_login_that_does_not_work(
    rabbitmq_url: str, client: Make, api: Api, login: str, path: str, kind: type[CloudRuntimesError], match: str
) -> None:
    app_client = client(rabbitmq_url.replace("guest:guest", login) + path)
    error = api.fails(kind, match=match)(app_client.pubsub, "publish", "bus", "t", 1)
    assert not error.maybe_applied
    assert "wr0ng" not in str(error)
    api.fails(kind, match=match)(app_client.pubsub, "subscribe", "bus", "t")


def test_who_may_not_make_anything(home: RabbitHome, client: Make, api: Api) -> None:
    """With ``ensure = "check"`` an account works on what an administrator made."""
    limited = client(home.url.replace("guest:guest", "user:user"), prefix=home.prefix, ensure="check", groups=[])
    home.home["prefix"] = home.prefix
    api.fails(NotFoundError, match="no exchange.*administrator must make it")(limited.pubsub, "publish", "bus", "t", 1)
    with api.opened(home.client().pubsub.subscribe("bus", "t")):
        pass  # it made them
    with api.opened(limited.pubsub.subscribe("bus", "t")) as sub:
        api.call(limited.pubsub, "publish", "bus", "t", 1)
        assert api.call(sub, "receive", 10).data == 1


def test_what_exists_with_other_arguments(home: RabbitHome, api: Api) -> None:
    pika: Any = pytest.importorskip("pika")
    home.home["prefix"] = home.prefix
    with closing(pika.BlockingConnection(pika.URLParameters(home.url))) as connection:
        connection.channel().exchange_declare(f"{home.prefix}t", "direct", durable=True)
    message = "exists with other arguments.*inequivalent arg 'type'.*another prefix.*ensure"
    api.fails(ConflictError, match=message)(home.client().pubsub, "publish", "bus", "t", 1)


@pytest.fixture
def proxied(port: int) -> Iterator[FaultProxy]:
    with FaultProxy(port, pem=Path(__file__).parent.parent / "support" / "localhost.pem") as proxy:
        yield proxy


def test_tls(proxied: FaultProxy, home: RabbitHome, client: Make, api: Api) -> None:
    trusted = "cafile=tests/support/localhost.pem"
    url = f"amqps://guest:guest@localhost:{proxied.port}"
    app_client = client(f"{url}?{trusted}", prefix=home.prefix)
    with api.opened(app_client.pubsub.subscribe("bus", "t")) as sub:
        for size in (1, 500_000):
            api.call(app_client.pubsub, "publish", "bus", "t", bytes(size))
            event = api.call(sub, "receive", 10)
            assert event.data == bytes(size)
            event.ack()
    for other, match in (
        (url, "certificate is not trusted: give the file of its issuer as cafile"),
        (url.replace("localhost", "127.0.0.1") + f"?{trusted}&server_name_indication=elsewhere", "is for another name"),
        (url.replace("amqps", "amqp"), "amqps://"),
    ):
        api.fails(UnavailableError, match=match)(client(other).pubsub, "publish", "bus", "t", 1)
    api.fails(InvalidArgumentError, match="check cafile")(
        client(f"{url}?cafile=absent").pubsub, "publish", "bus", "t", 1
    )
    api.call(client(f"{url}?verify=verify_none").pubsub, "publish", "bus", "t", 1)


def test_what_is_no_rabbitmq(valkey_server: Any, client: Make, api: Api) -> None:
    app_client = client(f"amqp://localhost:{valkey_server.port}?connection_timeout=1")
    api.fails(UnavailableError, match="does not speak AMQP|closed the connection|connection_timeout")(
        app_client.pubsub, "publish", "bus", "t", 1
    )


@pytest.mark.parametrize("about", [{"product": "RabbitMQ", "version": "3.9.29"}, {"product": "Qpid", "version": "9.0"}])
def test_a_server_that_is_too_old(about: dict[str, str]) -> None:
    address = parse_url("amqp://localhost")
    connection = Connection(address, None, "test")  # type: ignore[arg-type]
    connection._check()
    connection.session.server = about
    with pytest.raises(UnsupportedError, match=f"{about['product']} {about['version']}: RabbitMQ 3.10 or later"):
        connection._check()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("amqp://u:{}@host:port", "amqp://user:password@host:5672/vhost"),
        ("amqp://u:{}@host/a/b", "special characters as %XX"),
        ("amqp://u:{}@", "special characters"),
        ("amqp://u:{}@host?hartbeat=1", "'hartbeat', which is not known: there are cacertfile, "),
        ("amqp://u:{}@host?heartbeat=often", "heartbeat must be a number of seconds"),
        ("amqp://u:{}@host?verify=maybe", "verify must be verify_peer or verify_none"),
        ("amqp://u:{}@host?cafile=ca.pem", "cafile, certfile and keyfile are for one with amqps://"),
        ("http://u:{}@host", "amqps://"),
    ],
)
def test_urls_that_are_none(url: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        with CloudRuntimesClient(
            config={"pubsub": {"bus": {"component": "rabbitmq", "url": url.format("s3cret")}}}
        ) as client:
            client.pubsub.publish("bus", "t", 1)
    assert "s3cret" not in str(caught.value)


def test_urls() -> None:
    parsed = parse_url("amqps://us%65r:p%40ss@a,b:5673/v%2Fh?heartbeat=7&connection_timeout=2.5&cacertfile=f")
    assert parsed == parse_url("amqps://user:p%40ss@a:5671,b:5673/v%2Fh?heartbeat=7&timeout=2.5&cafile=f")
    assert (parsed.login, parsed.vhost, parsed.heartbeat, parsed.timeout) == (("user", "p@ss"), "v/h", 7, 2.5)
    assert parse_url("amqp://host/").vhost == parse_url("amqp://host").vhost == "/"
    assert parse_url("amqps://host?certfile=c").login is None
    assert "p@ss" not in repr(parsed)
