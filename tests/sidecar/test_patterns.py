"""The patterns of rules: by RE2 in linear time, and by `re` within a bound."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from cloud_runtimes.dapr_server.pubsub.cel import Expression, ExpressionError
from cloud_runtimes.dapr_server.pubsub.patterns import MAX_TEXT, Pattern, TooLong

SLOW = [
    (".*error.*timeout.*retry$", "errortimeout"),
    (".*a.*b.*c$", "ab"),
    ("[a-z]{0,30}x[a-z]{0,30}y", "ab"),
    ("(a|a)?(a|a)?(a|a)?(a|a)?b", "a"),
    ("a?" * 12 + "a" * 12 + "b", "a"),
    (r"\w+@\w+\.\w+", "a"),
]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if google-re2 were not installed."""
    monkeypatch.setitem(sys.modules, "re2", None)


@pytest.fixture(params=["RE2", "re"])
def either(request: pytest.FixtureRequest) -> None:
    if request.param == "re":
        request.getfixturevalue("alone")
    elif sys.version_info >= (3, 15):
        pytest.skip("google-re2 is not on this Python")
    else:
        import re2  # noqa: F401


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^order\.[a-z]+$", "order.created", True),
        ("^created", "order.created", False),
        ("(?i)^ORDER[.](created|deleted)$", "order.deleted", True),
        (".*error.*retry$", "an error, so retry", True),
        ("é$", "café", True),
        ("(?:a|b)c?", "b", True),
        ("a{2,3}", "a", False),
    ],
)
def test_what_matches(pattern: str, text: str, found: bool) -> None:
    assert Pattern(pattern).search(text) is found


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("pattern", ["[", "(?=a)", r"(a)\1", "(a{100}){100}", "a" * 501])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is none|takes no|at most 500"):
        Pattern(pattern)


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="google-re2 is not on this Python")
@pytest.mark.parametrize(("pattern", "unit"), [*SLOW, ("(a+)+$", "a"), ("(a*)*b", "a")])
def test_a_long_text_takes_linear_time(pattern: str, unit: str) -> None:
    """A millisecond for a million characters, where `re` takes hours."""
    begin = time.thread_time()
    Pattern(pattern).search((unit * MAX_TEXT)[: MAX_TEXT - 1] + "-")
    assert time.thread_time() - begin < 5


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("pattern", "unit"), SLOW)
def test_without_re2_time_is_bounded(pattern: str, unit: str) -> None:
    """The longest text that is taken costs parts of a second; a longer one is refused before it is looked at."""

    def search(length: int) -> bool:
        return Pattern(pattern).search((unit * length)[:length])

    most = longest(search)
    assert 50 < most < MAX_TEXT
    begin = time.thread_time()
    search(most)
    assert time.thread_time() - begin < 5
    with pytest.raises(TooLong, match=r"characters: matches takes [0-9,]+ with .*; pip install google-re2 takes more"):
        search(most + 1)


def longest(search: Callable[[int], bool]) -> int:
    """Return the length of the longest text that is taken, by halving."""
    low, high = 1, MAX_TEXT + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            if middle > 1_000_000 or search(middle) is None:
                raise TooLong
            low = middle
        except TooLong:
            high = middle
    return low


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a*){2}", "(a?){1,30}a"])
def test_without_re2_repeated_groups_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no repeated groups, look-around or references: pip install google-re2"):
        Pattern(pattern)


@pytest.mark.usefixtures("either")
def test_a_text_that_is_too_long_has_no_value() -> None:
    rule = Expression("event.data.matches('a')")
    assert rule.matches({"data": "b" * (MAX_TEXT - 1) + "a"})
    with pytest.raises(ExpressionError, match="1,048,577 characters: matches takes 1,048,576"):
        rule.matches({"data": "b" * MAX_TEXT + "a"})


def test_sums_are_bounded() -> None:
    rule = Expression(f"size({' + '.join(['event.data'] * 50)}) > 0")
    assert rule.matches({"data": "x" * 1000})
    for data in ("x" * 100_000, [1] * 100_000):
        with pytest.raises(ExpressionError, match="of more than 1,048,576 elements is not made"):
            rule.matches({"data": data})
