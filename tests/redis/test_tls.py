"""A server that speaks TLS itself: reads that wait, and certificates that do not fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.errors import CloudRuntimesError, DeadlineExceededError, UnavailableError
from cloud_runtimes.testing import Api
from tests.support import PEM, STRANGER, Make
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.needs import present
from tests.support.ports import reserved_port
from tests.support.redis import RedisServer, serve
from tests.support.waiting import Stopwatch, running


def tls_server(certificate: Path, clients: str) -> Iterator[int]:
    with reserved_port() as port:
        files = {"tls_cert_file": certificate, "tls_key_file": certificate, "tls_ca_cert_file": PEM}
        with present(serve("redis", tls_port=port, tls_auth_clients=clients, **files)):
            yield port


@pytest.fixture(scope="module")
def open_port() -> Iterator[int]:
    """The port of a server that takes all clients."""
    yield from tls_server(PEM, "no")


@pytest.fixture(scope="module")
def strict_port() -> Iterator[int]:
    """The port of a server that wants a certificate of its clients."""
    yield from tls_server(PEM, "yes")


@pytest.mark.parametrize("piece", [0, 700])
def test_a_read_that_waits(open_port: int, client: Make, api: Api, piece: int) -> None:
    """Events come at once, whether they fill many TLS records or come in pieces of one; settling wakes nothing for nothing."""
    with FaultProxy(open_port) as proxy:
        proxy.down = Way(piece=piece)
        home = client(f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={PEM}", prefix=f"tls-{api.name}-{piece}")
        with api.opened(home.pubsub.subscribe("bus", "t", start="earliest")) as sub:
            assert api.call(sub, "receive", 0.05) is None  # the read is at the server
            for size in (1, 100_000):
                sent = [bytes([number]) * size for number in range(3)]
                with Stopwatch() as watch:
                    for data in sent:
                        api.call(home.pubsub, "publish", "bus", "t", data)
                    received = []
                    for _ in sent:
                        event = api.call(sub, "receive", 20)
                        received.append(event.data)
                        event.ack()
                    assert received == sent
                    assert piece or watch.seconds < 1.0


def test_a_waiter_is_woken(open_port: int, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
    home = client(f"rediss://localhost:{open_port}/0?ssl_ca_certs={PEM}", prefix=f"lock-{api.name}")
    lease = api.call(home.lock, "try_lock", "l", "r", expiry=60)
    with running(threading.Timer(0.1, lease.release)):
        begun = time.monotonic()
        with api.opened(home.lock.hold("l", "r", wait=55)):
            assert time.monotonic() - begun < 20


def fails(client: Make, api: Api, url: str) -> CloudRuntimesError:
    """Return the error of a write; it comes at once, since another try would bring the same."""
    begun = time.monotonic()
    error: CloudRuntimesError = api.fails(UnavailableError)(client(url).state, "save", "s", "k", 1, timeout=60)
    assert time.monotonic() - begun < 30
    assert not error.maybe_applied
    assert not error.retryable
    return error


def test_an_issuer_that_is_unknown(open_port: int, client: Make, api: Api) -> None:
    for url in (f"rediss://localhost:{open_port}", f"rediss://localhost:{open_port}?ssl_ca_certs={STRANGER}"):
        assert "is not trusted: give the file of its issuer as ssl_ca_certs" in str(fails(client, api, url))


def test_another_name(open_port: int, client: Make, api: Api) -> None:
    with FaultProxy(open_port) as proxy:
        url = f"rediss://127.0.0.2:{proxy.port}?ssl_ca_certs={PEM}"
        assert "is for another name: name the server as it does" in str(fails(client, api, url))
        assert api.call(client(f"{url}&ssl_check_hostname=false").state, "get", "s", "k") is None


def test_certificates_of_clients(strict_port: int, client: Make, api: Api) -> None:
    """None, one of an unknown issuer, the right one."""
    url = f"rediss://localhost:{strict_port}?ssl_ca_certs={PEM}"
    for option in ("", f"&ssl_certfile={STRANGER}"):
        error = api.fails(UnavailableError, match="certificate .*in ssl_certfile")(
            client(url + option).state, "save", "s", "k", 1
        )
        assert not error.maybe_applied
    assert api.call(client(f"{url}&ssl_certfile={PEM}").state, "get", "s", "k") is None


def test_a_port_without_tls(valkey_server: RedisServer, client: Make, api: Api) -> None:
    url = f"rediss://localhost:{valkey_server.port}?ssl_ca_certs={PEM}"
    message = "to answer in TLS; a port without TLS does not" if api.name == "sync" else "were not enough"
    api.fails(DeadlineExceededError, match=message)(client(url).state, "save", "s", "k", 1, timeout=0.2)
