"""Files and databases of the runtime dapr, by bindings: what the suites do not show, and what Dapr's own components say otherwise than ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    AlreadyExistsError,
    ComponentNotFoundError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from tests.sidecar_client.dapr_peer import Peer, both, call, client, peer
from tests.support.waiting import longer

__all__ = ["client", "peer"]

POST = "POST /v1.0/bindings/s"


def is_binding(peer: Peer, kind: str) -> None:
    peer.says(200, {"components": [{"name": "s", "type": kind, "version": "v1"}]}, "GET /v1.0/metadata")


def fails(peer: Peer, words: str) -> None:
    body = {"errorCode": "ERR_INVOKE_OUTPUT_BINDING", "message": f"error invoking output binding s: {words}"}
    peer.says(500, body, POST)


# -- files -------------------------------------------------------------------------


@both
def test_content_goes_as_base64(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.localstorage")
    for data in (b"", b"aGFsbG8=", b"\x00\xff"):
        call(client.file, api, "put_file", "s", "d/f", data)
        sent = peer.writes()[-1]
        assert base64.b64decode(sent["data"]) == data
        assert (sent["operation"], sent["metadata"]) == ("create", {"fileName": "d/f"})


@both
def test_names_as_daprs_machine_has_them(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.localstorage")
    peer.says(200, ["/data/a/f", "/data/a/b/g"], POST)

    class Answers(dict[str, Any]):
        """The second request to the binding, for what is surely absent, fails as Dapr's does."""

        def get(self, key: str, default: Any = None) -> Any:
            if key == POST and json.loads(peer.asked[-1][3])["operation"] == "get":
                name = json.loads(peer.asked[-1][3])["metadata"]["fileName"]
                said = f"error invoking output binding s: file not found: /data/{name}"
                body = {"errorCode": "ERR_INVOKE_OUTPUT_BINDING", "message": said}
                return 500, json.dumps(body).encode(), {}
            return super().get(key, default)

    peer.answers = Answers(peer.answers)
    assert [each.name for each in call(client.file, api, "list_files", "s")] == ["a/b/g", "a/f"]
    assert call(client.file, api, "list_files", "s")[0].size is None
    assert sum(b'"get"' in body for _, _, _, body in peer.asked) == 1
    peer.says(200, b"null", POST)
    assert call(client.file, api, "list_files", "s", "a/") == []


@both
@pytest.mark.parametrize("words", ["file not found: /data/f", "error deleting file /data/f: no such file or directory"])
def test_an_absent_file(client: CloudRuntimesClient, peer: Peer, api: str, words: str) -> None:
    is_binding(peer, "bindings.localstorage")
    fails(peer, words)
    assert call(client.file, api, "exists", "s", "f") is False
    call(client.file, api, "delete_file", "s", "f")


@both
def test_other_failures_of_a_binding(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.localstorage")
    fails(peer, "error opening path /data/not found: permission denied")
    with pytest.raises(InternalError, match="permission denied"):
        call(client.file, api, "get_file", "s", "not found")
    fails(peer, "couldn't find output binding s")
    with pytest.raises(ComponentNotFoundError):
        call(client.file, api, "get_file", "s", "f")
    is_binding(peer, "bindings.postgresql")
    with pytest.raises(ComponentNotFoundError):
        call(client.database, api, "query", "s", "SELECT 1")


@both
def test_a_binding_of_another_kind_is_refused(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.kafka")
    with pytest.raises(UnsupportedError, match=r"'s' is bindings\.kafka: files need"):
        call(client.file, api, "put_file", "s", "f", b"x")
    with pytest.raises(UnsupportedError, match=r"'s' is bindings\.kafka: databases need"):
        call(client.database, api, "execute", "s", "DELETE FROM t")
    assert peer.writes() == []


@both
def test_what_is_too_large_is_refused_before_it_is_sent(peer: Peer, api: str) -> None:
    with CloudRuntimesClient(peer.url, config={"dapr": {"max_message": "1MiB"}}) as client:
        with pytest.raises(ResourceExhaustedError, match="raise max_message") as caught:
            call(client.file, api, "put_file", "s", "f", b"x" * 800_000)
        assert not caught.value.maybe_applied
        with pytest.raises(ResourceExhaustedError):
            call(client.file, api, "put_file", "s", "f", iter([b"x" * 400_000] * 2))
    assert peer.asked == []


# -- databases ---------------------------------------------------------------------


@both
def test_what_postgresql_is_asked(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.postgresql")
    peer.says(200, [['{"a":1,"b":{"c":[1.5,null]},"n":123456789012345678.000000001}']], POST)
    sql = "SELECT ':x' AS t, a FROM t WHERE a = :a AND b = :b AND c = :a"
    [row] = call(client.database, api, "query", "s", sql, {"a": 2**60, "b": "text"})
    assert list(row) == ["a", "b", "n"]
    assert (row.a, row.b, str(row.n)) == (1, {"c": [1.5, None]}, "123456789012345678.000000001")
    sent = peer.writes()[-1]["metadata"]
    assert sent["sql"] == (
        "WITH q AS (\nSELECT ':x' AS t, a FROM t WHERE a = $1::text::bigint AND b = $2 AND c = $1::text::bigint\n"
        ") SELECT row_to_json(q)::text FROM q"
    )
    assert json.loads(sent["params"]) == [str(2**60), "text"]
    assert sorted(peer.writes()[-1]) == ["metadata", "operation"]


@both
@pytest.mark.parametrize(
    ("state", "kind", "applied"),
    [
        ("23505", AlreadyExistsError, False),
        ("42P01", NotFoundError, False),
        ("42601", InvalidArgumentError, False),
        ("08006", UnavailableError, True),
    ],
)
def test_what_postgresql_says(
    client: CloudRuntimesClient, peer: Peer, api: str, state: str, kind: type[Exception], applied: bool
) -> None:
    is_binding(peer, "bindings.postgresql")
    fails(peer, f'error executing query: ERROR: words with "a value" (SQLSTATE {state})')
    with pytest.raises(kind) as caught:
        call(client.database, api, "execute", "s", "INSERT INTO t VALUES (1)")
    assert type(caught.value) is kind
    assert caught.value.maybe_applied is applied  # type: ignore[attr-defined]
    assert ("a value" in str(caught.value)) is not state.startswith("23")


@both
def test_a_query_without_rows_is_never_sent(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"use execute\(\)"):
        call(client.database, api, "query", "s", "DELETE FROM t")
    assert peer.asked == []


@both
def test_answers_of_another_form(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.postgresql")
    for answer in (b"nothing", [[1]], [["[1]"]], [["{"]], {"a": 1}):
        peer.says(200, answer, POST)
        with pytest.raises(InternalError, match="another form"):
            call(client.database, api, "query", "s", "SELECT 1")


@both
def test_a_statement_that_is_given_up_may_be_applied(client: CloudRuntimesClient, peer: Peer, api: str) -> None:
    is_binding(peer, "bindings.postgresql")
    peer.says(200, b"", POST)
    peer.stalls = True
    try:
        for timeout in longer(lambda: any(verb == "POST" for verb, *_ in peer.asked)):
            with pytest.raises(DeadlineExceededError) as caught:
                call(client.database, api, "execute", "s", "DELETE FROM t", timeout=timeout)
        assert caught.value.maybe_applied
        with pytest.raises(DeadlineExceededError) as caught:
            call(client.database, api, "query", "s", "SELECT 1", timeout=0.2)
        assert not caught.value.maybe_applied
    finally:
        peer.stalls = False
