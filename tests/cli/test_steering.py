"""``pause``, ``resume``, ``delete-group``, ``delete-topic``, ``restore`` and undo files in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.cli.conftest import Run


@pytest.fixture
def filled(client: CloudRuntimesClient) -> CloudRuntimesClient:
    """A client on a home with three events, of which the group ``g`` has settled none."""
    client.pubsub.subscribe("bus", "t", group="g").close()
    for number in range(3):
        client.pubsub.publish("bus", "t", {"number": number}, key=f"k{number}", attributes={"tenant": "a"})
    return client


def _paused(client: CloudRuntimesClient) -> bool | None:
    (group,) = client.admin.groups("bus", "t")
    return group.paused


def test_pause(cli: Run, filled: CloudRuntimesClient) -> None:
    assert cli("pause", "bus", "t", "g", "--dry-run").err == "3 events that g has not settled\n"
    refused = cli("pause", "bus", "t", "g")
    assert (refused.code, _paused(filled)) == (2, False)
    result = cli("pause", "bus", "t", "g", "--yes")
    assert (result.code, _paused(filled)) == (0, True)
    assert "g is paused: cloud-runtimes resume bus t g lets it go on" in result.err
    assert cli("resume", "bus", "t", "g", "--dry-run").code == 0
    assert _paused(filled) is True
    assert cli("resume", "bus", "t", "g").err == "3 events that g has not settled\n"
    assert _paused(filled) is False
    for command in ("pause", "resume"):
        assert cli(command, "bus", "t", "absent").code == 3


def test_delete(cli: Run, filled: CloudRuntimesClient) -> None:
    assert cli("delete-group", "bus", "t", "absent", "--yes").code == 3
    assert cli("delete-group", "bus", "t", "g", "--dry-run").err == "3 events that g has not settled\n"
    assert cli("delete-group", "bus", "t", "g").code == 2
    with filled.pubsub.subscribe("bus", "t", group="g"):
        result = cli("delete-group", "bus", "t", "g", "--yes")
        assert result.code not in (0, 2)
        assert "has members: stop them first" in result.err
    assert len(filled.admin.groups("bus", "t")) == 1
    assert cli("delete-group", "bus", "t", "g", "--yes").err == "3 events that g has not settled\ng is deleted\n"
    assert cli("delete-topic", "bus", "t", "--dry-run").err == "3 events of t\n"
    assert cli("delete-topic", "bus", "t").code == 2
    assert cli("delete-topic", "bus", "t", "--yes").err == "3 events of t\nt is deleted\n"
    assert filled.admin.topics("bus") == []
    assert cli("delete-topic", "bus", "t", "--yes").code == 3


def test_undo_of_a_purge(cli: Run, filled: CloudRuntimesClient, tmp_path: Path) -> None:
    before = [event.to_json() for event in filled.admin.peek("bus", "t")]
    file = str(tmp_path / "undo")
    assert "3 are removed" in cli("purge", "bus", "t", "--undo", file, "--yes").err
    assert filled.admin.peek("bus", "t") == []
    assert Path(file).read_bytes().splitlines() == before
    assert cli("restore", "bus", "t", file).err == "3 events are restored\n"
    assert [event.to_json() for event in filled.admin.peek("bus", "t")] == before


def test_undo_of_a_discard(cli: Run, filled: CloudRuntimesClient, tmp_path: Path) -> None:
    file = str(tmp_path / "undo")
    ids = [event.id for event in filled.admin.peek("bus", "t")]
    assert "1 are removed" in cli("dead", "discard", "bus", "t", "--id", ids[1], "--undo", file, "--yes").err
    (line,) = Path(file).read_bytes().splitlines()
    assert (json.loads(line)["id"], json.loads(line)["tenant"]) == (ids[1], "a")
    refused = cli("dead", "discard", "bus", "t", "--undo", str(tmp_path / "absent" / "undo"), "--yes")
    assert refused.code != 0
    assert "nothing of it was removed" in refused.err
    assert [event.id for event in filled.admin.peek("bus", "t")] == [ids[0], ids[2]]


def test_restore_refuses_what_is_no_event(cli: Run, filled: CloudRuntimesClient, tmp_path: Path) -> None:
    good = filled.admin.peek("bus", "t", limit=1)[0].to_json()
    result = cli("restore", "bus", "t", "-", stdin=good + b"\n{}\n")
    assert result.code == 2
    assert "stdin, line 2: " in result.err
