"""Layotto: the runtime that is a sidecar with ten services less three, over gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..._core import extras
from ...config import ClientSettings, build, period, setting, without_values
from ...errors import InvalidArgumentError
from ...rpc.peers import endpoint
from .._sidecar.runtime import PATIENCE, SidecarRuntime, Target, message_size, target

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .transport import LayottoTransport

__all__ = ["LayottoRuntime", "LayottoSettings", "runtime"]

_GRPC_PORT: Final = 34904


def _port(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 65535:
        raise ValueError("expected a port, 1 to 65535")
    return value


def _roots(value: Any) -> Any:
    if isinstance(value, Mapping) and not all(isinstance(each, str) and each for each in value.values()):
        raise ValueError('expected a table of store = "root"')
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class LayottoSettings:
    """Settings of the table ``[layotto]``.

    Attributes:
        grpc_endpoint: where the sidecar listens, instead of ``endpoint``; else ``LAYOTTO_GRPC_ENDPOINT``, ``LAYOTTO_SIDECAR_IP`` and ``LAYOTTO_GRPC_PORT``, ``runtime_GRPC_PORT``.
        actuator: address of its actuator, such as ``http://127.0.0.1:34999``, to be asked by ``wait_ready``; else ``SayHello`` is.
        hello: component of its ``hellos`` that ``wait_ready`` greets.
        max_message: bytes of one message, or text such as ``16MiB``; the sidecar has a limit of its own.
        configuration_refresh: how often a subscription to configuration reads anew what the sidecar may not have told.
        callback_port: where this application takes events, the sidecar's ``grpc_callback_port``; without it a stream brings them.
        callback_host: address to listen on for them.
        file_roots: table of file store to what stands before each of its names: a folder of ``local``, a bucket of an object store.
    """

    grpc_endpoint: str | None = setting(None)
    actuator: str | None = setting(None)
    hello: str = setting("helloworld")
    max_message: int = setting("4MiB", parse=message_size)
    configuration_refresh: float = setting(10.0, parse=period)
    callback_port: int | None = setting(None, parse=_port)
    callback_host: str = setting("127.0.0.1")
    file_roots: Mapping[str, Any] | None = setting(None, parse=_roots)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_message", message_size(self.max_message))


@without_values
def _address(settings: ClientSettings, own: LayottoSettings) -> tuple[Target, str, str]:
    """Return where the sidecar is, its address as given, and what says so. The environment counts only where nothing else is said."""
    given, said = _said(settings, own)
    return target(given, said, _GRPC_PORT), given, said


def _said(settings: ClientSettings, own: LayottoSettings) -> tuple[str, str]:
    if (given := settings.endpoint) is not None:
        if not given.startswith(("grpc://", "grpcs://", "unix:")):
            raise InvalidArgumentError("endpoint: Layotto speaks gRPC: give grpc://host:port or grpcs, or unix:///path")
        return given, "endpoint"
    if own.grpc_endpoint:
        return own.grpc_endpoint, f"{settings.origin}: [layotto] grpc_endpoint"
    environment = os.environ
    if text := environment.get("LAYOTTO_GRPC_ENDPOINT"):
        return text, "LAYOTTO_GRPC_ENDPOINT"
    host = environment.get("LAYOTTO_SIDECAR_IP") or "127.0.0.1"
    for name in ("LAYOTTO_GRPC_PORT", "runtime_GRPC_PORT"):  # of its SDKs for Java, for Go
        if port := environment.get(name):
            return f"grpc://{host}:{port}", name
    return f"grpc://{host}:{_GRPC_PORT}", "LAYOTTO_GRPC_PORT"


class LayottoRuntime(SidecarRuntime):
    """A sidecar of Layotto."""

    transport: LayottoTransport

    name = "layotto"
    package = __name__
    Settings = LayottoSettings
    drivers: ClassVar[Mapping[str, tuple[str, str]]] = {
        "configuration": (".stores", "LayottoConfiguration"),
        "file": (".file", "LayottoFiles"),
        "lock": (".._sidecar.stores", "SidecarLock"),
        "pubsub": (".pubsub", "LayottoPubSub"),
        "rpc": (".rpc", "LayottoRpc"),
        "secret": (".stores", "LayottoSecret"),
        "state": (".stores", "LayottoState"),
    }

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        self.own = build(LayottoSettings, settings.runtime_settings, f"{settings.origin}: [layotto]")
        if self.own.actuator is not None:
            endpoint(self.own.actuator, f"{settings.origin}: [layotto] actuator")
        at, where, said = _address(settings, self.own)
        if not extras.installed("grpc", "google.protobuf"):
            raise extras.missing(f"{said}: the address is gRPC, which", "layotto")
        from ...protocols.layotto.messages import messages
        from .transport import LayottoTransport

        messages()  # imported here, where a fork waits for it
        self.transport = LayottoTransport(at.name, where, secure=at.secure, app_id=settings.app_id, own=self.own)

    def _why_not(self) -> str:
        if self.own.actuator is None:
            return super()._why_not()
        from urllib.request import ProxyHandler, build_opener

        opener = build_opener(ProxyHandler({}))  # nobody's proxy stands before a sidecar
        try:
            opener.open(f"{self.own.actuator.rstrip('/')}/actuator/health/readiness", timeout=PATIENCE).close()
        except (OSError, ValueError) as error:  # an URLError is an OSError
            return f"its actuator: {error}"
        return ""


runtime = LayottoRuntime
