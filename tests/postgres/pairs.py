"""Workload while clients and servers are killed: pairs of a writer and the check of its output.

``python -m tests.postgres.pairs NAME API`` runs the writers of all pairs, a thread each, until it is killed.
They print what was acknowledged, a line of JSON each. Another pair is a class in `PAIRS`.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__":  # a child, whose own working directory has no tests
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi

__all__ = ["PAIRS", "Pair", "Said"]

Said = list[dict[str, Any]]
"""What all children said for one pair, with ``by``, ``at`` (`time.monotonic`), and ``killed``, when the child was."""
JOBS = 6


class Pair(ABC):
    """A writer, which runs in many processes at once, and the check of what they said.

    Attributes:
        proof: what each child says while it goes well; after a fault each must say it again.
        shared: any child that says it will do.
    """

    proof: ClassVar[tuple[str, ...]]
    shared = False

    def prepare(self, client: CloudRuntimesClient) -> None:
        """Make what the writers need."""

    @abstractmethod
    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        """Write until the process is killed. Errors of ours are said and survived; others end the test."""

    @abstractmethod
    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        """Check what is there against what was said, once all children are dead; returns a figure."""


def survived(say: Callable[..., None], what: Any, call: Callable[..., Any], *args: Any, **more: Any) -> None:
    """Make a call; says ``acked`` or, with what may have become of it, ``failed``."""
    try:
        call(*args, **more)
    except CloudRuntimesError as error:
        say(failed=what, maybe=error.maybe_applied, error=f"{type(error).__name__}: {error}")
    else:
        say(acked=what)


class Events(Pair):
    """Events published one by one, and consumed by a group of all children."""

    proof = ("acked", "handled")

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        def handle(event: Any) -> None:
            say(handled=event.data)

        with api.opened(client.pubsub.subscribe("bus", "single", api.handler(handle), start="earliest", ack_wait=1)):
            for number in itertools.count():
                event = [me, number]
                survived(say, event, api.call, client.pubsub, "publish", "bus", "single", event)
                api.pause(0.01)

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        figure = check_published(published(client, "single"), said)
        handled = {tuple(line["handled"]) for line in said if "handled" in line}
        unhandled = {tuple(line["acked"]) for line in said if "acked" in line} - handled
        remaining = drained(client, "single", "suite", lambda events: unhandled.issubset(events), ack_wait=1)
        assert unhandled.issubset(remaining), "acknowledged, and never delivered to the group"
        return f"{figure}; {len(handled):,} handled by the group and {len(remaining)} left"


class Batches(Pair):
    """Events of publishers, in batches."""

    proof = ("acked",)

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        def report(delivery: Any) -> None:
            failed = {each.sequence: each.error.maybe_applied for each in delivery.failed}
            for sequence in range(delivery.first, delivery.last + 1):
                say(
                    **(
                        {"failed": [me, sequence], "maybe": failed[sequence]}
                        if sequence in failed
                        else {"acked": [me, sequence]}
                    )
                )

        publisher = client.pubsub.publisher("bus", "batches", batch_events=20, on_delivery=report)
        for number in itertools.count(1):  # as sequence numbers do
            publisher.send([me, number])
            time.sleep(0.01)

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        return check_published(published(client, "batches"), said)


class Counter(Pair):
    """Number that all writers increment with its etag. It shows how many writes were applied."""

    proof = ("acked",)

    def prepare(self, client: CloudRuntimesClient) -> None:
        client.state.save("counters", "shared", 0)

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        while True:
            try:
                item = api.call(client.state, "get_item", "counters", "shared")
            except CloudRuntimesError:
                api.pause(0.05)
                continue
            value, etag = item.value + 1, item.etag
            survived(say, 1, api.call, client.state, "save", "counters", "shared", value, etag=etag)
            api.pause(0.005)

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        acked = sum("acked" in line for line in said)
        unknown = sum(line.get("maybe", False) for line in said)
        killed = len({line["by"] for line in said if line["killed"]})
        value = client.state.get("counters", "shared")
        assert acked <= value <= acked + unknown + killed
        return f"{acked:,} counted and {unknown + killed} perhaps, {value:,} in the store"


class Locks(Pair):
    """Lock that all writers want, and a resource that it fences."""

    proof = ("token",)

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        while True:
            try:
                with api.opened(client.lock.hold("locks", "r", expiry=1.0, wait=30)) as lease:
                    say(token=lease.token, had=time.monotonic())
                    api.call(client.state, "save", "fenced", "r", [me, lease.token], fence=lease.token)
                    api.pause(0.02)
                    released, lost = time.monotonic(), lease.lost
                    say(left=None if lost else released, of=lease.token)
            except CloudRuntimesError as error:
                say(failed=str(error), maybe=error.maybe_applied)
                api.pause(0.05)

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        released = {line["of"]: line["left"] for line in said if "of" in line}
        holds = sorted((line["token"], line["had"]) for line in said if "token" in line)
        assert len({token for token, _ in holds}) == len(holds), "a token was granted twice"
        for (token, had), (_, after) in pairwise(holds):
            # whoever does not know when he left had it for a moment at least
            assert max(had, released.get(token) or 0.0) <= after, "held by two at once"
        # the resource takes no lower token after a higher one
        assert client.state.get("fenced", "r")[1] >= max(released)
        return f"{len(holds):,} holds, tokens only grow, none overlap"


class Jobs(Pair):
    """Jobs that are due all the time, and runners."""

    proof = ("run",)
    shared = True

    def prepare(self, client: CloudRuntimesClient) -> None:
        @client.schedule.job("tick")
        def tick() -> None: ...

        for number in range(JOBS):
            client.schedule.schedule_job(f"j{number}", schedule="@every 200ms", target=tick)

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        @client.schedule.job("tick")
        def tick(data: Any, run: Any) -> None:
            say(run=run.run_id, attempt=run.attempt)
            time.sleep(0.05)
            say(ended=run.run_id)

        with api.opened(client.schedule.running()) as runner:
            while True:
                api.pause(0.1)
                assert runner.error is None, runner.error

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        begun: dict[str, Said] = defaultdict(list)
        ended = {(line["ended"], line["by"]): line["at"] for line in said if "ended" in line}
        for line in said:
            if "run" in line:
                begun[line["run"]].append(line)
        again = 0
        for run, lines in begun.items():
            for before, after in pairwise(sorted(lines, key=lambda line: line["at"])):
                again += 1
                over = min(ended.get((run, before["by"]), float("inf")), before["killed"] or float("inf"))
                assert over <= after["at"], f"run {run} was begun while its holder lives"
        return f"{len(begun):,} runs, {again} begun again after their holder's end"


class Settings(Pair):
    """A configuration that all change and watch."""

    proof = ("acked", "seen")

    def write(self, client: CloudRuntimesClient, api: Api, me: str, say: Callable[..., None]) -> None:
        def seen(items: Any) -> None:
            values = {key: items[key].value for key in (f"{me}.a", f"{me}.b") if key in items}
            if values:
                say(seen=[int(value) for value in values.values()])

        with api.opened(client.configuration.subscribe_configuration("app", handler=api.handler(seen))):
            for number in itertools.count():
                values = {f"{me}.a": str(number), f"{me}.b": str(number)}
                survived(say, number, api.call, client.configuration, "save_configuration", "app", values)
                api.pause(0.02)

    def check(self, client: CloudRuntimesClient, said: Said) -> str:
        items = client.configuration.get_configuration("app")
        acked: dict[str, int] = {}
        for line in said:
            if "acked" in line:
                acked[line["by"]] = line["acked"]
            for first, second in pairwise(line.get("seen", ())):
                assert first == second, "half of a change was seen"
        for by, number in acked.items():
            assert int(items[f"{by}.a"]) >= number
            assert items[f"{by}.a"] == items[f"{by}.b"]
        return f"{sum(acked.values()):,} changes saved, none lost or torn"


PAIRS: dict[str, Pair] = {
    "events": Events(),
    "batches": Batches(),
    "counter": Counter(),
    "locks": Locks(),
    "jobs": Jobs(),
    "settings": Settings(),
}


def drained(
    client: CloudRuntimesClient, topic: str, group: str, enough: Callable[[list[Any]], bool], **options: Any
) -> list[Any]:
    """Return the data of the events of a topic that a group has not settled, settling them, until they are enough or no more come."""
    events: list[Any] = []
    quiet = 0
    with client.pubsub.subscribe("bus", topic, group=group, start="earliest", batch=500, **options) as sub:
        while quiet < 60 and not enough(events):
            batch = sub.receive(0.5)
            quiet = 0 if batch is not None else quiet + 1
            if batch is not None:
                events += [tuple(event.data) for event in batch]
                batch.ack()
    return events


def published(client: CloudRuntimesClient, topic: str) -> list[Any]:
    """Return the data of all events of a topic."""
    with client.native("pubsub", "bus") as connection:
        row = connection.execute(
            "SELECT sum(count) FROM cloud_runtimes.frames f JOIN cloud_runtimes.topics t ON t.id = f.topic WHERE t.name = %s",
            (topic,),
        ).fetchone()
    return drained(client, topic, "check", lambda events: len(events) >= row[0])


def check_published(every: list[Any], said: Said) -> str:
    """Check that what was acknowledged is there, and what is said to be nowhere is not."""
    there = set(every)
    acked = {tuple(line["acked"]) for line in said if "acked" in line}
    nowhere = {tuple(line["failed"]) for line in said if line.get("maybe") is False}
    assert acked, "nothing was acknowledged"
    assert not acked - there, f"{len(acked - there)} of {len(acked)} acknowledged and absent"
    assert not nowhere & there, "said to be nowhere, and there"
    return f"{len(acked):,} events acknowledged, 0 absent, {len(every) - len(there)} twice"


def main(me: str, kind: str, *names: str) -> None:
    """Run the writers of pairs."""
    client = CloudRuntimesClient(app_id="suite", timeout=10)

    def say(**fields: Any) -> None:
        os.write(1, (json.dumps({**fields, "at": time.monotonic()}) + "\n").encode())  # whole, whichever thread

    def run(name: str) -> None:
        try:
            PAIRS[name].write(
                client, AsyncApi() if kind == "async" else SyncApi(), me, lambda **fields: say(pair=name, **fields)
            )
        except BaseException as error:
            say(pair=name, broken=repr(error))
            raise

    for name in names:
        threading.Thread(target=run, args=(name,), daemon=True).start()
    sys.stdin.read()  # the test's process has ended
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
