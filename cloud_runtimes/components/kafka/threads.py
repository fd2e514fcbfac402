"""Clients of librdkafka: how they are made, and what a fork does to them. They have threads of their own, which a forked child does not have."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException

from ...config import without_values
from ...errors import InvalidArgumentError
from .settings import KafkaSettings

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
