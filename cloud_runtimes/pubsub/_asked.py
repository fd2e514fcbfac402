"""Checks of a subscription, before any I/O: what it asks for, and what its handler takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args, get_origin

from .._core.handlers import CONTEXT, DATA, Signature, signature
from ..errors import InvalidArgumentError
from ..spi import pubsub as spi
from ..spi.pubsub import SubscribeRequest
from ._rate import Bucket, Rate
from .outgoing import check_start, check_topic
from .types import Event, EventBatch


def check_request(
    request: SubscribeRequest, handler: Any, type: Any, workers: Any, max_in_flight: Any, client: object
) -> Signature:
    """Refuse values that no component could take; returns what a handler takes."""
    if handler is not None and not callable(handler):
        raise InvalidArgumentError(f"handler must be callable, not {handler.__class__.__name__}")
    _count("batch", request.batch, 1_000_000)
    _count("workers", workers, 1000)
    _count("max_in_flight", max_in_flight, 1_000_000)
    _count("max_deliveries", request.max_deliveries, 1_000_000)
    check_start(request.start)
    if request.order not in (None, "key"):
        raise InvalidArgumentError(f"order {request.order!r}: give 'key', or leave it out")
    if request.ack_wait is not None:
        seconds("ack_wait", request.ack_wait, least=0.01)
    check_topic(request.group, "group")
    letters = request.dead_letter_topic
    if letters is not None and check_topic(letters, "dead_letter_topic") == request.topic:
        raise InvalidArgumentError("dead_letter_topic must be another topic, or dead letters would come back for ever")
    if handler is None:
        return Signature((), type)
    return _taken(handler, request, type, client)


def seconds(name: str, value: Any, *, least: float) -> float:
    """Return a duration in seconds; refuse what is none, or below ``least``."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidArgumentError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not least <= number <= 100 * 365 * 86400.0:
        raise InvalidArgumentError(f"{name} must be {least:g} seconds or more, and at most 100 years; got {number}")
    return float(number)


def check_bounds(handler: Any, handler_timeout: Any, rate: Any) -> None:
    """Refuse bounds of a handler that mean nothing."""
    for name, value in (("handler_timeout", handler_timeout), ("rate", rate)):
        if value is not None and handler is None:
            raise InvalidArgumentError(f"{name} bounds a handler: give one, or leave it out")
    if handler_timeout is not None:
        seconds("handler_timeout", handler_timeout, least=0.01)
    if rate is not None:
        if not isinstance(rate, Rate):
            raise InvalidArgumentError(f"rate must be a Rate, such as Rate(100, per=1), not {rate.__class__.__name__}")
        Bucket(rate)


def _count(name: str, value: Any, maximum: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum):
        raise InvalidArgumentError(f"{name} must be an int from 1 to {maximum:,}, got {value!r}")


def _taken(handler: Any, request: SubscribeRequest, type: Any, client: object) -> Signature:
    """Return what a handler takes; data that it takes of a batch is a list."""
    label, batch = f"the handler of {request.topic!r}", request.batch
    kind, other = (Event, EventBatch) if batch is None else (EventBatch, Event)
    taken = signature(handler, label, context=kind, client=client, type=type, roles=(CONTEXT,))
    if (get_origin(taken.type) or taken.type) is other:
        how = "without batch=" if batch is None else f"with batch={batch}"
        raise InvalidArgumentError(f"{label}: {how} it gets an {kind.__name__}, not an {other.__name__}")
    if batch is not None and type is None and DATA in taken.takes:
        if get_origin(taken.type) is not list:
            raise InvalidArgumentError(f"{label}: with batch={batch} the data is a list: annotate it as list[…]")
        taken = taken._replace(type=get_args(taken.type)[0])
    return taken


def needed(request: SubscribeRequest, app_id: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (feature, what it is called, whether it is asked for)."""
    yield spi.GROUP, "group=", request.group != app_id
    yield spi.START, "start=", isinstance(request.start, str)
    yield spi.START_TIME, "a time as start=", isinstance(request.start, datetime)
    yield spi.ACK_WAIT, "ack_wait=", request.ack_wait is not None
    yield spi.MAX_DELIVERIES, "max_deliveries=", request.max_deliveries is not None
    yield spi.DEAD_LETTER, "dead_letter_topic=", request.dead_letter_topic is not None
    yield spi.RAW, "raw=", bool(request.raw)
    yield spi.KEY_ORDER, "order=", request.order is not None
