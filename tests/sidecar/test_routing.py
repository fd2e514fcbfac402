"""Routing rules: the expressions, their patterns, and which of several subscriptions counts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.dapr_server.pubsub import subscriber
from cloud_runtimes.dapr_server.pubsub.cel import Expression, ExpressionError
from cloud_runtimes.dapr_server.pubsub.patterns import MAX_TEXT, Pattern, TooLong
from cloud_runtimes.dapr_server.settings import Subscription
from cloud_runtimes.errors import InvalidArgumentError, PermissionDeniedError, UnavailableError
from tests.sidecar.raw import send
from tests.sidecar.test_subscriptions_grpc import listing, saying
from tests.support.apps import App, GrpcApp, serving_grpc
from tests.support.sidecar_events import beside, publish
from tests.support.waiting import until

EVENT: dict[str, Any] = {
    "type": "order.created",
    "source": "shop",
    "data": {"amount": 12.5, "count": 3, "tags": ["a", "b"], "who": {"name": "Ada"}, "paid": True, "none": None},
}


def test_expressions(subtests: pytest.Subtests) -> None:
    for text, expected in (
        ('event.type == "order.created"', True),
        ("event.type == 'order.deleted'", False),
        ('event.type != "x"', True),
        ("event.data.amount > 12", True),
        ("event.data.count <= 2 || event.data.paid", True),
        ("event.data.count == 3.0", True),
        ('event.data.count == "3"', False),
        ("event.data.none == null", True),
        ('event.data.who.name == "Ada" && !(event.data.count < 3)', True),
        ('event["data"]["who"]["name"].startsWith("A")', True),
        ("event.data.tags[1] == 'b'", True),
        ("'a' in event.data.tags", True),
        ("'amount' in event.data", True),
        ("event.type in ['x', 'order.created']", True),
        ("has(event.data.amount) && !has(event.data.gone)", True),
        ("has(event.subject)", False),
        ("event.type.endsWith('created')", True),
        ("event.type.contains('der.c')", True),
        (r"event.type.matches(r'^order\.[a-z]+$')", True),
        ("event.type.matches('^created')", False),
        ("event.type.matches('(?i)^ORDER[.](created|deleted)$')", True),
        ("size(event.data.tags) == 2 && event.type.size() == 13", True),
        ("event.data.paid ? event.data.count == 3 : false", True),
        ("event.source + '/' + event.type == 'shop/order.created'", True),
        ("-event.data.count < 0 && event.data.count + 1 == 4", True),
        (r'event.source == "s\u0068op"', True),
        # either side decides, whatever the other's failure
        ("event.data.gone == 1 || event.source == 'shop'", True),
        ("event.data.gone == 1 && event.source == 'x'", False),
        ("true", True),
    ):
        with subtests.test(text=text, expected=expected):
            assert Expression(text).matches(EVENT) is expected


def test_an_event_without_a_value_is_an_error_and_not_a_no(subtests: pytest.Subtests) -> None:
    for text in (
        "event.data.gone == 1",
        "event.subject == 'x'",
        "event.data.amount > 'x'",
        "event.data.amount",
        "!event.type",
        "event.data.tags[2] == 'c'",
        "event.type.name == 1",
        "event.data.count.startsWith('x')",
        "event.data.gone == 1 && event.source == 'shop'",
    ):
        with subtests.test(text=text), pytest.raises(ExpressionError):
            Expression(text).matches(EVENT)


def test_what_is_not_known_is_refused_with_its_place(subtests: pytest.Subtests) -> None:
    for text, why in (
        ("", "a value is missing"),
        ("event.type ==", "a value is missing"),
        ("event.type = 'x'", "this is not known"),
        ("evnt.type == 'x'", "'evnt' is not known"),
        ("event.type == 'x' event", "should end"),
        ("event.type.lower() == 'x'", "the method 'lower' is not known"),
        ("event.data.all(x, x > 1)", "the method 'all' is not known"),
        ("__import__('os')", "'__import__' is not known"),
        ("event.type.matches(event.source)", "written out"),
        ("event.type.matches('[')", "is none"),
        ("has(event)", "takes a member"),
        ("event.type == 'a" + "\n" + "'", "this is not known"),
        (r"event.type == '\q'", "escape"),
        ("(" * 100 + "true" + ")" * 100, "nested too deeply"),
        ("!" * 100 + "true", "nested too deeply"),
        ("event.data * 2 == 4", "this is not known"),
    ):
        with subtests.test(text=text, why=why):
            with pytest.raises(InvalidArgumentError, match=r"cannot be used") as caught:
                Expression(text)
            assert why in str(caught.value)


# -- the patterns of rules: by RE2 in linear time, and by `re` within a bound

SLOW = [
    (".*error.*timeout.*retry$", "errortimeout"),
    (".*a.*b.*c$", "ab"),
    ("[a-z]{0,30}x[a-z]{0,30}y", "ab"),
    ("(a|a)?(a|a)?(a|a)?(a|a)?b", "a"),
    ("a?" * 12 + "a" * 12 + "b", "a"),
    (r"\w+@\w+\.\w+", "a"),
]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if google-re2 were not installed."""
    monkeypatch.setitem(sys.modules, "re2", None)


@pytest.fixture(params=["RE2", "re"])
def either(request: pytest.FixtureRequest) -> None:
    if request.param == "re":
        request.getfixturevalue("alone")
    elif sys.version_info >= (3, 15):
        pytest.skip("google-re2 is not on this Python")
    else:
        import re2  # noqa: F401


