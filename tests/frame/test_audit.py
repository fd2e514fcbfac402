"""Events of what ``client.admin`` changes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError, NotFoundError
from cloud_runtimes.testing import Api

TOPIC = "cloud_runtimes.audit"


def made(**admin: Any) -> CloudRuntimesClient:
    return CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}, "admin": admin})


def test_changes_are_events(api: Api) -> None:
    with made(audit="bus") as client:
        client.pubsub.publish_bulk("bus", "t", [1, 2, 3])
        client.pubsub.subscribe("bus", "t", group="g").close()
        for number in range(3):
            client.pubsub.publish("bus", "dead", number, attributes={"dlgroup": "g", "dltopic": "t"})

        def call(method: str, *arguments: Any, **options: Any) -> None:
            api.call(client.admin, method, "bus", *arguments, **options)

        call("redrive", "dead", dry_run=True)
        call("redrive", "dead", group="g", limit=2)
        call("discard", "dead", ids=["absent"])
        with pytest.raises(NotFoundError):
            call("seek", "t", "absent", "latest")
        call("pause", "t", "g")
        call("purge", "t")
        call("delete_group", "t", "g")
        call("topics")
        told = [event.data for event in client.admin.peek("bus", TOPIC)]
    changes = [(each["action"], each["count"]) for each in told]
    assert changes == [("redrive", 2), ("discard", 0), ("pause", None), ("purge", 3), ("delete_group", 2)]
    assert told[0]["arguments"] == {"pubsub_name": "bus", "topic": "dead", "group": "g", "limit": 2}
    assert told[1]["arguments"]["ids"] == ["absent"]
    assert (told[0]["app_id"], told[0]["pid"]) == ("shop", os.getpid())
    assert {"user", "host"} <= set(told[0])


def test_a_failing_audit_fails_no_change(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with CloudRuntimesClient(
        app_id="shop", config={"capa": {"home": ":memory:", "strict": True}, "admin": {"audit": "away"},
                               "pubsub": {"bus": {"component": "sqlite"}}},
    ) as client:  # fmt: skip
        client.pubsub.publish("bus", "t", 1)
        assert api.call(client.admin, "purge", "bus", "t") == 1
    assert "admin.purge was done, and its audit event was not published" in caplog.text


def test_without_the_setting_nothing_is_told() -> None:
    with made() as client:
        client.pubsub.publish("bus", "t", 1)
        assert client.admin.purge("bus", "t") == 1
        assert client.admin.peek("bus", TOPIC) == []


def test_wrong_settings_are_refused() -> None:
    with made(audits="bus") as client:
        client.pubsub.publish("bus", "t", 1)
        with pytest.raises(InvalidArgumentError, match="did you mean 'audit'"):
            client.admin.purge("bus", "t")
        assert len(client.admin.peek("bus", "t")) == 1
