"""Dapr: the runtime that is a sidecar, over its HTTP API. It has RPC and state; other services are not there yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._operation import Method, Operation
from ..._runtime import Runtime
from ...config import ClientSettings, build
from ...errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ...rpc._peers import endpoint
from .link import Link

if TYPE_CHECKING:
    from ..._bridge import Bridge
    from ..._driver import Driver

__all__ = ["DaprRuntime", "runtime"]

SERVICES: Final = ("rpc", "state")
_READY: Final = Method("client", "wait_ready", repeatable=True, writes=False)
_PATIENCE: Final = 5.0
"""Seconds for one look at whether the sidecar answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaprSettings:
    """Settings of the table ``[dapr]``: there are none."""


class DaprRuntime(Runtime):
    """A sidecar of Dapr, or of `cloud_runtimes.sidecar`."""

    name = "dapr"

    def __init__(self, settings: ClientSettings, bridge: Bridge) -> None:
        super().__init__(settings, bridge)
        build(DaprSettings, settings.runtime_settings, f"{settings.origin}: [dapr]")
        for service, tables in settings.components.items():
            if tables:
                raise InvalidArgumentError(
                    f"{settings.origin}: [{service}.{next(iter(tables))}]: the sidecar has the components, in its resource files; "
                    'runtime = "capa" has them in the process'
                )
        self.link = Link(endpoint(*_address(settings)), settings.api_token, settings.app_id)

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}  # only the sidecar knows

    def driver(self, service: str, name: str) -> Driver:
        if service == "rpc":
            from .rpc import DaprRpc

            return DaprRpc(self.link, name)
        if service == "state":
            from .state import DaprState

            return DaprState(self.link, name)
        raise UnsupportedError(
            f"the runtime dapr has {' and '.join(SERVICES)} in this version, not {service}: "
            f'CloudRuntimesClient(runtime="capa") has {service} in the process',
            service=service,
            component=name,
            runtime=self.name,
        )

    def ready(self) -> None:
        # not /v1.0/healthz: that may wait for the application, which may be waiting here
        op = Operation(_READY, "sidecar", _PATIENCE)
        status = self.link.call(op, "GET", "v1.0/healthz/outbound").status
        if not 200 <= status < 300:
            raise UnavailableError(f"the sidecar at {self.link.url} is not ready yet (status {status})")

    def close(self, timeout: float | None) -> None:
        self.link.close()


def _address(settings: ClientSettings) -> tuple[str, str]:
    """Return where the sidecar is, and who says so."""
    if settings.endpoint is not None:
        if not settings.endpoint.startswith(("http://", "https://")):
            raise UnsupportedError(
                f"endpoint {settings.endpoint[:80]!r}: the runtime dapr speaks HTTP in this version, e.g. http://localhost:3500",
                runtime="dapr",
            )
        return settings.endpoint, "endpoint"
    environment = os.environ
    if environment.get("DAPR_HTTP_ENDPOINT"):
        return environment["DAPR_HTTP_ENDPOINT"], "DAPR_HTTP_ENDPOINT"
    host, port = environment.get("DAPR_RUNTIME_HOST") or "127.0.0.1", environment.get("DAPR_HTTP_PORT") or "3500"
    return f"http://{host}:{port}", "DAPR_HTTP_PORT"


runtime = DaprRuntime
