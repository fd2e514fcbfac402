"""Clients of librdkafka, and the mapping of its errors and of those of brokers: the only error table of this component.

Clients have threads of their own, which a forked child does not have.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from ...config import without_values
from ...errors import (
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from .settings import KafkaSettings

MISSING: Final = frozenset([KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION])
PURGED: Final = KafkaError._PURGE_QUEUE
"""It had not been sent, and never will be."""
_LOGIN: Final = frozenset([KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED])
_DENIED: Final = frozenset(
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ]
)
_OTHER_TYPE: Final = frozenset([KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INCONSISTENT_GROUP_PROTOCOL])
"""What is answered about a share group to a member of a consumer group, and the other way round."""
_TOO_LARGE: Final = frozenset([KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE])
OLD: Final = frozenset([KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE])
_FULL: Final = frozenset([KafkaError._QUEUE_FULL, KafkaError.POLICY_VIOLATION, KafkaError.THROTTLING_QUOTA_EXCEEDED])
_AWAY: Final = frozenset(
    [
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._NOENT,
        KafkaError._WAIT_COORD,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._IN_PROGRESS,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._NO_OFFSET,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
    ]
)


def map_error(where: str, error: KafkaError, topic: str | None = None, broker_error: Any = None) -> CloudRuntimesError:
    """Return our error for one of theirs; ``broker_error`` is the last that concerned a broker, and says why time ran out."""
    code = error.code()
    if (
        broker_error is not None
        and code in _AWAY
        and (broker_error.code() in _LOGIN or broker_error.code() == KafkaError._SSL)
    ):
        error, code = broker_error, broker_error.code()
    text = f"kafka {where}: "
    if code in _LOGIN:
        return UnauthenticatedError(
            f"{text}the broker does not accept the client: check username, password and mechanism in the component's table"
        )
    if code == KafkaError._SSL:
        return UnavailableError(
            f"{text}TLS with the broker failed: give tls_ca with the file of the certificates that its own descends from, "
            f"and its name in servers: {_short(error)}",
            retryable=False,
        )
    if code in MISSING:
        return NotFoundError(
            f'{text}there is no topic {topic!r}: make it, or set ensure = "create" in the component\'s table'
        )
    if code in _OTHER_TYPE:
        return InvalidArgumentError(
            f"{text}the group is there with another group_type: give another as group: {_short(error)}"
        )
    if code in _DENIED:
        what = "this" if topic is None else f"the topic {topic!r} or the group"
        return PermissionDeniedError(f"{text}the user has no rights to {what}: {_short(error)}")
    if code in _TOO_LARGE:
        return ResourceExhaustedError(
            f"{text}a message is larger than is taken: raise max.message.bytes of the topic, and "
            f"message.max.bytes in the options of the component's table: {_short(error)}"
        )
    if code in _FULL:
        return ResourceExhaustedError(f"{text}{_short(error)}", retryable=True)
    if code in OLD:
        return UnsupportedError(f"{text}the broker is too old; 2.4 or newer is needed: {_short(error)}")
    if code in _AWAY or error.retriable():
        why = "" if broker_error is None or broker_error.code() == code else f"; {_short(broker_error)}"
        if code in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):  # all that librdkafka knows of one that hangs up
            why += "; check servers in the component's table, and tls and username: it may want these, or not have them"
        what = "it could not be sent in time" if code == PURGED else _short(error)
        return UnavailableError(f"{text}{what}{why}", maybe_applied=code == KafkaError._PURGE_INFLIGHT)
    return InternalError(f"{text}{_short(error)} ({error.name()})")


def without_shares(where: str) -> UnsupportedError:
    """Return the error for brokers that have no share groups."""
    return UnsupportedError(
        f"kafka {where}: the brokers have no share groups, which need Kafka 4.2 or newer and its feature share.version: "
        'set group_type = "consumer" in the component\'s table'
    )


def _short(error: KafkaError) -> str:
    return str(error.str()).splitlines()[0][:300]


_PROPERTY: Final = re.compile(r"(?:property:? \"?|`)([a-z0-9._]+)")


@without_values
def client(kind: Callable[[dict[str, Any]], Any], settings: KafkaSettings, more: Mapping[str, Any]) -> Any:
    """Make a client with the settings, and more properties, which go before ``options``.

    Raises:
        InvalidArgumentError: a property is wrong; its value is not told.
    """
    try:
        return kind({**settings.properties(), **more})
    except (KafkaException, ValueError) as error:  # the latter by ShareConsumer
        match = _PROPERTY.search(str(error))
        what = f"the property {match[1]}" if match else "a property, or a file that one names"
        raise InvalidArgumentError(
            f"kafka {settings.servers}: librdkafka does not take {what}: look at options and the files of TLS "
            "in the component's table"
        ) from None


def keep(instance: object) -> None:
    """Keep a client of the parent for ever: its end would wait for threads that are not in this child."""
    if instance is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))
