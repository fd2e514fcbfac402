"""Names that the shell completes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli import main


@pytest.fixture
def complete(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., list[str]]:
    """Return what bash is offered for the last of some words."""

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("_CLOUD_RUNTIMES_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("cloud-runtimes", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit):
            main([])
        out, err = capsysbinary.readouterr()
        assert err == b""
        return out.decode().split()

    return offered


def test_names(complete: Callable[..., list[str]], client: CloudRuntimesClient) -> None:
    for topic in ("orders", "orders.dead", "bills"):
        client.pubsub.publish("bus", topic, 1)
    client.pubsub.subscribe("bus", "orders", group="mail").close()
    client.state.save("carts", "one", 1)
    client.lock.try_lock("locks", "lamp", "me")
    assert complete("peek", "b") == ["bus"]
    assert complete("publish", "bus", "o") == ["orders", "orders.dead"]
    assert complete("subscribe", "bus", "") == ["bills", "orders", "orders.dead"]
    assert complete("pause", "bus", "orders", "m") == ["mail"]
    assert complete("state", "list", "c") == ["carts"]
    assert complete("lock", "list", "l") == ["locks"]
    assert complete("peek", "x") == []


def test_what_fails_completes_nothing(complete: Callable[..., list[str]]) -> None:
    assert complete("--config", "absent.toml", "peek", "b") == []
    assert complete("pause", "bus", "orders", "m") == []
