"""Which of several subscriptions to one topic counts, as Dapr's own integration suite asks it (``suite/daprd/subscriptions``), and what becomes of one that cannot work."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.pubsub import subscriber
from cloud_runtimes.dapr_server.pubsub.types import Subscription
from cloud_runtimes.errors import PermissionDeniedError, UnavailableError
from tests.sidecar.raw import send
from tests.sidecar.test_subscriptions_grpc import listing, saying
from tests.support.apps import App, GrpcApp, serving_grpc
from tests.support.sidecar_events import beside, publish
from tests.support.waiting import until


@pytest.fixture
def home(request: pytest.FixtureRequest) -> str:
    return f"chosen-{request.node.name}"


def rules(match: str | None, path: str) -> dict[str, Any]:
    """Return routes with one rule; ``None``: a default instead."""
    return {"default": path} if match is None else {"rules": [{"match": match, "path": path}]}


def told(**more: Any) -> dict[str, Any]:
    return {"pubsubname": "store", "topic": "t", **more}


def declared(match: str | None, path: str) -> Subscription:
    return Subscription("store", "t", path) if match is None else Subscription("store", "t", "", ((match, path),))


MATCHES = [None, "", 'event.topic == "t"']


@pytest.mark.parametrize("match", MATCHES)
def test_what_the_application_tells_takes_the_place_of_what_is_declared(home: str, match: str | None) -> None:
    for first, second in ((None, match), (match, None)):
        with App([told(routes=rules(second, "/told"))]) as app:
            with beside(app, home, subscriptions=(declared(first, "/declared"),)) as sidecar:
                publish(sidecar, "t", 1)
                assert until(lambda app=app: app.got)[0].path == "/told"
                answer = send(sidecar.http_address, "GET", "/v1.0/metadata")
                assert [each["type"] for each in answer.json["subscriptions"]] == ["PROGRAMMATIC"]


@pytest.mark.parametrize("match", MATCHES)
def test_it_does_so_over_grpc(home: str, match: str | None) -> None:
    for first, second in ((None, match), (match, None)):
        given = {"pubsub_name": "store", "topic": "t", "routes": rules(second, "/told")}
        app = GrpcApp(ListTopicSubscriptions=listing(given), OnTopicEvent=saying())
        with serving_grpc(app), beside(app, home, subscriptions=(declared(first, "/declared"),)) as sidecar:
            publish(sidecar, "t", 1)
            until(lambda app=app: app.named("OnTopicEvent"))
            assert app.named("OnTopicEvent")[0].path == "/told"


@pytest.mark.parametrize("match", MATCHES)
def test_of_several_that_the_application_tells_the_last_counts(home: str, match: str | None) -> None:
    of_rules, of_route = told(routes=rules(match, "/rules")), told(route="/route")
    both = told(route="/route", routes=rules(match, "/rules"))  # of one that has both the routes count
    for given, expected in (([of_route, of_rules], "/rules"), ([of_rules, of_route], "/route"), ([both], "/rules")):
        with App(given) as app, beside(app, home) as sidecar:
            publish(sidecar, "t", 1)
            assert until(lambda app=app: app.got)[0].path == expected


def test_of_several_that_it_tells_over_grpc_the_last_counts(home: str) -> None:
    given = [{"pubsub_name": "store", "topic": "t", "routes": {"default": path}} for path in ("/one", "/two")]
    app = GrpcApp(ListTopicSubscriptions=listing(*given), OnTopicEvent=saying())
    with serving_grpc(app), beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: app.named("OnTopicEvent"))
        assert app.named("OnTopicEvent")[0].path == "/two"


@pytest.mark.parametrize("match", MATCHES)
def test_of_several_that_are_declared_the_first_counts(home: str, match: str | None) -> None:
    for first, second in ((None, match), (match, None)):
        subscriptions = (declared(first, "/first"), declared(second, "/second"))
        with App() as app, beside(app, home, subscriptions=subscriptions) as sidecar:
            publish(sidecar, "t", 1)
            assert until(lambda app=app: app.got)[0].path == "/first"


# -- one that cannot work ---------------------------------------------------


def health(sidecar: Sidecar) -> tuple[int, str]:
    answer = send(sidecar.http_address, "GET", "/v1.0/healthz")
    return answer.status, "" if answer.status == 204 else answer.json["message"]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Soon(subscriber.Backoff):
        def next(self) -> float:
            return super().next() / 100

    monkeypatch.setattr(subscriber, "Backoff", Soon)


@pytest.mark.usefixtures("_soon")
def test_one_that_cannot_be_opened_is_tried_again(
    home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, opened = [True], subscriber.open_handle

    async def opening(*args: Any) -> Any:
        if broken:
            raise UnavailableError("the broker is away")
        return await opened(*args)

    monkeypatch.setattr(subscriber, "open_handle", opening)
    with App([told(route="/in")]) as app, beside(app, home, 0) as sidecar:
        why = "dapr is not ready: [the subscription to 't' of 'store': the broker is away]"
        until(lambda: health(sidecar) == (500, why))
        assert send(sidecar.http_address, "GET", "/v1.0/healthz/outbound").status == 204
        publish(sidecar, "t", 1)
        broken.clear()
        until(lambda: app.got)
        assert health(sidecar) == (204, "")
    assert caplog.text.count("the subscription to 't' of 'store' cannot work now, and is tried again") == 1


@pytest.mark.usefixtures("_soon")
def test_one_that_an_error_ends_is_opened_anew(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handles, opened = [], subscriber.open_handle

    async def opening(*args: Any) -> Any:
        if len(handles) == 1 and not app.at("/go/on"):
            raise PermissionDeniedError("no rights")
        handles.append(await opened(*args))
        return handles[-1]

    monkeypatch.setattr(subscriber, "open_handle", opening)
    with App([told(route="/in")]) as app, beside(app, home) as sidecar:
        handles[0]._fetcher._end(PermissionDeniedError("the rights are gone"))
        until(lambda: health(sidecar)[0] == 500)
        publish(sidecar, "t", 1)
        assert not app.at("/in")
        assert send(sidecar.http_address, "POST", "/v1.0/invoke/app/method/go/on").status == 200
        until(lambda: app.at("/in"))
        until(lambda: health(sidecar) == (204, ""))
    assert len(handles) == 2
