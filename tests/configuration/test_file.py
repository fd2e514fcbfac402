"""The watched file through the client: whatever a writer does to it, the last value arrives, and nothing half-written."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.config_file.configuration import Notices, folders
from cloud_runtimes.components.config_file.watched import QUIET
from cloud_runtimes.configuration import ConfigurationSubscription, _feed
from cloud_runtimes.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from tests.support import Figure, Make
from tests.support.waiting import running

HOW = pytest.mark.parametrize("watch", ["poll", "watchfiles"])
SETTINGS: dict[str, dict[str, str]] = {
    "poll": {"watch": "poll", "poll_interval": "20ms"},
    # a look by itself would come too late for these tests
    "watchfiles": {"watch": "watchfiles", "poll_interval": "60s"},
}


@pytest.fixture(autouse=True)
def _no_looks_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_feed, "_IDLE", 60.0)


def last(sub: ConfigurationSubscription, key: str, value: str, seconds: float = 30.0) -> list[str]:
    """Take until a key has a value; returns all its values seen."""
    seen: list[str] = []
    end = time.monotonic() + seconds
    while not seen or seen[-1] != value:
        items = sub.receive(max(0.001, end - time.monotonic()))
        assert items is not None, f"{value!r} did not come, but {seen[-3:]}"
        assert not items[key].deleted, "half of a file was taken"
        seen.append(items[key].value)
    return seen


def rename(path: Path, text: str) -> None:
    """As one should."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def rewrite(path: Path, text: str) -> None:
    """In place: cut, then written in two goes."""
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        file.write(text[len(text) // 2 :])


def remake(path: Path, text: str) -> None:
    """Deleted, then made anew."""
    path.unlink(missing_ok=True)
    path.write_text(text)


def swap(path: Path, text: str) -> None:
    """As Kubernetes: through a link to a folder, which is renamed over; the old folder goes."""
    data = path.with_name("..data")
    old = data.resolve() if data.is_symlink() else None
    folder = path.with_name(f"..{time.monotonic_ns()}")
    folder.mkdir()
    (folder / path.name).write_text(text)
    path.with_name("..tmp").symlink_to(folder.name)
    path.with_name("..tmp").replace(data)
    if not path.is_symlink():
        path.symlink_to(f"..data/{path.name}")
    if old is not None:
        (old / path.name).unlink()
        old.rmdir()


def text(number: int) -> str:
    return f"# {number}\nfirst = {number}\n{'filler = 1' if number % 2 else ''}\n[last]\nnumber = {number}\n"


@HOW
@pytest.mark.parametrize("write", [rename, rewrite, remake, swap], ids=lambda write: write.__name__)
def test_two_hundred_changes(
    on_file: Make, tmp_path: Path, watch: str, write: Callable[[Path, str], None], figure: Figure
) -> None:
    path = tmp_path / "config" / "app.toml"
    path.parent.mkdir()
    write(path, text(0))
    client = on_file(path, **SETTINGS[watch])
    with client.configuration.subscribe_configuration("app", ["first", "last.number"]) as sub:
        assert {key: item.value for key, item in (sub.receive(10) or {}).items()} == {"first": "0", "last.number": "0"}

        def change() -> None:
            for number in range(1, 201):
                write(path, text(number))
                time.sleep(0.003 * (number % 7))

        with running(change):
            seen = last(sub, "first", "200", 30)
        assert {key: item.value for key, item in sub.current().items()} == {"first": "200", "last.number": "200"}
        assert sub.receive(0.3) is None
    assert seen == sorted(seen, key=int), "never an older one after a newer one"
    figure(f"200 times {write.__name__}, {watch}", f"the last value came, and {len(seen) - 1} of the others")


@HOW
def test_a_change_is_soon_heard_of(on_file: Make, tmp_path: Path, watch: str, figure: Figure) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = 0")
    took = []
    with on_file(path, **SETTINGS[watch]).configuration.subscribe_configuration("app") as sub:
        sub.receive(10)
        time.sleep(0.2)
        for number in range(1, 11):
            rename(path, f"x = {number}")
            began = time.monotonic()
            last(sub, "x", str(number))
            took.append(time.monotonic() - began)
    took.sort()
    figure(
        f"a file replaced to its value in hand, {watch}",
        f"median {took[5] * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms",
    )
    assert took[5] < 1


@HOW
def test_idle_it_costs_little(on_file: Make, tmp_path: Path, watch: str, figure: Figure) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = 0")
    with on_file(path, watch=watch, poll_interval="500ms").configuration.subscribe_configuration("app") as sub:
        sub.receive(10)
        assert sub.receive(0.5) is None
        share = 1.0
        for _ in range(3):  # the best: threads of other tests may have something to do yet
            before, began = time.process_time(), time.monotonic()
            assert sub.receive(2) is None
            share = min(share, (time.process_time() - before) / (time.monotonic() - began))
            if share <= 0.05:
                break
    figure(f"an idle subscription to a file, {watch}", f"{share:.2%} of a core")
    assert share <= 0.05


def test_half_written_for_long(on_file: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "app.json"
    path.write_text('{"x": 1}')
    client = on_file(path)
    with caplog.at_level(logging.WARNING, "cloud_runtimes"), client.configuration.subscribe_configuration("app") as sub:
        sub.receive(10)
        path.write_text('{"x": ')
        assert sub.receive(1.5) is None
        assert client.configuration.get_configuration("app") == {"x": "1"}
        path.write_text("")
        assert sub.receive(0.5) is None
        path.unlink()
        assert sub.receive(0.5) is None
        assert {key: item.value for key, item in sub.current().items()} == {"x": "1"}
        path.write_text('{"x": 2}')
        last(sub, "x", "2")
    (record,) = caplog.records
    assert "last good values are kept" in record.message
    assert str(path) in record.message


def test_a_reader_never_gets_half_of_it(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(text(0))
    service = on_file(path).configuration
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            rewrite(path, text(number))
            time.sleep(1.2 * QUIET)  # quiet, for a moment

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(30):
            got = service.get_configuration("app", ["first", "last.number"])
            assert len(got) == 2
            assert len(set(got.values())) == 1
    finally:
        stop.set()
        writer.join()


def test_a_get_after_a_change_gives_the_change(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    service = None
    for number in range(10):
        rename(path, f"x = {number}")
        service = service or on_file(path).configuration
        assert service.get_configuration("app") == {"x": str(number)}
        assert asyncio.run(service.get_configuration_async("app")) == {"x": str(number)}


def test_a_file_that_is_not_there_yet(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "volume" / "app.toml"
    client = on_file(path)
    for call in (client.configuration.get_configuration, client.configuration.subscribe_configuration):
        with pytest.raises(UnavailableError, match="does not exist") as caught:
            call("app")
        assert caught.value.retryable
        assert caught.value.component == "app"
        assert caught.value.operation == call.__name__
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(DeadlineExceededError, match="does not exist"):
        client.wait_ready(timeout=0.2)

    def mount() -> None:
        time.sleep(0.2)
        path.parent.mkdir()
        path.write_text("x = 1")

    with running(mount):
        client.wait_ready(timeout=20)
    assert client.configuration.get_configuration("app") == {"x": "1"}


def test_a_broken_file_from_the_start(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = \n")
    client = on_file(path)
    with pytest.raises(InvalidArgumentError, match=r"app\.toml: syntax error.*line 1"):
        client.configuration.get_configuration("app")
    with pytest.raises(InvalidArgumentError, match="syntax error"):
        client.configuration.subscribe_configuration("app")
    path.write_text("x = 1\n")
    assert client.configuration.get_configuration("app") == {"x": "1"}


def test_a_deadline_while_it_is_being_written(on_file: Make, tmp_path: Path) -> None:
    for attempt in range(100):  # a machine that pauses for 100 ms finds it written
        path = tmp_path / f"{attempt}.toml"
        path.write_text("x = 1")
        client = on_file(path)
        try:
            client.configuration.get_configuration("app", timeout=0.001)
        except DeadlineExceededError as error:
            assert "being written" in str(error)  # noqa: PT017
            break
    else:
        pytest.fail("it was never being written")
    assert client.configuration.get_configuration("app") == {"x": "1"}
    for number in range(2, 100):
        path.write_text(f"x = {number}")
        values = client.configuration.get_configuration("app", timeout=0.01)
        assert values in ({"x": str(number - 1)}, {"x": str(number)})
        if values == {"x": str(number - 1)}:  # what there was before
            break
        assert client.configuration.get_configuration("app") == {"x": str(number)}
    else:
        pytest.fail("what there was before was never given")
    assert client.configuration.get_configuration("app") == {"x": str(number)}


def test_it_is_only_read(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    client = on_file(path)  # refused before any I/O: there is no file
    for call in (
        lambda: client.configuration.save_configuration("app", {"x": "1"}),
        lambda: client.configuration.delete_configuration("app", ["x"]),
        lambda: client.configuration.get_configuration("app", group="g"),
        lambda: client.configuration.subscribe_configuration("app", label="l"),
    ):
        with pytest.raises(UnsupportedError):
            call()
    assert not client.supports("configuration.write", "app")
    assert client.supports("configuration", "app")
    with pytest.raises(UnsupportedError, match="has no state"):
        CloudRuntimesClient(config={"state": {"s": {"component": "config_file", "path": str(path)}}}).state.get(
            "s", "k"
        )


# -- settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": None}, "needs path"),
        ({"path": ""}, "needs path"),
        ({"path": "app"}, "say format"),
        ({"path": "app.ini"}, "say format"),
        ({"path": "app.toml", "format": "ini"}, "'toml' or 'json' or 'yaml'"),
        ({"path": ".env"}, "say format"),
        ({"path": "app.toml", "format": "dotenv"}, "say format"),
        (
            {"path": "app.toml", "separator": ":"},
            r"\[configuration\.app\]: the setting 'separator' .* is for secret only",
        ),
        ({"path": "app.toml", "multi_valued": False}, "the setting 'multi_valued' .* is for secret only: take it away"),
        ({"path": "app.toml", "poll_interval": "1ms"}, "at least 10ms"),
        ({"path": "app.toml", "watch": "inotify"}, "watch"),
    ],
)
def test_bad_settings(on_file: Make, settings: dict[str, Any], message: str) -> None:
    client = on_file(Path("app.toml"), **settings)
    with pytest.raises(InvalidArgumentError, match=message):
        client.configuration.get_configuration("app")
    with pytest.raises(InvalidArgumentError, match=message):
        client.wait_ready(timeout=0.1)


def test_a_format_by_setting_and_a_path_from_home(
    on_file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "settings").write_text("a: {b: 1}")
    client = on_file(Path("~/settings"), format="yaml")
    assert client.configuration.get_configuration("app") == {"a.b": "1"}


# -- notices ------------------------------------------------------------------


def test_without_watchfiles(on_file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = 1")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UnsupportedError, match=r"pip install \"\.\[watch\]\" in the checkout"):
        on_file(path, watch="watchfiles").configuration.subscribe_configuration("app")
    with on_file(path, watch="auto").configuration.subscribe_configuration("app") as sub:
        sub.receive(10)
        rename(path, "x = 2")
        last(sub, "x", "2")


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("watch", "why"),
    [(refuse, "[Errno 28] No space left on device"), (lambda *_, **__: iter(()), "the notices ended")],
    ids=["refused", "ended"],
)
def test_notices_that_do_not_work(
    on_file: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    watch: Any,
    why: str,
) -> None:
    """No more watches left in the kernel, say: then it looks."""
    path = tmp_path / "app.toml"
    path.write_text("x = 1")
    monkeypatch.setattr("watchfiles.watch", lambda *_, **__: (each for each in watch()))
    with (
        caplog.at_level(logging.WARNING, "cloud_runtimes"),
        on_file(path, watch="watchfiles").configuration.subscribe_configuration("app") as sub,
    ):
        sub.receive(10)
        for number in range(2, 5):
            rename(path, f"x = {number}")
            last(sub, "x", str(number))
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        f"no notices of changes, looking instead: {why}"
    ]


def test_notices_of_a_folder_that_comes_later(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "a" / "app.toml"
    path.parent.mkdir()
    path.write_text("x = 1")
    with on_file(path, watch="watchfiles", poll_interval="50ms").configuration.subscribe_configuration("app") as sub:
        sub.receive(10)
        path.parent.rename(tmp_path / "b")
        assert sub.receive(0.3) is None
        path.parent.mkdir()
        path.write_text("x = 2")
        last(sub, "x", "2")


def test_which_folders_are_watched(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "deep").mkdir(parents=True)
    (real / "deep" / "app.toml").write_text("")
    here = tmp_path / "here"
    here.mkdir()
    assert folders(real / "deep" / "app.toml") == [str(real / "deep")]
    (here / "app.toml").symlink_to("../there/deep/app.toml")
    (tmp_path / "there").symlink_to(real)
    assert folders(here / "app.toml") == sorted(map(str, (here, tmp_path, real / "deep")))
    assert folders(tmp_path / "absent" / "app.toml") == []
    (here / "loop").symlink_to("loop")
    assert folders(here / "loop") == [str(here)]


def test_a_wait_for_notices_ends_when_told(tmp_path: Path) -> None:
    notices = Notices(tmp_path / "app.toml")
    assert notices.wait(60), "the first returns at once, to look again"
    thread = threading.Thread(target=notices.wait, args=(60.0,))
    thread.start()
    time.sleep(0.05)
    notices.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert notices.wait(60)
    notices.close()


def test_a_closed_client(on_file: Make, tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text("x = 1")
    client = on_file(path)
    sub = client.configuration.subscribe_configuration("app")
    client.close()
    assert sub.receive(5) is None
    with pytest.raises(ClosedError):
        client.configuration.get_configuration("app")
