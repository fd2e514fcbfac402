"""The environment: which variable a secret is, and that a store is never more than its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.env import EnvComponent, EnvSecret, EnvSettings
from cloud_runtimes.errors import (
    BulkError,
    ComponentNotFoundError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.canary import Canary
from tests.support import Make

Write = Callable[..., Path]

BEGIN = "CLOUD_RUNTIMES_SECRET_"

pytestmark = pytest.mark.usefixtures("clocks", "sources")


@pytest.fixture
def plain() -> Any:
    """A client without a configuration."""
    with CloudRuntimesClient() as client:
        yield client


# -- names --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "key", "variable"),
    [
        ("payments", "token", "PAYMENTS_TOKEN"),
        ("payments", "api_key", "PAYMENTS_API_KEY"),
        ("payments", "api-key", "PAYMENTS_API__KEY"),
        ("payments", "API_KEY", "PAYMENTS_API_KEY"),
        ("payments", "Api-Key", "PAYMENTS_API__KEY"),
        ("my-store", "db-password_2", "MY__STORE_DB__PASSWORD_2"),
        ("a1-2", "9", "A1__2_9"),
    ],
)
def test_which_variable(
    plain: CloudRuntimesClient,
    api: Api,
    canary: Canary,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    key: str,
    variable: str,
) -> None:
    with canary.raises(NotFoundError, match=f"no secret '{key}' in '{store}': set the variable {BEGIN}{variable}, "):
        api.call(plain.secret, "get_secret", store, key)
    value = canary.value()
    monkeypatch.setenv(BEGIN + variable, value)
    assert (api.call(plain.secret, "get_secret", store, key) == {key: value}) is True
    secrets = api.call(plain.secret, "get_bulk_secret", store)
    assert (secrets == {key.lower(): {key.lower(): value}}) is True


@pytest.mark.parametrize("store", ["my_store", "My", "a.b", "a--b", "-a", "a-", "a b", "ä", "a/b", "_"])
def test_a_store_without_variables_of_its_own(plain: CloudRuntimesClient, api: Api, store: str) -> None:
    error = api.fails(InvalidArgumentError, match=r"no variables of its own: .*or declare")(
        plain.secret, "get_secret", store, "key"
    )
    assert error.component == store
    assert not plain.supports("secret", store)


@pytest.mark.parametrize(
    "key", ["a.b", "a:b", "a__b", "a--b", "a-_b", "_a", "a_", "-a", "a-", "a b", "ä", "a/b", "a\n"]
)
def test_a_key_without_a_variable(plain: CloudRuntimesClient, api: Api, key: str) -> None:
    api.fails(InvalidArgumentError, match="cannot be written as a variable")(plain.secret, "get_secret", "store", key)


_PART = st.text(st.sampled_from("abz09"), min_size=1, max_size=3)
_STORES = st.lists(_PART, min_size=1, max_size=3).map("-".join)
_KEYS = st.builds(
    lambda first, rest: first + "".join(separator + part for separator, part in rest),
    _PART,
    st.lists(st.tuples(st.sampled_from("_-"), _PART), max_size=3),
)


def _variable(store: str, key: str) -> str:
    component = EnvComponent(EnvSettings(), None, None)  # type: ignore[arg-type]
    driver = component.driver("secret", store)
    assert isinstance(driver, EnvSecret)
    return driver._variable(key)


@given(_STORES, _KEYS, _STORES, _KEYS)
def test_no_two_names_share_a_variable(store: str, key: str, other: str, other_key: str) -> None:
    same = _variable(store, key) == _variable(other, other_key)
    assert same == ((store, key) == (other, other_key))


@given(_STORES, st.dictionaries(_KEYS, st.just("v"), max_size=5), _STORES, st.lists(_KEYS, max_size=5))
def test_all_of_a_store_are_its_own(store: str, secrets: dict[str, str], other: str, more: list[str]) -> None:
    environment = {_variable(store, key): value for key, value in secrets.items()}
    if other != store:
        environment |= {_variable(other, key): "other" for key in more}
    driver = EnvComponent(EnvSettings(file=""), None, None).driver("secret", store)  # type: ignore[arg-type]
    assert isinstance(driver, EnvSecret)
    assert {key for key, _ in driver._keys(environment)} == set(secrets)


def test_never_the_whole_environment(plain: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEGIN + "S_A", "1")
    for name in ("S_B", "B", "SECRET_S_B", f"{BEGIN}S", f"{BEGIN}S_", f"{BEGIN}S__T_B", f"{BEGIN}S_b", f"{BEGIN}ST_B"):
        monkeypatch.setenv(name, "2")
    for name in (f"{BEGIN}S_A_", f"{BEGIN}S__A", f"{BEGIN}S_A___B", f"{BEGIN}S_A.B", f"x{BEGIN}S_C"):
        monkeypatch.setenv(name, "2")
    assert api.call(plain.secret, "get_bulk_secret", "s") == {"a": {"a": "1"}}
    for key in ("path", "home", "b"):
        api.fails(NotFoundError)(plain.secret, "get_secret", "s", key)


# -- settings -----------------------------------------------------------------


def test_a_prefix(client: Make, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    value = canary.value()
    monkeypatch.setenv("APP_DB_PASSWORD", value)
    monkeypatch.setenv("APP2_DB_PASSWORD", canary.value())
    app_client = client("env", prefix="APP_")
    assert (api.call(app_client.secret, "get_secret", "s", "db_password").value == value) is True
    assert (api.call(app_client.secret, "get_secret", "s", "DB_PASSWORD").value == value) is True
    assert list(api.call(app_client.secret, "get_bulk_secret", "s")) == ["db_password"]
    with canary.raises(NotFoundError, match="set the variable APP_OTHER, here or in"):
        api.call(app_client.secret, "get_secret", "s", "other")


@pytest.mark.parametrize("prefix", ["", "A-", "1", "A B", "Ä", "A=", "x" * 256])
def test_a_prefix_that_is_none(client: Make, prefix: str) -> None:
    with pytest.raises(InvalidArgumentError, match="prefix must be 1 to 255 letters"):
        client("env", prefix=prefix).secret.get_secret("s", "a")


def test_a_prefix_gives_any_store_a_name(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_A", "1")
    with CloudRuntimesClient(config={"secret": {"My Store!": {"component": "env", "prefix": "MY_"}}}) as client:
        assert api.call(client.secret, "get_secret", "My Store!", "a").value == "1"


def test_beside_what_is_declared(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEGIN + "S_A", "1")
    with CloudRuntimesClient(config={"state": {"s": {"component": "sqlite"}}}) as client:
        assert api.call(client.secret, "get_secret", "s", "a").value == "1"
    with CloudRuntimesClient(config={"capa": {"strict": True}, "state": {"s": {"component": "sqlite"}}}) as client:
        with pytest.raises(ComponentNotFoundError, match=r"declares \[state\.s\]: add \[secret\.s\]"):
            api.call(client.secret, "get_secret", "s", "a")
    with CloudRuntimesClient(config={"secret": {"s": {"component": "env"}}}) as client:
        assert api.call(client.secret, "get_secret", "s", "a").value == "1"
    with CloudRuntimesClient(config={"secret": {"s": {"component": "sqlite"}}}) as client:
        api.fails(Exception, match="the component 'sqlite' has no secret")(client.secret, "get_secret", "s", "a")


def test_the_other_services_stand_on_sqlite_beside_it(
    plain: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BEGIN + "S_A", "1")
    plain.state.save("s", "k", 1)
    assert plain.secret.get_secret("s", "a").value == "1"
    assert plain.state.get("s", "k") == 1
    plain.wait_ready(timeout=5)
    assert plain.supports("secret.bulk")
    assert not plain.supports("secret.teleport")


# -- the file -----------------------------------------------------------------


def test_the_process_goes_before_the_file(
    plain: CloudRuntimesClient, write: Write, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process, in_file = canary.value(), canary.value()
    write(".env", f"{BEGIN}S_A='{in_file}'\n{BEGIN}S_B='{in_file}'\nOTHER=1\n")
    monkeypatch.setenv(BEGIN + "S_A", in_process)
    assert (api.call(plain.secret, "get_secret", "s", "a").value == in_process) is True
    assert (api.call(plain.secret, "get_secret", "s", "b").value == in_file) is True
    expected = {"a": {"a": in_process}, "b": {"b": in_file}}
    assert (api.call(plain.secret, "get_bulk_secret", "s") == expected) is True
    assert f"{BEGIN}S_B" not in os.environ


def test_a_broken_file_concerns_what_the_process_does_not_have(
    plain: CloudRuntimesClient, write: Write, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = canary.value()
    write(".env", f"{BEGIN}S_A='{value}")
    monkeypatch.setenv(BEGIN + "S_B", value)
    assert (api.call(plain.secret, "get_secret", "s", "b").value == value) is True
    for method, arguments in (("get_secret", ("s", "a")), ("get_bulk_secret", ("s",))):
        with canary.raises(PayloadError, match=r"\.env: line 1: a quote that is not closed"):
            api.call(plain.secret, method, *arguments)


def test_another_file(client: Make, write: Write, sources: Path, api: Api) -> None:
    write(".env", "P_A=1")
    write("other", "P_A=2")
    assert api.call(client("env", prefix="P_").secret, "get_secret", "s", "a").value == "1"
    assert api.call(client("env", prefix="P_", file="other").secret, "get_secret", "s", "a").value == "2"
    none = client("env", prefix="P_", file="")
    api.fails(NotFoundError, match=r"set the variable P_A$")(none.secret, "get_secret", "s", "a")
    assert api.call(none.secret, "get_bulk_secret", "s") == {}
    absent = client("env", prefix="P_", file="absent")
    api.fails(UnavailableError, match="absent does not exist")(absent.secret, "get_secret", "s", "a")
    with pytest.raises(InvalidArgumentError, match="NUL"):
        client("env", file="a\0").secret.get_secret("s", "a")


def test_the_file_stays_that_of_the_first_call(
    plain: CloudRuntimesClient, write: Write, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(".env", f"{BEGIN}S_A=1")
    assert plain.secret.get_secret("s", "a").value == "1"
    (sources / "elsewhere").mkdir()
    write("elsewhere/.env", f"{BEGIN}S_A=2")
    monkeypatch.chdir(sources / "elsewhere")
    assert plain.secret.get_secret("s", "a").value == "1"


def test_nothing_of_the_file_is_run_or_filled_in(plain: CloudRuntimesClient, write: Write, sources: Path) -> None:
    write(".env", f'{BEGIN}S_A="$(touch ran) `touch ran` $HOME ${{HOME}} %(HOME)s"\n')
    assert plain.secret.get_secret("s", "a").value == "$(touch ran) `touch ran` $HOME ${HOME} %(HOME)s"
    assert not (sources / "ran").exists()


# -- what is no text ----------------------------------------------------------

NOT_TEXT = """
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import BulkError, PayloadError
with CloudRuntimesClient() as client:
    try:
        client.secret.get_secret("s", "a")
    except PayloadError as error:
        print(error, error.__cause__, error.__context__)
    try:
        client.secret.get_bulk_secret("s")
    except BulkError as error:
        print(list(error.failed), list(error.result), error)
