"""From a file's tables, or a folder's files, to keys and texts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes.components.config_file import folder as module
from cloud_runtimes.components.config_file.configuration import flatten
from cloud_runtimes.errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.mounts import Mount
from tests.support.waiting import running, until

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


def test_the_formats_agree(subtests: pytest.Subtests) -> None:
    for text, suffix in ((TOML, ".toml"), (JSON, ".json"), (YAML, ".yaml")):
        with subtests.test(text=text, suffix=suffix):
            expected = dict(SAME)
            if suffix == ".yaml":  # 'yes' is YAML 1.1's true, also as a key
                expected["true"] = expected.pop("yes")
            assert flat(text, suffix) == expected


def test_kinds(subtests: pytest.Subtests) -> None:
    for text, suffix, expected in (
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
    ):
        with subtests.test(text=text, suffix=suffix):
            assert list(flat(text, suffix).values()) == [expected]


def test_keys_that_are_no_text() -> None:
    assert flat("1: {2.5: x}\n2026-01-31: y", ".yaml") == {"1.2.5": "x", "2026-01-31": "y"}


def test_refused(subtests: pytest.Subtests) -> None:
    for tables, message in (
        ({"a.b": 1, "a": {"b": 2}}, "'a.b' stands there twice"),
        ({"": 1}, "0 bytes"),
        ({"a||b": 1}, "reserved"),
        ({"a": {"x" * 1024: 1}}, "1026 bytes"),
        ({"a": b"\x00"}, "'a' is bytes"),
        ({"a": [{1, 2}]}, "'a' is set"),
        ({None: 1}, "a key is null"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"a": 10**5000}, "integer string conversion"),
    ):
        with subtests.test(tables=tables, message=message):
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


# -- A folder whose files are the values: all of one moment, whoever writes meanwhile


def values(api: Api, client: CloudRuntimesClient) -> dict[str, str]:
    items = api.call(client.configuration, "get_configuration_items", "app")
    return {key: item.value for key, item in items.items()}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


def test_a_mounted_volume(on_file: Make, volume: Path, api: Api) -> None:
    mount = Mount(volume)
    mount.change({"host": "db.example.com", "ca.crt": "-----BEGIN\nlines\n", "empty": ""})
    (volume / "folder").mkdir()
    client = on_file(volume, format="folder")
    assert values(api, client) == {"host": "db.example.com", "ca.crt": "-----BEGIN\nlines\n", "empty": ""}
    mount.change({"host": "other"})
    until(lambda: values(api, client) == {"host": "other"})


@pytest.mark.parametrize("watch", ["poll", "watchfiles"])
def test_values_of_one_change_come_together(on_file: Make, volume: Path, watch: str, rounds: Rounds) -> None:
    count = rounds(50, 2000)
    mount = Mount(volume)
    mount.change({"a": "0", "b": "0"})
    client = on_file(volume, format="folder", watch=watch)

    def change() -> None:
        for number in range(1, count + 1):
            mount.change({"a": str(number), "b": str(number)})
            time.sleep(0.003 * (number % 7))

    with client.configuration.subscribe_configuration("app") as sub:
        with running(change):
            seen: list[int] = []
            while not seen or seen[-1] != count:
                values = {key: item.value for key, item in (sub.receive(10) or {}).items()}
                assert values["a"] == values["b"]
                seen.append(int(values["a"]))
    assert seen == sorted(seen)


def test_plain_files_that_are_rewritten(on_file: Make, volume: Path, api: Api) -> None:
    volume.mkdir()
    (volume / "a").write_text("1")
    (volume / "b").write_text("2")
    client = on_file(volume, format="folder")
    assert values(api, client) == {"a": "1", "b": "2"}
    (volume / "a").write_text("3")
    (volume / "b").unlink()
    until(lambda: values(api, client) == {"a": "3"})


def refused(api: Api, client: CloudRuntimesClient, kind: type[CloudRuntimesError], match: str) -> None:
    api.fails(kind, match=match)(client.configuration, "get_configuration", "app", ["a"])


def test_what_is_no_such_folder(
    on_file: Make, volume: Path, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    client = on_file(volume, format="folder")
    refused(api, on_file(tmp_path / "file", format="folder"), InvalidArgumentError, "file is no folder")
    refused(api, client, UnavailableError, "volume does not exist: make it, mount its volume")
    Mount(volume).change({"a": b"\xff"})
    refused(api, on_file(volume, format="folder"), InvalidArgumentError, "a file is no UTF-8")
    monkeypatch.setattr(module, "_MOST", 0)
    refused(api, on_file(volume, format="folder"), ResourceExhaustedError, "more than 0 files")
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_BYTES", 0)
    refused(api, on_file(volume, format="folder"), ResourceExhaustedError, "has 1 bytes; a file or folder")


@pytest.mark.parametrize("setting", [{"separator": "/"}, {"multi_valued": True}])
def test_settings_of_tables(volume: Path, setting: dict[str, Any]) -> None:
    table = {"component": "config_file", "path": str(volume), "format": "folder", **setting}
    with CloudRuntimesClient(config={"secret": {"s": table}}) as client:
        with pytest.raises(InvalidArgumentError, match="separator and multi_valued are of tables"):
            client.secret.get_secret("s", "a")


def test_secrets_of_a_folder(volume: Path, api: Api) -> None:
    Mount(volume).change({"password": "hunter2\n", "key.der": b"\xff\x00"})
    os.chmod(volume, 0o700)
    table = {"component": "config_file", "path": str(volume), "format": "folder"}
    with CloudRuntimesClient(config={"secret": {"s": table}}) as client:
        assert api.call(client.secret, "get_secret", "s", "password").value == "hunter2\n"
        api.fails(PayloadError, match="'key.der' of 's': in .* it is no UTF-8")(
            client.secret, "get_secret", "s", "key.der"
        )
        api.fails(NotFoundError, match="add it to .*volume")(client.secret, "get_secret", "s", "none")
