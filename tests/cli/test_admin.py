"""``topics``, ``groups``, ``peek``, ``purge``, ``seek`` and ``dead list|redrive|discard`` in this process."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent, Event
from tests.cli.conftest import Run
from tests.support.waiting import until


@pytest.fixture
def filled(client: CloudRuntimesClient) -> CloudRuntimesClient:
    """A client on a home with events of a group that drops two of three."""

    def drop(event: Event[int]) -> None:
        if event.data:
            raise DropEvent(f"number {event.data}")

    client.pubsub.publish_bulk("bus", "t", [0, 1, 2])
    with client.pubsub.subscribe("bus", "t", drop, group="g", dead_letter_topic="dead"):
        assert until(lambda: client.pubsub.lag("bus", "t", group="g") == 0)
    client.pubsub.publish("bus", "t", {"last": "ü"}, key="k")
    return client


def test_topics(cli: Run, filled: CloudRuntimesClient) -> None:
    result = cli("topics", "bus")
    assert (result.code, result.err) == (0, "")
    first, second = map(json.loads, result.lines)
    assert (first["name"], first["events"], first["groups"]) == ("dead", 2, 0)
    assert (second["name"], second["events"], second["groups"]) == ("t", 4, 1)
    assert datetime.fromisoformat(second["first"]) <= datetime.fromisoformat(second["last"]) <= datetime.now(UTC)
    assert [json.loads(line)["name"] for line in cli("topics", "bus", "--prefix", "t").lines] == ["t"]
    assert len(cli("topics", "bus", "--limit", "1").lines) == 1
    assert cli("topics", "other")[:2] == (0, b"")
    assert cli("topics").lines == result.lines, "the only component"
    cli("publish", "bus2", "t", stdin=b"1")
    result = cli("topics")
    assert (result.code, result.err) == (2, "error: say which pub/sub component, one of bus, bus2\n")


def test_topics_of_an_empty_home(cli: Run) -> None:
    result = cli("topics")
    assert result.code == 2
    assert "as in: cloud-runtimes topics bus" in result.err


def test_events_that_are_no_dead_letters(cli: Run, filled: CloudRuntimesClient) -> None:
    result = cli("dead", "list", "bus", "t")
    assert len(result.lines) == 1
    assert result.err.startswith("no event of t is a dead letter: `cloud-runtimes groups bus TOPIC`")
    assert cli("dead", "list", "bus", "dead").err == ""


def test_groups(cli: Run, filled: CloudRuntimesClient) -> None:
    (group,) = map(json.loads, cli("groups", "bus", "t").lines)
    assert (group["topic"], group["name"], group["lag"], group["in_flight"]) == ("t", "g", 1, 0)
    assert (group["members"], group["paused"], group["order"]) == ([], False, "")
    assert cli("groups", "bus", "dead")[:2] == (0, b"")


def test_peek(cli: Run, filled: CloudRuntimesClient) -> None:
    result = cli("peek", "bus", "t")
    assert (result.code, result.err) == (0, "")
    events = [json.loads(line) for line in result.lines]
    assert [event["data"] for event in events] == [0, 1, 2, {"last": "ü"}]
    assert events[3]["partitionkey"] == "k"
    assert cli("peek", "bus", "t", "--data-only", "--limit", "2").lines == [b"0", b"1"]
    assert cli("peek", "bus", "t", "--data-only", "--start", "latest", "--limit", "1").lines == [
        '{"last":"ü"}'.encode()
    ]
    assert len(cli("peek", "bus", "t", "--start", "2025-01-15T09:30:00Z").lines) == 4
    assert len(cli("peek", "bus", "t", "--group", "g").lines) == 1
    assert filled.pubsub.lag("bus", "t", group="g") == 1


def test_peek_refuses(cli: Run, filled: CloudRuntimesClient) -> None:
    result = cli("peek", "bus", "t", "--group", "absent")
    assert result.code == 3
    assert "has no group 'absent'" in result.err
    result = cli("peek", "bus", "t", "--start", "yesterday")
    assert result.code == 2
    assert "--start 'yesterday'" in result.err
    assert cli("peek", "bus", "t", "--group", "g", "--start", "latest").code != 0


def test_dead_list(cli: Run, filled: CloudRuntimesClient) -> None:
    (letters,) = map(json.loads, cli("dead", "list", "bus", "dead").lines)
    assert (letters["count"], letters["group"], letters["topic"]) == (2, "g", "t")
    assert (letters["reason"], letters["error"]) == ("dropped", "DropEvent")
    assert letters["sample"]["data"] in (1, 2)
    assert cli("dead", "list", "bus", "t").lines != []  # what is no dead letter says nothing of why


def test_tables(cli: Run, filled: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for argv, head, row in (
        (("topics", "bus"), ["name", "events"], ["dead", "2"]),
        (("groups", "bus", "t"), ["name", "lag"], ["g", "1"]),
        (("peek", "bus", "t"), ["time", "key"], [datetime.now(UTC).strftime("%Y-%m-%d")]),
        (("dead", "list", "bus", "dead"), ["count", "group"], ["2", "g"]),
    ):
        lines = cli(*argv).out.decode().splitlines()
        assert lines[0].split()[: len(head)] == head
        assert lines[2].split()[: len(row)] == row


def test_dead_redrive(cli: Run, filled: CloudRuntimesClient) -> None:
    one, _ = (json.loads(line)["id"] for line in cli("peek", "bus", "dead").lines)
    assert cli("dead", "redrive", "bus", "dead", "--dry-run").err == "2 dead letters of dead\n"
    assert "1 dead letters of dead, 1 stay" in cli("dead", "redrive", "bus", "dead", "--limit", "1", "--dry-run").err
    refused = cli("dead", "redrive", "bus", "dead")
    assert (refused.code, refused.out) == (2, b"")
    assert "give --yes elsewhere" in refused.err
    assert filled.pubsub.lag("bus", "t", group="g") == 1
    result = cli("dead", "redrive", "bus", "dead", "--group", "g", "--error", "DropEvent", "--id", one, "--yes")
    assert (result.code, result.err) == (0, "1 dead letters of dead\n1 are sent back\n")
    assert filled.pubsub.lag("bus", "t", group="g") == 2
    assert "1 are sent back" in cli("dead", "redrive", "bus", "dead", "--to", "topic", "--yes").err
    assert len(cli("peek", "bus", "t").lines) == 5
    assert cli("dead", "redrive", "bus", "dead", "--yes").err == "0 dead letters of dead\n"
    filled.pubsub.publish("bus", "dead", 1, attributes={"dltopic": "t", "dlgroup": "gone"})
    assert cli("dead", "redrive", "bus", "dead", "--yes").code == 3


def test_dead_discard(cli: Run, filled: CloudRuntimesClient) -> None:
    assert cli("dead", "discard", "bus", "dead", "--reason", "deliveries").err == "0 dead letters of dead\n"
    assert cli("dead", "discard", "bus", "dead").code == 2
    assert "1 are removed" in cli("dead", "discard", "bus", "dead", "--limit", "1", "--yes").err
    assert filled.admin.discard("bus", "dead", dry_run=True) == 1


def test_purge(cli: Run, filled: CloudRuntimesClient) -> None:
    assert cli("purge", "bus", "t", "--dry-run").err == "4 events of t\n"
    assert cli("purge", "bus", "t", "--before", "2025-01-15T09:30:00Z", "--yes").err == "0 events of t\n"
    assert "--before 'yesterday': give a time" in cli("purge", "bus", "t", "--before", "yesterday").err
    assert cli("purge", "bus", "t").code == 2
    assert cli("purge", "bus", "t", "--yes").err == "4 events of t\n4 are removed\n"
    assert cli("peek", "bus", "t").lines == []


def test_seek(cli: Run, filled: CloudRuntimesClient) -> None:
    assert cli("seek", "bus", "t", "g", "--to", "earliest", "--dry-run").err == "1 events that g has not settled\n"
    assert cli("seek", "bus", "t", "g", "--to", "earliest").code == 2
    assert "--to 'x': give earliest" in cli("seek", "bus", "t", "g", "--to", "x").err
    assert cli("seek", "bus", "t", "absent", "--to", "latest", "--yes").code == 3
    result = cli("seek", "bus", "t", "g", "--to", "earliest", "--yes")
    assert (result.code, result.err) == (0, "1 events that g has not settled\n4 events that g gets now\n")
    assert "0 events that g gets now" in cli("seek", "bus", "t", "g", "--to", "latest", "--yes").err
