"""The grammar of dotenv files."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes.components.config_file.dotenv import parse

GOOD: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("\n\n  \n\t\n", {}),
    ("# comment", {}),
    ("A=1", {"A": "1"}),
    ("A=1\nB=2\n", {"A": "1", "B": "2"}),
    ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("  A = 1  \n", {"A": "1"}),
    ("export A=1\nexport\tB=2\n", {"A": "1", "B": "2"}),
    ("export=1\nexport = 2\nexported=3", {"export": "2", "exported": "3"}),
    ("A=", {"A": ""}),
    ("A=\nB=1", {"A": "", "B": "1"}),
    ("A=''\nB=\"\"", {"A": "", "B": ""}),
    ("A\nexport B\nC=1", {"C": "1"}),
    ("A # nothing", {}),
    ("A=1\nA=2", {"A": "2"}),
    ("_a.b-c9=x", {"_a.b-c9": "x"}),
    # plain
    ("A=a b  c", {"A": "a b  c"}),
    ("A=a#b", {"A": "a#b"}),
    ("A=a #b", {"A": "a"}),
    ("A=a\t# b # c", {"A": "a"}),
    ("A=#b", {"A": "#b"}),
    ("A= #b", {"A": ""}),
    ("A=a=b==", {"A": "a=b=="}),
    ("A=a\\nb", {"A": "a\\nb"}),
    ("A=a'b\"c", {"A": "a'b\"c"}),
    ("A=$HOME ${HOME} $(id) `id`", {"A": "$HOME ${HOME} $(id) `id`"}),
    ("A=ü漢🎉", {"A": "ü漢🎉"}),
    # single quotes
    ("A='a b # c'", {"A": "a b # c"}),
    ("A='a\\n$HOME \"'", {"A": 'a\\n$HOME "'}),
    ("A='a\nb\n'\nB=1", {"A": "a\nb\n", "B": "1"}),
    ("A='a' # c", {"A": "a"}),
    ("A = 'a'", {"A": "a"}),
    # double quotes
    ('A="a b # c"', {"A": "a b # c"}),
    ('A="a\\nb\\tc\\rd"', {"A": "a\nb\tc\rd"}),
    ('A="\\"\\\\\\$\\`\\\'"', {"A": "\"\\$`'"}),
    ('A="\\x\\d\\u0041"', {"A": "\\x\\d\\u0041"}),
    ('A="\\\\n"', {"A": "\\n"}),
    ('A="a\nb\n"\nB=1', {"A": "a\nb\n", "B": "1"}),
    ('A="a\r\nb"', {"A": "a\nb"}),
    ('A="a\\\nb"', {"A": "ab"}),
    ('A="$HOME ${B} $(id) `id`"', {"A": "$HOME ${B} $(id) `id`"}),
    ('A="a"# c\nB=1', {"A": "a", "B": "1"}),
    ('A="-----BEGIN-----\nx#y\n\n-----END-----"  ', {"A": "-----BEGIN-----\nx#y\n\n-----END-----"}),
]


def test_good(subtests: pytest.Subtests) -> None:
    for text, expected in GOOD:
        with subtests.test(text=text, expected=expected):
            assert parse(text) == expected


BAD: list[tuple[str, str]] = [
    ("A=1\n=2", "line 2: neither NAME=VALUE nor a comment"),
    ("9A=1", "line 1: neither"),
    ("A B=1", "line 1: neither"),
    ("if true; then", "line 1: neither"),
    ("\n\nsource other.env", "line 3: neither"),
    ("A: 1", "line 1: neither"),
    ("A='b", "line 1: a quote that is not closed"),
    ('B=1\nA="b\nC=1\n', "line 2: a quote that is not closed"),
    ('A="b\\"', "line 1: a quote that is not closed"),
    ("A='b' c", "line 1: more behind the closing quote"),
    ("A='a\nb'c", "line 2: more behind the closing quote"),
    ("A='it''s'", "line 1: more behind"),
    ("A=1\n\0", "line 2: a NUL"),
    ("A='\0'", "line 1: a NUL"),
    ("ü=1", "line 1: neither"),
]


def test_bad(subtests: pytest.Subtests) -> None:
    for text, expected in BAD:
        with subtests.test(text=text, expected=expected):
            result = parse(text)
            assert isinstance(result, str)
            assert result.startswith(expected)


_TEXT = st.text(st.sampled_from("AB=\"'\\#\n\r\t nexport$`ü\0."), max_size=60)


@given(_TEXT)
def test_whatever_stands_there(text: str) -> None:
    result = parse(text)
    assert isinstance(result, (dict, str))
    if isinstance(result, str):
        assert result.startswith("line ")


@given(
    st.dictionaries(
        st.sampled_from("ABCDE"), st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]))
    )
)
def test_quoted_values_come_back(values: dict[str, str]) -> None:
    double = "".join(
        '{}="{}"\n'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in values.items()
    )
    assert parse(double) == values
    single = {name: value.replace("'", "") for name, value in values.items()}
    assert parse("".join(f"{name}='{value}'\n" for name, value in single.items())) == single


def test_time_grows_with_the_text_only(subtests: pytest.Subtests) -> None:
    for text in (
        "A=" + " " * 200_000 + "#",
        'A="' + "\\" * 200_001,
        "A='" + "a\n" * 100_000,
        "#" * 200_000,
        " \t" * 100_000 + "=",
        "A" * 200_000,
        ("export " * 30_000),
        "A=" + "x #" * 70_000,
    ):
        with subtests.test(text=text):
            begin = time.perf_counter()
            parse(text)
            assert time.perf_counter() - begin < 5
