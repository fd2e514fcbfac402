"""Sidecars that go, hang, are slow, talk nonsense or cannot be trusted: every call ends in time with an error that has a name, and says truly whether it may be applied."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http import sync_client
from cloud_runtimes.errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from tests.faults.fault_harnesses import FAULTS, LIMIT, Beneath
from tests.support import PEM, Figure, Make, Rounds
from tests.support.fault_proxy import End, FaultProxy
from tests.support.waiting import longer, until

TIMEOUT = 0.25
"""Seconds of calls that run into it."""
SOON = 20.0
GARBAGE = b"\x00\xff\x17 no protocol has this \xfe" * 40

InTime = Callable[..., AbstractContextManager[pytest.ExceptionInfo[CloudRuntimesError]]]
_keys = (f"key-{number}" for number in itertools.count())


_latest: dict[str, float] = {}
"""Seconds after its deadline at which the latest error came, by runtime and API."""


@pytest.fixture
def in_time(beneath: Beneath, api: Api, rounds: Rounds, figure: Figure) -> Iterator[InTime]:
    """Return what expects one of these classes, itself and not one below it, within a timeout and a quarter of a second; in CI, where machines are loaded, more."""
    limit = rounds(5000, 250) / 1000
    name = f"{beneath.name}, {api.name}"

    @contextmanager
    def expect(timeout: float, *kinds: type[CloudRuntimesError]) -> Iterator[pytest.ExceptionInfo[CloudRuntimesError]]:
        began = time.monotonic()
        with pytest.raises(kinds) as caught:
            yield caught
        took = time.monotonic() - began
        _latest[name] = max(_latest.get(name, 0.0), took - timeout)
        assert took < timeout + limit
        assert type(caught.value) in kinds
        assert None not in (caught.value.service, caught.value.operation, caught.value.component, caught.value.runtime)

    yield expect
    figure(f"faults: the latest error after its deadline, {name}", f"{_latest.get(name, 0.0) * 1000:.0f} ms")


def held(beneath: Beneath, key: str) -> bool:
    """Look into the store, past the sidecar."""
    return beneath.server.state.get_item("store", key) is not None


def create(api: Api, client: CloudRuntimesClient, key: str, timeout: float = TIMEOUT) -> None:
    """Save what is not there yet: a condition, so it is sent once."""
    api.call(client.state, "save", "store", key, {"n": 1}, concurrency="first-write", timeout=timeout)


def works_again(api: Api, client: CloudRuntimesClient, beneath: Beneath) -> None:
    """The same client, within the time that a dead connection may take to be noticed."""
    end = time.monotonic() + SOON
    key = next(_keys)
    while True:
        try:
            api.call(client.state, "save", "store", key, 1, timeout=0.5)
            break
        except (DeadlineExceededError, UnavailableError):
            assert time.monotonic() < end
    assert api.call(client.state, "get", "store", key, timeout=SOON) == 1


# -- in the middle of a call ----------------------------------------------------------


class Fault(NamedTuple):
    """Fault in a connection that is in use, and its effect on a write.

    Attributes:
        begin: does it.
        kind: of the error.
        held: whether the store has it; ``None``: where the way back carries more than answers, that is open.
    """

    begin: Callable[[FaultProxy], None]
    kind: type[CloudRuntimesError]
    held: bool | None


def _set(way: str, end: End = "reset", **what: Any) -> Callable[[FaultProxy], None]:
    def begin(proxy: FaultProxy) -> None:
        proxy.end = end
        for name, value in what.items():
            setattr(getattr(proxy, way), name, value)

    return begin


GONE, HUNG = UnavailableError, DeadlineExceededError
BROKEN = {
    "the request is cut": Fault(_set("up", cut=30, once=True), GONE, False),
    "the answer is reset": Fault(_set("down", cut=0, once=True), GONE, None),
    "the answer is reset in the middle": Fault(_set("down", cut=12, once=True), GONE, None),
    "the answer ends in the middle": Fault(_set("down", "close", cut=12, once=True), GONE, None),
}
SILENT = {
    "the request is lost": Fault(_set("up", lost=True), HUNG, False),
    "the answer is lost": Fault(_set("down", lost=True), HUNG, True),
    "half-open": Fault(lambda proxy: proxy.break_all("half-open"), HUNG, False),
    "half-open in the answer": Fault(_set("down", "half-open", cut=12), HUNG, None),
    "the request is slow": Fault(_set("up", piece=1, latency=0.1), HUNG, False),
    "the answer is slow": Fault(_set("down", piece=1, latency=0.1), HUNG, True),
}


@pytest.mark.promise("B3")
@pytest.mark.parametrize("name", [*BROKEN, *SILENT])
def test_a_write(name: str, beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    fault = (BROKEN | SILENT)[name]
    client, keys = connect(), list[str]()
    comes = fault.held or (fault.held is None and beneath.quiet)

    def met() -> bool:
        """Return whether the fault met what had been sent; a machine that stands still may not come so far in time."""
        return fault.kind is GONE or (caught.value.maybe_applied and (not comes or held(beneath, keys[-1])))

    for timeout in longer(met, TIMEOUT):
        proxy.heal()
        works_again(api, client, beneath)
        create(api, client, next(_keys), SOON)  # the connection is made, and the component's type known
        fault.begin(proxy)
        proxy.up.once = proxy.down.once = (
            False  # where the way back carries more than answers it may break before the call
        )
        keys.append(next(_keys))
        with in_time(timeout, fault.kind) as caught:
            create(api, client, keys[-1], timeout if fault.kind is HUNG else SOON)
    key = keys[-1]
    assert caught.value.maybe_applied or (not beneath.quiet and fault.kind is GONE and not held(beneath, key))
    if fault.held is not None or beneath.quiet:
        assert api.until(lambda: held(beneath, key)) if fault.held is not False else not held(beneath, key)
    proxy.heal()
    works_again(api, client, beneath)


@pytest.mark.parametrize("name", BROKEN)
def test_a_read_is_made_again(name: str, beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    client, key = connect(), next(_keys)
    create(api, client, key, SOON)
    BROKEN[name].begin(proxy)
    assert api.call(client.state, "get", "store", key, timeout=SOON) == {"n": 1}
    assert proxy.accepted == 2


@pytest.mark.promise("B2")
@pytest.mark.parametrize("name", ["the answer is lost", "half-open"])
def test_a_read_ends(name: str, beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    client, key = connect(), next(_keys)
    create(api, client, key, SOON)
    SILENT[name].begin(proxy)
    with in_time(TIMEOUT, HUNG) as caught:
        api.call(client.state, "get", "store", key, timeout=TIMEOUT)
    assert not caught.value.maybe_applied


def test_a_write_that_may_be_repeated(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    client, key = connect(), next(_keys)
    create(api, client, next(_keys), SOON)
    BROKEN["the answer is reset"].begin(proxy)
    api.call(client.state, "save", "store", key, 2, timeout=SOON)
    assert held(beneath, key)


# -- where nothing is sent --------------------------------------------------------------


def test_the_sidecar_is_gone(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    client, key = connect(), next(_keys)
    create(api, client, next(_keys), SOON)
    proxy.gone()
    with in_time(SOON, GONE):
        create(api, client, key, SOON)
    assert not held(beneath, key)

    def finds_nobody() -> bool:
        with in_time(SOON, GONE) as caught:
            create(api, client, key, SOON)
        return not caught.value.maybe_applied

    until(finds_nobody)  # of the first calls a broken connection may still be believed in
    with in_time(SOON, GONE):
        api.call(client.state, "get", "store", key, timeout=SOON)
    proxy.back()
    works_again(api, client, beneath)


def test_a_new_connection_that_hangs(
    beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime
) -> None:
    client, key = connect(), next(_keys)
    proxy.up.lost = proxy.down.lost = True
    with in_time(TIMEOUT, HUNG, GONE) as caught:
        create(api, client, key)
    assert not (beneath.asks_first and caught.value.maybe_applied)
    assert not held(beneath, key)
    proxy.heal()
    works_again(api, client, beneath)


@pytest.mark.promise("H8")
@pytest.mark.parametrize("beneath", [name for name, each in FAULTS.items() if each.has_token], indirect=True)
def test_the_wrong_token(beneath: Beneath, api: Api, connect: Make, in_time: InTime) -> None:
    client, key = connect(token="wrong-sesame"), next(_keys)
    with in_time(SOON, UnauthenticatedError) as caught:
        create(api, client, key, SOON)
    assert not caught.value.maybe_applied
    assert "wrong-sesame" not in f"{caught.value!r} {caught.value.__cause__!r}"
    with in_time(SOON, UnauthenticatedError):
        api.call(client.state, "get", "store", key, timeout=SOON)
    assert not held(beneath, key)


# -- TLS --------------------------------------------------------------------------------


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of the tests, which is for ``localhost``."""
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    monkeypatch.setattr(sync_client, "_context", None)


