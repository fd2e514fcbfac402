"""The classes of the messages in `schema`, made when first asked for."""

from __future__ import annotations

from typing import Any, Final

from ..messages import Messages, made_once
from .schema import MESSAGES

__all__ = ["VALUE_TYPE", "messages", "plain"]

VALUE_TYPE: Final = "type.googleapis.com/google.protobuf.Value"

_KNOWN: Final = {
    "Any": "google.protobuf.Any",
    "Duration": "google.protobuf.Duration",
    "Empty": "google.protobuf.Empty",
    "Struct": "google.protobuf.Struct",
    "Value": "google.protobuf.Value",
}
_PACKAGE: Final = "cloud_runtimes.dapr"


def _make() -> Messages:
    from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, empty_pb2, struct_pb2

    known = (any_pb2, duration_pb2, empty_pb2, struct_pb2)
    file = descriptor_pb2.FileDescriptorProto(name="cloud_runtimes/dapr.proto", package=_PACKAGE, syntax="proto3")
    # google.rpc.Status is known by its name: an Any tells it
    rpc = descriptor_pb2.FileDescriptorProto(name="cloud_runtimes/rpc.proto", package="google.rpc", syntax="proto3")
    for each in (rpc, file):
        each.dependency.extend(module.DESCRIPTOR.name for module in known)
    for line in filter(None, MESSAGES.split("\n")):
        name, _, fields = line.partition(":")
        home, package = (rpc, "google.rpc") if name.startswith("google.rpc.") else (file, _PACKAGE)
        _add(home.message_type.add(name=name.rpartition(".")[2]), fields, package)
    return Messages(known, (rpc, file))


messages = made_once(_make)


def plain(value: Any) -> Any:
    """Return what a ``google.protobuf.Value`` stands for; its numbers are floats, of which whole ones are written as integers (as ProtoJSON of Go does)."""
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
    for text in filter(None, (part.strip() for part in fields.split(","))):
        name, number, *rest = text.split(" ")
        kind = rest[0] if rest else ""
        field = message.field.add(name=name, number=int(number), json_name=_camel(name))
        if kind.startswith("map"):
            _map(message, field, kind[4:], package)
            continue
        field.label = field.LABEL_REPEATED if kind.startswith("[]") else field.LABEL_OPTIONAL
        if kind.startswith("?"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
        _type(field, kind.removeprefix("[]").removeprefix("?"), package)


def _type(field: Any, kind: str, package: str) -> None:
    if kind and kind[0].isupper():
        field.type = field.TYPE_MESSAGE
        field.type_name = "." + _KNOWN.get(kind, f"{package}.{kind}")
    else:
        field.type = getattr(field, f"TYPE_{(kind or 'string').upper()}")


def _map(message: Any, field: Any, kind: str, package: str) -> None:
    entry = message.nested_type.add(name="".join(map(str.capitalize, field.name.split("_"))) + "Entry")
    entry.options.map_entry = True
    key = entry.field.add(name="key", number=1, label=1)
    _type(key, "", package)
    value = entry.field.add(name="value", number=2, label=1)
    _type(value, kind, package)
    field.label = field.LABEL_REPEATED
    field.type = field.TYPE_MESSAGE
    field.type_name = f".{package}.{message.name}.{entry.name}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
