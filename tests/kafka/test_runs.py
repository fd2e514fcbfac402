"""Properties that a member reads from fetched messages before it hands them out."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from cloud_runtimes.components.kafka.fetched import Fetched
from cloud_runtimes.components.kafka.messages import Incoming, runs
from cloud_runtimes.spi.broker.policy import DeliveryPolicy
from cloud_runtimes.spi.pubsub import SubscribeRequest

JSON = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def message(
    offset: int, *, partition: int = 0, key: bytes | None = None, headers: Any = JSON, error: Any = None
) -> Any:
    return Message(
        topic="t", partition=partition, offset=offset, key=key, value=b"%d" % offset, headers=headers, error=error
    )


def offsets(fetched: Any) -> list[tuple[int, bool, list[int]]]:
    return [(run.partition, run.plain, run.offsets) for run in fetched]


def test_an_error_among_messages_costs_none_of_them() -> None:
    error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    result = list(runs([message(1), message(-1001, error=error), message(2)], False))
    assert [run.error for run in result if run.error] == [error]
    assert [run.offsets for run in result if run.offsets] == [[1, 2]]


@pytest.mark.parametrize(
    ("headers", "plain"),
    [
        (None, True),
        (JSON, True),
        ([("Content-Type", b"application/cloudevents+json")], True),
        ([("content-type", b"text/plain")], False),
        ([("content-type", None)], False),
        ([*JSON, ("cr-topic", b"x")], False),
        ([("ce_specversion", b"1.0")], False),
    ],
)
def test_only_an_envelope_or_none_is_plain(headers: Any, plain: bool) -> None:
    ((_, is_plain, _),) = offsets(runs([message(1, headers=headers), message(2, headers=headers)], False))
    assert is_plain is plain


def test_one_message_with_more_has_all_of_its_run_read() -> None:
    (run,) = runs([message(1), message(2, headers=[("content-type", b"text/plain")])], False)
    assert not run.plain
    assert [(each.offset, each.data, each.headers) for each in run.messages] == [
        (1, b"1", None),
        (2, b"2", {"content-type": "text/plain"}),
    ]


def test_keys_matter_only_where_order_does() -> None:
    keyed = [message(1, key=b"k"), message(2)]
    assert offsets(runs(keyed, False)) == [(0, True, [1, 2])]
    (run,) = runs(keyed, True)
    assert (run.plain, run.messages) == (True, [(b"1", b"k"), (b"2", None)])
    text = {"content-type": "text/plain"}
    for ordered, key in ((True, b"k"), (False, None)):
        (run,) = runs([*keyed, message(3, key=b"k", headers=[("content-type", b"text/plain")])], ordered)
        assert run.messages == [Incoming(1, key, b"1"), Incoming(2, None, b"2"), Incoming(3, key, b"3", text)]


def test_a_message_without_a_value_has_no_data() -> None:
    (run,) = runs([Message(topic="t", partition=0, offset=7, value=None)], False)
    assert (run.offsets, run.messages) == ([7], [b""])


@pytest.fixture
def fetched() -> Fetched:
    return Fetched(DeliveryPolicy("bus", SubscribeRequest("t", "g", *[None] * 6)))


def test_what_is_not_taken_waits_in_its_order(fetched: Fetched) -> None:
    several = [message(1), message(2), message(9, partition=1), message(3)]
    fetched.add("t", list(runs(several, False)))
    fetched.add("t", list(runs([message(4)], False)))
    taken = [fetched.take(2), fetched.take(2), fetched.take(10), fetched.take(1)]
    assert [[(origin[1], run.offsets) for origin, run in each] for each in taken] == [
        [(0, [1, 2])],
        [(1, [9]), (0, [3])],
        [(0, [4])],
        [],
    ]


def test_a_log_that_begins_anew_is_a_run_of_its_own(fetched: Fetched) -> None:
    for offset in (5, 6, 0, 1):
        fetched.add("t", list(runs([message(offset)], False)))
    assert [run.offsets for _, run in fetched.take(10)] == [[5, 6], [0, 1]]
