"""Settings of the component: what is refused before a broker is asked, and what librdkafka is given."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from cloud_runtimes.testing import Api

PASSWORD = "hunter2-in-the-table"


def client(**settings: Any) -> CloudRuntimesClient:
    table = {"component": "kafka", "servers": "localhost:1", **settings}
    return CloudRuntimesClient(app_id="suite", config={"pubsub": {"bus": table}}, timeout=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"servers": "localhost"}, 'give servers = "host:9092,host:9092"'),
        ({"servers": "kafka://localhost:9092"}, 'give servers = "host:9092,host:9092"'),
        ({"username": "u"}, "give username and password together"),
        ({"tls_ca": "ca.pem"}, "need tls = true"),
        ({"tls": True, "tls_key": "key.pem"}, "give tls_certificate and tls_key together"),
        ({"mechanism": "GSSAPI"}, "expected 'PLAIN'"),
        ({"partitions": 0}, "partitions must be 1 to 10,000"),
        ({"prefix": "a/b"}, "prefix must be"),
        ({"session_timeout": "1s"}, "session_timeout must be 6s to 30m"),
        ({"handover": "1h"}, "handover must be at most 4m"),
        ({"group_type": "share", "retry": "in_order"}, "a share group has no order"),
        ({"group_type": "share", "instance": "one"}, "the members of a share group have no names"),
        ({"options": {"share.acknowledgement.mode": "implicit"}}, "share.acknowledgement.mode is not to choose"),
        ({"options": {"enable.auto.commit": True}}, "enable.auto.commit is not to choose"),
        ({"options": {"bootstrap.servers": "b:1"}}, "bootstrap.servers is this component's servers"),
    ],
)
def test_what_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client(**settings).pubsub.publish("bus", "t", 1)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"compression.kind": "zstd"}}, "the property compression.kind"),
        ({"options": {"compression.codec": "secret-value"}}, "the property compression.codec"),
        ({"tls": True, "tls_ca": "/nowhere/ca.pem"}, "a property"),
    ],
)
@pytest.mark.parametrize("method", ["publish", "subscribe"])
def test_what_librdkafka_does_not_take(api: Api, settings: dict[str, Any], message: str, method: str) -> None:
    arguments = ("bus", "t", 1) if method == "publish" else ("bus", "t")
    with client(username="u", password=PASSWORD, **settings) as instance:
        error = api.fails(InvalidArgumentError, match=message)(instance.pubsub, method, *arguments)
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert PASSWORD not in shown
    assert "secret-value" not in str(error)


def test_nobody_listens(api: Api) -> None:
    with client(username="u", password=PASSWORD) as instance:
        error = api.fails(UnavailableError, match="kafka localhost:1: ")(instance.pubsub, "publish", "bus", "t", 1)
        assert not error.maybe_applied
        with pytest.raises(DeadlineExceededError, match="kafka localhost:1"):
            instance.wait_ready(timeout=0.5)
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert PASSWORD not in shown
