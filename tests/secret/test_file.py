"""Files of secrets: what they say, what is wrong with them, and that no error shows what they hold."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes._core import config_formats
from cloud_runtimes.components.config_file import watched
from cloud_runtimes.errors import (
    BulkError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.secret import Secret
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make

Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("clocks")


# -- nested tables ------------------------------------------------------------


def test_nested_tables(write: Write, client: Make, api: Api, canary: Canary) -> None:
    a, b, c, d = (canary.value() for _ in range(4))
    path = write("s.json", {"a": a, "db": {"user": b, "deep": {"er": c}}, "list": [d, {"x": a}], "empty": {}, "no": []})
    secrets = api.call(client(path=path).secret, "get_bulk_secret", "s")
    expected = {"a": a, "db:user": b, "db:deep:er": c, "list:0": d, "list:1:x": a}
    assert ({key: secret.value for key, secret in secrets.items()} == expected) is True
    assert all(list(secret) == [key] for key, secret in secrets.items())
    other = client(path=path, separator="__")
    assert (api.call(other.secret, "get_secret", "s", "db__deep__er").value == c) is True
    with canary.raises(NotFoundError):
        api.call(other.secret, "get_secret", "s", "db:user")


def test_multi_valued(write: Write, client: Make, api: Api, canary: Canary) -> None:
    a, b, c, d = (canary.value() for _ in range(4))
    path = write("s.json", {"a": a, "db": {"user": b, "deep": {"er": c}, "list": [d]}, "list": [d]})
    app_client = client(path=path, multi_valued=True)
    expected: dict[str, Any] = {"a": {"a": a}, "db": {"user": b, "deep:er": c, "list:0": d}, "list": {"0": d}}
    assert (api.call(app_client.secret, "get_bulk_secret", "s") == expected) is True
    assert (api.call(app_client.secret, "get_secret", "s", "db")["deep:er"] == c) is True
    with canary.raises(NotFoundError):
        api.call(app_client.secret, "get_secret", "s", "db:user")


def test_toml_and_yaml_nest_too(write: Write, client: Make, api: Api, canary: Canary) -> None:
    value = canary.value()
    for path in (
        write("s.toml", f"[db]\npassword = '{value}'\n"),
        write("s.yml", f"db: {{password: {value}}}\n"),
        write("t.yaml", f"anchor: &a\n  password: {value}\ndb: *a\nmerged:\n  <<: *a\n"),
    ):
        assert (api.call(client(path=path).secret, "get_secret", "s", "db:password").value == value) is True


def test_an_empty_file_of_yaml_or_dotenv_holds_nothing(write: Write, client: Make, api: Api) -> None:
    for name in ("s.yaml", "s.env", ".env", ".env.local", "s.toml"):
        assert api.call(client(path=write(name, "")).secret, "get_bulk_secret", "s") == {}


def test_a_byte_order_mark(write: Write, client: Make, api: Api) -> None:
    for name, text in (("s.json", '{"a": "1"}'), ("s.toml", 'a = "1"'), ("s.yaml", "a: '1'"), ("s.env", "a=1")):
        path = write(name, b"\xef\xbb\xbf" + text.encode())
        assert api.call(client(path=path).secret, "get_secret", "s", "a").value == "1"


# -- values that are no text ----------------------------------------------------


def test_what_is_no_text_concerns_its_key_only(write: Write, client: Make, api: Api, canary: Canary) -> None:
    value = canary.value()
    path = write("s.json", {"good": value, "int": 123456789, "none": None, "deep": {"bool": True, "float": 1.5}})
    app_client = client(path=path)
    assert (api.call(app_client.secret, "get_secret", "s", "good").value == value) is True
    for key, kind in (("int", "int"), ("none", "null"), ("deep:bool", "bool"), ("deep:float", "float")):
        with canary.raises(PayloadError, match=f"'{key}' of 's'.*is {kind}, not text: put it into quotes") as caught:
            api.call(app_client.secret, "get_secret", "s", key)
        assert "123456789" not in str(caught.value)
    with canary.raises(BulkError) as bulk:
        api.call(app_client.secret, "get_bulk_secret", "s")
    assert sorted(bulk.value.failed) == ["deep:bool", "deep:float", "int", "none"]
    assert {type(error) for error in bulk.value.failed.values()} == {PayloadError}
    assert (bulk.value.result == {"good": {"good": value}}) is True
    assert bulk.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("text", "multi", "key", "message"),
    [
        ('{"a:b": "SECRET", "a": {"b": "SECRET"}}', False, "a:b", "stands twice, once in nested tables"),
        ('{"a": {"b:c": "SECRET", "b": {"c": "SECRET"}}}', True, "a", "stands twice"),
        ('{"a": {"b": "SECRET", "c": 1}}', True, "a", "its entry 'c': is int"),
        ('{"a": "SECRET\\ud800"}', False, "a", "lone surrogate"),
    ],
)
def test_one_that_cannot_be_served(
    write: Write, client: Make, api: Api, canary: Canary, text: str, multi: bool, key: str, message: str
) -> None:
    path = write("s.json", text.replace("SECRET", canary.value()))
    app_client = client(path=path, multi_valued=multi)
    with canary.raises(PayloadError, match=message):
        api.call(app_client.secret, "get_secret", "s", key)
    with canary.raises(BulkError):
        api.call(app_client.secret, "get_bulk_secret", "s")


def test_keys_that_cannot_be_asked_for(write: Write, client: Make, canary: Canary) -> None:
    with canary.raises(BulkError) as caught:
        client(
            path=write("s.json", {"": canary.value(), "a\0b": canary.value(), "x" * 1025: canary.value()})
        ).secret.get_bulk_secret("s")
    assert sorted(caught.value.failed) == ["", "a\0b", "x" * 1025]


# -- files that are wrong -----------------------------------------------------

SYNTAX: list[tuple[str, str, str]] = [
    ("s.json", '{"a": "SECRET" "b"}', "syntax error at line 1, column"),
    ("s.json", '{"a": "SECRET",\n"b": \'SECRET\'}', "syntax error at line 2, column 6"),
    ("s.json", '{"a": "SECRET\\x"}', "syntax error at line 1"),
    ("s.json", '{"a": "SECRET\n"}', "syntax error at line 1"),
    ("s.json", '{"a": "SECRET', "syntax error at line 1"),
    ("s.json", '{"a": SECRET}', "syntax error at line 1"),
    ("s.json", "SECRET", "syntax error at line 1"),
    ("s.json", "", "syntax error at line 1"),
    ("s.json", '["SECRET"]', "expected tables at the top, found list"),
    ("s.json", '"SECRET"', "found str"),
    ("s.json", "null", "found NoneType"),
    ("s.json", '{"a": "SECRET", "a": "SECRET"}', "key 2 of a table of 2 stands twice"),
    ("s.json", '{"a": ' + "[" * 100_000 + '"SECRET"', "nested too deeply|syntax error"),
    ("s.json", '{"a": ' + '{"b": ' * 70 + '"SECRET"' + "}" * 71, "nested too deeply"),
    ("s.toml", 'a = "SECRET', "syntax error"),
    ("s.toml", 'a = SECRET\nb = "SECRET"', "syntax error at line 1, column 5"),
    ("s.toml", 'a = "SECRET"\na = "SECRET"', "syntax error at the end of the document"),
    ("s.toml", 'a = "SECRET\\q"', "syntax error at line 1"),
    ("s.toml", '[SECRET\na = "SECRET"', "syntax error at line 1"),
    ("s.toml", 'a = "x"\n[a.b]\nc = "SECRET"', "syntax error at line 2"),
    ("s.yaml", "a: SECRET\n  b: SECRET", "syntax error at line 2"),
    ("s.yaml", 'a: "SECRET', "syntax error at line"),
    ("s.yaml", "a: *SECRET", "syntax error at line 1"),
    ("s.yaml", "a: !SECRET x", "syntax error at line 1"),
    ("s.yaml", "a: !!python/object/apply:os.system [echo SECRET]", "syntax error at line 1"),
    ("s.yaml", "a: SECRET\na: SECRET", "the key at line 2, column 1 stands twice"),
    ("s.yaml", "- SECRET", "found list"),
    ("s.yaml", "SECRET", "found str"),
    ("s.yaml", "a: SECRET\n---\nb: SECRET", "syntax error at line 2"),
    ("s.yaml", "a: &a [*a]\nb: SECRET", "nested too deeply"),
    ("s.yaml", "a: \x01SECRET", "syntax error"),
    ("s.yaml", "{[a]: SECRET}", "syntax error|expected|is"),
    ("s.env", "A='SECRET", "line 1: a quote that is not closed"),
    ("s.env", "A=1\nSECRET SECRET", "line 2: neither"),
    ("s.env", "A='SECRET' SECRET", "line 1: more behind the closing quote"),
    (".env", "SECRET=SECRET SECRET\n= SECRET", "line 2: neither"),
]


@pytest.mark.parametrize(("name", "text", "message"), SYNTAX, ids=[f"{i}-{row[0]}" for i, row in enumerate(SYNTAX)])
def test_a_broken_file_is_not_quoted(
    write: Write, client: Make, api: Api, canary: Canary, name: str, text: str, message: str
) -> None:
    path = write(name, text.replace("SECRET", canary.value()))
    app_client = client(path=path)
    for method, arguments in (("get_secret", ("s", "a")), ("get_bulk_secret", ("s",))):
        with canary.raises(PayloadError, match=message) as caught:
            api.call(app_client.secret, method, *arguments)
        assert str(path) in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert not caught.value.retryable


def test_not_utf8(write: Write, client: Make, api: Api, canary: Canary) -> None:
    path = write("s.env", b"A=" + canary.value().encode() + b"\xff")
    with canary.raises(PayloadError, match="not UTF-8 at byte") as caught:
        api.call(client(path=path).secret, "get_secret", "s", "A")
    assert caught.value.__context__ is None


def test_a_billion_laughs(write: Write, client: Make) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(PayloadError, match="more than 100000 entries"):
        client(path=write("s.yaml", "\n".join(lines))).secret.get_secret("s", "x")


def test_a_parser_with_a_fault_is_not_quoted(
    write: Write, client: Make, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(text: str) -> Any:
        raise ZeroDivisionError(text)

    monkeypatch.setattr(config_formats, "_PARSERS", {"json": faulty})
    with canary.raises(PayloadError, match="syntax error$"):
        api.call(client(path=write("s.json", {"a": canary.value()})).secret, "get_secret", "s", "a")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_nothing_in_its_frames(
    write: Write, client: Make, canary: Canary, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    reached = []

    def interrupted(text: str) -> Any:
        held = [text]
        reached.append(len(held))
        raise error

    monkeypatch.setattr(config_formats, "_PARSERS", {"json": interrupted})
    path = write("s.json", {"a": canary.value()})
    with pytest.raises(BaseException) as caught:
        client(path=path).secret.get_secret("s", "a")
    assert reached == [1]
    assert isinstance(caught.value, error) or isinstance(caught.value.__cause__, error)
    canary.look_through(caught.value)
    monkeypatch.undo()


def test_settings_that_are_wrong(sources: Path, client: Make, api: Api) -> None:
    for settings, message in (
        ({}, r'needs the file of secrets: path = "secrets.json"'),
        ({"path": ""}, "needs the file of secrets"),
        ({"path": "a\0.json"}, "needs the file of secrets"),
        ({"path": "secrets.txt"}, r"path has no known end; name it \*\.toml, \*\.json, .*\*\.env, or say format"),
        ({"path": "secrets"}, "path has no known end"),
        ({"path": "s.json", "separator": ""}, "separator must not be empty"),
        ({"path": "s.json", "multi_valued": "yes"}, "'multi_valued'"),
        ({"pth": "s.json"}, "did you mean 'path'"),
        ({"path": "s.json", "format": "ini"}, "'toml' or 'json' or 'yaml' or 'dotenv'"),
        ({"path": "s.json", "watch": "poll"}, r"\[secret\.s\]: the setting 'watch' .* is for configuration only"),
        ({"path": "s.json", "poll_interval": 1}, "the setting 'poll_interval' .* is for configuration only"),
    ):
        api.fails(InvalidArgumentError, match=message)(client(**settings).secret, "get_secret", "s", "a")
        api.fails(InvalidArgumentError, match=message)(client(**settings), "wait_ready", timeout=5)


@pytest.mark.parametrize(
    ("format", "text"), [("json", '{"a": "1"}'), ("toml", "a = '1'"), ("yaml", "a: '1'"), ("dotenv", "a=1")]
)
def test_a_format_by_setting(write: Write, client: Make, api: Api, format: str, text: str) -> None:
    """Also where the name tells of another one."""
    for name in ("secrets", "secrets.txt", "secrets.json", ".env"):
        app_client = client(path=write(name, text), format=format)
        assert api.call(app_client.secret, "get_secret", "s", "a").value == "1"


def test_no_such_file(sources: Path, client: Make, api: Api) -> None:
    app_client = client(path="absent.json")
    error = api.fails(UnavailableError, match=r"absent\.json does not exist: make it")(
        app_client.secret, "get_secret", "s", "a", timeout=1
    )
    assert not isinstance(error, LookupError), "an absent store is not an absent secret"
    assert isinstance(error.__cause__, FileNotFoundError)
    api.fails(DeadlineExceededError, match="does not exist")(app_client, "wait_ready", timeout=0.05)
    (sources / "absent.json").write_text("{}")
    (sources / "absent.json").chmod(0o600)
    api.call(app_client, "wait_ready")
    api.fails(NotFoundError)(app_client.secret, "get_secret", "s", "a")


def test_what_is_no_file(sources: Path, client: Make, api: Api) -> None:
    (sources / "folder.json").mkdir()
    os.mkfifo(sources / "fifo.json")
    os.symlink("loop.json", sources / "loop.json")
    os.symlink("/dev/zero", sources / "zero.json")
    for name in ("folder", "fifo", "loop", "zero"):
        with pytest.raises(InvalidArgumentError, match="is no regular file"):
            api.call(client(path=f"{name}.json").secret, "get_secret", "s", "a", timeout=10)


def test_a_file_that_is_too_large(sources: Path, client: Make, api: Api) -> None:
    with (sources / "s.json").open("wb") as file:
        file.truncate(watched.MAX_BYTES + 1)
    api.fails(ResourceExhaustedError, match="16,777,217 bytes")(client(path="s.json").secret, "get_secret", "s", "a")


NOBODY = """
import os, sys
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import PermissionDeniedError
stores = {name: {"component": "config_file", "path": path} for name, path in zip(("open", "closed"), sys.argv[1:])}
with CloudRuntimesClient(config={"secret": stores}) as client:
    client.secret.get_secret("open", "a")  # all is imported while this process may still read everything
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        client.secret.get_secret("closed", "a")
    except PermissionDeniedError as error:
        print(error, type(error.__cause__).__name__)
