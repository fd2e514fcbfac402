"""Bodies of the processes that the tests start: ``python children.py BODY ARGUMENT…``.

They speak over stdout, a line each, and take their home from the environment.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

from cloud_runtimes import CloudRuntimesClient


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def publish_until_killed(name: str) -> None:
    """Publish one by one; say each number once it is acknowledged."""
    client = CloudRuntimesClient(app_id="producer")
    client.pubsub.publish("bus", "t", [name, -1])  # what the first call imports and opens is not part of the race
    say(ready=True)
    number = 0
    while True:
        client.pubsub.publish("bus", "t", [name, number])
        say(acked=number)
        number += 1


def batch_until_killed(name: str) -> None:
    """Publish through the publisher; say up to where is delivered."""
    client = CloudRuntimesClient(app_id="producer")
    publisher = client.pubsub.publisher(
        "bus", "t", batch_events=50, on_delivery=lambda report: say(delivered=report.last)
    )
    say(ready=True)
    number = 0
    while True:
        publisher.send([name, number])
        number += 1
        if number % 20 == 0:
            time.sleep(0.0005)


def consume_slowly(ack_wait: str) -> None:
    """Handle events one at a time; say when a handler begins and when it ends."""
    client = CloudRuntimesClient(app_id="consumer")

    def handler(event: Any) -> None:
        say(begin=event.data, count=event.delivery_count, at=time.monotonic())
        time.sleep(0.05)
        say(end=event.data)

    say(ready=True)
    with client.pubsub.subscribe("bus", "t", handler, ack_wait=float(ack_wait), max_in_flight=4) as sub:
        sub.wait()


def publish_for(seconds: str) -> None:
    """Publish as fast as it goes; say how many, and the longest call."""
    client = CloudRuntimesClient(app_id="producer")
    client.pubsub.publish("bus", "t", "warm")
    say(ready=True)
    sys.stdin.readline()
    calls, longest = 0, 0.0
    end = time.monotonic() + float(seconds)
    while (started := time.monotonic()) < end:
        client.pubsub.publish("bus", "t", calls)
        longest = max(longest, time.monotonic() - started)
        calls += 1
    client.close()
    say(calls=calls, longest=longest)


def first_start(number: str) -> None:
    """Open an empty folder at the same moment as another process does."""
    say(ready=True)
    sys.stdin.readline()
    with CloudRuntimesClient(app_id="first") as client:
        client.state.save("store", f"k{number}", int(number))
        client.pubsub.publish("bus", "t", int(number))
    say(done=True)


def wait_for_events(count: str) -> None:
    """Say when each event is in hand."""
    client = CloudRuntimesClient(app_id="waiter")
    with client.pubsub.subscribe("bus", "t") as sub:
        say(ready=True)
        for _ in range(int(count)):
            event = sub.receive(30)
            at = time.monotonic_ns()
            assert event is not None
            event.ack()
            say(sent=event.data, at=at)


def idle(seconds: str) -> None:
    """Wait for events that do not come; say what that cost."""
    client = CloudRuntimesClient(app_id="waiter")
    with client.pubsub.subscribe("bus", "t") as sub:
        sub.receive(0.5)
        before = time.process_time()
        started = time.monotonic()
        assert sub.receive(float(seconds)) is None
        say(cpu=time.process_time() - before, seconds=time.monotonic() - started)


def configure_until_killed(name: str) -> None:
    """Save a counter under two keys at once, and now and then delete a third; say each number once it is acknowledged."""
    client = CloudRuntimesClient(app_id="writer")
    say(ready=True)
    number = 0
    while True:
        client.configuration.save_configuration("app", {f"{name}.a": str(number), f"{name}.b": str(number)})
        say(acked=number)
        number += 1
        if number % 10 == 0:
            client.configuration.delete_configuration("app", [f"{name}.a", f"{name}.b"])


def configure(count: str) -> None:
    """Save the numbers up to a count under one key, and say when all are saved."""
    with CloudRuntimesClient(app_id="writer") as client:
        say(ready=True)
        sys.stdin.readline()
        for number in range(int(count)):
            client.configuration.save_configuration("app", {"k": str(number), f"k{number % 7}": str(number)})
        say(done=True)


def wait_for_configuration(count: str) -> None:
    """Say when each value is in hand."""
    client = CloudRuntimesClient(app_id="waiter")
    with client.configuration.subscribe_configuration("app", ["k"]) as sub:
        sub.receive(30)
        say(ready=True)
        for _ in range(int(count)):
            items = sub.receive(30)
            at = time.monotonic_ns()
            assert items is not None
            say(value=items["k"].value, at=at)


def idle_configuration(seconds: str) -> None:
    """Wait for changes that do not come; say what that cost."""
    client = CloudRuntimesClient(app_id="waiter")
    client.configuration.save_configuration("app", {"k": "1"})
    with client.configuration.subscribe_configuration("app") as sub:
        sub.receive(30)
        assert sub.receive(0.5) is None
        before = time.process_time()
        started = time.monotonic()
        assert sub.receive(float(seconds)) is None
        say(cpu=time.process_time() - before, seconds=time.monotonic() - started)


def hold_write_lock(seconds: str) -> None:
    """Hold the write lock, as a slow writer of ours would."""
    from cloud_runtimes.components.sqlite.files import WriteLock

    write_lock = WriteLock(os.path.join(os.environ["CLOUD_RUNTIMES_HOME"], "cloud_runtimes.db"))
    write_lock.acquire()
    told = _hold(seconds)
    write_lock.release()
    say(told=told)


def _hold(seconds: str) -> bool:
    """Wait until told to let go, or so long; returns whether told."""
    say(ready=True)
    return bool(select.select([sys.stdin], [], [], float(seconds))[0])


def take_lock(store: str, resource: str) -> None:
    """Take a lock of ours and say its token; hold it to the end."""
    client = CloudRuntimesClient(app_id="taker")
    lease = client.lock.try_lock(store, resource, expiry=600)
    say(token=lease.token if lease else None)
    sys.stdin.readline()


def hold_lock(seconds: str) -> None:
    """Hold SQLite's own write lock, as a stranger would who does not take turns."""
    import sqlite3

    path = os.path.join(os.environ["CLOUD_RUNTIMES_HOME"], "cloud_runtimes.db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    told = _hold(seconds)
    connection.execute("COMMIT")
    connection.close()
    say(told=told)


def save_many(count: str) -> None:
    """Save one after the other, acknowledged each."""
    with CloudRuntimesClient(app_id="saver") as client:
        for number in range(int(count)):
            client.state.save("store", "k", number)


def write_beside(seconds: str) -> None:
    """Write to another key all the time."""
    with CloudRuntimesClient(app_id="beside") as client:
        end = time.monotonic() + float(seconds)
        say(ready=True)
        while time.monotonic() < end:
            client.state.save("store", "other", time.monotonic())


def check() -> None:
    """Ask SQLite whether the file is whole, and list all events."""
    import sqlite3

    from cloud_runtimes._native import events

    path = os.path.join(os.environ["CLOUD_RUNTIMES_HOME"], "cloud_runtimes.db")
    connection = sqlite3.connect(path)
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    data, ids = [], []
    for (body,) in connection.execute("SELECT body FROM frames ORDER BY id"):
        frame = events.Frame(body)
        for index in range(len(frame)):
            data.append(json.loads(frame[index].payload))
            ids.append(frame[index].id)
    connection.close()
    say(integrity=verdict, data=data, distinct=len(set(ids)))


def contend(seconds: str, number: str) -> None:
    """Take one lock again and again; say when it was asked for, had and left, by a clock that all processes share."""
    from cloud_runtimes.errors import LeaseLostError

    client = CloudRuntimesClient(app_id="contender", timeout=30)
    client.lock.unlock("locks", "r", "nobody")
    say(ready=True)
    sys.stdin.readline()
    end = time.monotonic() + float(seconds)
    count = 0
    while time.monotonic() < end:
        asked = time.monotonic()
        try:
            with client.lock.hold("locks", "r", expiry=1.0, wait=60) as lease:
                count += 1
                linger = (count * 8 + int(number)) % 41 == 0  # long enough to be killed while it holds
                say(token=lease.token, asked=asked, had=time.monotonic(), linger=linger)
                time.sleep(0.3 if linger else 0.002)
                released = time.monotonic()
                lost = lease.lost
            say(left=released, lost=lost)
        except LeaseLostError:
            say(left=None, lost=True)
    client.close()


def hold_and_write(expiry: str) -> None:
    """Hold a lock, be stopped for too long, then write as if nothing had been."""
    from cloud_runtimes.errors import ConflictError, LeaseLostError

    client = CloudRuntimesClient(app_id="stopped")
    while True:
        error = None
        try:
            with client.lock.hold("locks", "r", expiry=float(expiry)) as lease:
                say(token=lease.token)
                if not sys.stdin.readline():
                    return
                lost = lease.lost
                try:
                    client.state.save("store", "k", "stale", fence=lease.token)
                    refused = False
                except ConflictError:
                    refused = True
        except LeaseLostError as lost_error:
            error = type(lost_error).__name__
        say(refused=refused, lost=lost, error=error)


def hold_under_steps(renewed: str) -> None:
    """Hold a lock while the wall clock steps; say on request how late it is and whether the lease is still there."""
    client = CloudRuntimesClient(app_id="holder")
    with client.lock.hold(
        "locks", "r", expiry=6.0 if renewed == "renewed" else 3600.0, renew=renewed == "renewed"
    ) as lease:
        say(ready=True)
        while sys.stdin.readline():
            say(wall=time.time(), lost=lease.lost)
        lease.check()
    say(released=True)


def try_under_steps() -> None:
    """Try to get a lock whenever asked."""
    client = CloudRuntimesClient(app_id="other")
    say(ready=True)
    while sys.stdin.readline():
        lease = client.lock.try_lock("locks", "r", expiry=60)
        say(wall=time.time(), got=lease is not None)
        if lease is not None:
            lease.release()


def wait_for_lock(count: str) -> None:
    """Wait for a lock again and again; say when it is had."""
    client = CloudRuntimesClient(app_id="waiter")
    say(ready=True)
    for _ in range(int(count)):
        sys.stdin.readline()
        say(waiting=True)
        with client.lock.hold("locks", "r", wait=30):
            at = time.monotonic_ns()
        say(at=at)


def idle_for_lock(seconds: str) -> None:
    """Wait for a lock that stays held; say what that cost."""
    from cloud_runtimes.errors import DeadlineExceededError

    client = CloudRuntimesClient(app_id="waiter")
    client.lock.unlock("locks", "r", "nobody")
    before, started = time.process_time(), time.monotonic()
    try:
        client.lock.hold("locks", "r", wait=float(seconds)).__enter__()
    except DeadlineExceededError:
        say(cpu=time.process_time() - before, seconds=time.monotonic() - started)


def run_jobs(takes: str = "0", lease: str = "15") -> None:
    """Run jobs of the handlers ``tick`` and ``hold`` until told to end; say each run as it begins, ``hold`` also as it ends."""
    import threading

    from cloud_runtimes.components.sqlite.schedule_runs import SqliteRuns
    from cloud_runtimes.schedule import JobRun

    SqliteRuns.lease_ms = round(float(lease) * 1000)
    client = CloudRuntimesClient(app_id="test")
    release = threading.Event()

    def write(run: JobRun, **more: Any) -> None:
        fields = {"name": run.name, "run": run.run_id, "fire": run.fire_time.timestamp(), "attempt": run.attempt}
        fields["at"] = time.monotonic_ns()
        os.write(1, (json.dumps({**fields, **more}) + "\n").encode())  # whole, whichever thread

    @client.schedule.job("tick")
    def tick(data: Any, run: JobRun) -> None:
        write(run)
        if float(takes):  # under libfaketime a sleep may fail
            time.sleep(float(takes))

    @client.schedule.job("hold")
    def hold(data: Any, run: JobRun) -> None:
        write(run)
        release.wait(60)
        write(run, ended=True)

    say(ready=True)  # what runs say comes after it
    with client.schedule.running():
        for line in sys.stdin:
            if line == "end\n":
                break
            release.set()
    say(cpu=time.process_time())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
