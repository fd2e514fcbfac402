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
from cloud_runtimes.testing import Api
from tests.sidecar_client.dapr_peer import Peer, client, peer
from tests.support.waiting import longer

__all__ = ["client", "peer"]

POST = "POST /v1.0/bindings/s"


def is_binding(peer: Peer, kind: str) -> None:
    peer.says(200, {"components": [{"name": "s", "type": kind, "version": "v1"}]}, "GET /v1.0/metadata")


def fails(peer: Peer, words: str) -> None:
    body = {"errorCode": "ERR_INVOKE_OUTPUT_BINDING", "message": f"error invoking output binding s: {words}"}
    peer.says(500, body, POST)


# -- files -------------------------------------------------------------------------


def test_content_goes_as_base64(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.localstorage")
    for data in (b"", b"aGFsbG8=", b"\x00\xff"):
        api.call(client.file, "put_file", "s", "d/f", data)
        sent = peer.writes()[-1]
        assert base64.b64decode(sent["data"]) == data
        assert (sent["operation"], sent["metadata"]) == ("create", {"fileName": "d/f"})


def test_names_as_daprs_machine_has_them(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
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
    assert [each.name for each in api.call(client.file, "list_files", "s")] == ["a/b/g", "a/f"]
    assert api.call(client.file, "list_files", "s")[0].size is None
    assert sum(b'"get"' in body for _, _, _, body in peer.asked) == 1
    peer.says(200, b"null", POST)
    assert api.call(client.file, "list_files", "s", "a/") == []


@pytest.mark.parametrize("words", ["file not found: /data/f", "error deleting file /data/f: no such file or directory"])
def test_an_absent_file(client: CloudRuntimesClient, peer: Peer, api: Api, words: str) -> None:
    is_binding(peer, "bindings.localstorage")
    fails(peer, words)
    assert api.call(client.file, "exists", "s", "f") is False
    api.call(client.file, "delete_file", "s", "f")


def test_other_failures_of_a_binding(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.localstorage")
    fails(peer, "error opening path /data/not found: permission denied")
    api.fails(InternalError, match="permission denied")(client.file, "get_file", "s", "not found")
    fails(peer, "couldn't find output binding s")
    api.fails(ComponentNotFoundError)(client.file, "get_file", "s", "f")
    is_binding(peer, "bindings.postgresql")
    api.fails(ComponentNotFoundError)(client.database, "query", "s", "SELECT 1")


def test_a_binding_of_another_kind_is_refused(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.kafka")
    api.fails(UnsupportedError, match=r"'s' is bindings\.kafka: files need")(client.file, "put_file", "s", "f", b"x")
    with pytest.raises(UnsupportedError, match=r"'s' is bindings\.kafka: databases need"):
        api.call(client.database, "execute", "s", "DELETE FROM t")
    assert peer.writes() == []


def test_what_is_too_large_is_refused_before_it_is_sent(peer: Peer, api: Api) -> None:
    with CloudRuntimesClient(peer.url, config={"dapr": {"max_message": "1MiB"}}) as client:
        error = api.fails(ResourceExhaustedError, match="raise max_message")(
            client.file, "put_file", "s", "f", b"x" * 800_000
        )
        assert not error.maybe_applied
        api.fails(ResourceExhaustedError)(client.file, "put_file", "s", "f", iter([b"x" * 400_000] * 2))
    assert peer.asked == []


# -- databases ---------------------------------------------------------------------


def test_what_postgresql_is_asked(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.postgresql")
    peer.says(200, [['{"a":1,"b":{"c":[1.5,null]},"n":123456789012345678.000000001}']], POST)
    sql = "SELECT ':x' AS t, a FROM t WHERE a = :a AND b = :b AND c = :a"
    [row] = api.call(client.database, "query", "s", sql, {"a": 2**60, "b": "text"})
    assert list(row) == ["a", "b", "n"]
    assert (row.a, row.b, str(row.n)) == (1, {"c": [1.5, None]}, "123456789012345678.000000001")
    sent = peer.writes()[-1]["metadata"]
    assert sent["sql"] == (
        "WITH q AS (\nSELECT ':x' AS t, a FROM t WHERE a = $1::text::bigint AND b = $2 AND c = $1::text::bigint\n"
        ") SELECT row_to_json(q)::text FROM q"
    )
    assert json.loads(sent["params"]) == [str(2**60), "text"]
    assert sorted(peer.writes()[-1]) == ["metadata", "operation"]


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
    client: CloudRuntimesClient, peer: Peer, api: Api, state: str, kind: type[Exception], applied: bool
) -> None:
    is_binding(peer, "bindings.postgresql")
    fails(peer, f'error executing query: ERROR: words with "a value" (SQLSTATE {state})')
    error = api.fails(kind)(client.database, "execute", "s", "INSERT INTO t VALUES (1)")
    assert type(error) is kind
    assert error.maybe_applied is applied  # type: ignore[attr-defined]
    assert ("a value" in str(error)) is not state.startswith("23")


def test_a_query_without_rows_is_never_sent(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    api.fails(InvalidArgumentError, match=r"use execute\(\)")(client.database, "query", "s", "DELETE FROM t")
    assert peer.asked == []


def test_answers_of_another_form(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.postgresql")
    for answer in (b"nothing", [[1]], [["[1]"]], [["{"]], {"a": 1}):
        peer.says(200, answer, POST)
        api.fails(InternalError, match="another form")(client.database, "query", "s", "SELECT 1")


def test_a_statement_that_is_given_up_may_be_applied(client: CloudRuntimesClient, peer: Peer, api: Api) -> None:
    is_binding(peer, "bindings.postgresql")
    peer.says(200, b"", POST)
    peer.stalls = True
    try:
        for timeout in longer(lambda: any(verb == "POST" for verb, *_ in peer.asked)):
            with pytest.raises(DeadlineExceededError) as caught:
                api.call(client.database, "execute", "s", "DELETE FROM t", timeout=timeout)
        assert caught.value.maybe_applied
        with pytest.raises(DeadlineExceededError) as caught:
            api.call(client.database, "query", "s", "SELECT 1", timeout=0.2)
        assert not caught.value.maybe_applied
    finally:
        peer.stalls = False
