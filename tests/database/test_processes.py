"""Behaviour that only processes show: memory, crashes, fairness, Ctrl-C, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure, Rounds

pytestmark = pytest.mark.process
CHILDREN = Path(__file__).parent / "children.py"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", CHILDREN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(child: subprocess.Popen[str]) -> list[str]:
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "")
    return out.split("\n")[:-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A home folder, or the URL of an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "home")
    psycopg = pytest.importorskip("psycopg")
    url: str = request.getfixturevalue("postgres_url")
    name = f"d{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"


def connect(home: str) -> CloudRuntimesClient:
    if "://" in home:
        return CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", "url": home}}})
    return CloudRuntimesClient(config={"capa": {"home": home}})


def test_a_stream_needs_little_memory(home: str, rounds: Rounds, figure: Figure) -> None:
    count = rounds(300_000, 5_000_000)
    (line,) = finish(start("stream", home, str(count)))
    mebibytes, seconds = line.split()
    kind = "PostgreSQL" if "://" in home else "SQLite"
    figure(f"a stream of {count:,} rows, {kind}", f"{mebibytes} MiB at most, {seconds} s")
    assert int(mebibytes) < 100


def test_ctrl_c_rolls_back(home: str) -> None:
    child = start("slow", home)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert finish(child) == ["interrupted False", "0", "1"]


def test_forks(home: str) -> None:
    assert finish(start("forks", home)) == ["82"]


@pytest.mark.promise("A4")
def test_kills_leave_whole_transactions(home: str, rounds: Rounds) -> None:
    with connect(home) as client:
        client.database.execute("main", "CREATE TABLE pair (who integer, n integer)")
        for _ in range(rounds(3, 30)):
            children = [start("pairs", home) for _ in range(2)]
            for child in children:
                assert child.stdout is not None
                for _ in range(20):
                    assert child.stdout.readline(), child.communicate()[1]
            said: dict[int, int] = {}
            for child in children:
                child.kill()
                out, _ = child.communicate()
                said[child.pid] = max([19, *map(int, out.split("\n")[:-1])])
            rows = client.database.query("main", "SELECT who, n, count(*) AS c FROM pair GROUP BY who, n")
            assert {row.c for row in rows} == {2}
            for who, last in said.items():  # what was said is there
                assert len([row for row in rows if row.who == who]) >= last + 1


def test_two_writers_share_a_file(tmp_path: Path, figure: Figure) -> None:
    home = str(tmp_path / "home")
    with connect(home) as client:
        client.database.execute("main", "CREATE TABLE pair (who integer, n integer)")
        children = [start("pairs", home) for _ in range(2)]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        before = dict(
            client.database.query("main", "SELECT who, count(*) FROM pair GROUP BY who", type=tuple[int, int])
        )
        began = time.monotonic()
        while True:  # a busy machine may stop one for seconds
            time.sleep(1.5)
            after = dict(
                client.database.query("main", "SELECT who, count(*) FROM pair GROUP BY who", type=tuple[int, int])
            )
            seconds = time.monotonic() - began
            shares = sorted((after[child.pid] - before[child.pid]) / 2 / seconds for child in children)
            if shares[0] > 0.1 * shares[1] or seconds > 30:
                break
        for child in children:
            child.kill()
            child.communicate()
    figure("transactions a second of two processes on one SQLite file", " and ".join(f"{each:.0f}" for each in shares))
    assert shares[0] > 0.1 * shares[1]
