"""Types that are made at random, documents that mostly fit them, and what can be seen of the outcome."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json as std
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, Union

import attrs
import msgspec
import pydantic

from cloud_runtimes.errors import PayloadError


class Color(enum.Enum):
    RED = "red"
    GREEN = "grün"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    A = "a"
    ONE = 1


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Nest(NamedTuple):
    name: str
    below: tuple[Nest, ...] = ()
    kin: Nest | None = None


@dataclasses.dataclass
class Placed:
    kind: Literal["placed"]
    qty: int


@dataclasses.dataclass
class Cancelled:
    kind: Literal["cancelled"]
    why: str | None = None


class Checked:
    """A value that its class looks at."""


@dataclasses.dataclass
class Positive(Checked):
    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError("negative")


@dataclasses.dataclass
class Counted:
    a: int
    total: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class Noted:
    a: int
    seed: dataclasses.InitVar[int] = 3


@dataclasses.dataclass
class Tree:
    name: str
    below: list[Tree] = dataclasses.field(default_factory=list)
    kin: Tree | None = None


@dataclasses.dataclass
class Guarded:
    a: int

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value * 2 if type(value) is int else value)


@dataclasses.dataclass
class Computed:
    """A field that is a property."""

    a: int = 0

    @property
    def b(self) -> int:
        return self.a + 1


class Quiet(pydantic.BaseModel):
    id: int
    name: str | None = None
    price: float = 1.0


class Struct(msgspec.Struct):
    id: int
    name: str
    price: float = 1.5
    rest: dict[str, int] = {}


class Renamed(msgspec.Struct, rename="camel", kw_only=True):
    the_id: int | str | None
    the_inner: Struct | None = None
    the_rest: list[Any] = []

    def __post_init__(self) -> None:
        if self.the_id == 2:
            raise ValueError("two")


class Bounded(msgspec.Struct):
    id: Annotated[int, msgspec.Meta(gt=1)]


class Tagged(msgspec.Struct, tag="t"):
    id: int


class Listed(msgspec.Struct, array_like=True):
    id: int


@attrs.define
class Attrs:
    a: int
    _hidden: str = "h"
    late: int = attrs.field(init=False, default=3)


LEAVES: list[Any] = [
    int, float, str, bool, None, Any, bytes, datetime.datetime, datetime.date, datetime.time, uuid.UUID, decimal.Decimal,
    Color, Level, Mixed, Literal["a", "b"], Literal[1, 2], Literal["a", 1], Annotated[int, "x"], dict, list,
    Positive, Counted, Noted, Tree, Guarded, Computed, Quiet, Struct, Attrs, Pair, Nest, Renamed, Bounded, Tagged, Listed,
    Placed | Cancelled, Cancelled | Placed, Placed | None | Cancelled, Attrs | Struct | Positive, list[Any] | tuple[int, ...],
]  # fmt: skip
TEXTS = [
    "",
    "a",
    "red",
    "grün",
    'q"\\\n',
    "\u2603 x" * 9,
    "😀",
    "z" * 70,
    "x/y",
    "1.5",
    "2020-01-02",
    "2020-01-02T03:04:05+00:00",
]
NUMBERS = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "18446744073709551615",
    "9223372036854775808",
    "123456789012345678",
    "1" * 25,
    "-9007199254740993",
]
FRACTIONS = [
    "0.0",
    "-0.0",
    "19.99",
    "1e5",
    "1E-7",
    "0.1",
    "1.7976931348623157e308",
    "5e-324",
    "1e400",
    "123456789.123456789123",
    "1.0e2",
]
ODD = [
    "null",
    "true",
    "[]",
    "{}",
    '"text"',
    "1",
    "1.5",
    '{"a": 1}',
    "[1]",
    '"\\ud800"',
    '"\\u00e9\\/"',
    "nul",
    "01",
    "1.",
    "-",
    "NaN",
    '"open',
    "[1,]",
]


class Types:
    """Makes types and documents."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._count = 0

    def annotation(self, depth: int) -> Any:
        """Return a random annotation."""
        pick = self.random.random()
        if depth <= 0 or pick < 0.4:
            return self.random.choice(LEAVES)
        if pick < 0.7:
            return self.record(depth)
        inner = self.annotation(depth - 1)
        other = self.annotation(depth - 1)
        makers: list[Callable[[], Any]] = [
            lambda: list[inner],  # type: ignore[valid-type]
            lambda: Sequence[inner],  # type: ignore[valid-type]
            lambda: tuple[inner, ...],  # type: ignore[valid-type]
            lambda: tuple[inner, other],  # type: ignore[valid-type]
            lambda: set[str] | None,
            lambda: frozenset[int],
            lambda: dict[str, inner],  # type: ignore[valid-type]
            lambda: Mapping[str, Any],
            lambda: dict[int, inner],  # type: ignore[valid-type]
            lambda: inner | None if inner is not None else None,
            lambda: int | str | None,
            lambda: Union[inner, other],  # noqa: UP007  # not all of them have |
            lambda: int | float,
        ]
        return self.random.choice(makers)()

    def record(self, depth: int) -> Any:
        """Return a random class with fields."""
        self._count += 1
        name = f"Made{self._count}"
        fields = [
            (f"{'_' if self.random.random() < 0.05 else ''}f{i}", self.annotation(depth - 1))
            for i in range(self.random.randint(0, 6))
        ]
        kind = self.random.choice(["plain", "plain", "slots", "frozen", "child", "dict"])
        if kind == "dict":
            hints = {name: NotRequired[hint] if self.random.random() < 0.3 else hint for name, hint in fields}
            return TypedDict(name, hints)  # type: ignore[operator]
        rows: list[Any] = []
        for field, hint in fields:
            default = self.random.random()
            if default < 0.15 or (rows and len(rows[-1]) == 3):
                row = (
                    dataclasses.field(default_factory=list)
                    if default < 0.1
                    else dataclasses.field(default="by default")
                )
                rows.append((field, hint, row))
            else:
                rows.append((field, hint))
        bases = (dataclasses.make_dataclass(f"{name}Base", [("base", int)]),) if kind == "child" else ()
        if kind == "child":
            rows = [(*row[:2], row[2] if len(row) == 3 else dataclasses.field(default=None)) for row in rows]
        return dataclasses.make_dataclass(name, rows, bases=bases, slots=kind == "slots", frozen=kind == "frozen")

    def document(self, hint: Any, depth: int = 6) -> str:
        """Return JSON that mostly fits."""
        choose = self.random
        if choose.random() < 0.01:
            return choose.choice(ODD)
        if depth <= 0:
            return "null"
        origin, arguments = getattr(hint, "__origin__", None), getattr(hint, "__args__", ())
        if origin in (NotRequired, Annotated) or type(hint) is type(Annotated[int, "x"]):
            return self.document(arguments[0] if origin is NotRequired else hint.__origin__, depth)
        if hint is Any:
            return choose.choice(ODD[:9])
        if hint is int or hint is float:
            return (
                choose.choice(NUMBERS[:5] if choose.random() < 0.8 else NUMBERS)
                if hint is int or choose.random() < 0.3
                else choose.choice(FRACTIONS)
            )
        if hint is str or hint is bytes:
            return std.dumps(choose.choice(TEXTS), ensure_ascii=choose.random() < 0.3)
        if hint is bool:
            return choose.choice(["true", "false"])
        if hint is None or hint is type(None):
            return "null"
        simple: dict[Any, list[str]] = {
            datetime.datetime: ['"2020-01-02T03:04:05.000001+02:00"', '"2020-01-02"', '"soon"'],
            datetime.date: ['"2020-01-02"', '"2020-13-02"'],
            datetime.time: ['"03:04"', '"25:00"'],
            uuid.UUID: ['"12345678123456781234567812345678"', '"12345678-1234-5678-1234-567812345678"', '"x"'],
            decimal.Decimal: ['"1.50"', '"-1E+3"', '"x"'],
            Color: ['"red"', '"grün"', '"blue"'],
            Level: ["1", "2", "3", "1.0", "true"],
            Mixed: ['"a"', "1", "1.0"],
            Literal["a", "b"]: ['"a"', '"b"', '"c"'],
            Literal[1, 2]: ["1", "2", "true", "1.0"],
            Literal["a", 1]: ['"a"', "1"],
            dict: ["{}", '{"a": [1, {"b": null}]}', "[]"],
            list: ["[]", '[1, "a", {}]', "{}"],
            Positive: ['{"value": 1}', '{"value": -1}'],
            Pair: ['[1, "a"]', "[1]", "[]", '["a", 1]'],
            Counted: ['{"a": 1}', '{"a": 1, "total": 2}', '{"a": 1, "total": "x"}'],
            Noted: ['{"a": 1}', '{"a": 1, "seed": 2}'],
            Tree: ['{"name": "a"}', '{"name": "a", "below": [{"name": "b", "kin": {"name": "c", "kin": null}}]}', '{"below": []}'],
            Guarded: ['{"a": 2}'],
            Computed: ['{"a": 2}', '{"b": 2}', "{}"],
            Quiet: ['{"id": 1, "name": "a", "price": 2}', '{"id": "x"}', '{"id": 1}'],
            Struct: ['{"id": 1, "name": "a", "rest": {"q": 1}}', '{"id": 1}', '{"id": 1, "name": "b", "price": 1e16}'],
            Renamed: ['{"theId": 1, "theInner": {"id": 1, "name": "a"}}', '{"theId": "x", "theRest": [1]}', '{"the_id": 1}', '{"theId": 2}', '{"theId": 1.0}'],
            Bounded: ['{"id": 1}', '{"id": 2}'],
            Tagged: ['{"type": "t", "id": 1}', '{"id": 1}'],
            Listed: ["[1]", '{"id": 1}'],
            Nest: ['["a"]', '["a", [["b"]], null]', '["a", [], ["c", [1]]]'],
            Placed: ['{"kind": "placed", "qty": 1}', '{"kind": "cancelled"}'],
            Cancelled: ['{"kind": "cancelled", "why": "x"}', '{"kind": "placed"}', '{"kind": "cancelled", "qty": 1}'],
            Attrs: ['{"a": 1, "_hidden": "x"}', '{"a": 1, "hidden": "x"}', '{"a": 1, "late": 4}'],
        }  # fmt: skip
        for each, documents in simple.items():
            if hint == each and type(hint) is type(each):
                return choose.choice(documents)
        if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
            return self._object({each.name: each.type for each in dataclasses.fields(hint)}, depth)
        if hasattr(hint, "__required_keys__"):
            return self._object(hint.__annotations__, depth)
        if origin in (dict, Mapping):  # type: ignore[attr-defined]
            item = arguments[-1]
            keys = [std.dumps(choose.choice(TEXTS)) for _ in range(choose.randint(0, 3))]
            return "{" + ",".join(f"{key}: {self.document(item, depth - 1)}" for key in keys) + "}"
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            return f"[{','.join(self.document(each, depth - 1) for each in arguments)}]"
        if origin in (list, tuple, set, frozenset) or origin is Sequence:  # type: ignore[attr-defined]
            items = [self.document(arguments[0], depth - 1) for _ in range(choose.randint(0, 3))]
            return f"[{' , '.join(items)}]"
        return self.document(choose.choice(arguments), depth - 1) if arguments else "null"

    def _object(self, hints: Mapping[str, Any], depth: int) -> str:
        choose = self.random
        items = [
            (std.dumps(name), self.document(hint, depth - 1)) for name, hint in hints.items() if choose.random() > 0.03
        ]
        if choose.random() < 0.2:
            choose.shuffle(items)
        if items and choose.random() < 0.03:
            items.append(choose.choice(items))
        if choose.random() < 0.03:
            items.append(('"more"', "1"))
        space = " " if choose.random() < 0.3 else ""
        return "{" + f",{space}".join(f"{name}{space}:{space}{value}" for name, value in items) + "}"


def seen(value: Any) -> Any:
    """Return a value as what `==` and types tell apart."""
    if dataclasses.is_dataclass(value) or hasattr(value, "__attrs_attrs__"):
        names = [each.name for each in (dataclasses.fields(value) if dataclasses.is_dataclass(value) else type(value).__attrs_attrs__)]  # type: ignore[attr-defined]
        return (
            type(value),
            [(name, seen(getattr(value, name))) for name in names],
            sorted(getattr(value, "__dict__", ())),
        )
    if isinstance(value, dict):
        return type(value), [(name, seen(each)) for name, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [seen(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, value))
    return type(value), repr(value)


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives or refuses."""
    try:
        return seen(call())
    except PayloadError as error:
        return PayloadError, str(error)
