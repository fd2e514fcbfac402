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
    harness = rows({}, beside={DaprOneAtATime.name: DaprOneAtATime})
