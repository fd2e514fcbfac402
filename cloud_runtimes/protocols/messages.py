"""Classes of messages, made by protobuf out of a table.

A line of a table is a message: its fields as ``name number type``. The type is ``string`` where none stands; ``map`` is from text to text, ``map:X`` from text to X; ``[]`` is repeated, ``?`` optional (its absence can be told). Enumerations travel as ``int32`` does. A name with dots has a package of its own.

The classes live in a descriptor pool of their own. So an official SDK with the same names can be in the same process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .._core.threads import Mutex

VALUE_TYPE: Final = "type.googleapis.com/google.protobuf.Value"
_SHARED: Final = """
BulkStateItem: key 1, data 2 bytes, etag 3, error 4, metadata 5 map
DeleteBulkStateRequest: store_name 1, states 2 []StateItem
DeleteStateRequest: store_name 1, key 2, etag 3 Etag, options 4 StateOptions, metadata 5 map
Etag: value 1
ExecuteStateTransactionRequest: storeName 1, operations 2 []TransactionalStateOperation, metadata 3 map
GetBulkSecretRequest: store_name 1, metadata 2 map
GetBulkSecretResponse: data 1 map:SecretResponse
GetBulkStateRequest: store_name 1, keys 2 [], parallelism 3 int32, metadata 4 map
GetBulkStateResponse: items 1 []BulkStateItem
GetSecretRequest: store_name 1, key 2, metadata 3 map
GetSecretResponse: data 1 map
GetStateRequest: store_name 1, key 2, consistency 3 int32, metadata 4 map
GetStateResponse: data 1 bytes, etag 2, metadata 3 map
HTTPExtension: verb 1 int32, querystring 2
InvokeBindingRequest: name 1, data 2 bytes, metadata 3 map, operation 4
InvokeBindingResponse: data 1 bytes, metadata 2 map
InvokeResponse: data 1 Any, content_type 2
ListTopicSubscriptionsResponse: subscriptions 1 []TopicSubscription
PublishEventRequest: pubsub_name 1, topic 2, data 3 bytes, data_content_type 4, metadata 5 map
SaveStateRequest: store_name 1, states 2 []StateItem
SecretResponse: secrets 1 map
StateItem: key 1, value 2 bytes, etag 3 Etag, metadata 4 map, options 5 StateOptions
StateOptions: concurrency 1 int32, consistency 2 int32
TopicEventResponse: status 1 int32
TransactionalStateOperation: operationType 1, request 2 StateItem
TryLockResponse: success 1 bool
UnlockRequest: store_name 1, resource_id 2, lock_owner 3
UnlockResponse: status 1 int32
"""
"""The messages that Dapr and Layotto have alike: Layotto's API began as Dapr's."""
_KNOWN: Final = frozenset(["Any", "Duration", "Empty", "Struct", "Value"])
"""The messages of protobuf's own that tables use."""


class Messages:
    """Every message of a table as an attribute, e.g. ``messages().GetStateRequest(key="k")``; those of protobuf's own among them, such as ``Any`` and ``Empty``."""

    def __init__(self, package: str, table: str) -> None:
        from google.protobuf import (
            any_pb2,
            descriptor_pb2,
            descriptor_pool,
            duration_pb2,
            empty_pb2,
            message_factory,
            struct_pb2,
        )

        pool = self.pool = descriptor_pool.DescriptorPool()
        known = [module.DESCRIPTOR for module in (any_pb2, duration_pb2, empty_pb2, struct_pb2)]
        files: dict[str, Any] = {}
        for line in filter(None, (_SHARED + table).split("\n")):
            name, _, fields = line.partition(":")
            home, _, short = name.rpartition(".")
            home = home or package
            if home not in files:
                files[home] = descriptor_pb2.FileDescriptorProto(name=f"{home}.proto", package=home, syntax="proto3")
                files[home].dependency.extend(file.name for file in known)
            _add(files[home].message_type.add(name=short), fields, home)
        for file in known:
            pool.AddSerializedFile(file.serialized_pb)
        for descriptor in files.values():
            pool.AddSerializedFile(descriptor.SerializeToString())
        names = [f"google.protobuf.{name}" for name in _KNOWN]
        names += [f"{file.package}.{message.name}" for file in files.values() for message in file.message_type]
        for name in names:
            setattr(self, name.rpartition(".")[2], message_factory.GetMessageClass(pool.FindMessageTypeByName(name)))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no message {name!r}")


def messages_of(package: str, table: str) -> Callable[[], Any]:
    """Return a function that gives the messages of a table. They are made at its first call, which raises `ImportError` where protobuf is not installed."""
    lock = Mutex()
    instance: Messages | None = None

    def messages() -> Any:
        nonlocal instance
        if instance is None:
            with lock:
                instance = instance or Messages(package, table)
        return instance

    return messages


def plain(value: Any) -> Any:
    """Return what a ``google.protobuf.Value`` stands for. Its numbers are floats, of which whole ones are written as integers, as ProtoJSON of Go does."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "struct_value":
        return {name: plain(each) for name, each in value.struct_value.fields.items()}
    if kind == "list_value":
        return [plain(each) for each in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _add(message: Any, fields: str, package: str) -> None:
    for text in filter(None, map(str.strip, fields.split(","))):
        name, number, kind = f"{text} ".split(" ")[:3]
        camel = "".join(part.capitalize() for part in name.split("_"))
        field = message.field.add(name=name, number=int(number), label=1, json_name=name[0] + camel[1:])
        if kind.startswith("map"):
            entry = message.nested_type.add(name=f"{camel}Entry")
            entry.options.map_entry = True
            _type(entry.field.add(name="key", number=1, label=1), "", package)
            _type(entry.field.add(name="value", number=2, label=1), kind[4:], package)
            kind = f"[]{message.name}.{entry.name}"
        if kind.startswith("[]"):
            field.label = field.LABEL_REPEATED
        elif kind.startswith("?"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
        _type(field, kind.lstrip("[]?"), package)


def _type(field: Any, kind: str, package: str) -> None:
    if kind[:1].isupper():
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{'google.protobuf' if kind in _KNOWN else package}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{(kind or 'string').upper()}")
