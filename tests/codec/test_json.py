"""JSON over orjson and over the standard library: one body, the same bytes and the same refusals."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import importlib
import math
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pydantic
import pytest

from cloud_runtimes.codec import _json_std
from cloud_runtimes.codec import json as codec
from cloud_runtimes.errors import InvalidArgumentError, PayloadError
from tests.codec.conftest import codec_limits

UTC = datetime.UTC


class Backend(NamedTuple):
    encode: Callable[[Any], bytes]
    decode: Callable[[Any], Any]


@pytest.fixture(params=["orjson", "std"])
def json(request: pytest.FixtureRequest) -> Backend:
    """Each of the two JSON backends in turn."""
    if request.param == "std":
        return Backend(_json_std.encode, _json_std.decode)
    pytest.importorskip("orjson")
    encode, decode = codec._with_orjson()
    return Backend(encode, decode)


@dataclasses.dataclass
class Point:
    x: Any
    _y: Any = 2


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


class Model(pydantic.BaseModel):
    x: Any = None
    when: datetime.datetime = datetime.datetime(2020, 1, 1, tzinfo=UTC)


class Broken(pydantic.BaseModel):
    def model_dump(self, **kwargs: Any) -> Any:
        raise failure


failure: BaseException = RuntimeError("user code")


class Color(enum.Enum):
    RED = "red"
    NAN = math.nan


class Text(enum.StrEnum):
    A = "a"


class Zone(datetime.tzinfo):
    def utcoffset(self, when: datetime.datetime | None) -> Any:
        raise RuntimeError("no offset")


class MyStr(str):
    pass


class MyFloat(float):
    pass


Pair = collections.namedtuple("Pair", "a b")


def test_encodes(json: Backend, subtests: pytest.Subtests) -> None:
    for value, expected in (
        (None, "null"),
        ([True, False, 0, -1, 1.5, "a"], '[true,false,0,-1,1.5,"a"]'),
        ({"a": {}, "b": []}, '{"a":{},"b":[]}'),
        ((1, (2,)), "[1,[2]]"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63), "-9223372036854775808"),
        ('\x00\x1f\x7f"\\/\b\f\n\r\té\u2028\U0001f600', '"\\u0000\\u001f\x7f\\"\\\\/\\b\\f\\n\\r\\té\u2028\U0001f600"'),
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1e-6, "1e-6"),
        (1e-7, "1e-7"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        (-0.0, "-0.0"),
        (Point(1), '{"x":1,"_y":2}'),
        (Slotted(Point("a")), '{"x":{"x":"a","_y":2}}'),
        (Model(x=1), '{"x":1,"when":"2020-01-01T00:00:00Z"}'),
        (Model(), '{"x":null,"when":"2020-01-01T00:00:00Z"}'),
        (Color.RED, '"red"'),
        (Text.A, '"a"'),
        (MyStr("x"), '"x"'),
        (MyFloat(1.5), "1.5"),
        (Pair(1, 2), "[1,2]"),
        (collections.OrderedDict(a=1), '{"a":1}'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (datetime.datetime(2020, 1, 2, 3, 4, 5), '"2020-01-02T03:04:05"'),
        (datetime.datetime(1, 1, 2, 3, 4, 5, 6, tzinfo=UTC), '"0001-01-02T03:04:05.000006+00:00"'),
        (
            datetime.datetime(
                2020, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30, seconds=40))
            ),
            '"2020-01-02T00:00:00+05:30:40"',
        ),
        (datetime.date(2020, 1, 2), '"2020-01-02"'),
        (datetime.time(1, 2, 3), '"01:02:03"'),
        ({"null": None, "text": "null"}, '{"null":null,"text":"null"}'),
    ):
        with subtests.test(value=value, expected=expected):
            assert json.encode(value) == expected.encode()


def nested(levels: int, make: Any = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


def cycle() -> Any:
    here: dict[str, Any] = {}
    here["x"] = [Point(here)]
    return here


def test_refuses(json: Backend, subtests: pytest.Subtests) -> None:
    for value, match in (
        (math.nan, r"^the value: NaN and inf"),
        ({"a": [0, {"b": math.inf}], "c": None}, r"^\$\.a\[1\]\.b: NaN"),
        ((1, -math.inf), r"^\$\[1\]: NaN"),
        ([Point(math.nan)], r"^\$\[0\]\.x: NaN"),
        ([Slotted([None, (math.nan,)])], r"^\$\[0\]\.x\[1\]\[0\]: NaN"),
        ({"m": Model(x=math.nan)}, r"^\$\.m: NaN"),
        (Model(x={"deep": [None, {math.inf}]}), r"^the value: NaN"),
        ([Color.NAN], r"^\$\[0\]: NaN"),
        ([MyFloat("nan")], r"^\$\[0\]: NaN"),
        (collections.OrderedDict(a=math.nan), r"^\$\.a: NaN"),
        ({"a": 2**64}, r"^\$\.a: an int outside"),
        ([-(2**63) - 1], r"^\$\[0\]: an int outside"),
        ({"a": ["\ud800"]}, r"^\$\.a\[0\]: a str with a lone surrogate"),
        ({"\udc00": 1}, "lone surrogate"),
        ({"a": {1: 2}}, r"^\$\.a\[1\]: a key of type int"),
        ({Text.A: 1}, "a key of type Text"),
        ({MyStr("k"): 1}, "a key of type MyStr"),
        ({"a": {1, object()}}, r"^\$\.a\[\d\]: an instance of object"),
        ({"a": b"x"}, r"^\$\.a: bytes has no form in JSON"),
        ([memoryview(b"x")], "memoryview has no form"),
        ([Point(object())], r"^\$\[0\]\.x: an instance of object"),
        (datetime.timedelta(1), "an instance of timedelta"),
        ([datetime.datetime(2020, 1, 1, tzinfo=Zone())], r"^\$\[0\]: RuntimeError: no offset"),
        (nested(255), "deeper than 254"),
        (nested(255, Slotted), "deeper than 254"),
        (cycle(), "deeper than 254"),
    ):
        with subtests.test(value=value, match=match), pytest.raises(PayloadError, match=match):
            json.encode(value)


def test_depth_that_is_allowed(json: Backend, subtests: pytest.Subtests) -> None:
    for make in (lambda v: [v], lambda v: {"k": v}, Slotted):
        with subtests.test(make=make):
            json.encode(nested(200, make))
            assert json.decode(json.encode(nested(128))) == nested(128)
            with codec_limits(depth=254):
                assert json.decode(json.encode(nested(254))) == nested(254)


def test_user_code_that_raises_is_the_cause(json: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PayloadError, match=r"^\$\.a\[0\]: RuntimeError: user code") as caught:
        json.encode({"a": [Broken()]})
    assert caught.value.__cause__ is failure
    missing = Slotted(1)
    del missing.x
    with pytest.raises(PayloadError, match="AttributeError"):
        json.encode([missing])
    monkeypatch.setitem(globals(), "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        json.encode({"a": [Broken()]})


def test_decodes(json: Backend, subtests: pytest.Subtests) -> None:
    for data, expected in (
        (b' \t\r\n{"a": [1, 2.5, null, true, "\\u00e9\\ud83d\\ude00"]} ', {"a": [1, 2.5, None, True, "é\U0001f600"]}),
        ('"é"', "é"),
        (bytearray(b"1"), 1),
        (memoryview(b"1"), 1),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 18446744073709551616.0),
        (b"-9223372036854775808", -(2**63)),
        (b"-9223372036854775809", -9223372036854775808.0),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b"-0", 0),
        (b"-0.0", -0.0),
        (b"1E+2", 100.0),
        (b"1e-999", 0.0),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'"\\u0000\x7f"', "\x00\x7f"),
    ):
        with subtests.test(data=data, expected=expected):
            result = json.decode(data)
            assert result == expected
            assert type(result) is type(expected)
            assert repr(result) == repr(expected)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"[NaN]",
        b"1e999",
        b"-1e999",
        b"1" * 400,
        b"1" * 5000,
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"-",
        b"[1,]",
        b'{"a":1,}',
        b"[1 2]",
        b"{1:2}",
        b"'a'",
        b'"\t"',
        b'"\\x"',
        b'"\\u12"',
        b'"',
        b"tru",
        b"nul",
        b"1 2",
        b"1\x00",
        b"\x0b1",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\uD800": 1}',
        b'["\\ud800x"]',
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xff\xfe1\x00",
        '"\ud800"',
        "\ufeff1",
        5,
        None,
        pytest.param(memoryview(b"1 2 ")[::2], id="memoryview"),
    ],
    ids=lambda v: repr(v)[:24],
)
def test_bad_input(json: Backend, data: Any) -> None:
    with pytest.raises(PayloadError, match="not JSON"):
        json.decode(data)


@pytest.mark.promise("G1")
def test_truncated_anywhere(json: Backend) -> None:
    data = b'{"a":[1.5,true,null,"\\u00e9\xc3\xa9"],"b":{"c":-2}}'
    json.decode(data)
    for end in range(len(data)):
        with pytest.raises(PayloadError):
            json.decode(data[:end])


def test_types() -> None:
    assert codec.decode(b'{"x":1,"_y":3}', type=Point) == Point(1, 3)
    assert codec.decode("[1]", type=list[int]) == [1]
    assert codec.decode("null", type=None) is None
    with pytest.raises(PayloadError, match=r"^\$\[1\]: expected int, got str"):
        codec.decode('[1,"2"]', type=list[int])
    with pytest.raises(InvalidArgumentError, match="not supported"):
        codec.decode("1", type=complex)


def test_backend_is_named() -> None:
    orjson = pytest.importorskip("orjson")
    assert codec.backend == f"orjson {orjson.__version__}"


WITHOUT = """
import sys
sys.modules["orjson"] = None
from cloud_runtimes.codec import json
assert json.backend == "the standard library (orjson is not installed)", json.backend
assert json.encode({"a": 1e-7}) == b'{"a":1e-7}'
assert json.decode(b"[1]", type=list[int]) == [1]
"""

MEMORY = """
import sys
from cloud_runtimes.codec import json
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
value = {"text": "x" * 340}
json.encode(value)
before = rss()
kept = [json.encode(value) for _ in range(20000)]
each = (rss() - before) / 20000
sys.exit(f"{each:.0f} bytes each" if each > 600 else 0)
"""

LIGHT = """
import sys
import cloud_runtimes.codec
heavy = {"asyncio", "logging", "http", "importlib.metadata", "msgpack", "pydantic", "orjson", "dataclasses", "uuid", "decimal"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""


@pytest.mark.parametrize(
    "program",
    [
        WITHOUT,
        pytest.param(MEMORY, marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")),
        LIGHT,
    ],
    ids=["without orjson", "results are small", "import is light"],
)
def test_in_a_process_of_its_own(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_submodules_load_on_first_use() -> None:
    package = importlib.import_module("cloud_runtimes.codec")
    assert package.json is codec
    assert {"json", "msgpack", "cloudevents"} <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
