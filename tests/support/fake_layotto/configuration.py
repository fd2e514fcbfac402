"""Configuration, as Layotto's stores in memory and in etcd do it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.configuration import ConfigurationItem
from cloud_runtimes.protocols.layotto.messages import messages

from .quirks import Quirks, check_store

__all__ = ["Configuration"]

_DEFAULT = "default"


class Configuration:
    """Stores with groups and labels, and streams that are told of saves."""

    def __init__(self, client: CloudRuntimesClient, quirks: Quirks) -> None:
        self._configuration = client.configuration
        self._quirks = quirks
        self._lock = threading.Lock()
        self._streams: list[_Stream] = []

    def GetConfiguration(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name, "UNKNOWN")
        stored = self._configuration.get_configuration_items(
            store, list(request.keys), group=_own(request.group), label=_own(request.label)
        )
        items = [_item(each) for each in stored.values() if not (self._quirks.splits_keys and "/" in each.key)]
        return messages().GetConfigurationResponse(items=items)

    def SaveConfiguration(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name, "UNKNOWN")
        items = [
            ConfigurationItem(
                each.key, each.content, group=_own(each.group), label=_own(each.label), tags=dict(each.tags)
            )
            for each in request.items
        ]
        self._configuration.save_configuration(store, items)
        self._tell(store, {each.key for each in items})
        return messages().Empty()

    def DeleteConfiguration(self, request: Any, context: Any) -> Any:
        store = check_store(request.store_name, "UNKNOWN")
        keys = list(request.keys)
        if self._quirks.deletes_prefixes:
            stored = self._configuration.get_configuration(store, group=_own(request.group), label=_own(request.label))
            keys += [key for key in stored if key.startswith(tuple(keys))]
        self._configuration.delete_configuration(store, keys, group=_own(request.group), label=_own(request.label))
        if not self._quirks.silent_deletes:
            self._tell(store, set(keys))
        return messages().Empty()

    def SubscribeConfiguration(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        stream = _Stream()
        with self._lock:
            self._streams.append(stream)
        context.add_callback(stream.end)

        def read() -> None:
            try:
                for request in requests:
                    check_store(request.store_name, "UNKNOWN")
                    stream.add(request.store_name, request.keys)
            except Exception as error:
                stream.failure = error
            stream.end()

        threading.Thread(target=read, name="fake-layotto-configuration", daemon=True).start()
        try:
            while (response := stream.responses.get()) is not None:
                yield response
        finally:
            with self._lock:
                self._streams.remove(stream)
                if self._quirks.stops_others:
                    for other in self._streams:
                        other.silence(stream.stores())
        if stream.failure is not None and context.is_active():
            raise stream.failure

    def _tell(self, store: str, keys: set[str]) -> None:
        with self._lock:
            streams = list(self._streams)
        items = self._configuration.get_configuration_items(store, sorted(keys))
        changes = [_item(items[key]) if key in items else messages().ConfigurationItem(key=key) for key in sorted(keys)]
        for stream in streams:
            stream.tell(store, changes)


class _Stream:
    """Stream of a configuration subscriber, with the keys it wants of each store."""

    def __init__(self) -> None:
        self.responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self._lock = threading.Lock()
        self._wanted: dict[str, set[str] | None] = {}

    def add(self, store: str, keys: Any) -> None:
        with self._lock:
            known = self._wanted.get(store, set())
            self._wanted[store] = None if not keys or known is None else {*known, *keys}

    def stores(self) -> list[str]:
        with self._lock:
            return list(self._wanted)

    def silence(self, stores: list[str]) -> None:
        with self._lock:
            for store in stores:
                if store in self._wanted:
                    self._wanted[store] = set()

    def tell(self, store: str, items: list[Any]) -> None:
        with self._lock:
            if store not in self._wanted:
                return
            keys = self._wanted[store]
        wanted = [each for each in items if keys is None or each.key in keys]
        if wanted:
            self.responses.put(messages().SubscribeConfigurationResponse(store_name=store, items=wanted))

    def end(self) -> None:
        self.responses.put(None)


def _own(name: str) -> str | None:
    return None if not name.strip() or name == _DEFAULT else name


def _item(item: ConfigurationItem) -> Any:
    return messages().ConfigurationItem(
        key=item.key,
        content=item.value,
        group=item.group or _DEFAULT,
        label=item.label or _DEFAULT,
        tags=dict(item.tags),
    )
