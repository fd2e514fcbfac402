"""Settings: what goes before what, what is refused and how that is said; nothing is read before the first call."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes._core.config_formats import read_tables
from cloud_runtimes.client import SERVICES
from cloud_runtimes.components.sqlite import SqliteSettings
from cloud_runtimes.config import ClientSettings, build, duration, read
from cloud_runtimes.errors import ComponentNotFoundError, InvalidArgumentError, UnsupportedError

pytestmark = pytest.mark.usefixtures("clean_environment")

Keep = Callable[[CloudRuntimesClient], CloudRuntimesClient]


def settings(source: Any = None, **arguments: Any) -> ClientSettings:
    """Return what a client made with these runs with."""
    return CloudRuntimesClient(config=source, **arguments)._context.settings


def file(folder: Path, text: str, name: str = "cloud.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# -- precedence ---------------------------------------------------------------


def test_defaults() -> None:
    result = settings()
    assert (result.runtime, result.endpoint, result.timeout, result.api_token) == ("capa", None, 30.0, None)
    assert result.origin == "no configuration"
    assert not any(result.components.values())


def test_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, 'runtime = "from-file"')
    assert settings(path).runtime == "from-file"
    monkeypatch.setenv("CLOUD_RUNTIMES_RUNTIME", "from-environment")
    assert settings(path).runtime == "from-environment"
    assert settings(path, runtime="capa").runtime == "capa"
    monkeypatch.setenv("CLOUD_RUNTIMES_RUNTIME", "")
    assert settings(path).runtime == "from-file", "an empty variable is none"


@pytest.mark.parametrize(
    ("variables", "arguments", "expected"),
    [
        ({}, {"endpoint": "http://localhost:3500"}, "dapr"),
        ({"DAPR_HTTP_ENDPOINT": "http://x"}, {}, "dapr"),
        ({"DAPR_GRPC_ENDPOINT": "x"}, {}, "dapr"),
        ({"DAPR_HTTP_PORT": "3500"}, {}, "dapr"),
        ({"DAPR_GRPC_PORT": "50001"}, {}, "dapr"),
        ({"LAYOTTO_GRPC_ENDPOINT": "x"}, {}, "layotto"),
        ({"LAYOTTO_GRPC_ENDPOINT": "x", "DAPR_HTTP_PORT": "3500"}, {}, "dapr"),
        ({"DAPR_HTTP_PORT": "3500"}, {"runtime": "capa"}, "capa"),
        ({"DAPR_HTTP_PORT": "3500", "CLOUD_RUNTIMES_RUNTIME": "capa"}, {}, "capa"),
        ({"DAPR_API_TOKEN": "t"}, {}, "capa"),
    ],
)
def test_runtime_by_sidecar(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], arguments: dict[str, Any], expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert settings(**arguments).runtime == expected


def test_endpoint(tmp_path: Path) -> None:
    path = file(tmp_path, 'endpoint = "grpc://file:1"')
    assert (settings(path).endpoint, settings(path).runtime) == ("grpc://file:1", "dapr")
    assert settings(path, endpoint="grpc://argument:1").endpoint == "grpc://argument:1"


def test_timeout(tmp_path: Path) -> None:
    path = file(tmp_path, "timeout = 7.5")
    assert settings(path).timeout == 7.5
    assert settings(path, timeout=30.0).timeout == 30.0, "the default's number, but given"
    assert settings(path, timeout=None).timeout is None
    assert settings(file(tmp_path, '{"timeout": null}', "none.json")).timeout is None


def test_the_timeout_of_the_file_is_that_of_every_call(scripted: CloudRuntimesClient, runtime: Any) -> None:
    with CloudRuntimesClient(runtime=runtime, config={"timeout": 7.5}) as client:
        client.state.get("store", "k")
        client.state.get("store", "k", timeout=1)
        client.state.get("store", "k", timeout=None)
    assert [op.timeout for op in runtime.state.operations] == [7.5, 1, None]


def test_app_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, 'app_id = "from-file"')
    assert settings(path).app_id == "from-file"
    monkeypatch.setenv("APP_ID", "from-environment")
    assert settings(path).app_id == "from-environment"
    assert settings(path, app_id="from-argument").app_id == "from-argument"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/shop/web server.py", "web-server"),
        ("/srv/shop/__main__.py", "shop"),
        ("", "python"),
        (None, "python"),
        ("/x/--.py", "python"),
    ],
)
def test_app_id_of_the_main_program(monkeypatch: pytest.MonkeyPatch, path: str | None, expected: str) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", path, raising=False)
    assert settings().app_id == expected


@pytest.mark.parametrize("bad", ["a b", "-a", "x" * 129, "a/b", "ä"])
def test_a_bad_app_id_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgumentError, match="app_id"):
        settings(app_id=bad)


def test_api_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_API_TOKEN", "s3cret-environment")
    assert settings().api_token == "s3cret-environment"
    client = CloudRuntimesClient(api_token="s3cret-argument", config={"state": {"s": {"component": "x"}}})
    assert client._context.settings.api_token == "s3cret-argument"
    for shown in (repr(client), repr(client._context.settings), str(client._context.settings)):
        assert "s3cret" not in shown


def _home_of(client: CloudRuntimesClient, store: str = "store") -> Path:
    client.state.save(store, "k", 1)
    return Path(client.state._frame.driver(store)._engine.path)


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: Keep) -> None:
    monkeypatch.chdir(tmp_path)
    name = "cloud_runtimes.db"
    assert _home_of(closing(CloudRuntimesClient())) == tmp_path / ".cloud_runtimes" / name
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", str(tmp_path / "environment"))
    assert _home_of(closing(CloudRuntimesClient())) == tmp_path / "environment" / name
    # a setting that is written down is nearer than the variable, which is for what says nothing
    path = file(tmp_path, f'capa.home = "{tmp_path}/file"')
    assert _home_of(closing(CloudRuntimesClient(config=path))) == tmp_path / "file" / name
    path = file(
        tmp_path, f'capa.home = "{tmp_path}/file"\nstate.s = {{component = "sqlite", home = "{tmp_path}/table"}}'
    )
    assert _home_of(closing(CloudRuntimesClient(config=path)), "s") == tmp_path / "table" / name
    path = file(
        tmp_path, f'capa.home = "{tmp_path}/file"\nstate.s = {{component = "sqlite", path = "{tmp_path}/my.db"}}'
    )
    assert _home_of(closing(CloudRuntimesClient(config=path)), "s") == tmp_path / "my.db"


def test_durability(monkeypatch: pytest.MonkeyPatch, closing: Keep) -> None:
    def durable(**table: Any) -> bool:
        declared = {"state": {"s": {"component": "sqlite", "home": ":memory:", **table}}}
        is_durable: bool = closing(CloudRuntimesClient(config=declared)).state._frame.driver("s")._context.durable
        return is_durable

    assert durable()
    assert not durable(durability="relaxed")
    monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "relaxed")
    assert not durable()
    assert durable(durability="full")
    monkeypatch.setenv("CLOUD_RUNTIMES_DURABILITY", "none")
    with pytest.raises(InvalidArgumentError, match=r"CLOUD_RUNTIMES_DURABILITY: give full or relaxed"):
        durable()


# -- files --------------------------------------------------------------------

KINDS = {
    "c.toml": 'app_id = "x"\n[state.orders]\ncomponent = "sqlite"\nretention = "7d"\n',
    "c.json": '{"app_id": "x", "state": {"orders": {"component": "sqlite", "retention": "7d"}}}',
    "c.yaml": "app_id: x\nstate:\n  orders:\n    component: sqlite\n    retention: 7d\n",
    "c.YML": "app_id: x\nstate: {orders: {component: sqlite, retention: 7d}}\n",
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_files(tmp_path: Path, name: str) -> None:
    path = file(tmp_path, KINDS[name], name)
    for source in (path, str(path)):
        result = settings(source)
        assert result.app_id == "x"
        assert result.components["state"] == {"orders": {"component": "sqlite", "retention": "7d"}}
        assert result.origin == str(path)


@pytest.mark.promise("H9")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "app_id: !!python/object/apply:os.mkdir ['{ran}']\n"),
        ("c.yaml", "app_id: !!python/object/new:os.mkdir ['{ran}']\n"),
        ("c.yaml", "app_id: !!python/name:os.mkdir ''\n"),
        ("c.toml", '[state.orders]\ncomponent = "os:mkdir"\n'),
        ("c.toml", 'runtime = "os.path:exists"\n'),
        ("c.json", '{{"state": {{"orders": {{"component": "cloud_runtimes.testing:main"}}}}}}'),
    ],
)
def test_a_configuration_runs_no_code(tmp_path: Path, name: str, text: str) -> None:
    path = file(tmp_path, text.format(ran=tmp_path / "ran"), name)
    with pytest.raises((InvalidArgumentError, ComponentNotFoundError)):
        CloudRuntimesClient(config=path).state.get("orders", "k")
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_files(tmp_path: Path) -> None:
    file(tmp_path, 'app_id = "x"\n[state.a]\ncomponent = "sqlite"\n', "one.toml")
    file(tmp_path, '{"state": {"b": {"component": "sqlite"}}, "timeout": 3}', "two.json")
    file(tmp_path, "pubsub: {a: {component: sqlite}}\ncapa: {home: ':memory:'}\n", "three.yaml")
    file(tmp_path, "this is not read", "readme.txt")
    (tmp_path / "folder.toml").mkdir()
    result = settings(tmp_path)
    assert (result.app_id, result.timeout, result.runtime_settings) == ("x", 3, {"home": ":memory:"})
    assert {service: sorted(tables) for service, tables in result.components.items() if tables} == {
        "state": ["a", "b"],
        "pubsub": ["a"],
    }


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ('[state.a]\ncomponent = "sqlite"\n', '[state.a]\nhome = "x"\n', "'state.a'"),
        ('capa.home = "x"\n', 'capa.home = "x"\n', "key 1 of capa"),
        ('app_id = "x"\n', 'app_id = "x"\n', "'app_id'"),
        ("state = 1\n", '[state.a]\ncomponent = "sqlite"\n', "'state'"),
    ],
)
def test_the_same_table_in_two_files_is_refused(tmp_path: Path, first: str, second: str, named: str) -> None:
    file(tmp_path, first, "one.toml")
    file(tmp_path, second, "two.toml")
    with pytest.raises(InvalidArgumentError, match=rf"two\.toml: {named} stands in another file"):
        settings(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", '[state.a]\ncomponent = "x"\n[state.a]\nhome = "y"\n'),
        ("c.json", '{"state": {"a": {"component": "x"}, "a": {"component": "y"}}}'),
        ("c.yaml", "state:\n  a: {component: x}\n  a: {component: y}\n"),
    ],
)
def test_the_same_table_twice_in_one_file_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"(?s)c\.\w+: syntax error"):
        settings(file(tmp_path, text, name))


@pytest.mark.parametrize(
    ("name", "text", "position"),
    [
        ("c.toml", 'app_id = "x"\nstate = = 1\n', r"line 2, column 9"),
        ("c.json", '{"app_id": "x",\n "state": }', r"line 2, column 11"),
        ("c.yaml", "app_id: x\nstate: {a: [}\n", r"line 2, column 13"),
        ("c.json", "[" * 100_000, r"syntax error"),
        ("c.toml", "x = " + "[" * 100_000, r"syntax error"),
    ],
)
def test_a_syntax_error_names_file_and_position(tmp_path: Path, name: str, text: str, position: str) -> None:
    path = file(tmp_path, text, name)
    with pytest.raises(InvalidArgumentError, match=position) as caught:
        settings(path)
    assert str(path) in str(caught.value)


def test_other_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"absent\.toml does not exist"):
        settings(tmp_path / "absent.toml")
    with pytest.raises(InvalidArgumentError, match=r"c\.ini: unknown kind"):
        settings(file(tmp_path, "x", "c.ini"))
    bad = tmp_path / "bytes.toml"
    bad.write_bytes(b'app_id = "\xff"')
    with pytest.raises(InvalidArgumentError, match=r"bytes\.toml: not UTF-8 at byte 10"):
        settings(bad)
    for name, text in (("list.json", "[1]"), ("list.yaml", "- 1")):
        with pytest.raises(InvalidArgumentError, match="expected tables at the top, found list"):
            settings(file(tmp_path, text, name))
    with pytest.raises(InvalidArgumentError, match="expected tables at the top, found NoneType"):
        settings(file(tmp_path, "null", "null.json"))
    with pytest.raises(InvalidArgumentError, match=r"key\.yaml: syntax error"):
        settings(file(tmp_path, "? [a]\n: b\n", "key.yaml"))
    assert settings(file(tmp_path, "", "empty.yaml")).runtime == "capa"


def test_a_byte_order_mark(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"app_id": "x"}'), ("a.toml", 'app_id = "x"'), ("a.yaml", "app_id: x")):
        assert settings(file(tmp_path, f"\ufeff{text}", name)).app_id == "x"


@pytest.mark.parametrize(
    ("kind", "text"), [("json", '{"a": WORD'), ("toml", "a = WORD"), ("yaml", "a: *WORD"), ("yaml", "a: !WORD x")]
)
def test_the_words_of_a_parser_are_not_told(kind: str, text: str) -> None:
    """They quote the document, which may hold secrets."""
    message = read_tables(text.encode(), kind)
    assert isinstance(message, str)
    assert re.fullmatch(r"syntax error at line 1, column \d+", message)


def test_yaml_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UnsupportedError, match=r'pip install "\.\[yaml\]" in the checkout'):
        settings(file(tmp_path, "app_id: x", "c.yaml"))


# -- what is refused ----------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"timout": 3}, "unknown key 'timout'; did you mean 'timeout'?"),
        ({"stat": {}}, "unknown key 'stat'; did you mean 'state'?"),
        ({"queue": {}}, "unknown key, key 1 of the table; known: admin, app_id, capa, "),
        ({"state": 5}, "'state' must be a table, not int"),
        ({"capa": "x"}, "'capa' must be a table, not str"),
        ({"runtime": 5}, "'runtime' must be text, not int"),
        ({"app_id": 5}, "'app_id' must be text, not int"),
        ({"endpoint": 5}, "'endpoint' must be text, not int"),
        ({"timeout": "5"}, "timeout must be a number of seconds or None, not str"),
        ({"timeout": 0}, "timeout must be a finite number of seconds > 0"),
        ({"timeout": True}, "timeout must be a number of seconds or None, not bool"),
        ({"state": {"a": 1}}, "[state]: key 1 must be a table with component=…, not int"),
        ({"state": {"a": {}}}, '[state.a]: say which component, e.g. component = "sqlite"'),
        ({"state": {"a": {"component": 1}}}, "[state.a]: say which component"),
        ({"app_id": "x", 7: 1}, "unknown key, key 2 of the table"),
    ],
)
def test_a_wrong_configuration_is_refused(table: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        settings(table)
    assert str(caught.value).startswith("the configuration: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"retentoin": 1}, "unknown setting 'retentoin'; did you mean 'retention'?"),
        ({"zzz": 1}, "unknown setting, key 2 of the table; known: durability, "),
        ({"max_bytes": "5"}, "setting 'max_bytes': expected int, got text"),
        ({"max_bytes": 1.5}, "setting 'max_bytes': expected int, got float"),
        ({"max_value_bytes": True}, "setting 'max_value_bytes': expected int, got bool"),
        ({"home": 5}, "setting 'home': expected str, got int"),
        ({"durability": "none"}, "setting 'durability': expected 'full' or 'relaxed', got other text"),
        ({"durability": ["full"]}, "setting 'durability': expected 'full' or 'relaxed'"),
        ({"when_full": None}, "setting 'when_full': expected 'refuse' or 'drop_oldest', got NoneType"),
        ({"retention": "7 days"}, "setting 'retention': expected seconds or text such as"),
        ({"retention": None}, "setting 'retention': expected float, got NoneType"),
        ({"home": "a", "path": "b"}, "give home or path, not both"),
        ({"max_bytes": 5}, "max_bytes must be at least 1,048,576"),
    ],
)
def test_a_wrong_setting_is_refused(table: dict[str, Any], message: str) -> None:
    with CloudRuntimesClient(config={"state": {"s": {"component": "sqlite", **table}}}) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            client.state.get("s", "k")
    assert str(caught.value).startswith("the configuration: [state.s]: ")
    assert message in str(caught.value)


def test_the_table_of_the_runtime_is_checked_too() -> None:
    with CloudRuntimesClient(config={"capa": {"hom": "x"}}) as client:
        with pytest.raises(InvalidArgumentError, match=r"\[capa\]: unknown setting 'hom'; did you mean 'home'"):
            client.state.get("s", "k")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("24h", 86400.0),
        (" 7d ", 604800.0),
    ],
)
def test_durations(given: Any, seconds: float) -> None:
    assert duration(given) == seconds
    assert build(SqliteSettings, {"retention": given}, "x").retention == seconds


@pytest.mark.parametrize(
    "bad",
    [-1, float("nan"), float("inf"), True, None, "", "5", "5 s", "-5s", "5w", "s", "1e3s", [], "٥s", "9" * 400 + "s"],
)
def test_bad_durations_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="expected seconds or text"):
        duration(bad)


# -- components ---------------------------------------------------------------


def test_declared_and_undeclared_names(closing: Keep) -> None:
    undeclared = closing(CloudRuntimesClient(config={"capa": {"home": ":memory:names"}}))
    undeclared.state.save("any", "k", 1)
    assert undeclared.state.get("other", "k") is None
    table = {"component": "sqlite", "home": ":memory:names"}
    strict = {"strict": True, "home": ":memory:names"}
    client = closing(CloudRuntimesClient(config={"capa": strict, "state": {"any": table, "b": table}}))
    assert client.state.get("any", "k") == 1
    for call in (lambda: client.state.get("other", "k"), lambda: client.pubsub.publish("bus", "t", 1)):
        with pytest.raises(ComponentNotFoundError, match=r"declares \[state\.any\], \[state\.b\]: add \["):
            call()
    assert client.supports("state.etag", "any")
    assert not client.supports("state.etag", "other")
    assert not client.supports("pubsub", "bus")


def test_an_unknown_component(closing: Keep) -> None:
    client = closing(CloudRuntimesClient(config={"state": {"s": {"component": "sqlit"}}}))
    with pytest.raises(
        ComponentNotFoundError, match=r"\[state\.s\]: unknown component of state 'sqlit'; did you mean 'sqlite'\?"
    ):
        client.state.get("s", "k")


def test_a_component_without_the_service(monkeypatch: pytest.MonkeyPatch, closing: Keep) -> None:
    from cloud_runtimes.components.sqlite import SqliteComponent

    monkeypatch.setattr(SqliteComponent, "services", ("pubsub",))
    client = closing(CloudRuntimesClient(config={"state": {"s": {"component": "sqlite", "home": ":memory:"}}}))
    with pytest.raises(UnsupportedError, match="'sqlite' has no state; it has pubsub"):
        client.state.get("s", "k")


@pytest.mark.parametrize("source", ["argument", "environment", "file"])
def test_an_unknown_runtime(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    arguments: dict[str, Any] = {}
    if source == "argument":
        arguments["runtime"] = "kapa"
    elif source == "environment":
        monkeypatch.setenv("CLOUD_RUNTIMES_RUNTIME", "kapa")
    else:
        arguments["config"] = {"runtime": "kapa"}
    client = CloudRuntimesClient(**arguments)
    with pytest.raises(InvalidArgumentError, match=r"unknown runtime 'kapa'; did you mean 'capa'\?"):
        client.state.get("s", "k")
    client.close()


# -- the constructor ----------------------------------------------------------


def test_the_constructor_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the constructor did I/O")

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "listdir", "scandir", "mkdir"):
            patch.setattr(f"os.{name}", forbidden)
        patch.setattr("builtins.open", forbidden)
        patch.setattr(Path, "is_dir", forbidden)
        client = CloudRuntimesClient(config=tmp_path / "absent.toml", runtime="kapa")
        assert client.state is client.state
        assert client.pubsub is client.pubsub
        repr(client)
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        client.state.get("s", "k")
    file(tmp_path, "", "absent.toml")
    with pytest.raises(InvalidArgumentError, match="unknown runtime"):
        client.state.get("s", "k")
    client.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": 5}, "endpoint must be text"),
        ({"app_id": b"x"}, "app_id must be text"),
        ({"api_token": 5}, "api_token must be text"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"config": 5}, "config must be a path or a mapping"),
        ({"config": [("a", 1)]}, "config must be a path or a mapping"),
        ({"runtime": 5}, "runtime must be a name or a Runtime"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        CloudRuntimesClient(**arguments)


def test_the_configuration_is_read_once_and_not_kept(tmp_path: Path) -> None:
    table: dict[str, Any] = {"state": {"s": {"component": "sqlite", "home": ":memory:"}}}
    before = json.dumps(table)
    with CloudRuntimesClient(config=table) as client:
        client.state.get("s", "k")
        assert json.dumps(table) == before, "the caller's mapping was changed"
        del table["state"]["s"]
        assert client.state.get("s", "k") is None
    path = file(tmp_path, before, "c.json")
    with CloudRuntimesClient(config=path) as client:
        client.state.get("s", "k")
        path.unlink()
        assert client.state.get("s", "other") is None


def test_read_gives_the_origin(tmp_path: Path) -> None:
    assert read(None) == ({}, "no configuration")
    assert read({"a": 1}) == ({"a": 1}, "the configuration")
    assert read(tmp_path) == ({"capa": {"home": f"{tmp_path}/.cloud_runtimes"}}, str(tmp_path))
    assert set(config.load.__kwdefaults__ or {}) == set(), "every source is said"
    assert sorted(SERVICES) == [
        "configuration", "database", "file", "lock", "pubsub", "rpc", "schedule", "secret", "state", "telemetry",
    ]  # fmt: skip
