"""The MessagePack twins: forms, limits, refusals; then against each other and against the msgpack package."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import gc
import math
import struct
import uuid
from types import ModuleType
from typing import Any

import msgpack as oracle
import pydantic
import pytest

from cloud_runtimes.errors import PayloadError

UTC = datetime.UTC


@dataclasses.dataclass
class Point:
    x: Any
    _y: Any = 2


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


class Model(pydantic.BaseModel):
    when: datetime.datetime
    data: bytes = b"\x00"


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(enum.StrEnum):
    A = "a"


class MyStr(str):
    def encode(self, *args: Any, **kwargs: Any) -> bytes:  # the wire does not ask a subclass
        return b"wrong"


class MyInt(int):
    def __le__(self, other: object) -> bool:
        return False


class MyList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(["wrong"])


Pair = collections.namedtuple("Pair", "a b")

VECTORS: list[tuple[Any, str]] = [
    (None, "c0"),
    (False, "c2"),
    (True, "c3"),
    (0, "00"),
    (127, "7f"),
    (128, "cc80"),
    (255, "ccff"),
    (256, "cd0100"),
    (0xFFFF, "cdffff"),
    (0x10000, "ce00010000"),
    (0xFFFFFFFF, "ceffffffff"),
    (0x100000000, "cf0000000100000000"),
    (2**63, "cf8000000000000000"),
    (2**64 - 1, "cfffffffffffffffff"),
    (-1, "ff"),
    (-32, "e0"),
    (-33, "d0df"),
    (-128, "d080"),
    (-129, "d1ff7f"),
    (-32768, "d18000"),
    (-32769, "d2ffff7fff"),
    (-(2**31), "d280000000"),
    (-(2**31) - 1, "d3ffffffff7fffffff"),
    (-(2**63), "d38000000000000000"),
    (0.0, "cb0000000000000000"),
    (-0.0, "cb8000000000000000"),
    (1.5, "cb3ff8000000000000"),
    (math.inf, "cb7ff0000000000000"),
    (-math.inf, "cbfff0000000000000"),
    ("", "a0"),
    ("a" * 31, "bf" + "61" * 31),
    ("a" * 32, "d920" + "61" * 32),
    ("a" * 255, "d9ff" + "61" * 255),
    ("a" * 256, "da0100" + "61" * 256),
    ("a" * 0xFFFF, "daffff" + "61" * 0xFFFF),
    ("a" * 0x10000, "db00010000" + "61" * 0x10000),
    ("é\U0001f600\x00", "a7c3a9f09f988000"),
    (b"", "c400"),
    (b"\xff" * 255, "c4ff" + "ff" * 255),
    (b"\xff" * 256, "c50100" + "ff" * 256),
    (b"\xff" * 0x10000, "c600010000" + "ff" * 0x10000),
    ([], "90"),
    ([1] * 15, "9f" + "01" * 15),
    ([1] * 16, "dc0010" + "01" * 16),
    ([1] * 0xFFFF, "dcffff" + "01" * 0xFFFF),
    ([1] * 0x10000, "dd00010000" + "01" * 0x10000),
    ({}, "80"),
    ({"a": None}, "81a161c0"),
    ({None: 1, True: 2, b"": 3, 1.5: 4, -5: 5}, "85c001c302c40003cb3ff800000000000004fb05"),
]

TIMES: list[tuple[datetime.datetime, str]] = [
    (datetime.datetime(1970, 1, 1, tzinfo=UTC), "d6ff00000000"),
    (datetime.datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC), "d6ffffffffff"),
    (datetime.datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC), "d7ff0000000100000000"),
    (datetime.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), "d7ff00000fa000000000"),
    (
        datetime.datetime(2514, 5, 30, 1, 53, 3, 999999, tzinfo=UTC),
        "d7ff" + (999_999_000 << 34 | (1 << 34) - 1).to_bytes(8, "big").hex(),
    ),
    (datetime.datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC), "c70cff000000000000000400000000"),
    (datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "c70cff3b9ac618ffffffffffffffff"),
    (datetime.datetime(1, 1, 1, tzinfo=UTC), "c70cff00000000fffffff1886e0900"),
    (datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "c70cff3b9ac6180000003afff4417f"),
]


@pytest.mark.promise("G2")
def test_vectors(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for value, expected in VECTORS:
        with subtests.test(value=value, expected=expected):
            assert impl.encode(value).hex() == expected
            back = impl.decode(bytes.fromhex(expected))
            assert back == value
            assert type(back) is type(value)


def test_map_widths(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for count in (0, 15, 16, 255, 256, 0xFFFF, 0x10000):
        with subtests.test(count=count):
            value = dict.fromkeys(range(count))
            out = impl.encode(value)
            wide = b"\xde" + count.to_bytes(2, "big") if count <= 0xFFFF else b"\xdf" + count.to_bytes(4, "big")
            assert out.startswith(bytes([0x80 | count]) if count < 16 else wide)
            assert impl.decode(out) == value


def test_nan(impl: ModuleType) -> None:
    assert impl.encode(math.nan).hex() == "cb7ff8000000000000"
    assert math.isnan(impl.decode(bytes.fromhex("cb7ff8000000000000")))


def test_timestamps(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for value, expected in TIMES:
        with subtests.test(value=value, expected=expected):
            assert impl.encode(value).hex() == expected
            back = impl.decode(bytes.fromhex(expected))
            assert back == value
            assert back.tzinfo is UTC


def test_timestamp_of_another_zone(impl: ModuleType) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30, seconds=7))
    value = datetime.datetime(1970, 1, 1, 5, 30, 7, tzinfo=zone)
    assert impl.encode(value).hex() == "d6ff00000000"


@pytest.mark.promise("G2")
def test_decodes_longer_forms_too(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for data, value in (
        ("ca3fc00000", 1.5),
        ("cf0000000000000001", 1),
        ("d3ffffffffffffffff", -1),
        ("d000", 0),
        ("d900", ""),
        ("db00000000", ""),
        ("dc0000", []),
        ("dd0000000101", [1]),
        ("df00000000", {}),
        ("c704ff00000001", datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("c80004ff00000001", datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("c900000008ff00000fa000000000", datetime.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ("d7ff" + ((1999 << 34) | 1).to_bytes(8, "big").hex(), datetime.datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)),
        ("c70cff3b9ac9ff0000000000000000", datetime.datetime(1970, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)),
        ("82a16101a16102", {"a": 2}),
        ("8201a161cb3ff0000000000000a162", {1: "b"}),
    ):
        with subtests.test(data=data, value=value):
            assert impl.decode(bytes.fromhex(data)) == value


def test_what_values_become(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for value, same_as in (
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (memoryview(struct.pack("2i", 1, 2)).cast("i"), struct.pack("2i", 1, 2)),
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        (Point(1), {"x": 1, "_y": 2}),
        (Slotted([Point(1)]), {"x": [{"x": 1, "_y": 2}]}),
        (Color.RED, "red"),
        (Number.ONE, 1),
        (Text.A, "a"),
        ({Text.A: 1, Number.ONE: 2}, {"a": 1, 1: 2}),
        (MyStr("x"), "x"),
        (MyInt(300), 300),
        (MyList([1]), [1]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (decimal.Decimal("1.50"), "1.50"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.time(1, 2, 3), "01:02:03"),
        (
            Model(when=datetime.datetime(1970, 1, 1, tzinfo=UTC)),
            {"when": datetime.datetime(1970, 1, 1, tzinfo=UTC), "data": b"\x00"},
        ),
    ):
        with subtests.test(value=value, same_as=same_as):
            assert impl.encode(value) == impl.encode(same_as)


def test_ordered_dict_keeps_its_own_order(impl: ModuleType) -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert list(impl.decode(impl.encode(value))) == ["b", "a"]


def nested(levels: int, make: Any = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


def test_depth(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for make in (lambda v: [v], lambda v: {"k": v}, lambda v: (v,), Point):
        with subtests.test(make=make):
            out = impl.encode(nested(128, make))
            impl.decode(out)
            with pytest.raises(PayloadError, match="deeper than 128"):
                impl.encode(nested(129, make))
            deeper = b"\x91" + out
            with pytest.raises(PayloadError, match="deeper than 128"):
                impl.decode(deeper)


def test_cycles(impl: ModuleType) -> None:
    here: list[Any] = []
    here.append(here)
    there: dict[str, Any] = {}
    there["x"] = Point(there)
    for value in (here, there):
        with pytest.raises(PayloadError, match="deeper than 128"):
            impl.encode(value)
    here.clear()
    there.clear()


class Selfish(pydantic.BaseModel):
    def model_dump(self, **kwargs: Any) -> Any:
        return self


REFUSED: list[tuple[Any, str]] = [
    (2**64, r"^the value: an int outside"),
    (-(2**63) - 1, r"^the value: an int outside"),
    (10**5000, r"^the value: an int outside"),
    ({"items": [0, 0, 0, Point({1j})]}, r"^\$\.items\[3\]\.x\[0\]: an instance of complex cannot"),
    ({"a b": object()}, r"^\$\['a b'\]: an instance of object"),
    ([1, "\ud800"], r"^\$\[1\]: a str with a lone surrogate"),
    ({"\udfff": 1}, r"^\$\['\\udfff'\]: a str with a lone surrogate"),
    ({(1, 2): 3}, r"^\$\[<tuple>\]: a key of type tuple"),
    ({Color.RED: 3}, r"a key of type Color"),
    ({datetime.date(2020, 1, 1): 3}, r"a key of type date"),
    (datetime.datetime(2020, 1, 1), r"^the value: a datetime without tzinfo.*give it one"),
    (memoryview(b"abcd")[::2], r"not contiguous"),
    (print, r"an instance of builtin_function"),
    (Selfish(), r"does not come down to a builtin"),
    (1j, r"an instance of complex"),
    (datetime.timedelta(1), r"an instance of timedelta"),
]


def test_refused(impl: ModuleType, subtests: pytest.Subtests) -> None:
    for value, match in REFUSED:
        with subtests.test(value=value, match=match), pytest.raises(PayloadError, match=match):
            impl.encode(value)


class Raising(pydantic.BaseModel):
    def model_dump(self, **kwargs: Any) -> Any:
        raise kwargs_error


kwargs_error: BaseException = RuntimeError("user code")


def test_user_code_that_raises_is_the_cause(impl: ModuleType) -> None:
    with pytest.raises(PayloadError, match=r"^\$\.a\[0\]: RuntimeError: user code") as caught:
        impl.encode({"a": [Raising()]})
    assert caught.value.__cause__ is kwargs_error
    missing = Slotted(1)
    del missing.x
    with pytest.raises(PayloadError, match="AttributeError") as caught:
        impl.encode([missing])
    assert isinstance(caught.value.__cause__, AttributeError)


def test_interrupts_pass(impl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "kwargs_error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        impl.encode({"a": [Raising()]})
    monkeypatch.setitem(globals(), "kwargs_error", MemoryError())
    with pytest.raises(MemoryError):
        impl.encode({"a": [Raising()]})


class Meddler(pydantic.BaseModel):
    """Runs code while its container is being encoded."""

    act: Any

    def model_dump(self, **kwargs: Any) -> Any:
        self.act()
        gc.collect()
        return 1


def test_containers_that_change_while_encoded(impl: ModuleType) -> None:
    many = {f"k{i}": i for i in range(5)}
    cases: list[Any] = []
    for act in (lambda v: v.clear(), lambda v: v.update(many), lambda v: v.pop("z")):
        box: dict[str, Any] = {}
        box.update(a=[1, 2], m=Meddler(act=lambda box=box, act=act: act(box)), z="x" * 50)
        cases.append(box)
    for change in (lambda v: v.clear(), lambda v: v.extend(range(5000)), lambda v: v.pop()):
        row: list[Any] = []
        row.extend(["y" * 50, Meddler(act=lambda row=row, change=change: change(row)), "z" * 50])
        cases.append(row)
    last: dict[str, Any] = {"a": 1}
    last["m"] = Meddler(act=lambda: last.update(b=2))
    tail: list[Any] = [1]
    tail.append(Meddler(act=lambda: tail.append(2)))
    for value in (*cases, last, tail):
        with pytest.raises(PayloadError, match="changed its size"):
            impl.encode([value])


def test_keys_that_meet_in_a_cache_stay_apart(impl: ModuleType) -> None:
    keys = [chr(97 + i % 26) * n + str(i) for n in (0, 1, 3, 7, 8, 20, 38, 39, 40, 41) for i in range(700)]
    keys += ["é" + key for key in keys[:50]]
    for _ in range(2):
        for key in keys:
            assert impl.decode(impl.encode({key: 1})) == {key: 1}


@pytest.mark.promise("G2")
def test_agrees_with_the_msgpack_package(impl: ModuleType) -> None:
    value = {
        "a": [1, 2.5, None, "é"],
        "b": {"c": b"x"},
        "t": datetime.datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    }
    assert impl.encode(value) == oracle.packb(value, datetime=True)
    assert impl.decode(oracle.packb(value, datetime=True)) == value
