"""Answers that are larger than their requests: they are refused while they are built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.limits import Limits
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import Answer, call, send
from tests.support.running import BINDINGS, declared, serving

SIZE = 100_000
STORE = "/v1.0/state/store"


@contextmanager
def narrow(home: Any, **limits: Any) -> Iterator[Sidecar]:
    """Serve with small limits; a request may be as large as an answer."""
    max_bytes = limits.setdefault("bytes", 10 * SIZE)
    with serving(declared(str(home)), bindings=BINDINGS, limits=Limits(**limits), max_body=max_bytes) as one:
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


def test_many_jobs(tmp_path: Any) -> None:
    with narrow(tmp_path, items=2) as one:
        for number in range(3):
            kinds = messages()
            job = kinds.Job(name=f"job{number}", schedule="@daily")
            assert (
                call(
                    one.grpc_address, "ScheduleJobAlpha1", kinds.ScheduleJobRequest(job=job), "ScheduleJobResponse"
                ).code
                == "OK"
            )
        listed = call(one.grpc_address, "ListJobs", kinds.ListJobsRequest(), "ListJobsResponse")
        assert (listed.code, listed.reason) == ("RESOURCE_EXHAUSTED", "ERR_RESPONSE_TOO_LARGE")
        assert "2 items" in listed.text


def invoke(sidecar: Sidecar, name: str, operation: str, **metadata: str) -> tuple[Answer, Answer]:
    """Call a binding over both protocols."""
    request = messages().InvokeBindingRequest(name=name, operation=operation, metadata=metadata)
    body = {"operation": operation, "metadata": metadata}
    return (
        send(sidecar.http_address, "POST", f"/v1.0/bindings/{name}", body),
        call(sidecar.grpc_address, "InvokeBinding", request, "InvokeBindingResponse"),
    )


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


@pytest.mark.parametrize("url", ["sqlite:///{}/a.db", "sqlite+aiosqlite:///{}/b.db", "sqlite://"])
@pytest.mark.parametrize(
    ("sql", "limit"),
    [
        (ENDLESS + "i FROM n", "1,000 rows"),
        (ENDLESS + "replace(i, 'x', 'y') AS i FROM n", "1,000 rows"),  # it does not look like one that reads
        (ENDLESS + "hex(zeroblob(50000)) FROM n", "1,000,000 bytes"),
        ("SELECT zeroblob(900000000)", "a value of more than 1,000,000 bytes"),
        ("SELECT replace(hex(zeroblob(400000)), '0', char(1)) AS x", "1,000,000 bytes"),  # six times as long in JSON
    ],
)
def test_rows_are_read_only_as_far_as_the_answer_goes(url: str, sql: str, limit: str, tmp_path: Any) -> None:
    config = declared(str(tmp_path))
    config["database"]["store"]["url"] = url.format(tmp_path)
    limits = Limits(bytes=10 * SIZE, items=1000)
    with serving(config, bindings=BINDINGS, limits=limits, max_body=limits.bytes) as one:
        refused(invoke(one, "sql", "query", sql=sql), "binding sql", limit, "LIMIT")
        assert [answer.status or answer.code for answer in invoke(one, "sql", "query", sql="SELECT 1")] == [200, "OK"]


def test_rows_that_were_to_be_written_are_not_when_there_are_too_many(tmp_path: Any) -> None:
    with narrow(tmp_path, items=10) as one:
        invoke(one, "sql", "exec", sql="CREATE TABLE t (i INT)")
        insert = "INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9,10,11]') RETURNING i"
        refused(invoke(one, "sql", "query", sql=insert), "10 rows")
        assert invoke(one, "sql", "query", sql="SELECT count(*) FROM t")[0].json == [[0]]


def test_time_is_limited_in_the_database_too(tmp_path: Any) -> None:
    with narrow(tmp_path, seconds=0.2) as one:
        http, rpc = invoke(one, "sql", "query", sql=ENDLESS + "count(*) FROM n")
        assert (http.status, rpc.code) == (500, "INTERNAL")  # as any failure of the database
        assert "were not enough" in rpc.text


def test_files_and_lists_of_files(tmp_path: Any) -> None:
    with narrow(tmp_path, items=10) as one:
        client = one.context.client
        client.file.put_file("store", "large", b"x" * (10 * SIZE + 1))
        client.file.put_file("store", "fits", b"x" * 10 * SIZE)
        refused(invoke(one, "files", "get", fileName="large"), "binding files", "1,000,000 bytes")
        assert len(invoke(one, "files", "get", fileName="fits")[0].body) == 10 * SIZE
        for number in range(11):
            client.file.put_file("store", f"folder/{number}", b"")
        refused(invoke(one, "files", "list", fileName="folder"), "10 items")


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("ATTACH '{}' AS x", "ATTACH or VACUUM INTO"),
        ("attach '{}' || '' as x", "ATTACH or VACUUM INTO"),
        ("VACUUM INTO '{}'", "ATTACH or VACUUM INTO"),
        ("PRAGMA writable_schema = ON", "PRAGMA writable_schema"),
        ("PRAGMA temp_store_directory = '{}'", "PRAGMA temp_store_directory"),
        ("PRAGMA journal_mode = DELETE", "PRAGMA journal_mode"),
        ("SELECT load_extension('{}')", "load_extension()"),
    ],
)
def test_sql_reaches_no_other_file(scheme: str, sql: str, what: str, tmp_path: Any) -> None:
    config = declared(str(tmp_path))
    config["database"]["store"]["url"] = f"{scheme}:///{tmp_path}/own.db"
    outside = tmp_path / "outside"
    statement = sql.format(outside)
    with serving(config, bindings=BINDINGS) as one:
        for operation in ("exec", "query"):
            http, rpc = invoke(one, "sql", operation, sql=statement)
            assert (http.status, http.error) == (403, "ERR_INVOKE_OUTPUT_BINDING")
            assert rpc.code == "PERMISSION_DENIED"
            assert f"{what} is not permitted here" in rpc.text
            assert "(SQLSTATE 42501)" in rpc.text
        assert not outside.exists()
        # the same connection is as it was
        for allowed in ("VACUUM", "PRAGMA user_version = 7", "ANALYZE", "CREATE TABLE IF NOT EXISTS t (i INT)"):
            assert invoke(one, "sql", "exec", sql=allowed)[1].code == "OK", allowed
        assert invoke(one, "sql", "query", sql="SELECT name FROM pragma_table_info('t')")[0].json == [["i"]]
        if "load_extension" not in sql and "_directory" not in sql:
            one.context.client.database.execute("store", statement)
            assert outside.exists() is ("ATTACH" in what)


def test_configuration_and_secrets(tmp_path: Any) -> None:
    config = declared(str(tmp_path))
    (tmp_path / "secrets.json").write_text(json.dumps({f"k{number}": "x" * SIZE for number in range(11)}))
    config["secret"]["store"] = {"component": "config_file", "path": str(tmp_path / "secrets.json")}
    with serving(config, limits=Limits(bytes=10 * SIZE), max_body=10 * SIZE) as one:
        items = {f"k{number}": "x" * SIZE for number in range(11)}
        one.context.client.configuration.save_configuration("store", items)
        kinds, address = messages(), one.grpc_address
        request = kinds.GetConfigurationRequest(store_name="store")
        refused(
            (
                send(one.http_address, "GET", "/v1.0/configuration/store"),
                call(address, "GetConfiguration", request, "GetConfigurationResponse"),
            ),
            "configuration store store",
            "some keys",
        )
        request.keys[:] = list(items)[:9]
        assert len(call(address, "GetConfiguration", request, "GetConfigurationResponse").message.items) == 9
        refused(
            (
                send(one.http_address, "GET", "/v1.0/secrets/store/bulk"),
                call(address, "GetBulkSecret", kinds.GetBulkSecretRequest(store_name="store"), "GetBulkSecretResponse"),
            ),
            "secrets of store",
            "one by one",
        )
        assert send(one.http_address, "GET", "/v1.0/secrets/store/k1").status == 200