"""


@pytest.mark.process
def test_a_variable_that_is_not_utf8(canary: Canary, sources: Path) -> None:
    environment = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    environment[b"CLOUD_RUNTIMES_SECRET_S_A"] = canary.value().encode() + b"\xff"
    environment[b"CLOUD_RUNTIMES_SECRET_S_B"] = b"text"
    done = subprocess.run([sys.executable, "-c", NOT_TEXT], capture_output=True, timeout=60, env=environment)
    assert done.stderr == b""
    assert not canary.shows(done.stdout)
    assert done.stdout.decode().splitlines() == [
        "secret 'a' of 's': the variable CLOUD_RUNTIMES_SECRET_S_A is not UTF-8 None None",
        "['a'] ['b'] 1 of 2 secrets of 's' cannot be read",
    ]


def test_a_variable_that_is_not_utf8_in_both_apis(
    plain: CloudRuntimesClient, write: Write, api: Api, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BEGIN + "S_A", f"{canary.value()}\udcff")
    write(".env", f"{BEGIN}S_A={canary.value()}\n")
    with canary.raises(PayloadError, match="is not UTF-8"):
        api.call(plain.secret, "get_secret", "s", "a")
    with canary.raises(BulkError) as caught:
        api.call(plain.secret, "get_bulk_secret", "s")
    assert list(caught.value.failed) == ["a"]
    assert caught.value.result == {}, "what the process has hides the file's"


@pytest.mark.process
def test_looking_does_no_more_than_it_must() -> None:
    """No parser, keyring or loop is loaded for a variable of the process."""
    program = """
import sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient()
assert client.secret.get_secret("s", "a").value == "1"
print([name for name in ("asyncio", "yaml", "tomllib", "keyring", "sqlite3", "json", "orjson", "logging") if name in sys.modules])
"""
    environment = {**os.environ, f"{BEGIN}S_A": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
