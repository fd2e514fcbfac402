"""A folder whose files are the values: all of one moment, whoever writes meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.config_file import folder as module
from cloud_runtimes.errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.mounts import Mount
from tests.support.waiting import running, until


def values(api: Api, client: CloudRuntimesClient) -> dict[str, str]:
    items = api.call(client.configuration, "get_configuration_items", "app")
    return {key: item.value for key, item in items.items()}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


def test_a_mounted_volume(on_file: Make, volume: Path, api: Api) -> None:
    mount = Mount(volume)
    mount.change({"host": "db.example.com", "ca.crt": "-----BEGIN\nlines\n", "empty": ""})
    (volume / "folder").mkdir()
    client = on_file(volume, format="folder")
    assert values(api, client) == {"host": "db.example.com", "ca.crt": "-----BEGIN\nlines\n", "empty": ""}
    mount.change({"host": "other"})
    until(lambda: values(api, client) == {"host": "other"})


@pytest.mark.parametrize("watch", ["poll", "watchfiles"])
def test_values_of_one_change_come_together(on_file: Make, volume: Path, watch: str, rounds: Rounds) -> None:
    count = rounds(50, 2000)
    mount = Mount(volume)
    mount.change({"a": "0", "b": "0"})
    client = on_file(volume, format="folder", watch=watch)

    def change() -> None:
        for number in range(1, count + 1):
            mount.change({"a": str(number), "b": str(number)})
            time.sleep(0.003 * (number % 7))

    with client.configuration.subscribe_configuration("app") as sub:
        with running(change):
            seen: list[int] = []
            while not seen or seen[-1] != count:
                found = {key: item.value for key, item in (sub.receive(10) or {}).items()}
                assert found["a"] == found["b"]
                seen.append(int(found["a"]))
    assert seen == sorted(seen)


def test_plain_files_that_are_rewritten(on_file: Make, volume: Path, api: Api) -> None:
    volume.mkdir()
    (volume / "a").write_text("1")
    (volume / "b").write_text("2")
    client = on_file(volume, format="folder")
    assert values(api, client) == {"a": "1", "b": "2"}
    (volume / "a").write_text("3")
    (volume / "b").unlink()
    until(lambda: values(api, client) == {"a": "3"})


def refused(api: Api, client: CloudRuntimesClient, kind: type[CloudRuntimesError], match: str) -> None:
    api.fails(kind, match=match)(client.configuration, "get_configuration", "app", ["a"])


def test_what_is_no_such_folder(
    on_file: Make, volume: Path, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    client = on_file(volume, format="folder")
    refused(api, on_file(tmp_path / "file", format="folder"), InvalidArgumentError, "file is no folder")
    refused(api, client, UnavailableError, "volume does not exist: make it, mount its volume")
    Mount(volume).change({"a": b"\xff"})
    refused(api, on_file(volume, format="folder"), InvalidArgumentError, "a file is no UTF-8")
    monkeypatch.setattr(module, "_MOST", 0)
    refused(api, on_file(volume, format="folder"), ResourceExhaustedError, "more than 0 files")
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_BYTES", 0)
    refused(api, on_file(volume, format="folder"), ResourceExhaustedError, "has 1 bytes; a file or folder")


@pytest.mark.parametrize("setting", [{"separator": "/"}, {"multi_valued": True}])
def test_settings_of_tables(volume: Path, setting: dict[str, Any]) -> None:
    table = {"component": "config_file", "path": str(volume), "format": "folder", **setting}
    with CloudRuntimesClient(config={"secret": {"s": table}}) as client:
        with pytest.raises(InvalidArgumentError, match="separator and multi_valued are of tables"):
            client.secret.get_secret("s", "a")


def test_secrets_of_a_folder(volume: Path, api: Api) -> None:
    Mount(volume).change({"password": "hunter2\n", "key.der": b"\xff\x00"})
    os.chmod(volume, 0o700)
    table = {"component": "config_file", "path": str(volume), "format": "folder"}
    with CloudRuntimesClient(config={"secret": {"s": table}}) as client:
        assert api.call(client.secret, "get_secret", "s", "password").value == "hunter2\n"
        api.fails(PayloadError, match="'key.der' of 's': in .* it is no UTF-8")(
            client.secret, "get_secret", "s", "key.der"
        )
        api.fails(NotFoundError, match="add it to .*volume")(client.secret, "get_secret", "s", "none")
