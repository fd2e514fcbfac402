"""The transcript of "When something is stuck", run as it stands there."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event
from tests.cli.conftest import Run
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs/how-to/when-something-is-stuck.md"
_CHANGING = ((r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME"), (r"\d\d:\d\d:\d\d", "CLOCK"), (r"\b\d+ s\b", "AGE"))


def same(text: str) -> list[str]:
    """Return lines without what is other each time: times, ages, and the width that these give columns."""
    for pattern, name in _CHANGING:
        text = re.sub(pattern, name, text)
    return [re.sub(" +", " ", re.sub("-{2,}", "--", line)).rstrip() for line in text.splitlines() if line.strip()]


def test_the_transcript(cli: Run, client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(event: Event[dict[str, int]]) -> None:
        if event.data["total"] > 20:
            raise ValueError("no currency")

    options = {"dead_letter_topic": "orders.dead", "max_deliveries": 1}
    with client.pubsub.subscribe("bus", "orders", handler, group="billing", **options):  # type: ignore[call-overload]
        client.pubsub.subscribe("bus", "orders", group="mail").close()
        for number in range(6):
            client.pubsub.publish("bus", "orders", {"id": number, "total": number * 10})
        assert until(lambda: client.pubsub.lag("bus", "orders", group="billing") == 0)
    time.sleep(1)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    transcript = "".join(re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    commands = re.split(r"^\$ cloud-runtimes ", transcript, flags=re.MULTILINE)[1:]
    assert len(commands) == 7
    begun = time.monotonic()
    for command in commands:
        line, _, wanted = command.partition("\n")
        result = cli(*shlex.split(line))
        assert result.code == 0, result.err
        assert same(result.out.decode() + result.err) == same(wanted), line
    assert time.monotonic() - begun < 60
