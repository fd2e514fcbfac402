"""Layotto: the runtime that is a sidecar with ten services less three, over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ..._core import extras
from ...config import ClientSettings, build
from ...rpc.peers import endpoint
from .._sidecar.runtime import PATIENCE, SidecarRuntime
from .address import LayottoSettings, address

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .transport import LayottoTransport

__all__ = ["LayottoRuntime", "runtime"]


class LayottoRuntime(SidecarRuntime):
    """A sidecar of Layotto."""

    transport: LayottoTransport

    name = "layotto"
    package = __name__
    Settings = LayottoSettings
    drivers: ClassVar[Mapping[str, tuple[str, str]]] = {
        "configuration": (".configuration", "LayottoConfiguration"),
        "file": (".file", "LayottoFiles"),
        "lock": (".._sidecar.lock", "SidecarLock"),
        "pubsub": (".pubsub", "LayottoPubSub"),
        "rpc": (".rpc", "LayottoRpc"),
        "secret": (".secret", "LayottoSecret"),
        "state": (".state", "LayottoState"),
    }

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        self.own = build(LayottoSettings, settings.runtime_settings, f"{settings.origin}: [layotto]")
        if self.own.actuator is not None:
            endpoint(self.own.actuator, f"{settings.origin}: [layotto] actuator")
        at, where, said = address(settings, self.own)
        if not extras.installed("grpc", "google.protobuf"):
            raise extras.missing(f"{said}: the address is gRPC, which", "layotto")
        from ...protocols.layotto.messages import messages
        from .transport import LayottoTransport

        messages()  # imported here, where a fork waits for it
        self.transport = LayottoTransport(at.name, where, secure=at.secure, app_id=settings.app_id, own=self.own)
        self.transport.executor = executor

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
