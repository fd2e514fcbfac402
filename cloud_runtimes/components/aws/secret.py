"""Secrets of AWS Secrets Manager."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ...codec import json
from ...errors import CloudRuntimesError, InvalidArgumentError, NotFoundError
from ...spi.operation import Operation
from ...spi.secret import Secret
from .._net.http import Flow, document
from .._secret import FlowSecret, together
from .client import shown

if TYPE_CHECKING:
    from . import AwsComponent

_NAME: Final = re.compile(r"[\w/+=.@-]{1,512}|arn:[\w:/+=.@-]{1,2048}", re.ASCII)
_GONE: Final = "ResourceNotFoundException"
_BATCH: Final = 20
"""Secrets that one request reads."""


def path_of(store: str, prefix: str, key: str, names: re.Pattern[str]) -> str:
    """Return the name of a key at AWS.

    Raises:
        InvalidArgumentError: it can be none there.
    """
    if not names.fullmatch(prefix + key):
        raise InvalidArgumentError(f"key {key!r} of {store!r}: AWS has no such names: see its rules for names")
    return prefix + key


def entries(text: str, key: str, multi_valued: bool) -> Secret:
    """Return the secret that a text is."""
    fields = document(text.encode("utf-8", "surrogatepass")) if multi_valued else None
    if not isinstance(fields, dict):
        return Secret({key: text})
    return Secret(
        {name: value if isinstance(value, str) else json.encode(value).decode() for name, value in fields.items()}
    )


class ManagedSecret(FlowSecret):
    """The secrets whose names begin with a prefix."""

    def __init__(self, component: AwsComponent, name: str) -> None:
        settings = component.settings
        super().__init__(component.client, name, settings.cache)
        self._client = component.client
        self._prefix = ("{name}/" if settings.prefix is None else settings.prefix).replace("{name}", name)
        self._multi_valued = settings.multi_valued

    def _read_secret(self, op: Operation, key: str) -> Flow[Secret]:
        name = path_of(self.name, self._prefix, key, _NAME)
        body = {"SecretId": name}
        for field, given in (("VersionId", "version_id"), ("VersionStage", "version_stage")):
            if version := (op.metadata or {}).get(given):
                body[field] = version
        try:
            return (yield from self._client.ask("GetSecretValue", body, lambda response: self._read(response, key)))
        except NotFoundError:
            raise NotFoundError(
                f"no secret {key!r}{' of that version' if len(body) > 1 else ''} in {self.name!r}: {self._client.where} "
                f"has none at {name!r}: aws secretsmanager create-secret --name {name} --secret-string …"
            ) from None

    def _read(self, response: Any, key: str) -> Secret | None:
        """Return a secret; one of bytes is their base64. ``None``: this is none."""
        if not isinstance(response, dict):
            return None
        if isinstance(text := response.get("SecretString"), str):
            return entries(text, key, self._multi_valued)
        return Secret({key: text}) if isinstance(text := response.get("SecretBinary"), str) else None

    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]:
        names = yield from self._names()
        results: dict[str, Secret] = {}
        failed: dict[str, CloudRuntimesError] = {}
        for start in range(0, len(names), _BATCH):
            body: dict[str, Any] = {"SecretIdList": names[start : start + _BATCH]}
            while True:
                secrets, refused, token = yield from self._client.ask("BatchGetSecretValue", body, self._page)
                results |= secrets
                for name, code, said in refused:
                    if code != _GONE:  # else it was deleted meanwhile
                        failed[name[len(self._prefix) :]] = self._client.refusal("GetSecretValue", code, said)
                if token is None:
                    break
                body["NextToken"] = token
        return together(self.name, results, failed)

    def _names(self) -> Flow[list[str]]:
        names: list[str] = []
        body: dict[str, Any] = {"MaxResults": 100}
        if self._prefix:
            body["Filters"] = [{"Key": "name", "Values": [self._prefix]}]
        while True:
            some, token = yield from self._client.ask("ListSecrets", body, _named)
            names += [name for name in some if name.startswith(self._prefix)]
            if token is None:
                return names
            body["NextToken"] = token

    def _page(self, page: Any) -> tuple[dict[str, Secret], list[tuple[str, str, str]], str | None] | None:
        """Return secrets, those that cannot be read, and what the next page is asked for by."""
        try:
            results = {}
            for each in page["SecretValues"]:
                key = each["Name"][len(self._prefix) :]
                if (secret := self._read(each, key)) is None:
                    return None
                results[key] = secret
            refused = [
                (each["SecretId"], *shown(each["ErrorCode"], each["Message"])) for each in page.get("Errors") or ()
            ]
            return results, refused, page.get("NextToken")
        except (AttributeError, KeyError, TypeError):
            return None


def _named(page: Any) -> tuple[list[str], str | None] | None:
    try:
        return [each["Name"] for each in page["SecretList"]], page.get("NextToken")
    except (AttributeError, KeyError, TypeError):
        return None
