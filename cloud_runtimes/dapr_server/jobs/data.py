"""A job's data as a message of gRPC."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from ...codec import json
from ...protocols.dapr.messages import VALUE_TYPE, messages, plain
from .job import JobData

__all__ = ["any_message", "json_of"]


def any_message(data: JobData) -> Any:
    """Return an ``Any``; JSON is in a ``google.protobuf.Value``."""
    kinds = messages()
    if data.type_url is not None:
        return kinds.Any(type_url=data.type_url, value=data.body)
    value = json_format.ParseDict(data.value, kinds.Value())
    return kinds.Any(type_url=VALUE_TYPE, value=value.SerializeToString())


def json_of(data: JobData) -> bytes:
    """Return the JSON of an ``Any`` that holds a ``google.protobuf.Value``."""
    value = messages().Value.FromString(data.body)
    return b"" if value.WhichOneof("kind") is None else json.encode(plain(value))
