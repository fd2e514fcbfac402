"""Metrics of our own calls (``instrument = true``): names and attributes are checked against OpenTelemetry's own constants."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc
from opentelemetry.semconv._incubating.metrics import messaging_metrics, rpc_metrics
from opentelemetry.semconv.attributes import db_attributes as db
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.metrics.db_metrics import DB_CLIENT_OPERATION_DURATION

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver
from tests.telemetry.test_calls import attributes


def points(client: CloudRuntimesClient, receiver: Receiver) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Return attributes and value of each series, by metric: of a histogram the count."""
    assert client.telemetry.flush(30)
    found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for metric in receiver.metrics():
        data = getattr(metric, metric.WhichOneof("data")).data_points
        found[metric.name] = [(attributes(each), getattr(each, "count", 0) or each.as_int) for each in data]
    return found


def test_calls_of_methods(client: Make, api: Api) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, instrument=True)

        def divide(number: int) -> int:
            if number < 0:
                raise InvalidArgumentError("negative")
            return 1 // number

        instance.rpc.register_method("divide", divide)
        for number in (1, 1, 0, -1):
            try:
                assert api.call(instance.rpc, "invoke_method", "shop", "divide", number) == 1
            except Exception:
                assert number < 1
        found = points(instance, receiver)
    same = {rpc.RPC_SYSTEM_NAME: "cloud_runtimes", rpc.RPC_METHOD: "shop/divide"}
    fault = {ERROR_TYPE: "ZeroDivisionError"}
    served = found[rpc_metrics.RPC_SERVER_CALL_DURATION]
    assert sorted(served, key=str) == sorted([(same, 3), (same | fault, 1)], key=str)  # negative is the caller's fault
    called = {each[rpc.RPC_RESPONSE_STATUS_CODE]: (each.get(ERROR_TYPE), count) for each, count in found[rpc_metrics.RPC_CLIENT_CALL_DURATION]}  # fmt: skip
    assert called == {"200": (None, 2), "500": ("500", 1), "400": ("InvalidArgumentError", 1)}


def test_events_that_are_sent(client: Make, api: Api) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, instrument=True)
        api.call(instance.pubsub, "publish", "bus", "one", 1)
        api.call(instance.pubsub, "publish_bulk", "bus", "many", [1, 2, 3])
        with instance.pubsub.publisher("bus", "many") as publisher:  # no span, since it is sent in none
            publisher.send(4)
        found = points(instance, receiver)
    sent = {each[messaging.MESSAGING_DESTINATION_NAME]: count for each, count in found[messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES]}  # fmt: skip
    assert sent == {"one": 1, "many": 4}
    one, many = sorted(found[messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION], key=lambda each: each[1])
    assert one == (
        {
            messaging.MESSAGING_SYSTEM: "sqlite",
            messaging.MESSAGING_OPERATION_NAME: "publish",
            messaging.MESSAGING_OPERATION_TYPE: "send",
            messaging.MESSAGING_DESTINATION_NAME: "one",
            "cloud_runtimes.component": "bus",
        },
        1,
    )
    assert many[1] == 2
    assert [span.name for span in receiver.spans()] == ["publish one", "publish many"]


def test_calls_of_databases(client: Make, api: Api) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, instrument=True)
        api.call(instance.database, "execute", "db", "CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        for _ in range(2):
            api.call(instance.database, "query", "db", "SELECT * FROM orders")
        with pytest.raises(InvalidArgumentError):
            api.call(instance.database, "query", "db", "SELECT nothing FROM orders")
        found = points(instance, receiver)[DB_CLIENT_OPERATION_DURATION]
    reads = {each.get(ERROR_TYPE): count for each, count in found if each[db.DB_QUERY_SUMMARY] == "SELECT orders"}
    assert reads == {None: 2, "cloud_runtimes.errors.InvalidArgumentError": 1}
    assert {each[db.DB_SYSTEM_NAME] for each, _ in found} == {"sqlite"}
    assert not any("batch" in key for each, _ in found for key in each)


def test_off_and_without_metrics_nothing_is_measured(client: Make) -> None:
    with Receiver() as receiver:
        for settings in ({}, {"instrument": True, "exporter": "none"}):
            instance = client(endpoint=receiver.url, **settings)
            instance.pubsub.publish("bus", "one", 1)
            assert instance.telemetry.flush(30)
        assert receiver.metrics() == []
