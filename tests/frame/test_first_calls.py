"""First calls of several threads: each makes and imports what it needs, and none waits for another that waits for it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import fork
from tests.support.waiting import until

MAKERS = {
    "postgres": ({"capa": {"home": "postgresql://127.0.0.1:1/none"}}, "engine"),
    "kafka": ({"pubsub": {"bus": {"component": "kafka", "servers": "127.0.0.1:1"}}}, "producer"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_thread_that_imports_needs_what_another_makes(name: str) -> None:
    config, attribute = MAKERS[name]
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        driver: Any = client.pubsub._frame.driver("bus")
        component = getattr(driver, "component", None) or driver._component
        component._engine = None
        made: list[Any] = []
        other = threading.Thread(target=lambda: made.append(getattr(component, attribute)), daemon=True)
        again = threading.Thread(target=lambda: made.append(getattr(component, attribute)), daemon=True)
        with fork.importing:
            other.start()
            # it waits for this thread, which then needs what it makes
            with pytest.raises(AssertionError, match="waited in vain"):
                until(lambda: made, seconds=0.2)
            assert component._lock.acquire(timeout=5), "the other thread holds what this one needs"
            component._lock.release()
        again.start()
        for thread in (other, again):
            thread.join(30)
        assert made[0] is made[1]
