"""Requests that the services refuse by themselves, before they ask a driver: the same for every component."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.configuration import ConfigurationItem
from cloud_runtimes.database import Column
from cloud_runtimes.errors import BulkError, InvalidArgumentError, PayloadError
from cloud_runtimes.schedule import Retry, RpcTarget, TopicTarget
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites.database import injections
from tests.support.arguments import one_each
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows

BAD_JOBS: list[tuple[dict[str, Any], str]] = [
    ({}, "schedule="),
    ({"schedule": "nonsense"}, "schedule 'nonsense'"),
    ({"schedule": "0 0 31 2 *"}, "31 2"),
    ({"schedule": 5}, "schedule must be"),
    ({"schedule": timedelta(0)}, "@every"),
    ({"schedule": timedelta(seconds=-5)}, "@every"),
    ({"schedule": "TZ=UTC 0 0 * * *"}, "timezone="),
    ({"due_time": "tomorrow"}, "due_time 'tomorrow'"),
    ({"due_time": datetime(2095, 1, 1)}, "time zone"),
    ({"due_time": "2095-01-01T00:00:00"}, "time zone"),
    ({"due_time": -1}, "due_time must be 0 or more"),
    ({"due_time": float("nan")}, "due_time must be 0 or more"),
    ({"due_time": float("inf")}, "due_time must be 0 or more"),
    ({"due_time": True}, "due_time must be"),
    ({"due_time": [1]}, "due_time must be"),
    ({"due_time": datetime(1960, 1, 1, tzinfo=UTC)}, "after 1970"),
    ({"due_time": 1, "repeats": 2}, "repeats"),
    ({"due_time": 1, "ttl": 5}, "ttl= needs"),
    ({"schedule": "@hourly", "repeats": 0}, "repeats must be"),
    ({"schedule": "@hourly", "repeats": True}, "repeats must be"),
    ({"schedule": "@hourly", "repeats": 1.5}, "repeats must be"),
    ({"schedule": "@hourly", "ttl": 0}, "ttl must be"),
    ({"schedule": "@hourly", "ttl": -1}, "ttl must be"),
    ({"schedule": "@hourly", "ttl": "soon"}, "ttl 'soon'"),
    ({"schedule": "@hourly", "misfire": "never"}, "misfire must be"),
    ({"schedule": "@hourly", "misfire": None}, "misfire must be"),
    ({"schedule": "@hourly", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
    ({"schedule": "@every 1h", "timezone": "Europe/Paris"}, "leave the time zone out"),
    ({"schedule": timedelta(hours=1), "timezone": "Europe/Paris"}, "leave the time zone out"),
    ({"schedule": "@hourly", "timezone": None}, "timezone"),
    ({"due_time": 1, "timezone": "../UTC"}, "timezone"),
    ({"schedule": "@hourly", "overwrite": 1}, "overwrite must be"),
    ({"schedule": "@hourly", "failure_policy": "retry"}, "failure_policy must be"),
    ({"schedule": "@hourly", "failure_policy": Retry(-1)}, "Retry.attempts"),
    ({"schedule": "@hourly", "failure_policy": Retry(1.5)}, "Retry.attempts"),
    ({"schedule": "@hourly", "failure_policy": Retry(1, -1.0)}, "Retry.interval"),
    ({"schedule": "@hourly", "failure_policy": Retry(1, float("nan"))}, "Retry.interval"),
    ({"schedule": "@hourly", "target": "j"}, "target must be the handler"),
    ({"schedule": "@hourly", "target": 5}, "target must be"),
    ({"schedule": "@hourly", "target": print}, "no handler of this client"),
    ({"schedule": "@hourly", "target": RpcTarget("http://x", "m")}, "app_id"),
    ({"schedule": "@hourly", "target": RpcTarget("s", "../m")}, "method"),
    ({"schedule": "@hourly", "target": TopicTarget("", "t")}, "pubsub_name"),
    ({"schedule": "@hourly", "target": TopicTarget("b", "")}, "topic"),
    ({"schedule": "@hourly", "data": float("nan")}, "payload|NaN|JSON|object"),
    ({"schedule": "@hourly", "data": object()}, "payload|NaN|JSON|object"),
    ({"schedule": "@hourly", "timeout": 0}, "timeout"),
    ({"schedule": "@hourly", "metadata": {"a": 1}}, "metadata"),
]

# fmt: off
BAD_NAMES = (
    "", "/", "/etc/passwd", "a/", "a//b", "//", ".", "..", "../a", "../../etc/passwd", "a/../b", "a/./b", "./a",
    "a/..", "../foo/../bar", "a\0b", "\0", "\ud800", "x" * 1025, "ü" * 513, None, 7, b"a", Path("a"),
)
# fmt: on
# fmt: off
BAD_SERVICES: list[Any] = [
    "", "a@b", "../x", "http://127.0.0.1", "a/b", "a b", "a\r\nx: y", "a\0", "127.0.0.1:80", "[::1]", "ü", "x" * 129,
    None, 5,
]
BAD_METHODS: list[Any] = [
    "", "/m", "m/", "a//b", "../m", "a/../b", "./m", "a b", "m\r\nx: y", "m\0", "m?q=1", "m#f", "a\\b", "\ud800",
    None, "x" * 513, "m\x7f", "http://a/b",
]
BAD_HEADERS: list[Any] = [
    {"x": "a\r\ny: b"}, {"x": "a\nb"}, {"x": "a\0"}, {"x": "ü"}, {"x": " a"}, {"x": "a\t"}, {"x\r\ny": "a"},
    {"x y": "a"}, {"x:": "a"}, {"": "a"}, {"x": 1}, {1: "x"}, {"x": "1", "X": "2"}, {"Host": "evil"},
    {"content-length": "0"}, {"Transfer-Encoding": "chunked"}, {"connection": "close"},
    {"content-type": "text/plain"}, {"cloud-runtimes-token": "x"}, {"Proxy-Authorization": "x"}, {"x": "a" * 20_000},
    [("x", "y")],
]
# fmt: on


class Refusals(Suite):
    """On a driver that nobody may ask anything."""

    harness = rows({MemoryHarness.name: MemoryHarness})

    @pytest.fixture
    def call(self, client: CloudRuntimesClient, api: Api, store: str, monkeypatch: pytest.MonkeyPatch) -> Call:
        name = "default" if self.service == "schedule" else store
        driver = getattr(client, self.service)._frame.driver(name)

        def asked(*arguments: Any, **options: Any) -> Any:
            raise AssertionError("the driver was asked")

        for method, _ in inspect.getmembers(type(driver), inspect.isfunction):
            if not method.startswith("_"):
                monkeypatch.setattr(driver, method, asked)
        return Call(api, client, self.service, *([] if self.service == "schedule" else [store]))


class TestState(Refusals):
    service = "state"

    def test_keys(self, call: Call, subtests: pytest.Subtests) -> None:
        for key in ("", "x" * 1025, "ü" * 513, "a\0b", "a||b", "||", "\ud800", 7, None, b"k"):
            with subtests.test(key=key):
                refused = call.fails(InvalidArgumentError, match="key")
                for method, *arguments in (("get", key), ("get_item", key), ("save", key, 1), ("delete", key)):
                    refused(method, *arguments)
                refused("delete_bulk", [key])
                refused("get_bulk", ["fine", key])
                call.fails(BulkError)("save_bulk", {key: 1})

    def test_values(self, call: Call, subtests: pytest.Subtests) -> None:
        for value in ({1j}, object(), float("nan"), {"x": [float("inf")]}, "\ud800", {1: "int key"}, 2**70):
            with subtests.test(value=value):
                call.fails(PayloadError)("save", "k", value)

    def test_options(self, call: Call, subtests: pytest.Subtests) -> None:
        for options in one_each(
            ttl=(0, -1, float("nan"), float("inf"), "5", True, timedelta(0)),
            etag=("",),
            fence=(-1, 2**63, True, "7"),
            concurrency=("best-write",),
            content_type=("no media type", "text/plain\r\nX: y"),
            metadata=({"a": 1}, "text", {"ttlInSeconds": "foo"}),
            timeout=(0, -1, float("nan"), "5", True),
        ):
            with subtests.test(options=options):
                (name,) = options
                match = "ttlInSeconds" if "foo" in str(options) else name
                call.fails(InvalidArgumentError, match=match)("save", "k", 1, **options)

    def test_other_arguments(self, call: Call, client: CloudRuntimesClient, api: Api) -> None:
        for name in ("", "a\nb", 7, None):
            api.fails(InvalidArgumentError)(client.state, "get", name, "k")
        call.fails(TypeError)("get", "k", unknown=1)
        call.fails(InvalidArgumentError, match="consistency")("get", "k", consistency="weak")
        call.fails(InvalidArgumentError, match="list")("get_bulk", "one-key")
        for options in ({"limit": 0}, {"limit": True}, {"after": ""}, {"prefix": "||"}):
            call.fails(InvalidArgumentError)("list_keys", **options)


class TestPubSub(Refusals):
    service = "pubsub"

    def test_data(self, call: Call, subtests: pytest.Subtests) -> None:
        for data in ({1j}, float("nan"), "\ud800", object()):
            with subtests.test(data=data):
                call.fails(PayloadError)("publish", "t", data)

    def test_events(self, call: Call) -> None:
        no_uris = ("", "a b", "a\tb", "ü", "<a>", "a%2", "a\\b")
        attributes: list[Any] = [{"source": text} for text in no_uris]
        attributes += one_each(id=("",), dataschema=("a b",), time=("yesterday",), data=("x",), tenant=(1.5,))
        attributes += [{"Not Lower": "x"}, "text", {"datacontenttype": "text/plain"}]
        for options in one_each(
            attributes=tuple(attributes),
            key=("", "a\0b"),
            content_type=("none",),
            metadata=({"a": 1},),
            timeout=(0,),
            ttl=(0,),
            delay=(-1,),
        ):
            call.fails(InvalidArgumentError)("publish", "t", 1, **options)
        for topic in ("", "a\nb", "x" * 256, 7, None):
            call.fails(InvalidArgumentError, match="topic")("publish", topic, 1)
        call.fails(InvalidArgumentError, match="list")("publish_bulk", "t", "text")

    def test_subscriptions(self, call: Call) -> None:
        for options in one_each(workers=(0,), batch=(0,), max_in_flight=(0,), group=("",), start=("sometime",)):
            call.fails(InvalidArgumentError, match=next(iter(options)))("subscribe", "t", **options)
        now = datetime.now(UTC)
        starts = ((5, "datetime"), (now.date(), "datetime"), (now.replace(tzinfo=None), "time zone"))
        for start, remedy in (*starts, (now + timedelta(minutes=1), "'latest'")):
            call.fails(InvalidArgumentError, match=f"^start.*{remedy}")("subscribe", "t", start=start)
        call.fails(InvalidArgumentError)("subscribe", "t", handler="no function")
        call.fails(InvalidArgumentError, match="another topic")("subscribe", "t", dead_letter_topic="t")
        call.fails(TypeError, match="colour")("subscribe", "t", colour="red")

    def test_lag(self, call: Call) -> None:
        for options in one_each(group=("", 5), timeout=(0,), metadata=({"a": 1},)):
            call.fails(InvalidArgumentError, match=next(iter(options)))("lag", "t", **options)
        call.fails(InvalidArgumentError, match="topic")("lag", "")


class TestConfiguration(Refusals):
    service = "configuration"

    def test_keys(self, call: Call, subtests: pytest.Subtests) -> None:
        for keys in ("key", [""], ["a||b"], ["\0"], ["x" * 1025], [5], ["\ud800"]):
            with subtests.test(keys=keys):
                for method in (
                    "get_configuration",
                    "get_configuration_items",
                    "delete_configuration",
                    "subscribe_configuration",
                ):
                    error = call.fails(InvalidArgumentError, match="key")(method, keys)
                    assert (error.service, error.operation) == ("configuration", method)

    def test_options(self, call: Call) -> None:
        for options in one_each(group=("", 5), label=("*", "\n"), timeout=(0,), metadata=({"a": 1},)):
            call.fails(InvalidArgumentError, match=next(iter(options)))("get_configuration", **options)
        call.fails(InvalidArgumentError, match="handler must be callable")("subscribe_configuration", (), "print")

    def test_items(self, call: Call) -> None:
        item: Any = ConfigurationItem
        for items in (
            {"a": 5},
            {"a": None},
            {"a": item("a", "b")},
            {"": "x"},
            {"a": "\ud800"},
            "a=b",
            [("a", "b")],
            [item("a", "b", deleted=True)],
            [item("a", "b", tags={"x": 1})],
            [item("a", "b", metadata={"x": 1})],
        ):
            call.fails(InvalidArgumentError)("save_configuration", items)
        for value in (["sesame"], b"sesame", "sesame\ud800"):
            caught = call.fails(InvalidArgumentError)("save_configuration", {"a": value})
            assert "sesame" not in str(caught), "no value stands in a message"


class TestDatabase(Refusals):
    service = "database"

    def test_statements(self, call: Call, store: str, subtests: pytest.Subtests) -> None:
        for sql, params, message in (
            ("SELECT :a", None, "no value for :a"),
            ("SELECT :a, :b", {"a": 1}, "no value for :b"),
            ("SELECT 1", {"a": 1}, "has no :a"),
            ("SELECT :a", {"a": 1, "b": 2}, "has no :b; it has :a"),
            ("SELECT :a", [1], "params must be a mapping"),
            ("SELECT :a", {"a": object()}, "'a': a value of type object"),
            ("SELECT :a", {"a": float("nan")}, "NaN"),
            ("SELECT :a", {"a": "\ud800"}, "lone surrogate"),
            ("SELECT 1; SELECT 2", None, "more than one statement"),
            ("SELECT 1; DROP TABLE item", None, "more than one statement"),
            ("SELECT 'open", None, "has no end"),
            ("SELECT /* open", None, "has no end"),
            ("", None, "empty"),
            (" -- nothing", None, "empty"),
            ("BEGIN", None, "transaction()"),
            ("COMMIT", None, "transaction()"),
            ("rollback", None, "transaction()"),
            ("/* x */ SAVEPOINT a", None, "transaction()"),
            (5, None, "sql must be str"),
            ("SELECT '\0'", None, "NUL"),
        ):
            with subtests.test(sql=sql, params=params):
                for name in ("query", "execute"):
                    error = call.fails(InvalidArgumentError)(name, sql, params)
                    assert message in str(error)
                    assert (error.service, error.operation, error.component) == ("database", name, store)

    def test_timeouts(self, call: Call, subtests: pytest.Subtests) -> None:
        for timeout in (0, -1, float("nan"), "1"):
            with subtests.test(timeout=timeout):
                call.fails(InvalidArgumentError, match="timeout")("query", "SELECT 1", timeout=timeout)
                with pytest.raises(InvalidArgumentError, match="timeout"):
                    call.plain("stream", "SELECT 1", timeout=timeout)

    def test_tables(self, call: Call) -> None:
        cases: list[tuple[str, tuple[Any, ...], str]] = [
            ("update", ("item", {"qty": 1}, {}), "where is empty"),
            ("update", ("item", {}, {"id": 1}), "values must be a mapping"),
            ("update", ("item", {"qty": 1}, "id = 1"), "where must be a mapping"),
            ("insert", ("item", {}), "values must be a mapping"),
            ("insert", ("item", {"qty": object()}), "type object"),
            ("create_table", ("a", {}), "at least one"),
            ("create_table", ("a", {"x": "money"}), "no kind of column"),
            ("create_table", ("a", {"x": complex}), "no kind of column"),
            ("create_table", ("a", {"x": Column(kind="money")}), "no kind of column"),  # type: ignore[arg-type]
            ("create_table", ("a", {"x": int, "X": int}), "differ by case"),
            ("drop_table", (None,), "must be str"),
        ]
        for name, arguments, message in cases:
            call.fails(InvalidArgumentError, match=message)(name, *arguments)

    @pytest.mark.promise("H2")
    def test_500_injections(self, call: Call) -> None:
        strings = injections()
        assert len(strings) == 500
        for hostile in strings:
            for name, *arguments in (
                ("table_schema", hostile),
                ("create_table", hostile, {"a": int}),
                ("create_table", "fine", {hostile: int}),
                ("drop_table", hostile),
                ("insert", hostile, {"qty": 1}),
                ("insert", "item", {hostile: 1}),
                ("update", hostile, {"qty": 1}, {"id": 1}),
                ("update", "item", {hostile: 1}, {"id": 1}),
                ("update", "item", {"qty": 1}, {hostile: 1}),
            ):
                call.fails(InvalidArgumentError)(name, *arguments)


class TestFile(Refusals):
    service = "file"

    def test_names(self, call: Call, subtests: pytest.Subtests) -> None:
        for name in BAD_NAMES:
            with subtests.test(name=name):
                for method, *arguments in (
                    ("put_file", name, b"x"),
                    ("get_file", name),
                    ("stat_file", name),
                    ("exists", name),
                    ("delete_file", name),
                    ("copy_file", "f", name),
                    ("copy_file", name, "f"),
                    ("move_file", "f", name),
                    ("move_file", name, "f"),
                ):
                    call.fails(InvalidArgumentError, match=r"name|source|target")(method, *arguments)
                with pytest.raises(InvalidArgumentError, match="name"):
                    call.plain("open_file", name, "wb")

    def test_content(self, call: Call, subtests: pytest.Subtests) -> None:
        for data in ("text", None, 7, {"a": 1}):
            with subtests.test(data=data):
                call.fails(InvalidArgumentError, match="bytes")("put_file", "f", data)

    def test_options(self, call: Call, subtests: pytest.Subtests) -> None:
        for options in one_each(
            metadata=({"a": 1}, [("a", "b")], {"": "b"}, {"a": "\ud800"}, {"a": "x" * 2048}),
            content_type=("", "text/\n", "é", "any text", "text/", "text/plain, text/html", 7),
            overwrite=(None,),
            timeout=(0,),
        ):
            with subtests.test(options=options):
                call.fails(InvalidArgumentError)("put_file", "f", b"x", **options)

    def test_listings_and_ranges(self, call: Call) -> None:
        for options in one_each(limit=(0, 1.0, True), prefix=(7, "\0"), after=(b"a", "\ud800"), recursive=(1,)):
            call.fails(InvalidArgumentError)("list_files", **options)
        for options in one_each(start=(-1, 1.0, True, 2**63), length=(-1, "1")):
            call.fails(InvalidArgumentError, match=r"start|length")("get_file", "f", **options)

    def test_handles(self, call: Call) -> None:
        for mode in ("r", "w", "ab", "r+b", "", None):
            with pytest.raises(InvalidArgumentError, match="'rb' or 'wb'"):
                call.plain("open_file", "f", mode)
        with pytest.raises(InvalidArgumentError):
            call.plain("open_file", "f", timeout=0)
        for size in (0, -1, 1.5):
            with pytest.raises(InvalidArgumentError):
                call.plain("open_file", "f").chunks(size)


class TestLock(Refusals):
    service = "lock"

    def test_names(self, call: Call, subtests: pytest.Subtests) -> None:
        for name in ("", "x" * 1025, "ü" * 513, "a\0b", "a||b", "\ud800", 5, None, b"r"):
            with subtests.test(name=name):
                call.fails(InvalidArgumentError, match="resource_id")("try_lock", name)
                with pytest.raises(InvalidArgumentError, match="resource_id"):
                    call.plain("hold", name)
                call.fails(InvalidArgumentError, match="resource_id")("unlock", name, "me")
                call.fails(InvalidArgumentError, match="owner")("unlock", "r", name)
                if name is not None:
                    call.fails(InvalidArgumentError, match="owner")("try_lock", "r", name)

    def test_expiries(self, call: Call, subtests: pytest.Subtests) -> None:
        for expiry in (0, -1, float("nan"), float("inf"), "30", None, True, 1e10):
            with subtests.test(expiry=expiry):
                call.fails(InvalidArgumentError, match="expiry")("try_lock", "r", expiry=expiry)
                with pytest.raises(InvalidArgumentError, match="expiry"):
                    call.plain("hold", "r", expiry=expiry)

    def test_holding(self, call: Call) -> None:
        for options in one_each(wait=(-1, float("nan"), float("inf"), "30", True), renew=("yes",)):
            with pytest.raises(InvalidArgumentError, match=next(iter(options))):
                call.plain("hold", "r", **options)


class TestRpc(Refusals):
    service = "rpc"

    def test_services(self, client: CloudRuntimesClient, api: Api, subtests: pytest.Subtests) -> None:
        for service in BAD_SERVICES:
            with subtests.test(service=service):
                api.fails(InvalidArgumentError)(client.rpc, "invoke_method", service, "m")

    def test_methods(self, call: Call, subtests: pytest.Subtests) -> None:
        for method in BAD_METHODS:
            with subtests.test(method=method):
                call.fails(InvalidArgumentError)("invoke_method", method)

    def test_headers(self, call: Call, subtests: pytest.Subtests) -> None:
        for headers in BAD_HEADERS:
            with subtests.test(headers=headers):
                call.fails(InvalidArgumentError)("invoke_method", "echo", 1, headers=headers)

    def test_http_methods(self, call: Call, subtests: pytest.Subtests) -> None:
        for http_method in ("", "get", "GET / HTTP/1.1\r\n", "P\0", "CONNECT", "TRACE", "A" * 21, None):
            with subtests.test(http_method=http_method):
                call.fails(InvalidArgumentError)("invoke_method", "echo", 1, http_method=http_method)

    def test_queries(self, call: Call, subtests: pytest.Subtests) -> None:
        for query in ([("a", "b")], {"": "a"}, {1: "a"}, {"a": None}, {"a": "\ud800"}, {"a": "b" * 20_000}):
            with subtests.test(query=query):
                call.fails(InvalidArgumentError)("invoke_method", "echo", 1, query=query)

    def test_other_arguments(self, call: Call, subtests: pytest.Subtests) -> None:
        for options in ({"timeout": 0}, {"timeout": -1}, {"metadata": {"a": 1}}, {"content_type": "x"}):
            with subtests.test(options=options):
                call.fails(InvalidArgumentError)("invoke_method", "echo", 1, **options)
                call.fails(PayloadError)("invoke_method", "echo", {1j})


class TestSchedule(Refusals):
    service = "schedule"

    def test_names(self, call: Call, subtests: pytest.Subtests) -> None:
        for name in ("", "-", "a||b", "a/b", "ü", "a..b", ".a", "a.", "a\n", "x" * 254, "a.-", 5, None, b"a"):
            with subtests.test(name=name):
                refused = call.fails(InvalidArgumentError, match="name is 1 to 253")
                for method in ("get_job", "delete_job", "run_now", "list_runs"):
                    refused(method, name)
                refused("schedule_job", name, schedule="@hourly")
                with pytest.raises(InvalidArgumentError, match="name is 1 to 253"):
                    call.plain("job", name)

    def test_jobs(self, call: Call, subtests: pytest.Subtests) -> None:
        for options, message in BAD_JOBS:
            with subtests.test(options=options, message=message):
                kind: Any = PayloadError if "data" in options else InvalidArgumentError
                error = call.fails(kind, match=message)("schedule_job", "j", **options)
                assert error.operation == "schedule_job"
                assert not error.maybe_applied

    def test_handlers(self, call: Call) -> None:
        call.plain("job", "j")(lambda: None)
        for name, handler, message in (
            ("j", lambda: None, "'j' has a handler already"),
            ("k", lambda a, b, c: None, "JobRun"),
            ("k", 5, "callable"),
        ):
            with pytest.raises(InvalidArgumentError, match=message):
                call.plain("job", name)(handler)


class TestSecret(Refusals):
    service = "secret"

    def test_keys(self, call: Call, subtests: pytest.Subtests) -> None:
        for key in ("", "a\0b", "x" * 1025, "ü" * 513, "\ud800", 5, None, b"key"):
            with subtests.test(key=key):
                call.fails(InvalidArgumentError)("get_secret", key)

    def test_options(self, call: Call, subtests: pytest.Subtests) -> None:
        for options in ({"timeout": 0}, {"timeout": "1"}, {"metadata": {"a": 1}}, {"metadata": "x"}):
            with subtests.test(options=options):
                call.fails(InvalidArgumentError)("get_secret", "key", **options)
                call.fails(InvalidArgumentError)("get_bulk_secret", **options)
