"""JSON over orjson against JSON over the standard library, on generated values: the same bytes, the same values, refused alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloud_runtimes.codec import _json_std
from cloud_runtimes.codec import json as codec
from cloud_runtimes.errors import PayloadError

pytest.importorskip("orjson")


@dataclasses.dataclass
class Point:
    x: Any
    _y: Any = 2


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=8) | st.dictionaries(st.text(), v, max_size=8), max_leaves=20
)
wild = st.recursive(
    scalars
    | st.floats()
    | st.integers()
    | st.text(st.characters())
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.uuids()
    | st.decimals()
    | st.binary(),
    lambda v: st.lists(v, max_size=4)
    | st.tuples(v)
    | st.dictionaries(st.text() | st.integers(), v, max_size=4)
    | v.map(Point)
    | v.map(Slotted),
    max_leaves=8,
)


def outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return repr(function(argument))
    except PayloadError as error:
        return PayloadError if function in (_json_std.decode, codec.decode) else str(error)


@given(value=wild)
def test_both_write_the_same_or_refuse_alike(value: Any) -> None:
    assert outcome(codec.encode, value) == outcome(_json_std.encode, value)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@example(9.5e-5)
@example(1e22)
def test_both_write_floats_alike(value: float) -> None:
    assert codec.encode(value) == _json_std.encode(value)


@pytest.mark.promise("G6")
@given(data=st.binary(max_size=20) | st.text('[]{}:,"\\u0dD8eE+-.1 ntrulfase', max_size=20))
@example("[]\x0c")
def test_both_read_the_same_or_refuse_alike(data: Any) -> None:
    assert outcome(codec.decode, data) == outcome(_json_std.decode, data)


@given(value=values)
def test_round_trip(value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value
    assert _json_std.decode(_json_std.encode(value)) == value
