"""Mistakes of a first day: each message names what was meant, or what to do."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ComponentNotFoundError, NotFoundError, UnsupportedError
from cloud_runtimes.testing import Api

pytestmark = pytest.mark.usefixtures("clean_environment")

Keep = Callable[[CloudRuntimesClient], CloudRuntimesClient]


@pytest.fixture
def memory(closing: Keep) -> CloudRuntimesClient:
    return closing(CloudRuntimesClient(app_id="shop", config={"capa": {"home": f":memory:{uuid.uuid4().hex}"}}))


def test_an_argument_of_another_library(memory: CloudRuntimesClient, api: Api) -> None:
    message = r"unexpected keyword argument 'max_retries'; did you mean 'max_deliveries'\?$"
    api.fails(TypeError, match=message)(memory.pubsub, "subscribe", "bus", "t", print, max_retries=3)
    with pytest.raises(TypeError, match=message):
        memory.pubsub.subscription("bus", "t", max_retries=3)(print)
    with pytest.raises(TypeError, match="unexpected keyword argument 'topik'; did you mean 'topic'"):
        api.call(memory.pubsub, "publish", "bus", topik="t", data=1)


def test_a_type_error_of_a_handler_is_its_own(memory: CloudRuntimesClient) -> None:
    def handler() -> None:
        int(bas=2)  # type: ignore[call-overload]

    with pytest.raises(TypeError) as caught:
        memory.pubsub.publish_bulk("bus", "t", (handler() for _ in range(1)))
    assert "did you mean 'base'?; " not in str(caught.value)


@pytest.mark.parametrize(
    ("vendor", "settings", "feature"),
    [
        ("redis", {"url": "redis://127.0.0.1:1", "layout": "dapr"}, "outbox"),
        ("objectstore", {"url": "s3://bucket/prefix"}, "transaction"),
    ],
)
def test_a_missing_feature_names_component_and_remedy(
    closing: Keep, api: Api, vendor: str, settings: dict[str, str], feature: str
) -> None:
    client = closing(CloudRuntimesClient(config={"state": {"orders": {"component": vendor, **settings}}}))
    with pytest.raises(UnsupportedError) as caught:
        with api.opened(client.state.transaction("orders")) as tx:
            tx.publish("bus", "t", 1)
    message = str(caught.value)
    assert f"is not supported by 'orders', {vendor} on the runtime capa; it has: " in message
    assert f"have state.{feature}, one of which [state.orders] may name, see docs/reference/features.md" in message


@pytest.mark.parametrize("service", ["configuration", "secret"])
def test_a_component_that_has_another_name_now(closing: Keep, service: str) -> None:
    client = closing(CloudRuntimesClient(config={service: {"app": {"component": "file", "path": "x.toml"}}}))
    with pytest.raises(
        ComponentNotFoundError, match=rf"\[{service}.app\]: component 'file' is called 'config_file' now"
    ):
        client._context.service(service)._frame.driver("app")


def test_a_loop_of_another_library(memory: CloudRuntimesClient) -> None:
    """A coroutine that trio drives finds no loop of asyncio."""
    call = memory.state.save_async("s", "k", 1)
    assert inspect.iscoroutine(call)
    with pytest.raises(UnsupportedError, match=r"state.save_async runs on asyncio.*trio\.to_thread\.run_sync"):
        call.send(None)


def test_a_method_that_is_nearly_there(memory: CloudRuntimesClient, api: Api) -> None:
    memory.rpc.register_method("place-order", lambda: None)
    with pytest.raises(NotFoundError, match=r"has no method 'plcae-order'; did you mean 'place-order'\?$"):
        api.call(memory.rpc, "invoke_method", "shop", "plcae-order")
    api.fails(NotFoundError, match=r"has no method 'teleport'$")(memory.rpc, "invoke_method", "shop", "teleport")


def test_an_unknown_scheme_of_a_component_elsewhere(closing: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component from elsewhere is a home by the schemes that it names."""
    from cloud_runtimes import registry
    from cloud_runtimes.components.sqlite import SqliteComponent

    class Acme(SqliteComponent):
        name = "acme"
        home_schemes = ("acme",)

        @classmethod
        def home_table(cls, service: str, url: str) -> dict[str, Any]:
            return {"home": f":memory:{url.partition('://')[2]}"}

    original = registry.names
    monkeypatch.setitem(registry.loaded, (registry.COMPONENTS, "acme"), Acme)
    monkeypatch.setattr(registry, "names", lambda group: [*original(group), "acme"])
    client = closing(CloudRuntimesClient(config={"capa": {"home": f"acme://{uuid.uuid4().hex}"}}))
    client.state.save("s", "k", 1)
    assert client._context.runtime().component("state", "s").name == "acme"  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedError, match=r"the home acme://\w+ has no file: give a folder, "):
        client.file.exists("docs", "a")
