"""Classes of attrs and msgspec, and sets: in as JSON and MessagePack, out into the class again."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from cloud_runtimes.codec import json, msgpack
from cloud_runtimes.errors import PayloadError

NOW = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@dataclass
class Item:
    qty: int


@attrs.define
class Order:
    id: int
    items: list[Item] = attrs.field(factory=list)
    when: datetime.datetime = NOW
    _note: str | None = None
    total: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.total = sum(item.qty for item in self.items)


class Row(msgspec.Struct, rename="camel", tag="row"):
    order_id: int
    raw: bytes = b""
    when: datetime.datetime = NOW
    item: Item | None = None


class Model(pydantic.BaseModel):
    x: int


class Loose(msgspec.Struct):
    what: Any


codecs = pytest.mark.parametrize("codec", [json, msgpack], ids=["json", "msgpack"])


@codecs
@pytest.mark.parametrize(
    "value",
    [Order(7, [Item(2), Item(3)], note="n"), Order(7), Row(7, b"\0\xff", item=Item(1)), [Row(1), Row(2)]],
    ids=repr,
)
def test_round_trip(codec: Any, value: Any) -> None:
    kind = list[Row] if isinstance(value, list) else type(value)
    assert codec.decode(codec.encode(value), type=kind) == value


def test_the_bytes() -> None:
    assert json.encode(Order(7, [Item(2)])) == (
        b'{"id":7,"items":[{"qty":2}],"when":"2020-01-02T03:04:05+00:00","_note":null,"total":2}'
    )
    assert json.decode(json.encode(Row(7))) == {
        "type": "row", "orderId": 7, "raw": "", "when": "2020-01-02T03:04:05Z", "item": None
    }  # fmt: skip
    assert msgpack.decode(msgpack.encode(Row(7, b"\0")))["raw"] == b"\0"
    assert json.encode(Loose(Model(x=1))) == b'{"what":{"x":1}}'


@codecs
def test_sets_are_lists(codec: Any) -> None:
    assert sorted(codec.decode(codec.encode({"tags": {"a", "b"}, "none": frozenset()}))["tags"]) == ["a", "b"]
    assert codec.decode(codec.encode({1, 2}), type=set[int]) == {1, 2}


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ({"id": "7"}, Order, r"^\$\.id: expected int, got str"),
        ({}, Order, r"^\$\.id: missing"),
        ({"id": 7, "other": 1}, Order, r"^\$\.other: Order has no such field"),
        ([{"type": "row", "orderId": "7"}], list[Row], r"^\$\[0\]: Row: Expected `int`, got `str` - at `\$\.orderId`"),
        (5, Row, "^the value: Row: Expected `object`, got `int`"),
    ],
)
def test_what_does_not_fit(value: Any, kind: Any, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        json.decode(json.encode(value), type=kind)


@codecs
def test_what_cannot_be_encoded(codec: Any) -> None:
    with pytest.raises(PayloadError, match="an instance of object cannot be encoded: give a dataclass"):
        codec.encode(Loose(object()))
