"""Which servers, and who the client is: TLS, users, rights, homes, forks. No password stands in an error, a log or a variable of a frame."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components._net.engines import engines
from cloud_runtimes.components.etcd import EtcdSettings
from cloud_runtimes.components.etcd.connection import parse_url
from cloud_runtimes.components.etcd.engine import EtcdEngine
from cloud_runtimes.components.etcd.messages import pack, under
from cloud_runtimes.errors import (
    DeadlineExceededError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import STRANGER, Make
from tests.support.etcd import EtcdServer, Serve, asked, serve, stopped
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.forked import connects_anew
from tests.support.harnesses.etcd import EtcdHome
from tests.support.homes import Homes
from tests.support.needs import present
from tests.support.waiting import until


@pytest.fixture
def guarded(served: Serve, canary: Canary) -> tuple[EtcdServer, str]:
    """A server that asks who one is; ``shop`` may use the keys of the prefix ``shop``."""
    server, password = served("auth-token-ttl", "1"), canary.value()

    def administer(method: str, *fields: tuple[int, Any]) -> None:
        asked(server.url, f"/etcdserverpb.Auth/{method}", pack(*fields))

    for user in ("root", "shop"):
        administer("UserAdd", (1, user), (2, password))
        administer("RoleAdd", (1, user))
        administer("UserGrantRole", (1, user), (2, user))
    permission = pack((1, 2), (2, b"shop/"), (3, under(b"shop/")))
    administer("RoleGrantPermission", (1, "shop"), (2, permission))
    administer("AuthEnable")
    return server, password


def test_a_user(guarded: tuple[EtcdServer, str], client: Make, api: Api) -> None:
    """Every service works with the rights on a prefix; a token that the server has forgotten is renewed."""
    server, password = guarded
    instance = client(server.url.replace("://", f"://shop:{password}@"), prefix="shop")
    api.call(instance.state, "save", "s", "k", 1, ttl=30)
    instance.configuration.save_configuration("c", {"k": "1"})
    with api.opened(instance.configuration.subscribe_configuration("c")) as sub:
        assert api.call(sub, "receive", 5)["k"].value == "1"
        server.kill()  # with it go its tokens
        server.start()
        assert api.call(instance.state, "get", "s", "k") == 1
        instance.configuration.save_configuration("c", {"k": "2"})
        assert api.until(lambda: sub.current()["k"].value == "2", 20)
    lease = api.call(instance.lock, "try_lock", "l", "r")
    api.call(lease, "release")
    with api.opened(instance.schedule.running()):
        api.pause(0.01)


def test_a_token_that_another_connection_renews(guarded: tuple[EtcdServer, str], client: Make, api: Api) -> None:
    """A connection keeps its own until there is a new one."""
    server, password = guarded
    instance = client(server.url.replace("://", f"://shop:{password}@"), prefix="shop")
    api.call(instance.state, "save", "s", "k", 1)
    for engine in engines(EtcdEngine):
        engine.renew_token()
    assert api.call(instance.state, "get", "s", "k") == 1


def test_a_token_that_has_ended(guarded: tuple[EtcdServer, str], client: Make) -> None:
    """Calls of many threads get one for all of them."""
    server, password = guarded
    instance = client(server.url.replace("://", f"://shop:{password}@"), prefix="shop")
    instance.state.save("s", "k", 1)
    (engine,) = engines(EtcdEngine)
    connection = engine._threads.shared.connection
    connection._token = engine._login.token = "ended.1"
    connection._heads.clear()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: instance.state.get("s", "k"), range(32))) == [1] * 32


def test_threads_share_a_connection(home: EtcdHome, client: Make) -> None:
    """Calls with more than windows hold, beside small ones and those whose time is over."""
    state = client(home.server.url, prefix=home.prefix).state
    large = [bytes([number]) * 400_000 for number in range(8)]

    def work(number: int) -> None:
        for turn in range(10):
            state.save("s", f"{number}", large[number] if turn % 2 else number)
            assert state.get("s", f"{number}") == (large[number] if turn % 2 else number)
            with suppress(DeadlineExceededError, UnavailableError):  # the server may say so first
                state.get("s", f"{number}", timeout=0.001)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    (engine,) = engines(EtcdEngine)
    assert engine._threads.shared.connection.session.streams == {}


def test_threads_beside_one_whose_time_is_over(served: Serve, client: Make) -> None:
    """The thread that reads for all gives up, and another one reads on."""
    server = served()
    state = client(server.url).state
    state.save("s", "k", 1)
    with ThreadPoolExecutor(9) as threads:
        with stopped(server):
            short = threads.submit(state.get, "s", "k", timeout=0.2)
            time.sleep(0.05)
            longer = [threads.submit(state.get, "s", "k", timeout=20) for _ in range(8)]
            assert isinstance(short.exception(), DeadlineExceededError)
        assert [each.result(10) for each in longer] == [1] * 8


def test_who_is_not_known(guarded: tuple[EtcdServer, str], client: Make, api: Api, canary: Canary) -> None:
    server, password = guarded
    for user in (f"shop:{password}-wrong@", f"nobody:{password}@", ""):
        instance = client(server.url.replace("://", f"://{user}"), prefix="shop")
        with canary.raises(UnauthenticatedError, match="check user and password in the url") as caught:
            api.call(instance.state, "save", "s", "k", 1)
        assert not caught.value.maybe_applied
        assert not caught.value.retryable
    instance = client(server.url.replace("://", f"://shop:{password}@"), prefix="else")
    with canary.raises(PermissionDeniedError, match="grant its role readwrite") as denied:
        api.call(instance.state, "save", "s", "k", 1)
    assert not denied.value.maybe_applied


def test_a_password_that_nobody_asks_for(home: EtcdHome, client: Make, api: Api, canary: Canary) -> None:
    instance = client(home.server.url.replace("://", f"://shop:{canary.value()}@"), prefix=home.prefix)
    api.call(instance.state, "save", "s", "k", 1)
    assert api.call(instance.state, "get", "s", "k") == 1


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of ``localhost`` for servers and clients that vouches for itself, and its key, as Go takes them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path.write_bytes(certificate + secret)
    path.with_suffix(".crt").write_bytes(certificate)
    return path


@pytest.fixture(scope="module")
def secure(pem: Path) -> Iterator[EtcdServer]:
    """A server that wants a certificate of its clients."""
    files = {"cert-file": pem, "key-file": pem, "trusted-ca-file": pem.with_suffix(".crt"), "client-cert-auth": "true"}
    with present(serve(*(str(each) for option in files.items() for each in option))) as server:
        yield server


def test_tls(secure: EtcdServer, pem: Path, client: Make, api: Api) -> None:
    """With a certificate of the client's own, in small pieces."""
    mine = {"tls_ca": str(pem), "tls_certificate": str(pem), "tls_key": str(pem)}
    with FaultProxy(secure.port) as proxy:
        proxy.down = Way(piece=700)
        instance = client(f"etcds://localhost:{proxy.port}", **mine)
        data = os.urandom(100_000)
        api.call(instance.state, "save", "s", "k", data)
        assert api.call(instance.state, "get", "s", "k") == data
        with api.opened(instance.lock.hold("l", "r", wait=5)):
            api.pause(0.01)
        for url, settings, text in (
            (f"etcds://localhost:{secure.port}", {**mine, "tls_ca": str(STRANGER)}, "not trusted.*tls_ca"),
            (f"etcds://127.0.0.2:{proxy.port}", mine, "another name"),
            (f"etcds://localhost:{secure.port}", {"tls_ca": str(pem)}, "tls_certificate"),
            (f"etcd://localhost:{secure.port}", {}, "reached"),
        ):
            error = api.fails(UnavailableError, match=text)(client(url, **settings).state, "save", "s", "k", 1)
            assert not error.maybe_applied
            assert error.retryable == (not settings)