@pytest.fixture
def secure(beneath: Beneath) -> Iterator[FaultProxy]:
    with FaultProxy(beneath.port, pem=PEM) as instance:
        yield instance


@pytest.mark.promise("H8")
def test_a_certificate_of_another_name(
    beneath: Beneath, secure: FaultProxy, api: Api, connect: Make, in_time: InTime, trusted: None
) -> None:
    key = next(_keys)
    good = connect(port=secure.port, host="localhost", tls=True)
    create(api, good, next(_keys), SOON)
    client = connect(port=secure.port, host="127.0.0.2", tls=True)
    with in_time(SOON, GONE) as caught:
        create(api, client, key, SOON)
    assert not caught.value.maybe_applied
    with in_time(SOON, GONE):
        api.call(client.state, "get", "store", key, timeout=SOON)
    assert not held(beneath, key)
    assert secure.clients() == 1  # what was refused was closed


def test_a_handshake_that_crawls(
    beneath: Beneath, secure: FaultProxy, api: Api, connect: Make, in_time: InTime, trusted: None
) -> None:
    with FaultProxy(secure.port) as crawling:
        crawling.down.piece, crawling.down.latency = 8, 0.05
        client, key = connect(port=crawling.port, host="localhost", tls=True), next(_keys)
        with in_time(TIMEOUT, HUNG, GONE) as caught:
            create(api, client, key)
        assert not (beneath.asks_first and caught.value.maybe_applied)
        assert not held(beneath, key)
        crawling.heal()
        works_again(api, client, beneath)
        api.call(client, "close")


