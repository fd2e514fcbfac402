"""The suite of ``client.admin`` on every harness of the table whose component shows what it holds, and over a sidecar, which does not."""

from __future__ import annotations

from cloud_runtimes.testing import AdminSuite
from cloud_runtimes.testing.suites._base import Suite
from tests.support.harnesses.dapr import DaprGrpc
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.nats import NATS_EVENTS, NATS_FRAMED
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rabbitmq import RABBITMQ, RABBITMQ_MANAGED
from tests.support.harnesses.redis import FRAMED, REDIS, VALKEY
from tests.support.harnesses.rows import rows


class TestAdmin(AdminSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name,),
        short=(AdminSuite.test_groups, AdminSuite.test_peek, AdminSuite.test_dead_letters),
        beside={DaprGrpc.name: DaprGrpc},
        postgres_url=POSTGRES,
        rabbitmq_url=RABBITMQ,
        managed_rabbitmq_url=RABBITMQ_MANAGED,
        nats_server=NATS_EVENTS,
        redis_server=REDIS,
        valkey_server=VALKEY,
    )


class TestFrames(Suite):
    """Cases of the suite in which several events a message make a difference."""

    harness = rows({}, nats_server=NATS_FRAMED, valkey_server=FRAMED)
    service = AdminSuite.service
    store = AdminSuite.store
    bus = AdminSuite.bus

    test_peek = AdminSuite.test_peek
    test_all_dead_letters_are_counted = AdminSuite.test_all_dead_letters_are_counted
    failed = AdminSuite.failed
    _left = AdminSuite._left
    test_redrive_to_the_group_that_failed = AdminSuite.test_redrive_to_the_group_that_failed
    test_redrive_to_all_groups = AdminSuite.test_redrive_to_all_groups
    test_redrive_to_a_group_with_an_order = AdminSuite.test_redrive_to_a_group_with_an_order
    test_two_redrivers_double_nothing = AdminSuite.test_two_redrivers_double_nothing
    test_discard = AdminSuite.test_discard
