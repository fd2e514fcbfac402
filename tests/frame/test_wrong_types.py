"""Every public method, given what is of the wrong type in the place of each argument in turn: a refusal of ours, or it takes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import CloudRuntimesError, InternalError, InvalidArgumentError
from cloud_runtimes.testing.apis import Api, AsyncApi, SyncApi

WRONG = (7, 1.5, float("nan"), True, None, b"\xff", "\ud800", [1], {1: 2}, {1}, object())
RIGHT: dict[str, Any] = {
    "columns": {"a": "int"},
    "events": ["x"],
    "headers": {},
    "items": {"k": "v"},
    "keys": ["k"],
    "rows": [{"a": 1}],
    "sql": "SELECT 1",
    "values": {"a": 1},
}
NOT_CALLED = {"serve", "run", "serving", "running"}
"""They go on until they are ended."""


def methods() -> Iterator[Any]:
    for service in SERVICES:
        with CloudRuntimesClient(config={"capa": {"home": ":memory:"}}) as client:
            for name, method in inspect.getmembers(getattr(client, service), inspect.ismethod):
                if not name.startswith("_") and not name.endswith("_async") and name not in NOT_CALLED:
                    parameters = list(inspect.signature(method).parameters.values())
                    for each in parameters:
                        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                            yield pytest.param(service, name, each.name, id=f"{service}.{name}-{each.name}")


@pytest.fixture(scope="module")
def client() -> Iterator[CloudRuntimesClient]:
    pytest.importorskip("sqlalchemy")
    with CloudRuntimesClient(app_id="types", timeout=5, config={"capa": {"home": ":memory:types"}}) as made:
        yield made


@pytest.mark.parametrize("api", [SyncApi, AsyncApi], ids=["sync", "async"])
@pytest.mark.parametrize(("service", "name", "argument"), list(methods()))
def test_what_is_of_the_wrong_type(
    client: CloudRuntimesClient, api: type[Api], service: str, name: str, argument: str
) -> None:
    target = getattr(client, service)
    own = api() if hasattr(target, f"{name}_async") else SyncApi()
    parameters = inspect.signature(getattr(target, name)).parameters.values()
    right = {
        each.name: RIGHT.get(each.name, "x")
        for each in parameters
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    }
    for wrong in WRONG:
        try:
            made = own.call(target, name, **{**right, argument: wrong})
        except InternalError:
            raise  # what nobody thought of
        except CloudRuntimesError:
            continue
        if hasattr(made, "_close_by_client"):
            made._close_by_client(0.0)
    own.close()


def test_the_errors_name_what_is_wrong(client: CloudRuntimesClient) -> None:
    for call, said in (
        (lambda: client.state.get([1], "k"), "name of a component"),  # type: ignore[arg-type]
        (lambda: client.state.get_bulk("s", 1), "keys must be several"),  # type: ignore[arg-type]
        (lambda: client.state.save_bulk("s", None), "items must be several"),  # type: ignore[arg-type]
        (lambda: client.configuration.get_configuration("a", None), "keys must be several"),  # type: ignore[arg-type]
        (lambda: client.pubsub.publish("b", "t", 1, attributes=1), "attributes must be a mapping"),  # type: ignore[arg-type]
        (lambda: client.pubsub.publish_bulk("b", "t", 1), "events must be several"),  # type: ignore[arg-type]
        (lambda: client.rpc.invoke_method("s", [1]), "method"),  # type: ignore[arg-type]
        (lambda: client.telemetry.extract(None), "headers must be a mapping"),
        (lambda: client.telemetry.extract_baggage(3), "headers must be a mapping"),
        (lambda: client.telemetry.logging_handler(None), "level must be a level"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgumentError, match=said):
            call()
