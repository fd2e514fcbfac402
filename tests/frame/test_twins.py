"""Two APIs by introspection: each method that may do I/O has a twin with the same parameters and result; the rest is listed here."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_runtimes import errors
from cloud_runtimes.admin import AdminService
from cloud_runtimes.application import Application
from cloud_runtimes.client import SERVICES, CloudRuntimesClient
from cloud_runtimes.configuration import ConfigurationSubscription
from cloud_runtimes.database import DatabaseTransaction, RowStream
from cloud_runtimes.file import FileHandle
from cloud_runtimes.lock import Lease, LockHold
from cloud_runtimes.pubsub import Publisher, Subscription
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.schedule import JobRunner
from cloud_runtimes.spi.admin import PubSubAdmin
from cloud_runtimes.spi.configuration import ConfigurationDriver
from cloud_runtimes.spi.database import DatabaseDriver
from cloud_runtimes.spi.driver import Driver
from cloud_runtimes.spi.file import FileDriver
from cloud_runtimes.spi.lock import LockDriver
from cloud_runtimes.spi.pubsub import PubSubDriver
from cloud_runtimes.spi.rpc import RpcDriver
from cloud_runtimes.spi.schedule import ScheduleDriver
from cloud_runtimes.spi.secret import SecretDriver
from cloud_runtimes.spi.state import StateDriver
from cloud_runtimes.state import StateTransaction
from cloud_runtimes.telemetry import TelemetryService
from tests.support import docstrings

# methods that never wait, and makers of handles: no twin
EXEMPT: dict[str, set[str]] = {
    "CloudRuntimesClient": {"native", "running", "supports"},
    "AdminService": set(),
    "PubSubAdmin": set(),
    "ConfigurationService": set(),
    "LockService": {"hold"},
    "FileService": {"open_file"},
    "FileHandle": {"chunks", "readable", "readall", "readinto", "seek", "seekable", "tell", "writable"},
    "FileDriver": set(),
    "DatabaseService": {"stream", "transaction"},
    "PubSubService": {"publisher", "subscription"},
    "SecretService": set(),
    "RpcService": {"asgi_app", "method", "register_method", "serving"},
    "StateService": {"transaction"},
    "TelemetryService": {
        "baggage", "extract", "extract_baggage", "inject", "logger", "logger_provider", "logging_handler", "meter",
        "meter_provider", "stats", "tracer", "tracer_provider", "use_baggage",
    },
    "Lease": {"check"},
    "LockHold": set(),
    "Publisher": {"forked", "stats"},
    "Subscription": {"forked", "stats"},
    "ConfigurationSubscription": {"current", "forked"},
    "ConfigurationDriver": set(),
    "LockDriver": set(),
    "DatabaseTransaction": {"publish", "stream"},
    "RowStream": set(),
    "StateTransaction": {"delete", "publish", "save"},
    "DatabaseDriver": set(),
    "PubSubDriver": {"admin", "begin", "change"},  # both APIs can wait for a future
    "SecretDriver": set(),
    "RpcDriver": set(),
    "ScheduleService": {"job", "running"},
    "ScheduleDriver": set(),
    "JobRunner": set(),
    "Application": set(),
    "RpcServer": set(),
    "StateDriver": {"change"},
}  # fmt: skip


def services() -> list[type[Any]]:
    return [getattr(importlib.import_module(f"cloud_runtimes.{name}"), cls) for name, cls in sorted(SERVICES.items())]


def drivers() -> list[type[Any]]:
    """The SPI class of each service, whose driver module names it."""
    classes: list[type[Any]] = []
    for name in sorted(SERVICES):
        module = importlib.import_module(f"cloud_runtimes.spi.{name}")
        classes += [
            each
            for each in (getattr(module, public) for public in module.__all__)
            if isinstance(each, type) and issubclass(each, Driver)
        ]
    return classes


HANDLES: list[type[Any]] = [
    Application, ConfigurationSubscription, DatabaseTransaction, FileHandle, JobRunner, Lease, LockHold, Publisher,
    RpcServer, RowStream, Subscription, StateTransaction,
]  # fmt: skip
CLASSES = [CloudRuntimesClient, AdminService, *services(), *HANDLES, *drivers(), PubSubAdmin]


def methods(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Public functions of a class and its bases."""
    return {
        name: value
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and not name.endswith("_async")
    }


