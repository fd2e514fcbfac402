"""Parameters of SSM Parameter Store, as secrets and as configuration. What they are is in `Secret` from the moment it is read, since some are encrypted."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ...spi.configuration import (
    SUBSCRIBE,
    VERSION,
    WRITE,
    ConfigurationDriver,
    ConfigurationItem,
    ConfigurationSource,
    Selection,
    Update,
)
from ...spi.flow import FlowDriver, both_apis
from ...spi.operation import Method, Operation
from ...spi.secret import Secret
from .._net.http import Flow
from .._secret import FlowSecret
from .secret import entries, path_of

if TYPE_CHECKING:
    from . import AwsComponent
    from .client import AwsClient

_NAME: Final = re.compile(r"(?=.{1,1011}$)/?[\w.-]+(?:/[\w.-]+)*|arn:[\w:/.-]{1,2048}", re.ASCII)
_VERSION: Final = re.compile(r"[\w.-]+", re.ASCII)
_SOME: Final = 10
"""Parameters that one request reads."""
_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_LIMIT: Final = 10.0
"""Seconds for one look."""
Items = dict[str, ConfigurationItem]


class _Parameter(NamedTuple):
    value: Secret  # of one entry
    version: str


class _Parameters:
    """The parameters whose names begin with a prefix."""

    def __init__(self, component: AwsComponent, name: str) -> None:
        prefix = component.settings.prefix
        self._component = component
        self._name = name
        self._prefix = ("/{name}/" if prefix is None else prefix).replace("{name}", name)

    @property
    def client(self) -> AwsClient:
        return self._component.client

    def path_of(self, key: str) -> str:
        return path_of(self._name, self._prefix, key, _NAME)

    def all(self) -> Flow[dict[str, _Parameter]]:
        """Return all, by key."""
        folder = self._prefix[: self._prefix.rfind("/") + 1] or "/"
        body = {"Path": folder, "Recursive": True, "WithDecryption": True, "MaxResults": _SOME}
        parameters: dict[str, _Parameter] = {}
        while True:
            some, token = yield from self.client.ask("GetParametersByPath", body, self._read)
            parameters |= some
            if token is None:
                return parameters
            body["NextToken"] = token

    def some(self, keys: Sequence[str]) -> Flow[dict[str, _Parameter]]:
        """Return those of these keys that there are."""
        names = [self.path_of(key) for key in keys]
        parameters: dict[str, _Parameter] = {}
        for start in range(0, len(names), _SOME):
            body = {"Names": names[start : start + _SOME], "WithDecryption": True}
            parameters |= (yield from self.client.ask("GetParameters", body, self._read))[0]
        return parameters

    def _read(self, page: Any) -> tuple[dict[str, _Parameter], str | None] | None:
        """Return parameters, and what the next page is asked for by; ``None``: this is no page."""
        parameters = {}
        try:
            for each in page["Parameters"]:
                name = each["Name"]
                if name.startswith(self._prefix):
                    # a parameter that is deleted and made again begins at 1
                    version = f"{each['Version']}@{each['LastModifiedDate']}"
                    parameters[name[len(self._prefix) :]] = _Parameter(Secret({"": each["Value"]}), version)
            return parameters, page.get("NextToken")
        except (AttributeError, KeyError, TypeError, InvalidArgumentError):
            return None


class ParameterSecret(FlowSecret):
    """See the module."""

    def __init__(self, component: AwsComponent, name: str) -> None:
        super().__init__(component.client, name, component.settings.cache)
        self._component = component
        self._client = component.client
        self._parameters = _Parameters(component, name)

    def _read_secret(self, op: Operation, key: str) -> Flow[Secret]:
        name = self._parameters.path_of(key)
        version = (op.metadata or {}).get("version_id", "")
        if version and not _VERSION.fullmatch(version):
            raise InvalidArgumentError("metadata version_id: a number, or a label of a version")
        body = {"Name": f"{name}:{version}" if version else name, "WithDecryption": True}
        try:
            return (yield from self._client.ask("GetParameter", body, lambda response: self._read(response, key)))
        except NotFoundError:
            raise NotFoundError(
                f"no secret {key!r}{' of that version' if version else ''} in {self.name!r}: {self._client.where} "
                f"has none at {name!r}: aws ssm put-parameter --type SecureString --name {name} --value …"
            ) from None

    def _read(self, response: Any, key: str) -> Secret | None:
        try:
            return entries(response["Parameter"]["Value"], key, self._component.settings.multi_valued)
        except (AttributeError, KeyError, TypeError, InvalidArgumentError):
            return None

    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]:
        parameters = yield from self._parameters.all()
        multi_valued = self._component.settings.multi_valued
        return {key: entries(each.value.value, key, multi_valued) for key, each in parameters.items()}


class ParameterConfiguration(FlowDriver, ConfigurationDriver):
    """See the module. It only reads."""

    features = frozenset({SUBSCRIBE, VERSION})
    alternatives: Mapping[str, str] = {WRITE: "parameters are only read: aws ssm put-parameter changes one"}

    def __init__(self, component: AwsComponent, name: str) -> None:
        self._component = component
        self.flows = component.client
        self.name = name
        self._parameters = _Parameters(component, name)

    def _get(self, op: Operation, selection: Selection, /) -> Flow[Items]:
        keys = selection.keys
        parameters = yield from self._parameters.some(keys) if keys else self._parameters.all()
        return {key: ConfigurationItem(key, each.value.value, each.version) for key, each in parameters.items()}

    get, get_async = both_apis(_get)

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise UnsupportedError(self.alternatives[WRITE])

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise UnsupportedError(self.alternatives[WRITE])

    def _subscribe(self, op: Operation, selection: Selection, /) -> Flow[tuple[ConfigurationSource, Update]]:
        items = yield from self._get(op, selection)
        return self._source(selection, items), Update(items, True)

    subscribe, subscribe_async = both_apis(_subscribe)

    def _source(self, selection: Selection, items: Items) -> ConfigurationSource:
        def look(known: Items) -> Items:
            op = Operation(_LOOK, self.name, _LIMIT)
            items = self.get(op, selection)
            # pages of a store that changes meanwhile may miss a key that is there
            if gone := tuple(known.keys() - items.keys()):
                items |= self.get(op, selection._replace(keys=gone))
            return items

        return _Source(look, items, self._component.settings.poll_interval)


class _Source(ConfigurationSource):
    """Looks every now and then: AWS tells of no changes."""

    def __init__(self, look: Callable[[Items], Items], items: Items, interval: float) -> None:
        self._look = look
        self._items = items
        self._interval = interval
        self._due = monotonic() + interval
        self._end = threading.Event()

    def look(self) -> Update | None:
        if monotonic() < self._due:
            return None
        self._due = monotonic() + self._interval  # also after a failure: AWS may have had too many requests
        self._items = self._look(self._items)
        return Update(self._items, True)

    def wait(self, timeout: float, /) -> None:
        self._end.wait(min(timeout, max(0.0, self._due - monotonic())))

    def wake(self) -> None:
        self._end.set()

    def close(self) -> None:
        pass
