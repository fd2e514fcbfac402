"""The messages are Layotto's, number by number (``tests/golden/layotto.txt``); its enumerations are ``int32``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.protocols.layotto.messages import messages

GOLDEN = Path(__file__).parent.parent / "golden" / "layotto.txt"
PACKAGE = "spec.proto.runtime.v1"


def test_names_numbers_and_types_are_layottos() -> None:
    golden = GOLDEN.read_text(encoding="utf-8")
    expected = re.sub(r" of \w+(?=,|$)", "", golden, flags=re.MULTILINE)
    for enum in re.findall(r"^([\w.]+) = ", golden, re.MULTILINE):
        expected = re.sub(rf" {re.escape(enum)}(?=,|$)", " int32", expected, flags=re.MULTILINE)
    messages_of_layotto = [line for line in expected.splitlines() if not re.match(r"/|[\w.]+ = ", line)]
    file = messages().pool.FindFileByName(f"{PACKAGE}.proto")
    lines: list[str] = []
    for message in file.message_types_by_name.values():
        fields = sorted(message.fields, key=lambda field: int(field.number))
        lines.append(f"{message.name}: {', '.join(map(_field, fields))}".rstrip())
    assert sorted(lines) == messages_of_layotto


def test_every_message_has_a_class() -> None:
    kinds = messages()
    assert kinds.TopicEventRequest(id="1").id == "1"
    with pytest.raises(AttributeError, match="no message 'Nothing'"):
        _ = kinds.Nothing


def _type(field: Any) -> str:
    if field.message_type is not None:
        return str(field.message_type.full_name.removeprefix(f"{PACKAGE}."))
    return {3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}[field.type]


def _field(field: Any) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"{field.name} {field.number} map<{_type(key)}, {_type(value)}>"
    return f"{field.name} {field.number} {'repeated ' if field.is_repeated else ''}{_type(field)}"
