"""The tree of errors is the documented one; errors travel whole, and say where they happened."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, errors
from cloud_runtimes.errors import (
    BulkError,
    CloudRuntimesError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    MissingFileError,
    NotFoundError,
    PayloadError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.testing import Api

# name → (bases besides Exception's own, code, retryable)
TREE: dict[str, tuple[tuple[type, ...], str, bool]] = {
    "InvalidArgumentError": ((CloudRuntimesError, ValueError), "INVALID_ARGUMENT", False),
    "PayloadError": ((InvalidArgumentError, ValueError), "INVALID_ARGUMENT", False),
    "NotFoundError": ((CloudRuntimesError, LookupError), "NOT_FOUND", False),
    "MissingFileError": ((errors.NotFoundError, FileNotFoundError, LookupError), "NOT_FOUND", False),
    "ComponentNotFoundError": ((CloudRuntimesError, LookupError), "FAILED_PRECONDITION", False),
    "AlreadyExistsError": ((CloudRuntimesError,), "ALREADY_EXISTS", False),
    "ConflictError": ((CloudRuntimesError,), "ABORTED", False),
    "LeaseLostError": ((ConflictError,), "ABORTED", False),
    "PermissionDeniedError": ((CloudRuntimesError, PermissionError), "PERMISSION_DENIED", False),
    "UnauthenticatedError": ((CloudRuntimesError,), "UNAUTHENTICATED", False),
    "ResourceExhaustedError": ((CloudRuntimesError,), "RESOURCE_EXHAUSTED", False),
    "UnavailableError": ((CloudRuntimesError, ConnectionError), "UNAVAILABLE", True),
    "DeadlineExceededError": ((CloudRuntimesError, TimeoutError), "DEADLINE_EXCEEDED", False),
    "UnsupportedError": ((CloudRuntimesError, NotImplementedError), "UNIMPLEMENTED", False),
    "ClosedError": ((CloudRuntimesError, RuntimeError), "CANCELLED", False),
    "InternalError": ((CloudRuntimesError,), "INTERNAL", False),
    "BulkError": ((CloudRuntimesError,), "UNKNOWN", False),
}
# which of ours a class is, and no other
STRANGERS = (ValueError, LookupError, OSError, TimeoutError, RuntimeError, NotImplementedError, ConnectionError)
PLACE = {"service": "state", "operation": "get", "runtime": "capa", "component": "orders"}


def place_of(error: CloudRuntimesError) -> tuple[str | None, ...]:
    return error.service, error.operation, error.runtime, error.component


def test_every_error_is_in_the_table() -> None:
    assert set(errors.__all__) == {*TREE, "CloudRuntimesError"}
    assert {code for _, code, _ in TREE.values()} <= set(errors.GRPC_CODES)
    assert (CloudRuntimesError.code, CloudRuntimesError.retryable, CloudRuntimesError.maybe_applied) == (
        "UNKNOWN",
        False,
        False,
    )


def test_bases_code_and_retryable(subtests: pytest.Subtests) -> None:
    for name, (bases, code, retryable) in TREE.items():
        with subtests.test(name=name):
            error = getattr(errors, name)("what happened")
            for base in (*bases, Exception):
                assert isinstance(error, base)
            assert (error.code, error.retryable, error.maybe_applied) == (code, retryable, False)
            assert place_of(error) == (None, None, None, None)
            assert str(error) == error.message == "what happened"
            expected = {each for each in STRANGERS if any(issubclass(base, each) for base in bases)}
            assert {each for each in STRANGERS if isinstance(error, each)} == expected


def test_a_missing_component_is_not_what_is_not_found() -> None:
    assert not issubclass(errors.ComponentNotFoundError, errors.NotFoundError)


@pytest.mark.parametrize("name", [*TREE, "CloudRuntimesError"])
def test_an_error_travels_whole(name: str) -> None:
    error: CloudRuntimesError = getattr(errors, name)(
        "ünïcode", code="ABORTED", retryable=True, maybe_applied=True, **PLACE
    )
    error.add_note("a note")
    for back in (copy.copy(error), copy.deepcopy(error), *(pickle.loads(pickle.dumps(error, p)) for p in range(6))):
        assert type(back) is type(error)
        assert back is not error
        assert back.args == error.args == ("ünïcode",)
        assert str(back) == "ünïcode"
        assert vars(back) == vars(error)
        assert (back.code, back.retryable, back.maybe_applied) == ("ABORTED", True, True)
        assert place_of(back) == (*PLACE.values(),)
        assert back.__notes__ == ["a note"]


def test_bulk_error_travels_whole() -> None:
    error = BulkError("two", failed={"a": ConflictError("x", component="c"), 7: PayloadError("y")}, result={"b": 1})
    back = pickle.loads(pickle.dumps(error))
    assert {key: (type(each), str(each), each.component) for key, each in back.failed.items()} == {
        "a": (ConflictError, "x", "c"),
        7: (PayloadError, "y", None),
    }
    assert back.result == {"b": 1}


def test_bulk_error_sums_up_its_members() -> None:
    away, conflict = UnavailableError("x", maybe_applied=True), ConflictError("y")
    same = BulkError("m", failed={1: away, 2: UnavailableError("z")})
    assert (same.code, same.retryable, same.maybe_applied) == ("UNAVAILABLE", True, True)
    mixed = BulkError("m", failed={1: away, 2: conflict})
    assert (mixed.code, mixed.retryable, mixed.maybe_applied) == ("UNKNOWN", False, True)
    none = BulkError("m")
    assert (none.code, none.retryable, none.maybe_applied, none.failed, none.result) == (
        "UNKNOWN",
        False,
        False,
        {},
        None,
    )


# -- where it happened --------------------------------------------------------

Call = tuple[str, str, tuple[Any, ...], dict[str, Any], type[CloudRuntimesError]]

# service, method, arguments after the component's name, the error
WRONG: list[Call] = [
    ("state", "get", ("",), {}, InvalidArgumentError),
    ("state", "get", ("k",), {"timeout": 0}, InvalidArgumentError),
    ("state", "get", ("k",), {"consistency": "weak"}, InvalidArgumentError),
    ("state", "get", ("text",), {"type": int}, PayloadError),
    ("state", "get_item", ("text",), {"type": int}, PayloadError),
    ("state", "get_item", ("a||b",), {}, InvalidArgumentError),
    ("state", "get_bulk", (["text"],), {"type": int}, BulkError),
    ("state", "get_bulk", ("text",), {}, InvalidArgumentError),
    ("state", "list_keys", (), {"limit": 0}, InvalidArgumentError),
    ("state", "save", ("k", object()), {}, PayloadError),
    ("state", "save", ("text", 1), {"etag": "0"}, ConflictError),
    ("state", "save_bulk", ({"k": object()},), {}, BulkError),
    ("state", "save_bulk", ([1],), {}, InvalidArgumentError),
    ("state", "delete", ("text",), {"etag": "0"}, ConflictError),
    ("state", "delete_bulk", ("text",), {}, InvalidArgumentError),
    ("secret", "get_secret", ("",), {}, InvalidArgumentError),
    ("secret", "get_secret", ("a:b",), {}, InvalidArgumentError),
    ("secret", "get_secret", ("absent",), {}, NotFoundError),
    ("secret", "get_bulk_secret", (), {"timeout": 0}, InvalidArgumentError),
    ("file", "put_file", ("..", b""), {}, InvalidArgumentError),
    ("file", "put_file", ("f", "text"), {}, InvalidArgumentError),
    ("file", "get_file", ("absent",), {}, MissingFileError),
    ("file", "get_file", ("f",), {"start": -1}, InvalidArgumentError),
    ("file", "stat_file", ("absent",), {}, MissingFileError),
    ("file", "list_files", (), {"limit": 0}, InvalidArgumentError),
    ("file", "move_file", ("absent", "f"), {}, MissingFileError),
    ("file", "copy_file", ("absent", "f"), {}, MissingFileError),
    ("pubsub", "publish", ("t", object()), {}, PayloadError),
    ("pubsub", "publish", ("", 1), {}, InvalidArgumentError),
    ("pubsub", "publish", ("t", 1), {"delay": -1}, InvalidArgumentError),
    ("pubsub", "publish_bulk", ("t", [1, object()]), {}, BulkError),
    ("pubsub", "publish_bulk", ("t", "text"), {}, InvalidArgumentError),
    ("pubsub", "subscribe", ("t",), {"workers": 0}, InvalidArgumentError),
    ("pubsub", "subscribe", ("t",), {"dead_letter_topic": "t"}, InvalidArgumentError),
]


def test_every_error_says_where(client: CloudRuntimesClient, api: Api, subtests: pytest.Subtests) -> None:
    client.state.save("store", "text", "no number")
    client.pubsub.publish("store", "warm", 1)
    client.file.exists("store", "warm")
    for service, name, arguments, options, expected in WRONG:
        with subtests.test(method=name, error=expected.__name__):
            error = api.fails(expected)(getattr(client, service), name, "store", *arguments, **options)
            assert place_of(error) == (service, name, "capa", "store")


def test_a_transaction_says_where(client: CloudRuntimesClient) -> None:
    with pytest.raises(ConflictError) as caught, client.state.transaction("store") as tx:
        tx.save("k", 1, etag="0")
    assert place_of(caught.value) == ("state", "transaction", "capa", "store")
    with pytest.raises(InvalidArgumentError) as refused:
        client.state.transaction("store", timeout=0)
    assert place_of(refused.value)[:2] == ("state", "transaction")
    with pytest.raises(PayloadError) as unencodable, client.state.transaction("store") as tx:
        tx.save("k", object())
    assert place_of(unencodable.value) == ("state", "transaction", "capa", "store")


def test_a_publisher_says_where(client: CloudRuntimesClient) -> None:
    with client.pubsub.publisher("bus", "t") as publisher:
        for data, options in ((object(), {}), (1, {"attributes": {"data": 1}}), (1, {"metadata": {"a": 1}})):
            with pytest.raises(InvalidArgumentError) as caught:
                publisher.send(data, **options)
            assert place_of(caught.value) == ("pubsub", "send", "capa", "bus")
    with pytest.raises(errors.ClosedError) as closed:
        publisher.send(1)
    assert place_of(closed.value) == ("pubsub", "send", "capa", "bus")


def test_names_given_by_keyword(client: CloudRuntimesClient) -> None:
    client.state.save(store_name="store", key="k", value=1)
    assert client.state.get(key="k", store_name="store") == 1
    with pytest.raises(InvalidArgumentError) as caught:
        client.state.get(key="", store_name="store")
    assert caught.value.component == "store"


def test_an_unknown_component_says_where(clean_environment: None) -> None:
    declared = {"capa": {"strict": True}, "state": {"orders": {"component": "sqlite", "home": ":memory:"}}}
    with CloudRuntimesClient(config=declared) as client:
        with pytest.raises(errors.ComponentNotFoundError) as caught:
            client.state.get("other", "k")
        assert place_of(caught.value) == ("state", "get", "capa", "other")


def test_an_undeclared_feature_says_where(scripted: CloudRuntimesClient) -> None:
    with pytest.raises(UnsupportedError, match="list_keys") as caught:
        scripted.state.list_keys("store")
    assert place_of(caught.value) == ("state", "list_keys", "scripted", "store")


def test_a_native_error_becomes_ours_once(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    native = OSError("the wire broke")
    runtime.state.script = [native]
    error = api.fails(InternalError, match="OSError: the wire broke")(scripted.state, "get", "store", "k")
    assert error.__cause__ is native
    assert place_of(error) == ("state", "get", "scripted", "store")


def test_an_error_of_ours_is_not_wrapped(scripted: CloudRuntimesClient, runtime: Any) -> None:
    ours = ConflictError("mine", component="nearer")
    ours.__cause__ = KeyError("native")
    runtime.state.script = [ours]
    with pytest.raises(ConflictError) as caught:
        scripted.state.save("store", "k", 1, etag="e")
    assert caught.value is ours
    assert isinstance(ours.__cause__, KeyError)
    assert ours.component == "nearer", "what the driver said of the place stands"
    assert (ours.service, ours.operation) == ("state", "save")


def test_memory_is_a_resource(scripted: CloudRuntimesClient, runtime: Any) -> None:
    runtime.state.script = [MemoryError()]
    with pytest.raises(errors.ResourceExhaustedError, match="memory"):
        scripted.state.get("store", "k")


def test_the_cause_of_the_embedded_store_is_sqlite(tmp_path: Path) -> None:
    (tmp_path / "cloud_runtimes.db").write_bytes(b"this is no database" * 100)
    with CloudRuntimesClient(config={"capa": {"home": str(tmp_path)}}) as client:
        with pytest.raises(InternalError, match="damaged or no database") as caught:
            client.state.get("store", "k")
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
        assert caught.value.code == "DATA_LOSS"
