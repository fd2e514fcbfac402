"""The pub/sub suite on every harness of the table, and over a sidecar by gRPC; publishing over HTTP is in ``tests/sidecar_client``."""

from __future__ import annotations

from functools import partial

from cloud_runtimes.testing import Api, Harness, PubSubSuite
from cloud_runtimes.testing.suites._base import Call
from tests.support.harnesses.dapr import DaprGrpc
from tests.support.harnesses.embedded import HARNESSES
from tests.support.harnesses.layotto import LAYOTTO
from tests.support.harnesses.nats import NATS, NATS_FRAMED
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.redis import FRAMED, REDIS, VALKEY
from tests.support.harnesses.rows import rows


class TestPubSub(PubSubSuite):
    harness = rows(
        HARNESSES,
        beside={DaprGrpc.name: DaprGrpc},
        beside_layotto=LAYOTTO,
        postgres_url=POSTGRES,
        nats_server=NATS,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )


class TestFrames(PubSubSuite):
    """The suite with many events a message."""

    harness = rows({}, valkey_server=FRAMED, nats_server=NATS_FRAMED)

    def test_members_share(self, call: Call, api: Api, harness: Harness) -> None:
        # they share frames: each publish makes one
        members = [each("subscribe", "t") for each in (call, call.on(harness.client()))]
        for number in range(40):
            call("publish", "t", number)
        got = [[event.data for event in iter(partial(api.call, member, "receive", 0.2), None)] for member in members]
        assert sorted(got[0] + got[1]) == list(range(40))
        assert all(got)
        for member in members:
            api.call(member, "close")