# -- answers that are none ----------------------------------------------------------------


def test_garbage(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    client, key = connect(), next(_keys)
    kind = InternalError if beneath.sees_garbage else GONE
    create(api, client, next(_keys), SOON)
    proxy.down.replacement = GARBAGE
    with in_time(SOON, kind) as caught:
        create(api, client, key, SOON)
    assert caught.value.maybe_applied
    if beneath.quiet:
        assert api.until(lambda: held(beneath, key))
    with in_time(SOON, kind) as caught:
        api.call(client.state, "get", "store", key, timeout=SOON)
    assert not caught.value.maybe_applied
    assert len(str(caught.value)) < 600
    proxy.heal()
    works_again(api, client, beneath)


def test_garbage_that_does_not_end(
    beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime
) -> None:
    client, key = connect(), next(_keys)
    proxy.down.replacement = b"HTTP/1.1 200 OK\r\nx: " + bytes(1 << 20)
    with in_time(SOON, InternalError, ResourceExhaustedError, GONE):
        api.call(client.state, "get", "store", key, timeout=SOON)
    proxy.heal()
    works_again(api, client, beneath)


# -- slow and sliced, but whole -----------------------------------------------------------


@pytest.mark.promise("B2")
def test_slices(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    client, key, value = connect(), next(_keys), {"text": "ünïcødé" * 50, "n": [1.5, None, 2**60]}
    proxy.up.piece, proxy.down.piece = 1, 3
    api.call(client.state, "save", "store", key, value, timeout=SOON)
    assert api.call(client.state, "get", "store", key, timeout=SOON) == value
    assert set(api.call(client.state, "get_bulk", "store", [key, "absent"], timeout=SOON)) == {key}
    proxy.up.piece, proxy.down.piece = 4096, 4096
    large = "x" * 300_000
    api.call(client.state, "save", "store", key, large, timeout=SOON)
    assert api.call(client.state, "get", "store", key, timeout=SOON) == large
    assert proxy.accepted == 1


@pytest.mark.promise("B2")
def test_latency(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make) -> None:
    client, key = connect(), next(_keys)
    proxy.up.latency = proxy.down.latency = 0.02
    calls = [(client.state, "save", ("store", f"{key}-{n}", n), {"timeout": SOON}) for n in range(20)]
    assert api.together(calls) == [None] * 20
    assert api.call(client.state, "get", "store", f"{key}-19", timeout=SOON) == 19


# -- what is too large ----------------------------------------------------------------------


def test_5_mib(beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    key, large = next(_keys), "x" * (5 << 20)
    assert len(large) > LIMIT
    client, wide = connect(), connect(config={beneath.table: {"max_message": "64MiB"}})
    for each in (client, wide):  # the limit is the client's, or the sidecar's
        api.call(each.state, "save", "store", next(_keys), 1, timeout=SOON)
        with in_time(SOON, ResourceExhaustedError) as caught:
            api.call(each.state, "save", "store", key, large, timeout=SOON)
        assert not caught.value.retryable
        assert not held(beneath, key)
    beneath.server.state.save("store", key, large)
    assert api.call(wide.state, "get", "store", key, timeout=SOON) == large
    if beneath.larger:
        assert api.call(client.state, "get", "store", key, timeout=SOON) == large
    else:
        with in_time(SOON, ResourceExhaustedError) as caught:
            api.call(client.state, "get", "store", key, timeout=SOON)
        assert not caught.value.maybe_applied
    api.fails(ResourceExhaustedError)(client.pubsub, "publish", "bus", "topic", large, timeout=SOON)
    works_again(api, client, beneath)


# -- calls of applications --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["the request is cut", "the answer is reset", "the request is lost", "half-open"])
def test_a_call(name: str, beneath: Beneath, proxy: FaultProxy, api: Api, connect: Make, in_time: InTime) -> None:
    fault, client = (BROKEN | SILENT)[name], connect()
    for timeout in longer(lambda: fault.kind is GONE or caught.value.maybe_applied, TIMEOUT):
        proxy.heal()
        works_again(api, client, beneath)
        # names of its own: a call of an earlier test, whose answer was lost, may be handled only now
        before, sent = f"before {next(_keys)}", f"{name} {next(_keys)}"
        api.call(client.rpc, "invoke_method", "faults", "count", before, timeout=SOON)
        fault.begin(proxy)
        proxy.up.once = proxy.down.once = False
        with in_time(timeout, fault.kind) as caught:
            late = timeout if fault.kind is HUNG else SOON
            api.call(client.rpc, "invoke_method", "faults", "count", sent, timeout=late)
    came = [each for each in beneath.calls if each in (before, sent)]
    assert caught.value.maybe_applied or (not beneath.quiet and fault.kind is GONE and sent not in came)
    if fault.held is False:
        assert came == [before]
    elif beneath.quiet:
        assert came == [before, sent]
    assert came.count(sent) <= 1  # never repeated
