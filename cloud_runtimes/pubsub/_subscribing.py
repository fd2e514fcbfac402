"""What `PubSubService.subscribe` checks before any I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypedDict

from ..errors import InvalidArgumentError
from ..spi import pubsub as spi
from ..spi.pubsub import SubscribeRequest
from .outgoing import check_topic

__all__ = ["Start", "SubscribeOptions", "check_options", "make_request", "needed_features", "seconds"]

Start: TypeAlias = Literal["earliest", "latest"]


class SubscribeOptions(TypedDict, total=False):
    """Keyword arguments of `PubSubService.subscribe`."""

    group: str | None
    start: Start | None
    workers: int
    max_in_flight: int | None
    ack_wait: float | None
    max_deliveries: int | None
    dead_letter_topic: str | None
    raw: bool
    timeout: float | None
    metadata: Mapping[str, str] | None


def seconds(name: str, value: Any, *, least: float) -> float:
    """Return a duration in seconds; refuse what is none, or below ``least``."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidArgumentError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not least <= number <= 100 * 365 * 86400.0:
        raise InvalidArgumentError(f"{name} must be {least:g} seconds or more, and at most 100 years; got {number}")
    return float(number)


def _count(name: str, value: Any, most: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
        raise InvalidArgumentError(f"{name} must be an int from 1 to {most:,}, got {value!r}")


def check_options(handler: Any, batch: Any, options: SubscribeOptions) -> None:
    """Refuse unknown options and values that no component could take."""
    if unknown := sorted(set(options) - set(SubscribeOptions.__annotations__)):
        raise TypeError(f"subscribe() got an unexpected keyword argument {unknown[0]!r}")
    if handler is not None and not callable(handler):
        raise InvalidArgumentError(f"handler must be callable, not {type(handler).__name__}")
    _count("batch", batch, 1_000_000)
    _count("workers", options.get("workers", 1), 1000)
    _count("max_in_flight", options.get("max_in_flight"), 1_000_000)
    _count("max_deliveries", options.get("max_deliveries"), 1_000_000)
    if options.get("start") not in (None, "earliest", "latest"):
        raise InvalidArgumentError(f"start {options.get('start')!r}: give 'earliest', 'latest' or None")
    if options.get("ack_wait") is not None:
        seconds("ack_wait", options.get("ack_wait"), least=0.01)


def needed_features(app_id: str, options: SubscribeOptions) -> Iterator[tuple[str, str, bool]]:
    """Yield (feature, option, whether it is asked for)."""
    yield spi.GROUP, "group", options.get("group") not in (None, app_id)
    yield spi.START, "start", options.get("start") is not None
    yield spi.ACK_WAIT, "ack_wait", options.get("ack_wait") is not None
    yield spi.MAX_DELIVERIES, "max_deliveries", options.get("max_deliveries") is not None
    yield spi.DEAD_LETTER, "dead_letter_topic", options.get("dead_letter_topic") is not None
    yield spi.RAW, "raw", bool(options.get("raw"))


def make_request(topic: str, app_id: str, options: SubscribeOptions, batch: int | None) -> SubscribeRequest:
    """Return what the driver gets."""
    group, dead_letter_topic = options.get("group"), options.get("dead_letter_topic")
    if dead_letter_topic is not None and check_topic(dead_letter_topic, "dead_letter_topic") == topic:
        raise InvalidArgumentError("dead_letter_topic must be another topic, or dead letters would come back for ever")
    return SubscribeRequest(
        topic,
        app_id if group is None else check_topic(group, "group"),
        options.get("start"),
        options.get("ack_wait"),
        options.get("max_deliveries"),
        dead_letter_topic,
        bool(options.get("raw", False)),
        options.get("metadata"),
        batch,
    )
