"""Eight processes want one lock of a server. Their clocks are wrong, and who holds it is killed, or stopped for twice its lease."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import ConflictError, LeaseLostError
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support.child import Child
from tests.support.redis import preloaded

pytestmark = pytest.mark.process

LEASE = 0.3
LEASES = {"etcd": 1.0}
"""Of engines whose leases are whole seconds."""
HOUR = 3600


def contend(home: str, lease: str) -> None:
    """Have four processes want the lock, and another for each that is killed."""
    while True:
        for number in range(4):
            if not os.fork():
                _contend(json.loads(home), (SyncApi, AsyncApi)[number % 2](), float(lease))
        for _ in range(4):
            os.wait()


def _contend(home: dict[str, Any], api: Api, expiry: float) -> None:
    """Hold the lock, write what may come too late, and tell when by a clock that all processes share."""

    def say(**fields: Any) -> None:
        os.write(1, (json.dumps({"pid": os.getpid(), **fields}) + "\n").encode())

    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}, timeout=20) as client:
        while True:
            asked, wrote, lost = time.monotonic(), {}, False
            try:
                with api.opened(client.lock.hold("locks", "r", expiry=expiry, wait=60)) as lease:
                    say(token=lease.token, asked=asked, had=time.monotonic(), wall=time.time())
                    time.sleep(0.05)  # in which it is killed or stopped
                    begun = time.monotonic()
                    try:
                        api.call(client.state, "save", "store", "k", lease.token, fence=lease.token)
                        refused = False
                    except ConflictError:
                        refused = True
                    wrote = {"wrote": lease.token, "refused": refused, "begun": begun, "ended": time.monotonic()}
            except LeaseLostError:
                lost = True
            if wrote:
                say(**wrote, lost=lost)


@contextmanager
def contenders(home: dict[str, Any], folder: Path, lease: float) -> Iterator[queue.SimpleQueue[dict[str, Any]]]:
    """Run eight processes, four of them an hour ahead and four behind; give what they say."""
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read(child: Child) -> None:
        assert child.process.stdout is not None
        for line in child.process.stdout:
            if line.endswith("\n"):  # one cut by the kill was not said
                said.put(json.loads(line))

    children = []
    for offset in (HOUR, -HOUR):
        clock = folder / f"clock{offset:+}"
        clock.write_bytes((offset * 1000).to_bytes(8, "little", signed=True))
        environment = {"LD_PRELOAD": preloaded(), "AHEAD_FILE": str(clock)}
        # a session of their own, to end them all
        children.append(
            Child(Path(__file__), "contend", json.dumps(home), str(lease), environment=environment, prefix=("setsid",))
        )
    readers = [threading.Thread(target=read, args=(child,)) for child in children]
    for reader in readers:
        reader.start()
    try:
        yield said
    finally:
        for child in children:
            os.killpg(child.process.pid, signal.SIGKILL)
        for reader in readers:
            reader.join(30)
        for child in children:
            child.close()


@pytest.mark.promise("A8", figure="eight processes with wrong clocks")
@pytest.mark.promise("A7", "D1")
@pytest.mark.parametrize(
    "kind", ["valkey", "nats", *[pytest.param(kind, marks=pytest.mark.soak) for kind in ("etcd", "redis")]]
)
def test_a_late_holder_is_refused(
    request: pytest.FixtureRequest,
    kind: str,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    """Tokens grow, and no write is accepted after one with a higher token."""
    home = {"url": request.getfixturevalue(f"{kind}_server").url, "prefix": f"contended-{os.getpid()}"}
    count, chance = rounds(1, 300), random.Random(3)
    grants: list[dict[str, Any]] = []
    writes: list[dict[str, Any]] = []
    begun = time.monotonic()
    lease = LEASES.get(kind, LEASE)
    with contenders(home, tmp_path, lease) as said:

        def hear(seconds: float) -> int:
            """Take in what is said for so long, or until the next has the lock; return who has it."""
            end = time.monotonic() + seconds
            while (remaining := end - time.monotonic()) > 0:
                try:
                    line = said.get(timeout=remaining)
                except queue.Empty:
                    break
                (grants if "token" in line else writes).append(line)
                if "token" in line:
                    return int(line["pid"])
            return 0

        turn = 0
        # one that was stopped a little too late has written before
        while turn < 2 * count or not any(each["refused"] for each in writes):
            for _ in range(chance.randrange(1, 5)):
                holder = hear(30)
                assert holder
            os.kill(holder, (signal.SIGSTOP, signal.SIGKILL)[turn % 2])
            if not turn % 2:
                end = time.monotonic() + 2 * lease
                while (remaining := end - time.monotonic()) > 0:
                    hear(remaining)
                os.kill(holder, signal.SIGCONT)
            turn += 1
        for _ in range(4):
            assert hear(30)
    took = time.monotonic() - begun
    while not said.empty():
        line = said.get()
        (grants if "token" in line else writes).append(line)

    assert {round((each["wall"] - time.time()) / HOUR) for each in grants} <= {-1, 1}  # their clocks are wrong
    grants.sort(key=lambda each: each["token"])
    assert len({each["token"] for each in grants}) == len(grants)
    highest = 0.0  # when the latest of those with a lower token asked
    for each in grants:
        assert each["had"] > highest, "a later grant has a lower token"
        highest = max(highest, each["asked"])
    accepted = sorted((each for each in writes if not each["refused"]), key=lambda each: each["wrote"])
    earliest = 0.0
    for each in accepted:
        assert each["ended"] > earliest, "a write of the late was accepted"
        earliest = max(earliest, each["begun"])
    late = [each for each in writes if each["refused"]]
    assert all(each["lost"] for each in late)
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": home}}, timeout=20) as client:
        assert client.state.get("store", "k") >= accepted[-1]["wrote"]
    figure(
        f"eight processes with wrong clocks on one lock ({kind})",
        f"{(turn + 1) // 2} holders stopped for twice their lease and {turn // 2} killed in {took / 60:.1f} min: "
        f"{len(grants):,} holds, tokens grow; {len(accepted):,} fenced writes accepted in their order, {len(late):,} of the late refused",
    )


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
