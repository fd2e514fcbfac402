"""Classes of messages, made by protobuf out of descriptors.

They live in a descriptor pool of their own, so that another library with the same names, such as an official SDK, can be in the same process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Messages", "made_once"]


class Messages:
    """Every message as an attribute, e.g. ``messages().GetStateRequest(key="k")``; those of protobuf's own among them, such as ``Any`` and ``Empty``.

    Args:
        known: modules of protobuf whose messages the files use.
        files: descriptors (``FileDescriptorProto``), each behind those it depends on.

    Attributes:
        pool: knows them all by name.
    """

    def __init__(self, known: Iterable[Any], files: Iterable[Any]) -> None:
        from google.protobuf import descriptor_pool, message_factory

        pool = self.pool = descriptor_pool.DescriptorPool()
        names: list[str] = []
        for module in known:
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
            names += [f"{module.DESCRIPTOR.package}.{name}" for name in module.DESCRIPTOR.message_types_by_name]
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
            names += [f"{file.package}.{message.name}" for message in file.message_type]
        for name in names:
            found = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            setattr(self, name.rpartition(".")[2], found)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no message {name!r}")


def made_once(make: Callable[[], Messages]) -> Callable[[], Any]:
    """Return a function that gives the messages, made when it is first called.

    It raises `ImportError` where protobuf is not installed.
    """
    lock = threading.Lock()
    made: Messages | None = None

    def messages() -> Any:
        nonlocal made
        if made is None:
            with lock:
                if made is None:
                    made = make()
        return made

    messages.__doc__ = "Return the messages, made at the first call; `ImportError`: protobuf is not installed."
    return messages
