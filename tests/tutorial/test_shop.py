"""The shop of the tutorial: its own tests, its processes, and what becomes of orders while these die and reload."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support import Figure, Rounds
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.redis import RedisHome
from tests.support.ports import free_port
from tests.tutorial.conftest import RUN, Shop, ask, wait_until
from tests.tutorial.pages import files_of, write_files

pytestmark = pytest.mark.process
RUNS = "shop with 0 methods, 1 subscription, 1 job"


def test_its_own_tests_pass_and_those_of_the_page_about_fastapi(shop: Shop) -> None:
    write_files("how-to/fastapi.md", shop.folder / "other")
    process = shop.start("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", "other")
    assert process.wait(120) == 0, shop.output()
    assert "4 passed" in shop.output()


@pytest.mark.parametrize("engine", ["", "redis", "nats"])
def test_an_order_goes_from_the_web_to_a_worker_and_into_the_report(
    engine: str, shop: Shop, request: pytest.FixtureRequest
) -> None:
    if engine:
        make = RedisHome if engine == "redis" else NatsHome
        home = make(request.getfixturevalue(f"{engine}_server")).config()["capa"]["home"]
        shop.move(home, **({"file": str(shop.folder / "files")} if engine == "redis" else {}))
    url = f"http://127.0.0.1:{(port := free_port())}"
    shop.start("-m", "uvicorn", "shop.web:app", "--port", str(port))
    (command,) = re.findall(r"command: \[cloud-runtimes, (.+)\]", files_of("how-to/deploy.md")["shop.yaml"])
    worker = shop.start("-m", "cloud_runtimes", *command.replace('"', "").replace("8080", str(free_port())).split(", "))
    shop.wait_for("Uvicorn running")
    shop.wait_for("with 0 methods, 1 subscription, 1 job")
    assert ask(f"{url}/healthz") == {"status": "ok"}
    (address,) = re.findall(r"shop at (\S+) with", shop.output())
    with urllib.request.urlopen(urllib.request.Request(f"{address}/healthz", headers={"host": "10.1.2.3"})) as answer:
        assert answer.status == 204
    order = {"id": "1", "item": "tea", "quantity": 12}
    assert ask(f"{url}/orders", order) == order
    with pytest.raises(urllib.error.HTTPError, match="409"):
        ask(f"{url}/orders", order)
    wait_until(lambda: ask(f"{url}/orders/1")["shipment"] == {"order": "1", "parcels": 2}, shop.output)
    shop.client.schedule.schedule_job("report", schedule="0 3 * * *")
    shop.client.schedule.run_now("report")
    wait_until(lambda: shop.client.file.list_files("reports"), shop.output)
    (report,) = shop.client.file.list_files("reports")
    assert shop.client.file.get_file("reports", report.name) == b"item,quantity\r\ntea,12\r\n"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 143
    assert "Traceback" not in shop.output()


class _Orders:
    """Places orders, one after the other, until it is stopped."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._order)
        self.placed: list[str] = []

    def _order(self) -> None:
        while not self._ended.wait(0.005):
            number = str(len(self.placed))
            order = {"id": number, "item": "tea", "quantity": 1}
            with self._shop.client.state.transaction("orders") as tx:
                tx.save(number, order)
                tx.publish("bus", "orders", order, key=number)
            self.placed.append(number)

    def __enter__(self) -> _Orders:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _processes_of(pid: int) -> list[int]:
    """Return the children of a process, of whichever of its threads."""
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return children


SLOW = """    client.state.save("begun", order.id, True)
    time.sleep(0.2)
    with event.transaction"""


def test_nothing_is_lost_while_workers_die_and_reload(shop: Shop, rounds: Rounds, figure: Figure) -> None:
    count, limit = rounds(1, 20), rounds(20, 2)
    source, mended = shop.handlers.read_text(encoding="utf-8"), []
    process = shop.start(*RUN, "--workers", "2", "--reload")
    running = 2
    shop.wait_for(RUNS, running)
    with _Orders(shop) as orders:
        for number in range(count):
            pid = _processes_of(process.pid)[number % 2]
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            running += 1
            shop.wait_for(RUNS, running)
            mended.append(time.monotonic() - began)
            # the last one is slow, so that the end finds something in hand
            text = source.replace("    with event.transaction", SLOW).replace("import io", "import io\nimport time")
            shop.handlers.write_text(text if number == count - 1 else f"{source}# {number}\n", encoding="utf-8")
            running += 2
            shop.wait_for("reloading", number + 1)
            shop.wait_for(RUNS, running)
    wait_until(lambda: len(shop.client.state.list_keys("begun")) >= 4, shop.output)
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 143, shop.output()
    begun, shipped = shop.client.state.list_keys("begun"), shop.client.state.list_keys("shipments")
    assert set(begun) <= set(shipped)
    assert len(shipped) < len(orders.placed)
    assert max(mended) < limit

    shop.handlers.write_text(source, encoding="utf-8")
    shop.start(*RUN)
    wait_until(lambda: len(shop.client.state.list_keys("shipments")) == len(orders.placed), shop.output)
    assert shop.output().count("Traceback") == 0, shop.output()
    figure(
        f"the tutorial's shop: {count} workers killed, {count} reloads, one SIGTERM",
        f"{len(orders.placed)} orders placed meanwhile, all shipped; a killed worker is replaced within {max(mended):.1f} s",
    )