@pytest.mark.usefixtures("either")
def test_what_matches(subtests: pytest.Subtests) -> None:
    for pattern, text, expected in (
        (r"^order\.[a-z]+$", "order.created", True),
        ("^created", "order.created", False),
        ("(?i)^ORDER[.](created|deleted)$", "order.deleted", True),
        (".*error.*retry$", "an error, so retry", True),
        ("é$", "café", True),
        ("(?:a|b)c?", "b", True),
        ("a{2,3}", "a", False),
    ):
        with subtests.test(pattern=pattern, text=text):
            assert Pattern(pattern).search(text) is expected


@pytest.mark.usefixtures("either")
def test_what_is_no_pattern_is_refused(subtests: pytest.Subtests) -> None:
    for pattern in ("[", "(?=a)", r"(a)\1", "(a{100}){100}", "a" * 501):
        with subtests.test(pattern=pattern), pytest.raises(ValueError, match=r"is none|takes no|at most 500"):
            Pattern(pattern)


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="google-re2 is not on this Python")
def test_a_long_text_takes_linear_time(subtests: pytest.Subtests) -> None:
    """A millisecond for a million characters, where `re` takes hours."""
    for pattern, unit in (*SLOW, ("(a+)+$", "a"), ("(a*)*b", "a")):
        with subtests.test(pattern=pattern, unit=unit):
            begin = time.thread_time()
            Pattern(pattern).search((unit * MAX_TEXT)[: MAX_TEXT - 1] + "-")
            assert time.thread_time() - begin < 5


@pytest.mark.usefixtures("alone")
def test_without_re2_time_is_bounded(subtests: pytest.Subtests) -> None:
    """The longest text that is taken costs parts of a second; a longer one is refused before it is looked at."""
    for pattern, unit in SLOW:
        with subtests.test(pattern=pattern, unit=unit):

            def search(length: int, pattern: str = pattern, unit: str = unit) -> bool:
                return Pattern(pattern).search((unit * length)[:length])

            limit = longest(search)
            assert 50 < limit < MAX_TEXT
            begin = time.thread_time()
            search(limit)
            assert time.thread_time() - begin < 5
            with pytest.raises(
                TooLong, match=r"characters: matches takes [0-9,]+ with .*; pip install google-re2 takes more"
            ):
                search(limit + 1)


def longest(search: Callable[[int], bool]) -> int:
    """Return the length of the longest text that is taken, by halving."""
    low, high = 1, MAX_TEXT + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            if middle > 1_000_000 or search(middle) is None:
                raise TooLong
            low = middle
        except TooLong:
            high = middle
    return low


@pytest.mark.usefixtures("alone")
def test_without_re2_repeated_groups_are_refused(subtests: pytest.Subtests) -> None:
    for pattern in ("(a+)+$", "(a*){2}", "(a?){1,30}a"):
        with subtests.test(pattern=pattern):
            with pytest.raises(
                ValueError, match="no repeated groups, look-around or references: pip install google-re2"
            ):
                Pattern(pattern)


@pytest.mark.usefixtures("either")
def test_a_text_that_is_too_long_has_no_value() -> None:
    rule = Expression("event.data.matches('a')")
    assert rule.matches({"data": "b" * (MAX_TEXT - 1) + "a"})
    with pytest.raises(ExpressionError, match="1,048,577 characters: matches takes 1,048,576"):
        rule.matches({"data": "b" * MAX_TEXT + "a"})


def test_sums_are_bounded() -> None:
    rule = Expression(f"size({' + '.join(['event.data'] * 50)}) > 0")
    assert rule.matches({"data": "x" * 1000})
    for data in ("x" * 100_000, [1] * 100_000):
        with pytest.raises(ExpressionError, match="of more than 1,048,576 elements is not made"):
            rule.matches({"data": data})


# -- which of several subscriptions to one topic counts, as Dapr's own integration suite asks it (``suite/daprd/subscriptions``), and what becomes of one that cannot work


@pytest.fixture
def home(request: pytest.FixtureRequest) -> str:
    return f"chosen-{request.node.name}"


def rules(match: str | None, path: str) -> dict[str, Any]:
    """Return routes with one rule; ``None``: a default instead."""
    return {"default": path} if match is None else {"rules": [{"match": match, "path": path}]}


def event(**more: Any) -> dict[str, Any]:
    return {"pubsubname": "store", "topic": "t", **more}


def declared(match: str | None, path: str) -> Subscription:
    return Subscription("store", "t", path) if match is None else Subscription("store", "t", "", ((match, path),))


MATCHES = [None, "", 'event.topic == "t"']


@pytest.mark.parametrize("match", MATCHES)
def test_what_the_application_tells_takes_the_place_of_what_is_declared(home: str, match: str | None) -> None:
    for first, second in ((None, match), (match, None)):
        with App([event(routes=rules(second, "/told"))]) as app:
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
    of_rules, of_route = event(routes=rules(match, "/rules")), event(route="/route")
    both = event(route="/route", routes=rules(match, "/rules"))  # of one that has both the routes count
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
    with App([event(route="/in")]) as app, beside(app, home, 0) as sidecar:
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
    with App([event(route="/in")]) as app, beside(app, home) as sidecar:
        handles[0]._fetcher._end(PermissionDeniedError("the rights are gone"))
        until(lambda: health(sidecar)[0] == 500)
        publish(sidecar, "t", 1)
        assert not app.at("/in")
        assert send(sidecar.http_address, "POST", "/v1.0/invoke/app/method/go/on").status == 200
        until(lambda: app.at("/in"))
        until(lambda: health(sidecar) == (204, ""))
    assert len(handles) == 2