def test_what_is_no_etcd(client: Make, api: Api, home: EtcdHome) -> None:
    with FaultProxy(home.server.port) as proxy:
        proxy.down.replacement = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        error = api.fails(UnavailableError, match="does not speak gRPC over HTTP/2")(
            client(f"etcd://127.0.0.1:{proxy.port}").state, "save", "s", "k", 1
        )
        assert not error.maybe_applied


def test_limits(home: EtcdHome, client: Make, api: Api) -> None:
    """The client refuses what a server would refuse; its error for a server's refusal names the setting."""
    instance = home.client()
    data = os.urandom(1024 * 1024)
    api.call(instance.state, "save", "s", "k", data)  # more than windows and frames hold
    assert api.call(instance.state, "get", "s", "k") == data
    api.fails(ResourceExhaustedError, match="max_value_bytes")(instance.state, "save", "s", "k", data + b"1")
    large = client(home.server.url, prefix=home.prefix, max_value_bytes=8 << 20, max_operations=200)
    error = api.fails(ResourceExhaustedError, match="--max-request-bytes")(large.state, "save", "s", "k", data * 3)
    assert not error.maybe_applied
    for each, match in ((instance, "etcd takes 128 at once"), (large, "lower max_operations")):
        tx = each.state.transaction("s")
        with pytest.raises(ResourceExhaustedError, match=match):
            with api.opened(tx):
                for number in range(129):
                    tx.save(f"k{number}", number)
    with api.opened(instance.state.transaction("s")) as tx:
        for number in range(128):
            tx.save(f"k{number}", number)
    assert len(api.call(instance.state, "list_keys", "s")) == 129
    api.fails(ResourceExhaustedError, match="change them in parts")(
        instance.configuration, "save_configuration", "c", {f"k{number}": "1" for number in range(129)}
    )


