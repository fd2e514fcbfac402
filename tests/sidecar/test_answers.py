"""Answers that are larger than their requests: they are refused while they are built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from raw import Answer, call, send
from running import BINDINGS, declared, serving

from cloud_runtimes._dapr.messages import messages
from cloud_runtimes.sidecar import Sidecar
from cloud_runtimes.sidecar.limits import Limits

SIZE = 100_000
STORE = "/v1.0/state/store"


@contextmanager
def narrow(home: Any, **limits: Any) -> Iterator[Sidecar]:
    """Serve with small limits; a request may be as large as an answer."""
    most = limits.setdefault("bytes", 10 * SIZE)
    with serving(declared(str(home)), bindings=BINDINGS, limits=Limits(**limits), max_body=most) as one:
        yield one


def bulk(sidecar: Sidecar, keys: list[str]) -> tuple[Answer, Answer]:
    """Ask for keys over both protocols."""
    request = messages().GetBulkStateRequest(store_name="store", keys=keys)
    return (
        send(sidecar.http_address, "POST", f"{STORE}/bulk", {"keys": keys}),
        call(sidecar.grpc_address, "GetBulkState", request, "GetBulkStateResponse"),
    )


def refused(answers: tuple[Answer, Answer], *words: str) -> None:
    """Check that an answer was refused over HTTP and over gRPC, in the same words."""
    http, rpc = answers
    assert (http.status, http.error) == (413, "ERR_RESPONSE_TOO_LARGE")
    assert (rpc.code, rpc.reason) == ("RESOURCE_EXHAUSTED", "ERR_RESPONSE_TOO_LARGE")
    assert http.json["message"] == rpc.text
    for word in words:
        assert word in rpc.text


@pytest.fixture
def wide(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sidecar, list[str]]]:
    """A sidecar with 100 values of 100 kB that answers with 1 MB, and the keys that it reads."""
    with narrow(tmp_path) as one:
        state = one.context.client.state
        state.save_bulk("store", {f"k{number}": b"x" * SIZE for number in range(100)})
        read: list[str] = []
        plain = state.get_bulk_async

        async def noted(store: str, keys: Any, **options: Any) -> Any:
            read.extend(keys)
            return await plain(store, keys, **options)

        monkeypatch.setattr(state, "get_bulk_async", noted)
        yield one, read


def test_a_key_that_is_named_often_is_answered_once(wide: tuple[Sidecar, list[str]]) -> None:
    one, read = wide
    http, rpc = bulk(one, ["k1", "k0", *["k1"] * 1000])
    assert [item["key"] for item in http.json] == ["k1", "k0"]
    assert [item.key for item in rpc.message.items] == ["k1", "k0"]
    assert len(http.body) < 3 * SIZE
    assert read == ["k1", "k0"] * 2


def test_values_that_are_too_large_together_are_not_all_read(wide: tuple[Sidecar, list[str]]) -> None:
    one, read = wide
    refused(bulk(one, [f"k{number}" for number in range(100)]), "state store store", "1,000,000 bytes", "fewer keys")
    assert len(read) <= 2 * 16
    assert [answer.status or answer.code for answer in bulk(one, ["k1", "k2"])] == [200, "OK"]


def test_too_many_keys(tmp_path: Any) -> None:
    with narrow(tmp_path, items=10) as one:
        keys = [f"k{number}" for number in range(11)]
        refused(bulk(one, keys), "10 items", "fewer keys")
        assert [answer.status or answer.code for answer in bulk(one, keys[:10])] == [200, "OK"]


def test_an_answer_that_takes_too_long(tmp_path: Any) -> None:
    with narrow(tmp_path, seconds=1e-9) as one:
        http, rpc = bulk(one, ["k"])
        assert (http.status, rpc.code) == (504, "DEADLINE_EXCEEDED")
        assert "fewer keys" in rpc.text


def test_an_answer_may_be_as_large_as_a_request(tmp_path: Any) -> None:
    with serving(declared(str(tmp_path)), limits=Limits(bytes=1)) as one:
        one.context.client.state.save("store", "k", b"x" * SIZE)
        http, rpc = bulk(one, ["k"])
        assert (http.status, rpc.code) == (200, "OK")
