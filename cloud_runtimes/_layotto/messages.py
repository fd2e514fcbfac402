"""The classes of the messages in the ``.proto`` files, made by protobuf when first asked for.

They live in a descriptor pool of their own, so that another library with the same names can be in the same process.
"""

from __future__ import annotations

import base64
import threading
from typing import Any, Final

from .descriptors import DESCRIPTORS

__all__ = ["APP", "RUNTIME", "Messages", "messages"]

_PACKAGE: Final = "spec.proto.runtime.v1"
RUNTIME: Final = f"/{_PACKAGE}.Runtime/"
"""Path of what a sidecar serves."""
APP: Final = f"/{_PACKAGE}.AppCallback/"
"""Path of what an application serves."""
_lock = threading.Lock()
_made: Messages | None = None


class Messages:
    """Every message as an attribute, e.g. ``messages().GetStateRequest(key="k")``; and ``Any``, ``Empty``; ``pool`` knows them all by name."""

    def __init__(self) -> None:
        from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, empty_pb2, message_factory

        pool = self.pool = descriptor_pool.DescriptorPool()
        known = (any_pb2, empty_pb2)
        for module in known:
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        names = ["google.protobuf.Any", "google.protobuf.Empty"]
        for file in descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(DESCRIPTORS)).file:
            pool.AddSerializedFile(file.SerializeToString())
            names += [f"{file.package}.{message.name}" for message in file.message_type]
        for name in names:
            found = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            setattr(self, name.rpartition(".")[2], found)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no message {name!r}")


def messages() -> Any:
    """Return the messages.

    Raises:
        ImportError: protobuf is not installed.
    """
    global _made
    if _made is None:
        with _lock:
            if _made is None:
                _made = Messages()
    return _made
