"""The configuration service, both APIs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._core.handlers import CONTEXT, signature
from .._service import Service, error_context, opening
from ..errors import CloudRuntimesError, InvalidArgumentError
from ..spi import configuration as spi
from ..spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ..spi.operation import Method, Operation
from ._feed import Feed
from ._prepare import items_to_save, selection
from .subscription import ConfigurationSubscription

if TYPE_CHECKING:
    import asyncio

_GET = Method("configuration", "get_configuration", repeatable=True, writes=False)
_GET_ITEMS = Method("configuration", "get_configuration_items", repeatable=True, writes=False)
_SAVE = Method("configuration", "save_configuration", repeatable=True)
_DELETE = Method("configuration", "delete_configuration", repeatable=True)
_SUBSCRIBE = Method("configuration", "subscribe_configuration", repeatable=True, writes=False, handle=True)

Handler = Callable[..., Any]


class ConfigurationService(Service):
    """Configuration: text values by key, to read and to follow.

    A key is 1 to 1,024 bytes of UTF-8 without NUL or ``||``, compared byte for byte; a value is a ``str``. Groups are namespaces within a store, labels variants of a value: one call means one group and one label, and without them the store's default ones.
    """

    name = "configuration"

    def _operation(
        self, method: Method, store_name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[Operation, ConfigurationDriver]:
        driver: ConfigurationDriver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, check_metadata(metadata)), driver

    def _selecting(
        self, method: Method, store_name: str, wanted: Selection, timeout: float | None
    ) -> tuple[Operation, ConfigurationDriver]:
        op, driver = self._operation(method, store_name, timeout, wanted.metadata)
        self._check_namespaces(driver, store_name, wanted.group, wanted.label)
        return op, driver

    def _check_namespaces(self, driver: ConfigurationDriver, store_name: str, group: Any, label: Any) -> None:
        if group is not None:
            self._frame.need(driver, spi.GROUP, "group=", store_name)
        if label is not None:
            self._frame.need(driver, spi.LABEL, "label=", store_name)

    # -- reading ----------------------------------------------------------

    @error_context(_GET)
    def get_configuration(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Return the values of some keys, absent ones left out.

        Args:
            store_name: the component.
            keys: which ones; none: all.
            group, label: the namespace and the variant, ``None``: the store's default ones.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
            UnsupportedError: the store has no groups, or no labels.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._selecting(_GET, store_name, wanted, timeout)
        return _values(self._frame.call(op, driver.get, wanted))

    @error_context(_GET)
    async def get_configuration_async(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Return the values of some keys, absent ones left out.

        Args:
            store_name: the component.
            keys: which ones; none: all.
            group, label: the namespace and the variant, ``None``: the store's default ones.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
            UnsupportedError: the store has no groups, or no labels.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._selecting(_GET, store_name, wanted, timeout)
        return _values(await self._frame.call_async(op, driver.get_async, wanted))

    @error_context(_GET_ITEMS)
    def get_configuration_items(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, ConfigurationItem]:
        """Return the items of some keys, with version, tags and metadata.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones; none: all.

        Raises:
            UnsupportedError: the store has no groups, or no labels.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._selecting(_GET_ITEMS, store_name, wanted, timeout)
        return self._frame.call(op, driver.get, wanted)

    @error_context(_GET_ITEMS)
    async def get_configuration_items_async(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, ConfigurationItem]:
        """Return the items of some keys, with version, tags and metadata.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones; none: all.

        Raises:
            UnsupportedError: the store has no groups, or no labels.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._selecting(_GET_ITEMS, store_name, wanted, timeout)
        return await self._frame.call_async(op, driver.get_async, wanted)

    # -- writing ----------------------------------------------------------

    def _saving(
        self, store_name: str, items: Sequence[ConfigurationItem], timeout: float | None, metadata: Any
    ) -> tuple[Operation, ConfigurationDriver]:
        op, driver = self._operation(_SAVE, store_name, timeout, metadata)
        self._frame.need(driver, spi.WRITE, "saving", store_name)
        for item in items:
            self._check_namespaces(driver, store_name, item.group, item.label)
            if item.tags:
                self._frame.need(driver, spi.TAGS, "an item with tags", store_name)
        return op, driver

    @error_context(_SAVE)
    def save_configuration(
        self,
        store_name: str,
        items: Mapping[str, str] | Iterable[ConfigurationItem],
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Save values: a mapping key → value, or items with tags, and groups and labels of their own.

        Where the component declares ``configuration.atomic``, all are saved or none, and a subscription gets them at once.

        Args:
            store_name, timeout, metadata: as in `get_configuration`.
            items: an item's version is not looked at. One that is stored as it is already keeps its version, and wakes nobody, where the component can compare (the embedded store does).
            group, label: of the items that name none.

        Raises:
            UnsupportedError: the store is read-only.
            ResourceExhaustedError: a value is too large, or the disk is full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        prepared = items_to_save(items, group, label)
        op, driver = self._saving(store_name, prepared, timeout, metadata)
        if prepared:
            self._frame.call(op, driver.save, prepared, metadata)

    @error_context(_SAVE)
    async def save_configuration_async(
        self,
        store_name: str,
        items: Mapping[str, str] | Iterable[ConfigurationItem],
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Save values: a mapping key → value, or items with tags, and groups and labels of their own.

        Where the component declares ``configuration.atomic``, all are saved or none, and a subscription gets them at once.

        Args:
            store_name, timeout, metadata: as in `get_configuration`.
            items: an item's version is not looked at. One that is stored as it is already keeps its version, and wakes nobody, where the component can compare (the embedded store does).
            group, label: of the items that name none.

        Raises:
            UnsupportedError: the store is read-only.
            ResourceExhaustedError: a value is too large, or the disk is full.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        prepared = items_to_save(items, group, label)
        op, driver = self._saving(store_name, prepared, timeout, metadata)
        if prepared:
            await self._frame.call_async(op, driver.save_async, prepared, metadata)

    def _deleting(
        self, store_name: str, wanted: Selection, timeout: float | None
    ) -> tuple[Operation, ConfigurationDriver]:
        op, driver = self._selecting(_DELETE, store_name, wanted, timeout)
        self._frame.need(driver, spi.WRITE, "deleting", store_name)
        return op, driver

    @error_context(_DELETE)
    def delete_configuration(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete keys; absent ones are fine.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones; none: nothing is deleted.

        Raises:
            UnsupportedError: the store is read-only, or has no groups or labels.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._deleting(store_name, wanted, timeout)
        if wanted.keys:
            self._frame.call(op, driver.delete, wanted)

    @error_context(_DELETE)
    async def delete_configuration_async(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete keys; absent ones are fine.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones; none: nothing is deleted.

        Raises:
            UnsupportedError: the store is read-only, or has no groups or labels.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver = self._deleting(store_name, wanted, timeout)
        if wanted.keys:
            await self._frame.call_async(op, driver.delete_async, wanted)

    # -- subscribing ------------------------------------------------------

    def _subscribing(
        self, store_name: str, wanted: Selection, handler: Any, timeout: float | None
    ) -> tuple[Operation, ConfigurationDriver, tuple[int, ...]]:
        takes: tuple[int, ...] = ()
        if handler is not None:
            if not callable(handler):
                raise InvalidArgumentError(f"handler must be callable, not {type(handler).__name__}")
            label, client = f"the handler of configuration {store_name!r}", self._frame.context.client
            takes = signature(handler, label, context=dict, client=client, roles=(CONTEXT,)).takes
        return *self._selecting(_SUBSCRIBE, store_name, wanted, timeout), takes

    def _subscription(
        self,
        store_name: str,
        opened: tuple[ConfigurationSource, Update],
        handler: Handler | None,
        takes: tuple[int, ...],
        loop: asyncio.AbstractEventLoop | None,
    ) -> ConfigurationSubscription:
        source, first = opened

        def add_context(error: CloudRuntimesError) -> None:
            self._frame.add_context(error, _SUBSCRIBE, store_name)

        feed = Feed(source, first, name=f"configuration {store_name!r}", add_context=add_context)
        subscription = ConfigurationSubscription(self, feed, handler, takes)
        try:
            subscription._start(loop)
        except BaseException:  # the client's loop is closed, say: nobody gets it
            self._frame.context.handles.discard(subscription)
            feed.stop()
            raise
        return subscription

    @error_context(_SUBSCRIBE)
    def subscribe_configuration(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        handler: Handler | None = None,
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ConfigurationSubscription:
        """Follow some keys; the subscription is live on return. It gives all current values first, then what changed.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones, also such as are not there yet; none: all, new ones included.
            handler: called with the dict from keys to items, one call at a time. A parameter that is annotated `CloudRuntimesClient` gets that. A plain one runs in a thread. An ``async`` one runs on the client's own loop, with `subscribe_configuration_async` on the running loop. An exception is logged, and the handler gets the same again a little later, or what has become of it. Without a handler, iterate the subscription.

        Raises:
            InvalidArgumentError: the handler is not callable, or takes something else.
            UnsupportedError: the store has no groups, or no labels, or cannot be followed.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        wanted = selection(keys, group, label, metadata)
        op, driver, takes = self._subscribing(store_name, wanted, handler, timeout)
        return self._subscription(store_name, self._frame.call(op, driver.subscribe, wanted), handler, takes, None)

    @opening
    @error_context(_SUBSCRIBE)
    async def subscribe_configuration_async(
        self,
        store_name: str,
        keys: Iterable[str] = (),
        handler: Handler | None = None,
        *,
        group: str | None = None,
        label: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ConfigurationSubscription:
        """Follow some keys; the subscription is live on return. It gives all current values first, then what changed.

        Args:
            store_name, group, label, timeout, metadata: as in `get_configuration`.
            keys: which ones, also such as are not there yet; none: all, new ones included.
            handler: called with the dict from keys to items, one call at a time. A parameter that is annotated `CloudRuntimesClient` gets that. A plain one runs in a thread. An ``async`` one runs on the client's own loop, with `subscribe_configuration_async` on the running loop. An exception is logged, and the handler gets the same again a little later, or what has become of it. Without a handler, iterate the subscription.

        Raises:
            InvalidArgumentError: the handler is not callable, or takes something else.
            UnsupportedError: the store has no groups, or no labels, or cannot be followed.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get_configuration`.
        """
        import asyncio

        wanted = selection(keys, group, label, metadata)
        op, driver, takes = self._subscribing(store_name, wanted, handler, timeout)
        opened = await self._frame.call_async(op, driver.subscribe_async, wanted)
        return self._subscription(store_name, opened, handler, takes, asyncio.get_running_loop())


def _values(items: Mapping[str, ConfigurationItem]) -> dict[str, str]:
    return {key: item.value for key, item in items.items()}