def twins(cls: type[Any]) -> set[str]:
    return {
        name
        for name, _ in inspect.getmembers(cls, inspect.isfunction)
        if name.endswith("_async") and not name.startswith("_")
    }


def pairs() -> Iterator[tuple[type[Any], str]]:
    for cls in CLASSES:
        for name in methods(cls):
            if name not in EXEMPT[cls.__name__]:
                yield cls, name


def returned(function: Callable[..., Any]) -> Any:
    # the text as written is what both must share; resolved it would need the type-checking imports
    return inspect.unwrap(function).__annotations__.get("return")


def test_the_tables_are_whole() -> None:
    assert {cls.__name__ for cls in CLASSES} == set(EXEMPT)
    assert set(drivers()) == {
        ConfigurationDriver, DatabaseDriver, FileDriver, LockDriver, PubSubDriver, RpcDriver, ScheduleDriver,
        SecretDriver, StateDriver,
    }  # fmt: skip
    for cls in CLASSES:
        assert EXEMPT[cls.__name__] <= set(methods(cls)), f"{cls.__name__}: an exempt method does not exist"
    assert len(list(pairs())) >= 20


def test_every_handle_is_in_the_table() -> None:
    from cloud_runtimes._core.handles import Handle

    for name in SERVICES:
        importlib.import_module(f"cloud_runtimes.{name}")

    def leaves(cls: type[Any]) -> set[type[Any]]:
        below = cls.__subclasses__()
        return {leaf for each in below for leaf in leaves(each)} if below else {cls}

    ours = {cls for cls in leaves(Handle) if cls.__module__.startswith("cloud_runtimes.")}
    assert ours == set(HANDLES)


@pytest.mark.promise("I2")
def test_twins(subtests: pytest.Subtests) -> None:
    for cls, name in pairs():
        with subtests.test(method=f"{cls.__name__}.{name}"):
            plain, twin = getattr(cls, name), getattr(cls, f"{name}_async", None)
            assert twin is not None, "it has no twin"
            assert any(map(inspect.iscoroutinefunction, (twin, inspect.unwrap(twin)))), "the twin is not async"
            assert not inspect.iscoroutinefunction(plain)
            mine, other = inspect.signature(plain), inspect.signature(twin)
            assert list(mine.parameters) == list(other.parameters)
            for parameter, same in zip(mine.parameters.values(), other.parameters.values(), strict=True):
                assert parameter.kind is same.kind, parameter.name
                assert parameter.default is same.default or parameter.default == same.default, parameter.name
                # an asynchronous source is for the twin alone
                mine_too = "FileSource" if same.annotation == "AsyncFileSource" else same.annotation
                assert parameter.annotation == mine_too, parameter.name
            assert returned(plain) is not None, "no return annotation"
            assert returned(plain) == returned(twin)
            assert overloads(plain) == [
                # what subscribing gives can be awaited, and entered too
                each.replace(return_annotation=re.sub(r"^Opening\[(.+)\]$", r"\1", each.return_annotation))
                for each in overloads(twin)
            ]


def overloads(function: Callable[..., Any]) -> list[inspect.Signature]:
    return [inspect.signature(each) for each in typing.get_overloads(inspect.unwrap(function))]


def test_the_overloads_are_seen() -> None:
    from cloud_runtimes.pubsub import PubSubService
    from cloud_runtimes.state import StateService

    assert len(overloads(StateService.get)) == 2
    assert len(overloads(PubSubService.subscribe)) == 4


@pytest.mark.promise("I2")
def test_no_orphans(subtests: pytest.Subtests) -> None:
    for cls in CLASSES:
        with subtests.test(cls=cls.__name__):
            orphans = {name for name in twins(cls) if not hasattr(cls, name.removesuffix("_async"))}
            assert not orphans
            exempt = {name for name in twins(cls) if name.removesuffix("_async") in EXEMPT[cls.__name__]}
            assert not exempt, "exempt and twinned"


def test_a_driver_must_have_the_sync_methods_alone(subtests: pytest.Subtests) -> None:
    # of drivers with outboxes, signed URLs, connections, brokers that tell how far a group is, or what client.admin asks; files are written by their writer
    optional = {
        StateDriver: {"commit", "oldest"},
        FileDriver: {"url", "write"},
        RpcDriver: {"receive", "services"},
        LockDriver: {"break_lock", "locks"},
        ScheduleDriver: {"jobs", "pause", "retry_run"},
        PubSubDriver: {"lag"},
    }
    for cls in drivers():
        with subtests.test(cls=cls.__name__):
            assert cls.__abstractmethods__ == set(methods(cls)) - EXEMPT[cls.__name__] - optional.get(cls, set())


