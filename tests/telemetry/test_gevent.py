"""A process that gevent has patched: each greenlet has its own current span, and sending holds up none."""

from __future__ import annotations

import pytest

from tests.telemetry.otlp_receiver import Receiver
from tests.telemetry.test_other_sdk import run

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import sys
import time
import gevent
from cloud_runtimes import CloudRuntimesClient
config = {"capa": {"home": ":memory:"}, "telemetry": {"endpoint": sys.argv[1], "instrument": True, "trace_delay": 0.05}}
client = CloudRuntimesClient(app_id="shop", config=config)
tracer, logger = client.telemetry.tracer("t"), client.telemetry.logger("t")
longest, ending = 0.0, False
def work(number):
    with tracer.span(f"outer {number}"):
        gevent.sleep(0.01)
        with tracer.span(f"inner {number}"):
            gevent.sleep(0.01)
            logger.info("said", n=number)
            client.state.save("s", str(number), number)
def watch():
    global longest
    while not ending:
        begun = time.monotonic()
        gevent.sleep(0.01)
        longest = max(longest, time.monotonic() - begun)
work("first")  # what is imported for the first call holds up everybody
watcher = gevent.spawn(watch)
gevent.joinall([gevent.spawn(work, number) for number in range(50)], raise_error=True)
assert client.telemetry.flush(30)
ending = True
watcher.join()
client.close()
assert longest < 1.5, longest
"""


@pytest.mark.process
def test_a_patched_process() -> None:
    pytest.importorskip("gevent")
    with Receiver() as receiver:
        receiver.delay = 2.0
        assert run(PROGRAM, receiver.url) == []
        names = {span.span_id: span.name for span in receiver.spans()}
        parents = {span.name: names.get(span.parent_span_id) for span in receiver.spans() if "state" not in span.name}
        saves = [names[span.parent_span_id] for span in receiver.spans() if span.name == "state.save"]
        said = [names[record.span_id] for record in receiver.logs()]
    numbers = ["first", *map(str, range(50))]
    inner = sorted(f"inner {number}" for number in numbers)
    assert parents == {name: name.replace("inner", "outer") if name in inner else None for name in parents}
    assert len(parents) == 2 * len(numbers)
    assert sorted(saves) == sorted(said) == inner
