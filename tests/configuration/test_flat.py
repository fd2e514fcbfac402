"""From a file's tables to keys and texts, in each of its formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import config
from cloud_runtimes.components.config_file.configuration import flatten
from cloud_runtimes.errors import InvalidArgumentError

PATH = Path("app")

SAME = {
    "title": "x",
    "whole": "-5",
    "large": "12345678901234567890123",
    "part": "1.5",
    "tiny": "1e-07",
    "third": "0.1",
    "yes": "true",
    "no": "false",
    "empty": "",
    "db.host": "h",
    "db.pool.size": "5",
    "list": '["a", 1, 2.5, true, {"k": "v", "n": [1]}]',
    "none": "[]",
}
TOML = """
title = "x"
whole = -5
large = 12345678901234567890123
part = 1.50
tiny = 1e-7
third = 0.1
yes = true
no = false
empty = ""
list = ["a", 1, 2.50, true, {k = "v", n = [0x1]}]
none = []
nothing = {}
db.host = "h"
[db.pool]
size = 5
"""
JSON = """{"title": "x", "whole": -5, "large": 12345678901234567890123, "part": 1.50, "tiny": 1e-7, "third": 0.1,
"yes": true, "no": false, "empty": "", "null": null, "db": {"host": "h", "pool": {"size": 5, "null": null}},
"list": ["a", 1, 2.50, true, {"k": "v", "n": [1]}], "none": [], "nothing": {}}"""
YAML = """
title: x
whole: -5
large: 12345678901234567890123
part: 1.50
tiny: 1.0e-7
third: 0.1
yes: true
"no": false
empty: ""
"null": ~
db: {host: h, pool: {size: 5}}
list: [a, 1, 2.50, true, {k: v, n: [0x1]}]
none: []
nothing: {}
"""


def flat(text: str, suffix: str) -> dict[str, str]:
    return flatten(config.parse(text.encode(), suffix, PATH), PATH)


@pytest.mark.parametrize(("text", "suffix"), [(TOML, ".toml"), (JSON, ".json"), (YAML, ".yaml")])
def test_the_formats_agree(text: str, suffix: str) -> None:
    expected = dict(SAME)
    if suffix == ".yaml":  # 'yes' is YAML 1.1's true, also as a key
        expected["true"] = expected.pop("yes")
    assert flat(text, suffix) == expected


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("a = 2026-01-31T08:00:00Z", ".toml", "2026-01-31T08:00:00+00:00"),
        ("a = 2026-01-31T08:00:00", ".toml", "2026-01-31T08:00:00"),
        ("a = 2026-01-31", ".toml", "2026-01-31"),
        ("a = 08:00:00", ".toml", "08:00:00"),
        ("a: 2026-01-31", ".yaml", "2026-01-31"),
        ("a: 0o17", ".yaml", "0o17"),
        ("a = 0x10", ".toml", "16"),
        ("a = inf", ".toml", "inf"),
        ("a = [nan, 2026-01-31]", ".toml", '["nan", "2026-01-31"]'),
        ("a = ['ü']", ".toml", '["ü"]'),
        ('{"a": [null]}', ".json", "[null]"),
        ("1: {2.5: x}", ".yaml", "x"),
    ],
)
def test_kinds(text: str, suffix: str, expected: str) -> None:
    assert list(flat(text, suffix).values()) == [expected]


def test_keys_that_are_no_text() -> None:
    assert flat("1: {2.5: x}\n2026-01-31: y", ".yaml") == {"1.2.5": "x", "2026-01-31": "y"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "'a.b' stands there twice"),
        ({"": 1}, "0 bytes"),
        ({"a||b": 1}, "reserved"),
        ({"a": {"x" * 1024: 1}}, "1026 bytes"),
        ({"a": b"\x00"}, "'a' is bytes"),
        ({"a": [{1, 2}]}, "'a' is set"),
        ({None: 1}, "a key is null"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"a": 10**5000}, "integer string conversion"),
    ],
)
def test_refused(tables: dict[Any, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        flatten(tables, PATH)
    assert str(caught.value).startswith("app: ")


def test_aliases_cannot_blow_it_up() -> None:
    """A few lines of YAML that are a billion values."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
    with pytest.raises(InvalidArgumentError, match="more than 1,000,000 values"):
        flat(f"l0: &l0 [x]\n{levels}", ".yaml")
    tables = "".join(f"t{n}: &t{n} {{{', '.join(f'k{k}: *t{n - 1}' for k in range(10))}}}\n" for n in range(1, 10))
    with pytest.raises(InvalidArgumentError, match="more than 1,000,000 values"):
        flat(f"t0: &t0 {{x: 1}}\n{tables}", ".yaml")


def test_a_table_in_itself() -> None:
    with pytest.raises(InvalidArgumentError, match="nested"):
        flat("a: &a {b: *a}", ".yaml")
    with pytest.raises(InvalidArgumentError, match="recursion"):
        flat("a: &a [*a]", ".yaml")
