"""Base of components that read secrets over HTTP. A reply may hold a secret: no variable holds one while an error propagates."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic
from typing import Final

from ..errors import BulkError, CloudRuntimesError
from ..spi.flow import FlowDriver, both_apis
from ..spi.operation import Operation
from ..spi.secret import BULK, Secret, SecretDriver
from ._net.http import Flow, FlowClient

_CACHED: Final = 1000


class FlowSecret(FlowDriver, SecretDriver):
    """Secrets that are read by flows. With ``seconds`` one may be served again for so long, of the 1,000 that were read last."""

    features = frozenset({BULK})

    def __init__(self, client: FlowClient, name: str, seconds: float) -> None:
        self.flows = client
        self.name = name
        self._seconds = seconds
        self._cache: OrderedDict[str, tuple[Secret, float]] = OrderedDict()

    @abstractmethod
    def _read_secret(self, op: Operation, key: str) -> Flow[Secret]: ...

    @abstractmethod
    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]: ...

    def _get(self, op: Operation, key: str, /) -> Flow[Secret]:
        cached = self._cache.get(key)
        if cached is not None and monotonic() < cached[1] and not op.metadata:
            return cached[0]
        secret = yield from self._read_secret(op, key)
        if self._seconds and not op.metadata:
            self._cache.pop(key, None)
            self._cache[key] = (secret, monotonic() + self._seconds)
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return secret

    get, get_async = both_apis(_get)
    get_bulk, get_bulk_async = both_apis(_get_bulk)


def together(name: str, secrets: dict[str, Secret], failed: Mapping[str, CloudRuntimesError]) -> dict[str, Secret]:
    """Return the secrets of a store; `BulkError`: some cannot be read."""
    if failed:
        raise BulkError(
            f"{len(failed)} of {len(secrets) + len(failed)} secrets of {name!r} cannot be read",
            failed=failed,
            result=secrets,
        )
    return secrets