"""


@pytest.mark.process
def test_a_file_of_another_user(sources: Path, write: Write, canary: Canary) -> None:
    readable, path = write("open.json", {"a": canary.value()}), write("s.json", {"a": canary.value()}, mode=0o000)
    done = subprocess.run([sys.executable, "-c", NOBODY, readable, path], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert f"{path} may not be read by this process (Permission denied): check the owner and mode" in done.stdout
    assert "PermissionError" in done.stdout


def test_errors_of_the_system(write: Write, client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    for number, kind, retryable in (
        (errno.EACCES, PermissionDeniedError, False),
        (errno.EPERM, PermissionDeniedError, False),
        (errno.EMFILE, ResourceExhaustedError, True),
        (errno.EIO, UnavailableError, True),
        (errno.ESTALE, UnavailableError, True),
        (errno.ENAMETOOLONG, InvalidArgumentError, False),
    ):
        error = watched._map_error(OSError(number, os.strerror(number), "/x.json"), "/x.json")
        assert type(error) is kind
        assert error.retryable is retryable
        assert "/x.json" in str(error)


# -- the mode -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o600, None),
        (0o400, None),
        (0o640, None),
        (0o644, "can be read by every user of this machine (mode 0644): chmod 600"),
        (0o604, "can be read by every user"),
        (0o666, "can be written by every user of this machine (mode 0666)"),
        (0o622, "can be written by every user"),
    ],
)
def test_others_may_read_it(
    write: Write, client: Make, api: Api, canary: Canary, caplog: pytest.LogCaptureFixture, mode: int, said: str | None
) -> None:
    path = write("s.json", {"a": canary.value()}, mode=mode)
    for _ in range(3):
        app_client = client(path=path)
        api.call(app_client.secret, "get_secret", "s", "a")
        path.write_bytes(path.read_bytes() + b" ")
        api.call(app_client.secret, "get_secret", "s", "a")
    records = [record for record in caplog.records if record.name == "cloud_runtimes"]
    if said is None:
        assert records == []
    else:  # once per process
        assert [record.levelno for record in records] == [logging.WARNING]
        assert records[0].getMessage().startswith(f"{path} {said}")


# -- YAML without its package ---------------------------------------------------


def test_yaml_needs_its_extra(write: Write, client: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("s.yaml", "a: b")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UnsupportedError, match=r'YAML needs an extra: pip install "\.\[yaml\]" in the checkout'):
        api.call(client(path=path).secret, "get_secret", "s", "a")


def test_a_signal_in_a_call_leaves_it_usable(write: Write, client: Make, canary: Canary) -> None:
    """A handler that reads secrets itself meets no lock."""
    value = canary.value()
    app_client = client(path=write("s.json", {"a": value}))
    seen: list[Secret] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(app_client.secret.get_secret("s", "a")))
    try:
        main = threading.main_thread().ident
        assert main is not None
        for _ in range(200):
            signal.pthread_kill(main, signal.SIGUSR1)
            assert (app_client.secret.get_secret("s", "a").value == value) is True
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen
