"""Secrets of the key-value engine, in both of its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...errors import (
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    ResourceExhaustedError,
)
from ...spi.operation import Operation
from ...spi.secret import Secret
from .._net.http import Flow, document
from .._secret import FlowSecret, together

if TYPE_CHECKING:
    from . import VaultComponent

_MOST: Final = 100_000
"""Secrets of one store that are listed."""


def path_of(store: str, prefix: str, key: str) -> str:
    """Return where a key is in its mount.

    Raises:
        InvalidArgumentError: Vault has no place for it.
    """
    if not key.isprintable() or key != key.strip() or not all(part not in ("", ".", "..") for part in key.split("/")):
        raise InvalidArgumentError(
            f"secret {key!r} of {store!r}: Vault has no place for it: a key is printable names with / between them"
        )
    return f"{prefix}/{key}" if prefix else key


def entries(data: Any) -> Secret | str:
    """Return the secret that an answer has, or what is wrong with it. Nothing is raised, since an error's frames would show it."""
    if not isinstance(data, dict):
        return "is no answer of Vault's"
    for name, value in data.items():
        if not isinstance(value, str):
            return (
                f"its entry {name!r} is {'null' if value is None else type(value).__name__}, not text: put it as text"
            )
    return Secret(data)


class VaultSecret(FlowSecret):
    """The secrets below one path of a mount."""

    def __init__(self, component: VaultComponent, name: str) -> None:
        settings = component.settings
        super().__init__(component.client, name, settings.cache)
        self._component = component
        self._client = component.client
        self._prefix = settings.prefix(name)
        second = settings.engine == "kv2"
        self._second = second
        self._data = f"{settings.mount}/data" if second else settings.mount
        self._list = f"{settings.mount}/metadata" if second else settings.mount

    def _read_secret(self, op: Operation, key: str) -> Flow[Secret]:
        version = self._version(op)
        path = path_of(self.name, self._prefix, key)
        secret = yield from self._read(key, f"{self._data}/{path}", f"version={version}" if version else "")
        if secret is None:
            raise NotFoundError(
                f"no secret {key!r} in {self.name!r}: {self._client.where} has none at {path!r}: "
                f"vault kv put -mount={self._component.settings.mount} {path} {key}=-"
            )
        return secret

    def _version(self, op: Operation) -> int | None:
        given = (op.metadata or {}).get("version")
        if given is None:
            return None
        if not self._second or not given.isascii() or not given.isdecimal():
            raise InvalidArgumentError("metadata version: a number, and only with engine = 'kv2'")
        return int(given)

    def _read(self, key: str, path: str, query: str) -> Flow[Secret | None]:
        result = self._entries((yield from self._client.ask("GET", path, query=query, absent=True)))
        if isinstance(result, str):
            raise PayloadError(f"secret {key!r} of {self.name!r}: {result}")
        return result

    def _entries(self, data: bytes | None) -> Secret | str | None:
        if data is None:
            return None
        try:
            payload = document(data)["data"]
            return entries(payload["data"] if self._second else payload)
        except (KeyError, TypeError):
            return entries(None)

    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]:
        secrets: dict[str, Secret] = {}
        failed: dict[str, CloudRuntimesError] = {}
        for key in (yield from self._keys()):
            try:
                secret = yield from self._read(key, f"{self._data}/{path_of(self.name, self._prefix, key)}", "")
            except (PayloadError, InvalidArgumentError) as error:
                failed[key] = error.with_traceback(None)
                continue
            if secret is not None:  # else it was deleted meanwhile
                secrets[key] = secret
        return together(self.name, secrets, failed)

    def _keys(self) -> Flow[list[str]]:
        """Return all keys below the path; those that are deleted too."""
        keys: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            path = "/".join(part for part in (self._list, self._prefix, folder.rstrip("/")) if part)
            data = yield from self._client.ask("GET", path, query="list=true", absent=True)
            if data is None:  # nothing, or RustyVault
                data = yield from self._client.ask("LIST", path, absent=True)
            if data is None:
                continue
            try:
                names = [str(name) for name in document(data)["data"]["keys"]]
            except (KeyError, TypeError):
                raise InternalError(f"{self._client.where}: a list of secrets is no answer of Vault's") from None
            for name in names:
                (folders if name.endswith("/") else keys).append(folder + name)
            if len(keys) + len(folders) > _MOST:
                raise ResourceExhaustedError(
                    f"{self.name!r} has more than {_MOST:,} secrets: read them one by one, or set a longer path"
                )
        return keys
