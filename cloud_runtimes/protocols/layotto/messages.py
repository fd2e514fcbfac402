"""The classes of the messages in the ``.proto`` files, made when first asked for."""

from __future__ import annotations

import base64
from typing import Final

from ..messages import Messages, made_once
from .descriptors import DESCRIPTORS

__all__ = ["APP", "RUNTIME", "messages"]

_PACKAGE: Final = "spec.proto.runtime.v1"
RUNTIME: Final = f"/{_PACKAGE}.Runtime/"
"""Path of what a sidecar serves."""
APP: Final = f"/{_PACKAGE}.AppCallback/"
"""Path of what an application serves."""


def _make() -> Messages:
    from google.protobuf import any_pb2, descriptor_pb2, empty_pb2

    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(DESCRIPTORS)).file
    return Messages((any_pb2, empty_pb2), files)


messages = made_once(_make)
