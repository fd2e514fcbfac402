"""Programs that the tests of this folder run in processes of their own: ``python children.py NAME HOME …``."""

from __future__ import annotations

import os
import signal
import sys
import time

from cloud_runtimes import CloudRuntimesClient

SLOW = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1000000000) SELECT count(*) AS n FROM t"
)


def client(home: str) -> CloudRuntimesClient:
    """Make one on the embedded default, or on a URL."""
    if "://" in home:
        return CloudRuntimesClient(config={"database": {"main": {"component": "sqlalchemy", "url": home}}})
    return CloudRuntimesClient(config={"capa": {"home": home}})


def say(text: object) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _peak() -> int:
    """Return the most MiB of memory that this program has had; ``ru_maxrss`` would also count what forked it."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM:"))


def stream(home: str, count: str) -> None:
    """Read a million rows, and tell by how much memory grew."""
    sql = (
        "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < :n) SELECT x, 'some text' AS s FROM t"
    )
    if "://" in home:
        sql = "SELECT x, 'some text' AS s FROM generate_series(1, CAST(:n AS integer)) AS x"
    with client(home) as instance:
        total = seen = 0
        begin = time.monotonic()
        with instance.database.stream("main", sql, {"n": int(count)}) as rows:
            for row in rows:
                total += row["x"]
                seen += 1
        seconds = time.monotonic() - begin
    assert (seen, total) == (int(count), int(count) * (int(count) + 1) // 2)
    say(f"{_peak()} {seconds:.1f}")


def pairs(home: str) -> None:
    """Write two rows per transaction until killed."""
    with client(home) as instance:
        number = 0
        while True:
            with instance.database.transaction("main") as tx:
                tx.execute("INSERT INTO pair (who, n) VALUES (:who, :n)", {"who": os.getpid(), "n": number})
                tx.execute("INSERT INTO pair (who, n) VALUES (:who, :n)", {"who": os.getpid(), "n": number})
            say(number)
            number += 1


def slow(home: str) -> None:
    """Begin, and do what takes long; then tell what is there."""
    with client(home) as instance:
        instance.database.execute("main", "CREATE TABLE IF NOT EXISTS kept (n integer)")
        try:
            with instance.database.transaction("main") as tx:
                tx.execute("INSERT INTO kept VALUES (1)")
                say("begun")
                tx.query(SLOW, timeout=60)
        except KeyboardInterrupt as error:
            say(f"interrupted {error.maybe_applied}")  # type: ignore[attr-defined]
        say(instance.database.query("main", "SELECT count(*) FROM kept", type=int)[0])
        say(instance.database.execute("main", "INSERT INTO kept VALUES (2)", timeout=5).rows_affected)


def forks(home: str) -> None:
    """Use a database on both sides of a fork, with a transaction open in the parent."""
    from cloud_runtimes.errors import ClosedError

    with client(home) as instance:
        instance.database.execute("main", "CREATE TABLE IF NOT EXISTS t (n integer)")
        with instance.database.transaction("main") as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            child = os.fork()
            if child == 0:
                try:
                    assert instance.database.query("main", "SELECT count(*) FROM t", type=int) == [0]
                    try:
                        tx.execute("INSERT INTO t VALUES (9)")
                    except ClosedError:
                        os._exit(7)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            tx.execute("INSERT INTO t VALUES (2)")
        children = []
        for number in range(4):
            child = os.fork()
            if child == 0:
                try:
                    for _ in range(20):
                        instance.database.execute("main", "INSERT INTO t VALUES (:n)", {"n": number})
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children] == [0] * 4
        say(instance.database.query("main", "SELECT count(*) FROM t", type=int)[0])


if __name__ == "__main__":
    # as a shell starts it: a test runner in the background has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    globals()[sys.argv[1]](*sys.argv[2:])