def test_plain_configuration(home: EtcdHome, api: Api) -> None:
    """A value that etcdctl writes is read, and an item without tags and metadata is stored as plainly."""
    settings = home.client().configuration
    api.call(settings, "save_configuration", "app", {"color": "red"})
    key = f"{home.prefix}/configuration/app///color".encode()
    assert b"red" in asked(home.server.url, "/etcdserverpb.KV/Range", pack((1, key)))
    with api.opened(settings.subscribe_configuration("app")) as sub:
        asked(home.server.url, "/etcdserverpb.KV/Put", pack((1, key), (2, b"blue")))
        assert api.until(lambda: sub.current()["color"].value == "blue")


def test_a_forked_child(home: EtcdHome) -> None:
    """It connects anew beside a subscription and a waiter of its parent."""
    instance = home.client()
    lease = instance.lock.try_lock("l", "r", expiry=30)
    assert lease is not None
    with instance.configuration.subscribe_configuration("c") as sub:
        waiting = threading.Thread(target=lambda: instance.lock.hold("l", "r", wait=20).__enter__().release())
        waiting.start()
        connects_anew(instance)
        lease.release()
        waiting.join(20)
        assert not waiting.is_alive()
        instance.configuration.save_configuration("c", {"k": "1"})
        assert until(lambda: "k" in sub.current())


class TestHome(Homes):
    engine = "etcd"
    service = "lock"
    features: ClassVar = ["break_lock", "fair", "locks", "renew", "token"]
    wrong_urls = ("etcd://", "etcd://user:{}@a/b", "etcd://user@a", "etcd://a/b", "etcd://a?x={}", "etcd://:{}@a:port")
    url_help = "etcd://user:password@host:2379"


def test_what_it_has_not(home: EtcdHome, api: Api) -> None:
    with CloudRuntimesClient(config={"capa": {"home": home.config()["capa"]["home"]}}) as client:
        api.fails(UnsupportedError, match=r"or declare \[pubsub.bus\]")(client.pubsub, "publish", "bus", "t", 1)


def test_urls(subtests: pytest.Subtests) -> None:
    for url, servers, user in (
        ("etcd://a", [("a", 2379)], None),
        ("etcds://u:p%40x@a:1,[::1]:2,c/", [("a", 1), ("::1", 2), ("c", 2379)], ("u", "p@x")),
    ):
        with subtests.test(url=url, servers=servers):
            address = parse_url(url)
            assert list(address.servers) == servers
            assert (address.username, address.password) == (user or (None, None))
            assert address.tls == url.startswith("etcds")


def test_settings(subtests: pytest.Subtests) -> None:
    for setting, text in (
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a/"}, "prefix"),
        ({"max_value_bytes": 0}, "max_value_bytes"),
        ({"max_operations": 2}, "max_operations"),
        ({"history": 0.5}, "history"),
        ({"history_runs": 0}, "history_runs"),
        ({"tls_ca": "a"}, "etcds"),
        ({"url": "etcds://a", "tls_key": "a"}, "together"),
        ({"url": "http://a"}, "etcd://"),
    ):
        with subtests.test(setting=setting, text=text), pytest.raises(ValueError, match=text):
            EtcdSettings(**{"url": "etcd://a", **setting})
