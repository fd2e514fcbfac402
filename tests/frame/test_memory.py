"""Lack of memory is an error of ours, wherever it comes: in the payload, in the driver, in the type."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ResourceExhaustedError
from cloud_runtimes.testing import Api


class Huge:
    """Encoding it takes more memory than there is."""

    def model_dump(self, mode: str) -> Any:
        raise MemoryError


class Unpacked:
    """So does making it."""

    def __init__(self, x: int) -> None:
        raise MemoryError

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        return cls(value["x"])


CALLS: dict[str, tuple[str, str, tuple[Any, ...], dict[str, Any]]] = {
    "save": ("state", "save", ("s", "k", Huge()), {}),
    "save_bulk": ("state", "save_bulk", ("s", {"k": Huge()}), {}),
    "get": ("state", "get", ("s", "there"), {"type": Unpacked}),
    "get_item": ("state", "get_item", ("s", "there"), {"type": list[Unpacked] | Unpacked}),
    "publish": ("pubsub", "publish", ("bus", "t", {"a": [Huge()]}), {}),
    "publish_bulk": ("pubsub", "publish_bulk", ("bus", "t", [Huge()]), {}),
    "invoke": ("rpc", "invoke_method", ("app", "m", Huge()), {}),
    "job": ("schedule", "schedule_job", ("j",), {"due_time": 60.0, "data": Huge()}),
}


@pytest.mark.parametrize("name", CALLS)
def test_out_of_memory(name: str, api: Api) -> None:
    service, method, arguments, options = CALLS[name]
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": ":memory:"}}) as client:
        client.state.save("s", "there", {"x": 1})
        client.rpc.register_method("m", lambda data: data)
        error = api.fails(ResourceExhaustedError, "out of memory")(
            getattr(client, service), method, *arguments, **options
        )
    assert (error.service, error.operation) == (service, method)
    assert isinstance(error.__cause__, MemoryError)


def test_out_of_memory_in_a_publisher() -> None:
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.publisher("bus", "t") as publisher:
            for options in ({}, {"attributes": {"subject": "s"}}):
                with pytest.raises(ResourceExhaustedError, match="out of memory"):
                    publisher.send({"a": Huge()}, **options)
            publisher.send(1)