def test_io_methods_take_a_timeout() -> None:
    for cls in [CloudRuntimesClient, AdminService, *services()]:
        for name in set(methods(cls)) - EXEMPT[cls.__name__]:
            parameters = inspect.signature(getattr(cls, name)).parameters
            assert "timeout" in parameters, f"{cls.__name__}.{name}"
            if cls not in (CloudRuntimesClient, TelemetryService):  # no components there
                assert "metadata" in parameters, f"{cls.__name__}.{name}"


# -- docstrings ---------------------------------------------------------------


def public() -> Iterator[tuple[str, Any]]:
    """Names that users see: those of the public modules, and the methods of their classes."""
    names = ["cloud_runtimes", "cloud_runtimes.errors", "cloud_runtimes.codec", "cloud_runtimes.testing"]
    names += [f"cloud_runtimes.{name}" for name in (*SERVICES, "admin")]
    names += [f"cloud_runtimes.spi.{name}" for name in (*SERVICES, "admin")]
    for module_name in names:
        module = importlib.import_module(module_name)
        yield module_name, module
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not isinstance(value, type) and not inspect.isfunction(value):
                continue
            yield f"{module_name}.{name}", value
            if isinstance(value, type):
                for attribute, member in vars(value).items():
                    if not attribute.startswith("_") and (
                        inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
                    ):
                        yield f"{module_name}.{name}.{attribute}", member


def _has_reason(name: str, value: Any) -> bool:
    if inspect.getdoc(value):  # also that of the method it overrides
        return True
    # the twin of an abstract method of the SPI is explained by it; a test's name is its sentence
    last = name.rpartition(".")[2]
    return (last.endswith("_async") and name.startswith("cloud_runtimes.spi.")) or last.startswith("test_")


def test_every_public_name_is_explained() -> None:
    members = list(public())
    assert len(members) > 100
    silent = [name for name, value in members if not _has_reason(name, value)]
    assert not silent


def section(docstring: str, title: str) -> list[str]:
    """The names of a section, which stand before a colon and what is said of them."""
    match = re.search(rf"^{title}:\n((?:    .+\n?)+)", docstring, re.MULTILINE)
    entries = match[1].splitlines() if match else []
    return [name for entry in entries for name in entry.strip().partition(":")[0].split(", ")]


def test_methods_of_users_are_explained(subtests: pytest.Subtests) -> None:
    for cls in [CloudRuntimesClient, AdminService, *services(), *HANDLES]:
        for name, function in methods(cls).items():
            if not function.__module__.startswith("cloud_runtimes"):
                continue
            docstring = inspect.getdoc(function) or ""
            with subtests.test("arguments", method=f"{cls.__name__}.{name}"):
                assert set(section(docstring, "Args")) == set(inspect.signature(function).parameters) - {"self"}
            with subtests.test("errors", method=f"{cls.__name__}.{name}"):
                raised = section(docstring, "Raises")
                assert raised or not hasattr(cls, f"{name}_async"), "what does I/O can fail"
                assert all(hasattr(errors, each) or hasattr(builtins, each) for each in raised)
            with subtests.test("sentences", method=f"{cls.__name__}.{name}"):
                prose = "\n\n".join(part for part in docstring.split("\n\n") if not part.startswith(">>>"))
                sentences = re.split(r"[.?!]\)?(?:\s|$)|\n", prose)
                assert not [each for each in sentences if len(each.split()) > 30]


def test_both_apis_have_one_docstring() -> None:
    for path in docstrings.files():
        text = path.read_text("utf-8")
        assert docstrings.rewritten(text) == text, f"{path}: run make docs"


def test_the_client_has_every_service_of_the_table() -> None:
    client = CloudRuntimesClient(config={"capa": {"home": ":memory:"}})
    assert [type(getattr(client, name)) for name in sorted(SERVICES)] == services()
    with pytest.raises(AttributeError, match="no attribute 'rpz'"):
        client.rpz  # type: ignore[attr-defined]  # noqa: B018
    client.close()
