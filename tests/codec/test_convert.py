"""Strict conversion: what fits, what does not, and where."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime
import decimal
import enum
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Optional, Required, TypedDict, Union

import pydantic
import pytest
import typing_extensions

from cloud_runtimes.codec.convert import convert
from cloud_runtimes.errors import InvalidArgumentError, PayloadError

UTC = datetime.UTC


class Color(enum.Enum):
    RED = "red"
    ONE = 1
    PAIR = (1, 2)
    DAY = datetime.date(2020, 1, 2)


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Item:
    qty: int
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    id: str
    items: list[Item]
    at: datetime.datetime | None = None
    _note: str = ""
    total: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError("negative")


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)
    parent: Optional[Tree] = None  # noqa: UP045


@dataclasses.dataclass
class Other:
    id: str


@dataclasses.dataclass
class Broken:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


class Row(TypedDict):
    id: Required[int]
    name: NotRequired[str]


class Loose(TypedDict, total=False):
    a: int
    b: Required[int]


class Extended(typing_extensions.TypedDict):
    id: int
    name: typing_extensions.NotRequired[str]


class Spot(NamedTuple):
    x: int
    y: float = 0.0


class Model(pydantic.BaseModel):
    id: int
    when: datetime.datetime | None = None


class Outer(pydantic.BaseModel):
    rows: list[Model]


UserId = NewType("UserId", int)
Alias = typing_extensions.TypeAliasType("Alias", "list[int]")
Numbers = typing_extensions.TypeAliasType("Numbers", list[int])
T = typing.TypeVar("T")

DAY = datetime.date(2020, 1, 2)
NOW = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (None, None, None),
        (None, type(None), None),
        (True, bool, True),
        (1, int, 1),
        (1, float, 1.0),
        (1.5, float, 1.5),
        ("a", str, "a"),
        (b"a", bytes, b"a"),
        ({"a": [1]}, Any, {"a": [1]}),
        ({1}, object, {1}),
        ([1, "a"], list, [1, "a"]),
        ([1, "a"], typing.List, [1, "a"]),  # noqa: UP006
        ([1], list[int], [1]),
        ((1, 2), list[int], [1, 2]),
        ([1], abc.Sequence[float], [1.0]),
        ([1], typing.Sequence[int], [1]),
        ([1], abc.Iterable, [1]),
        ([1, 1], set[int], {1}),
        ([1], frozenset, frozenset([1])),
        ([1], abc.Set[int], {1}),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ([1, 2, 3], tuple, (1, 2, 3)),
        ([], tuple[()], ()),
        ({"a": 1}, dict, {"a": 1}),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"2020-01-02": 1}, abc.Mapping[datetime.date, int], {DAY: 1}),
        ({1: "a"}, dict[int, str], {1: "a"}),
        (1, int | str, 1),
        ("1", int | str, "1"),
        (1, Union[float, int], 1),  # noqa: UP007
        ("2020-01-02", datetime.date | str, "2020-01-02"),
        ("1.5", Union[decimal.Decimal, Any], "1.5"),  # noqa: UP007
        ("2020-01-02", datetime.date | None, DAY),
        (None, Optional[int], None),  # noqa: UP045
        ({"id": "a"}, Other | Item, Other("a")),
        ({"qty": 1}, Other | Item, Item(1)),
        ([1], list[str] | list[int], [1]),
        ("a", Literal["a", 1], "a"),
        (1, Literal["a", 1], 1),
        ("red", Literal[Color.RED], Color.RED),
        ("red", Color, Color.RED),
        (1, Color, Color.ONE),
        ([1, 2], Color, Color.PAIR),
        ("2020-01-02", Color, Color.DAY),
        (Color.RED, Color, Color.RED),
        (3, Flags, Flags.A | Flags.B),
        ("2020-01-02T03:04:05+00:00", datetime.datetime, NOW),
        ("2020-01-02T03:04:05Z", datetime.datetime, NOW),
        (NOW, datetime.datetime, NOW),
        ("2020-01-02", datetime.date, DAY),
        ("01:02:03", datetime.time, datetime.time(1, 2, 3)),
        (str(ID), uuid.UUID, ID),
        ("1.50", decimal.Decimal, decimal.Decimal("1.50")),
        ({"qty": 1}, Item, Item(1)),
        ({"qty": 1, "tags": ["a"]}, Item, Item(1, {"a"})),
        ({"id": "a", "items": [{"qty": 2}], "_note": "n", "total": 0}, Order, Order("a", [Item(2)], _note="n")),
        ({"name": "r", "children": [{"name": "c"}], "parent": None}, Tree, Tree("r", [Tree("c")])),
        ({"id": 1}, Row, {"id": 1}),
        ({"id": 1, "name": "n"}, Row, {"id": 1, "name": "n"}),
        ({"b": 1}, Loose, {"b": 1}),
        ({"id": 1}, Extended, {"id": 1}),
        ([1], Spot, Spot(1)),
        ([1, 2], Spot, Spot(1, 2.0)),
        (5, UserId, 5),
        (5, Annotated[int, "unit"], 5),
        ([5], Numbers, [5]),
        ({"id": 1, "when": "2020-01-02T03:04:05Z"}, Model, Model(id=1, when=NOW)),
        ([{"id": 1}], list[Model], [Model(id=1)]),
    ],
    ids=lambda v: str(v)[:40],
)
def test_fits(value: Any, annotation: Any, expected: Any) -> None:
    for _ in range(2):  # compiled, then remembered
        result = convert(value, annotation)
        assert result == expected
        assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (0, None, "the value: expected None, got int"),
        (1, bool, "the value: expected bool, got int"),
        (True, int, "the value: expected int, got True"),
        (True, float, "the value: expected float, got True"),
        ("1", int, "the value: expected int, got str"),
        (1.0, int, "the value: expected int, got float"),
        (1, str, "the value: expected str, got int"),
        ("a", bytes, "the value: expected bytes, got str"),
        (10**400, float, "the value: an int beyond the range of a float"),
        (None, list, "the value: expected list, got None"),
        ("ab", list[str], "the value: expected list, got str"),
        ({"a": 1}, list, "the value: expected list, got dict"),
        ([1, "2"], list[int], "$[1]: expected int, got str"),
        ([[1]], set, "the value: expected set, got an item that cannot be hashed"),
        ([1], tuple[int, str], "the value: expected 2 items, got 1"),
        ([1, 2], tuple[int, str], "$[1]: expected str, got int"),
        ([1], dict, "the value: expected dict, got list"),
        ({"a": "1"}, dict[str, int], "$.a: expected int, got str"),
        ({1: 1}, dict[str, int], "$[1]: expected str, got int"),
        (1.5, int | str, "the value: expected int | str, got float"),
        ({"items": [{"qty": "x"}]}, dict[str, list[Item]], "$.items[0].qty: expected int, got str"),
        ({"qty": "x"}, Item | None, "$.qty: expected int, got str"),
        (True, Literal[1], "the value: expected one of 1, got True"),
        (1, Literal[True], "the value: expected one of True, got 1"),
        ("blue", Color, "the value: expected Color, got 'blue'"),
        (True, Color, "the value: expected Color, got True"),
        (8, Flags, "the value: expected Flags, got 8"),
        ("soon", datetime.datetime, "the value: expected datetime, got a str that is none"),
        (5, datetime.date, "the value: expected date, got int"),
        (NOW, datetime.date, "the value: expected date, got datetime"),
        ("x", uuid.UUID, "the value: expected UUID, got a str that is none"),
        ("x", decimal.Decimal, "the value: expected Decimal, got a str that is none"),
        (1.5, decimal.Decimal, "the value: expected Decimal, got float"),
        ({}, Item, "$.qty: missing"),
        ({"qty": 1, "extra": 2}, Item, "$.extra: Item has no such field"),
        ({1: 1}, Item, "$[1]: Item has no such field"),
        ([], Item, "the value: expected Item, got list"),
        ({"value": -1}, Positive, "the value: Positive: negative"),
        ({"id": "a", "items": [{"qty": 1}, {}]}, Order, "$.items[1].qty: missing"),
        ({"id": "a", "items": [], "total": "x"}, Order, "$.total: expected int, got str"),
        (
            {"name": "r", "children": [{"name": "c", "children": [{"name": 1}]}]},
            Tree,
            "$.children[0].children[0].name: expected str, got int",
        ),
        ({"name": "n"}, Row, "$.id: missing"),
        ({"id": 1, "x": 1}, Row, "$.x: Row has no such field"),
        ({"a": 1}, Loose, "$.b: missing"),
        ({"id": "1"}, Extended, "$.id: expected int, got str"),
        ([], Spot, "the value: expected 2 items, got 0"),
        (["1"], Spot, "$.x: expected int, got str"),
        ({"id": "x"}, Model, "$.id: Input should be a valid integer"),
        ([{"rows": [{"id": 1}, {}]}], list[Outer], "$[0].rows[1].id: Field required"),
        ([], Model, "the value: expected Model, got list"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_does_not_fit(value: Any, annotation: Any, message: str) -> None:
    with pytest.raises(PayloadError) as caught:
        convert(value, annotation)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "annotation",
    [complex, "str", T, typing.Callable, list["Nowhere"], list[complex], Broken, 5, typing.Generic, [], dict[str, complex], int | complex, Alias],  # type: ignore[name-defined] # noqa: F821
    ids=str,
)
def test_unsupported(annotation: Any) -> None:
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="type=") as caught:
            convert({"x": 1}, annotation)
        assert not isinstance(caught.value, PayloadError)


def test_order_of_a_union_is_kept() -> None:
    """Other | Alike equals Alike | Other, and the first that fits is not the same."""

    @dataclasses.dataclass
    class Alike:
        id: str

    for _ in range(2):
        assert convert({"id": "a"}, Other | Alike) == Other("a")
        assert convert({"id": "a"}, Alike | Other) == Alike("a")
        assert convert([{"id": "a"}], list[Other | Alike]) == [Other("a")]
        assert convert([{"id": "a"}], list[Alike | Other]) == [Alike("a")]


def test_path_and_cause() -> None:
    with pytest.raises(PayloadError, match=r"^data\[0\]\['a b'\]: expected int"):
        convert([{"a b": "x"}], list[dict[str, int]], "data")
    with pytest.raises(PayloadError) as caught:
        convert({"id": "x"}, Model)
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)


def test_deep_recursive_data_ends_in_a_payload_error() -> None:
    value: dict[str, Any] = {"name": "leaf"}
    for _ in range(5000):
        value = {"name": "x", "children": [value]}
    with pytest.raises(PayloadError, match="stack"):
        convert(value, Tree)


def test_compiled_annotations_are_not_kept_without_end() -> None:
    from cloud_runtimes.codec import convert as module

    for i in range(module._TOO_MANY_TYPES + 10):
        assert convert(i, Literal[i]) == i
    assert len(module._compiled) <= module._TOO_MANY_TYPES
