"""The examples in docstrings run as they are written."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import SERVICES, context_of
from cloud_runtimes.schedule import JobRun

FIRST = {
    "state": ("get", "save"),
    "pubsub": ("publish", "publisher", "subscribe"),
    "rpc": ("method", "invoke_method"),
    "schedule": ("job",),
    "lock": ("try_lock", "hold"),
    "file": ("put_file", "get_file", "open_file"),
    "secret": ("get_secret",),
    "database": ("transaction",),
}
"""Methods that a newcomer meets first, by service."""


@pytest.fixture
def client(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudRuntimesClient]:
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_SHOP_DB__PASSWORD", "only an example")
    with CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(tmp_path / "home")}}) as client:
        client.pubsub.subscribe("bus", "orders", group="first").close()
        yield client


def service(name: str) -> Any:
    return getattr(importlib.import_module(f"cloud_runtimes.{name}"), SERVICES[name])


def test_each_method_that_a_newcomer_meets_has_one() -> None:
    missing = [
        f"{name}.{method}"
        for name, methods in FIRST.items()
        for method in methods
        if ">>>" not in getattr(service(name), method).__doc__
    ]
    assert missing == []


def test_they_run(client: CloudRuntimesClient, subtests: pytest.Subtests) -> None:
    names = {"client": client, "JobRun": JobRun, "Any": Any}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    count = 0
    for name, methods in FIRST.items():
        for method in methods:
            with subtests.test(method=f"{name}.{method}"):
                text = getattr(service(name), method).__doc__
                test = parser.get_doctest(text, names, f"{name}.{method}", None, 0)
                said: list[str] = []
                assert runner.run(test, out=said.append, clear_globs=False).failed == 0, "".join(said)
                names |= test.globs
                count += len(test.examples)
    assert count > 20
    assert {*context_of(client).frame("rpc").handlers} == {"add"}
