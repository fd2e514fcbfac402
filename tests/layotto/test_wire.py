"""The ``.proto`` files: they are what is committed in compiled form, and they are Layotto's, number by number (``tests/golden/layotto.txt``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.protocols.layotto import descriptors, generate
from cloud_runtimes.protocols.layotto.messages import messages

GOLDEN = Path(__file__).parent.parent / "golden" / "layotto.txt"
PACKAGE = "spec.proto.runtime.v1."


def test_what_is_committed_is_what_the_compiler_makes() -> None:
    pytest.importorskip("grpc_tools")
    assert generate.generated() == Path(str(descriptors.__file__)).read_text(encoding="utf-8")


def test_names_numbers_and_types_are_layottos() -> None:
    lines: list[str] = []
    for name in generate.FILES:
        file = messages().pool.FindFileByName(name)
        for message in file.message_types_by_name.values():
            fields = sorted(message.fields, key=lambda field: int(field.number))
            lines.append(f"{_short(message.full_name)}: {', '.join(map(_field, fields))}".rstrip())
            lines += [_enum(each) for each in message.enum_types]
        for service in file.services_by_name.values():
            lines += [_rpc(each) for each in service.methods]
    assert sorted(lines) == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_every_message_has_a_class() -> None:
    kinds = messages()
    assert kinds.TopicEventRequest(id="1").id == "1"
    with pytest.raises(AttributeError, match="no message 'Nothing'"):
        _ = kinds.Nothing


def _short(name: str) -> str:
    return name.removeprefix(PACKAGE)


def _type(field: Any) -> str:
    if field.message_type is not None:
        return _short(field.message_type.full_name)
    if field.enum_type is not None:
        return _short(field.enum_type.full_name)
    names = {3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}
    return names[field.type]


def _field(field: Any) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"{field.name} {field.number} map<{_type(key)}, {_type(value)}>"
    repeated = "repeated " if field.is_repeated else ""
    group = f" of {field.containing_oneof.name}" if field.containing_oneof is not None else ""
    return f"{field.name} {field.number} {repeated}{_type(field)}{group}"


def _enum(enum: Any) -> str:
    return f"{_short(enum.full_name)} = " + ", ".join(f"{each.name} {each.number}" for each in enum.values)


def _rpc(method: Any) -> str:
    def streamed(yes: bool, kind: Any) -> str:
        return f"{'stream ' if yes else ''}{_short(kind.full_name)}"

    path = f"/{method.containing_service.full_name}/{method.name}"
    asked, told = method.input_type, method.output_type
    return f"{path} {streamed(method.client_streaming, asked)} -> {streamed(method.server_streaming, told)}"
