"""Secrets of AWS Secrets Manager, secrets and configuration of SSM Parameter Store."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgumentError, PermissionDeniedError
from ...spi.component import Component
from ...spi.operation import Method, Operation
from .settings import AwsSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .client import AwsClient

__all__ = ["AwsComponent", "AwsSettings", "component"]

_READY = Method("secret", "wait_ready", repeatable=True, writes=False)


class AwsComponent(Component):
    """Drivers over one service of one region."""

    name = "aws"
    Settings = AwsSettings
    services = ("secret", "configuration")

    settings: AwsSettings
    _parameters = False

    @cached_property
    def client(self) -> AwsClient:
        """The connections and the credentials."""
        from .client import AwsClient

        return AwsClient(
            self.settings, "ssm" if self._parameters else "secretsmanager", self.context.app_id, self.executor
        )

    def driver(self, service: str, name: str) -> Driver:
        engine = self.settings.engine or ("parameterstore" if service == "configuration" else "secretsmanager")
        self._parameters = engine == "parameterstore"
        if service == "configuration":
            if not self._parameters:
                raise InvalidArgumentError("Secrets Manager has no configuration: leave engine out")
            from .parameters import ParameterConfiguration

            return ParameterConfiguration(self, name)
        if self._parameters:
            from .parameters import ParameterSecret

            return ParameterSecret(self, name)
        from .secret import ManagedSecret

        return ManagedSecret(self, name)

    def native(self, service: str, name: str) -> Any:
        return self.client.native(Operation(_READY, self.name, 5.0))

    def ready(self) -> None:
        """Have credentials, a region, and an answer."""
        action = "DescribeParameters" if self._parameters else "ListSecrets"
        op = Operation(_READY, self.name, 5.0)
        try:
            self.client.run(op, self.client.ask(action, {"MaxResults": 1}, bool))
        except PermissionDeniedError:
            pass  # a role may read some names and list none

    def close(self, timeout: float | None) -> None:
        if "client" in vars(self):
            self.client.close()


component = AwsComponent
