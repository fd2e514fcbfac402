"""The pub/sub suite on a component that delivers an event only when the one before it is answered, as daprd's does with ``concurrency: 1``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_runtimes.dapr_server.pubsub import streaming
from cloud_runtimes.testing import PubSubSuite
from tests.support.harnesses.dapr import DaprOneAtATime
from tests.support.harnesses.rows import rows


@pytest.fixture(autouse=True, scope="module")
def _one_at_a_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_IN_FLIGHT", 1)
        yield


class TestOneAtATime(PubSubSuite):
    harness = rows(
        {},
        second=(DaprOneAtATime.name,),
        short=(
            PubSubSuite.test_values_round_trip,
            PubSubSuite.test_one_by_one_in_order,
            PubSubSuite.test_iterating,
            PubSubSuite.test_members_share,
            PubSubSuite.test_each_group_gets_all,
            PubSubSuite.test_what_is_settled_does_not_come_again,
            PubSubSuite.test_dead_letter,
            PubSubSuite.test_close_gives_back,
            PubSubSuite.test_max_in_flight,
            PubSubSuite.test_batch,
            PubSubSuite.test_handler,
            PubSubSuite.test_handler_batch,
            PubSubSuite.test_workers_run_at_once,
            PubSubSuite.test_a_dead_letter_tells_why_it_was_dropped,
        ),
        beside={DaprOneAtATime.name: DaprOneAtATime},
    )
