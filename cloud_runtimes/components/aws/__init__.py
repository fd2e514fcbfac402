"""Secrets of AWS Secrets Manager, secrets and configuration of SSM Parameter Store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ...config import duration, period, setting
from ...errors import InvalidArgumentError, PermissionDeniedError
from ...spi.component import Component
from ...spi.operation import Method, Operation

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .client import AwsClient

__all__ = ["AwsComponent", "AwsSettings", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """Settings of the component.

    Credentials are found as AWS's own tools find them: in variables and profiles, by SSO, by the role of a pod, a task or a machine. So are the region, the endpoint and the certificates (``AWS_CA_BUNDLE``).

    Attributes:
        engine: ``"secretsmanager"`` or ``"parameterstore"``. Default: configuration is in Parameter Store, secrets are in Secrets Manager.
        prefix: what the name of a key begins with at AWS; ``{name}`` is the name of the store. With ``""`` a key is the whole name. Default: ``"{name}/"``, in Parameter Store ``"/{name}/"``.
        region: default: ``AWS_DEFAULT_REGION``, that of the profile, or ``AWS_REGION``.
        profile: of ``~/.aws/config``; default: ``AWS_PROFILE``.
        access_key: of credentials that are given here, with ``secret_key``.
        secret_key: of these credentials.
        session_token: of these credentials, where they are temporary.
        url: of an endpoint, such as one in a VPC.
        multi_valued: a secret that is a JSON object has the object's members as entries; else its text is the only one.
        cache: seconds for which a secret may be served again without asking; of the 1,000 that were read last.
        poll_interval: seconds between two looks for a subscription to configuration.
    """

    engine: Literal["secretsmanager", "parameterstore"] | None = setting(None, help="where they are")
    prefix: str | None = setting(None, help="what names begin with")
    region: str | None = setting(None, help="of AWS")
    profile: str | None = setting(None, help="of ~/.aws/config")
    access_key: str | None = setting(None, help="of credentials that are given here")
    secret_key: str | None = setting(None, help="of these credentials")
    session_token: str | None = setting(None, help="of these credentials")
    url: str | None = setting(None, help="of an endpoint")
    multi_valued: bool = setting(False, help="members of a JSON object are entries")
    cache: float = setting(0.0, parse=duration, help="how long a secret is served again")
    poll_interval: float = setting(10.0, parse=period, help="time between two looks of a subscription")

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("session_token belongs to an access_key")
        if self.profile is not None and self.access_key is not None:
            raise ValueError("give profile or access_key")
        for text in (self.access_key, self.secret_key, self.session_token):
            if text is not None and not (text and text.isascii() and text.isprintable()):
                raise ValueError("access_key, secret_key and session_token must be printable ASCII")
        if not re.fullmatch(r"[\w/+=.@-]*", (self.prefix or "").replace("{name}", ""), re.ASCII):
            raise ValueError("prefix must be of letters, digits and /_+=.@-")
        if self.cache > 3600:
            raise ValueError("cache must be at most an hour")


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
