"""Layotto: the runtime that is a sidecar with ten services less three, over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Final

from ...config import ClientSettings, build
from ...errors import UnavailableError, UnsupportedError
from ...rpc._peers import endpoint
from ...spi.operation import Method, Operation
from .._sidecar.runtime import SidecarRuntime
from .address import LayottoSettings, address

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .transport import LayottoTransport

__all__ = ["LayottoRuntime", "runtime"]

_READY: Final = Method("client", "wait_ready", repeatable=True, writes=False)
_PATIENCE: Final = 5.0
"""Seconds for one look at whether the sidecar answers."""


class LayottoRuntime(SidecarRuntime):
    """A sidecar of Layotto.

    Attributes:
        transport: to it.
    """

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
        if find_spec("grpc") is None or find_spec("google.protobuf") is None:
            raise UnsupportedError(
                f'{said}: the address is gRPC: pip install "cloud-runtimes-python[layotto]"', runtime=self.name
            )
        from ...protocols.layotto.messages import messages
        from .transport import LayottoTransport

        messages()  # imported here, where a fork waits for it
        self.transport = LayottoTransport(at.name, where, secure=at.secure, app_id=settings.app_id, own=self.own)
        self.transport.executor = executor

    def transport_for(self, service: str) -> LayottoTransport:
        return self.transport

    def ready(self) -> None:
        if self.own.actuator is not None:
            from .actuator import ask

            why = ask(self.own.actuator, _PATIENCE)
        else:
            why = self.transport.run(Operation(_READY, "sidecar", _PATIENCE), self.transport.ready())
        if why:
            raise UnavailableError(f"the sidecar at {self.transport.url} is not ready yet ({why})")
        if (fallback := self.fallback) is not None and fallback.declared():
            fallback.ready()

    def close(self, timeout: float | None) -> None:
        self.transport.close()
        super().close(timeout)


runtime = LayottoRuntime
