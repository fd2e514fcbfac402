"""Classes of attrs, msgspec and pydantic in JSON and MessagePack: fields of another name on the wire, and sets."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any

import attrs
import msgspec
import msgspec as msgspec_package
import pydantic
import pydantic.dataclasses
import pytest
from pydantic import AliasChoices, AliasGenerator, AliasPath, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.codec import json, msgpack
from cloud_runtimes.errors import PayloadError
from cloud_runtimes.pubsub import Event

codecs = pytest.mark.parametrize("codec", [json, msgpack], ids=["json", "msgpack"])


class Camel(pydantic.BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class Line(Camel):
    unit_price: float


class Order(Camel):
    order_id: int
    order_lines: list[Line] = []
    by_name: dict[str, Line] = {}
    next_order: Order | None = None


class Both(Camel):
    model_config = ConfigDict(populate_by_name=True)
    order_id: int


class Named(pydantic.BaseModel):
    model_config = ConfigDict(serialize_by_alias=False)
    order_id: int = Field(alias="orderId")


class Out(pydantic.BaseModel):
    """Reads names and writes aliases."""

    model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))
    order_id: int = 0
    order_lines: list[Out] = []
    one_of: Line | Out | None = None
    by_name: Annotated[dict[str, Out], "as they are called"] = {}


class In(pydantic.BaseModel):
    """Reads aliases and writes names."""

    order_id: int = Field(0, validation_alias="orderId")
    total: int = Field(0, validation_alias=AliasChoices(AliasPath("sums", 0), "grandTotal"), serialization_alias="sum")
    inner: list[In] = []


class Orders(pydantic.RootModel[list[Out]]):
    pass


@pydantic.dataclasses.dataclass
class Parcel:
    order_id: int = Field(alias="orderId")


@attrs.define
class Person:
    given_name: str = attrs.field(alias="givenName")
    _age: int = 0
    length: int = attrs.field(init=False, default=0, alias="len")


class Struct(msgspec_package.Struct, rename="camel"):
    order_id: int
    inner: Struct | None = None


ORDER = Order(
    orderId=1, orderLines=[Line(unitPrice=2.5)], byName={"a_b": Line(unitPrice=1)}, nextOrder=Order(orderId=2)
)
OUT = Out(order_id=1, order_lines=[Out(order_id=2)], one_of=Out(order_id=3), by_name={"order_id": Out(order_id=4)})
IN = In(orderId=1, grandTotal=2, inner=[In(orderId=3)])
VALUES: list[tuple[Any, Any]] = [
    (ORDER, {
        "orderId": 1, "orderLines": [{"unitPrice": 2.5}], "byName": {"a_b": {"unitPrice": 1.0}},
        "nextOrder": {"orderId": 2, "orderLines": [], "byName": {}, "nextOrder": None},
    }),
    (Both(orderId=1), {"orderId": 1}),
    (Named(orderId=1), {"order_id": 1}),
    (Out(order_id=1), {"orderId": 1, "orderLines": [], "oneOf": None, "byName": {}}),
    (OUT, None),
    (IN, {"order_id": 1, "sum": 2, "inner": [{"order_id": 3, "sum": 0, "inner": []}]}),
    (Orders([OUT]), None),
    (Parcel(orderId=1), {"orderId": 1}),
    (Person("Ada", 36), {"givenName": "Ada", "_age": 36, "length": 0}),
    (Struct(1, Struct(2)), {"orderId": 1, "inner": {"orderId": 2, "inner": None}}),
]  # fmt: skip


@codecs
def test_what_was_written_is_read_again(codec: Any) -> None:
    for value, written in VALUES:
        encoded = codec.encode(value)
        assert written is None or codec.decode(encoded) == written
        assert codec.decode(encoded, type=type(value)) == value
        assert codec.decode(codec.encode({"all": [value]}), type=dict[str, list[type(value)]]) == {"all": [value]}  # type: ignore[misc]


@codecs
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"order_id": 1}, Both(orderId=1)),
        ({"orderId": 1}, Named(orderId=1)),
        ({"order_id": 1}, Out(order_id=1)),
        ({"orderId": 1, "sums": [2]}, In(orderId=1, grandTotal=2)),
        ({"given_name": "Ada", "age": 36}, Person("Ada", 36)),
        ({"given_name": "Ada", "_age": 36, "length": 0}, Person("Ada", 36)),
    ],
    ids=repr,
)
def test_names_that_the_class_also_reads(codec: Any, data: dict[str, Any], expected: Any) -> None:
    assert codec.decode(codec.encode(data), type=type(expected)) == expected


@codecs
@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        ({"order_id": 1}, Order, r"^\$\.orderId: Field required"),
        ({"given_name": "Ada", "givenName": "Eve"}, Person, r"^\$\.given_name: Person has no such field"),
        ({"_age": 36}, Person, r"^\$\.givenName: missing"),
        ({"order_id": 1}, Struct, "missing required field `orderId`"),
    ],
)
def test_names_that_the_class_does_not_read(codec: Any, data: Any, kind: Any, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        codec.decode(codec.encode(data), type=kind)


@pytest.mark.parametrize("content_type", [None, "application/msgpack"])
def test_state_rpc_and_events_carry_them(content_type: str | None) -> None:
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}}) as client:
        for number, (value, _) in enumerate(VALUES):
            kind = type(value)
            client.state.save("store", "key", value, content_type=content_type)
            assert client.state.get("store", "key", type=kind) == value

            client.rpc.register_method(f"echo{number}", lambda each: each, type=kind)
            method = f"echo{number}"
            assert client.rpc.invoke_method("shop", method, value, content_type=content_type, type=kind) == value

            client.pubsub.publish("bus", f"topic{number}", value, content_type=content_type)
            with client.pubsub.subscribe("bus", f"topic{number}", type=kind) as subscription:
                event = subscription.receive(timeout=30)
                assert isinstance(event, Event)
                assert event.data == value
                event.ack()


# -- classes of attrs and msgspec, and sets: in as JSON and MessagePack, out into the class again

NOW = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@dataclass
class Item:
    qty: int


@attrs.define
class Delivery:
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


@codecs
@pytest.mark.parametrize(
    "value",
    [Delivery(7, [Item(2), Item(3)], note="n"), Delivery(7), Row(7, b"\0\xff", item=Item(1)), [Row(1), Row(2)]],
    ids=repr,
)
def test_round_trip(codec: Any, value: Any) -> None:
    kind = list[Row] if isinstance(value, list) else type(value)
    assert codec.decode(codec.encode(value), type=kind) == value


def test_the_bytes() -> None:
    assert json.encode(Delivery(7, [Item(2)])) == (
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
        ({"id": "7"}, Delivery, r"^\$\.id: expected int, got str"),
        ({}, Delivery, r"^\$\.id: missing"),
        ({"id": 7, "other": 1}, Delivery, r"^\$\.other: Delivery has no such field"),
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
