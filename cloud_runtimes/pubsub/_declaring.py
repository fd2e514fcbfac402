"""Subscriptions that are declared by a decorator, and begin with the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ..config import suggest
from ..errors import InvalidArgumentError
from ._asked import check_bounds, check_request
from ._subscribing import SubscribeOptions, Subscribing
from .outgoing import check_topic

if TYPE_CHECKING:
    from ..spi.pubsub import SubscribeRequest
    from .subscription import Subscription

F = TypeVar("F", bound=Callable[..., Any])


class HandlerOptions(SubscribeOptions, total=False):
    """The options of `PubSubService.subscription`."""

    batch: int | None
    type: Any


class Declared:
    """A subscription that is declared, and begins with the application."""

    def __init__(
        self,
        service: Subscribing,
        pubsub_name: str,
        topic: str,
        handler: Callable[..., Any],
        options: HandlerOptions,
        request: SubscribeRequest,
    ) -> None:
        self._service = service
        self._request = request
        self._of = pubsub_name, topic, handler
        self.function = handler
        self._options: dict[str, Any] = {**options}

    def check(self) -> None:
        """Refuse, without I/O, what the component cannot do.

        Raises:
            UnsupportedError: it cannot.
        """
        self._service._need_all(self._of[0], self._request)

    def subscribe(self, ended: Callable[[Exception], None], *, timeout: float | None) -> Subscription[Any]:
        """Begin it, and have an error that ends it told."""
        subscription = self._service.subscribe(*self._of, **{"timeout": timeout, **self._options})
        subscription._when_ended(ended)
        return subscription

    async def subscribe_async(self, ended: Callable[[Exception], None], *, timeout: float | None) -> Subscription[Any]:
        """Begin it, and have an error that ends it told."""
        subscription: Subscription[Any] = await self._service.subscribe_async(
            *self._of, **{"timeout": timeout, **self._options}
        )
        subscription._when_ended(ended)
        return subscription


class Declaring(Subscribing):
    """The decorator of `PubSubService`."""

    def subscription(self, pubsub_name: str, topic: str, **options: Unpack[HandlerOptions]) -> Callable[[F], F]:
        """Return a decorator for a handler of events: ``@client.pubsub.subscription("bus", "orders")``.

        The subscription begins when the application runs: by `CloudRuntimesClient.run`, ``cloud-runtimes run`` or `cloud_runtimes.lifespan`.

        Args:
            pubsub_name, topic: as in `subscribe`.
            options: those of `subscribe`.

        Raises:
            InvalidArgumentError: on decorating: an option is wrong, the handler takes something else, or another handler has the group.
            TypeError: `subscribe` has no such option.
        """
        known = HandlerOptions.__optional_keys__
        for name in options:
            if name not in known:
                raise TypeError(f"subscription() got an unexpected keyword argument {name!r}; {suggest(name, known)}")

        def register(handler: F) -> F:
            given: dict[str, Any] = {**options}
            request = self._request(
                topic, given.get("group"), given.get("start"), given.get("ack_wait"), given.get("max_deliveries"),
                given.get("dead_letter_topic"), given.get("raw", False), given.get("metadata"), given.get("batch"),
                given.get("max_in_flight"), given.get("order"),
            )  # fmt: skip
            check_topic(topic)
            check_bounds(handler, given.get("handler_timeout"), given.get("rate"))
            workers, most = given.get("workers", 1), given.get("max_in_flight")
            check_request(request, handler, given.get("type"), workers, most, self._frame.context.client)
            key = pubsub_name, topic, request.group
            if key in self._frame.handlers:
                raise InvalidArgumentError(
                    f"{pubsub_name}/{topic}: the group {request.group!r} has a handler already: give another group="
                )
            self._frame.handlers[key] = Declared(self, pubsub_name, topic, handler, options, request)
            return handler

        return register
