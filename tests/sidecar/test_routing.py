"""Routing rules: the expressions, what of CEL they are, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_runtimes.dapr_server.pubsub.cel import Expression, ExpressionError
from cloud_runtimes.errors import InvalidArgumentError

EVENT: dict[str, Any] = {
    "type": "order.created",
    "source": "shop",
    "data": {"amount": 12.5, "count": 3, "tags": ["a", "b"], "who": {"name": "Ada"}, "paid": True, "none": None},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
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
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert Expression(text).matches(EVENT) is expected


@pytest.mark.parametrize(
    "text",
    [
        "event.data.gone == 1",
        "event.subject == 'x'",
        "event.data.amount > 'x'",
        "event.data.amount",
        "!event.type",
        "event.data.tags[2] == 'c'",
        "event.type.name == 1",
        "event.data.count.startsWith('x')",
        "event.data.gone == 1 && event.source == 'shop'",
    ],
)
def test_an_event_without_a_value_is_an_error_and_not_a_no(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text).matches(EVENT)


@pytest.mark.parametrize(
    ("text", "why"),
    [
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
    ],
)
def test_what_is_not_known_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot be used") as caught:
        Expression(text)
    assert why in str(caught.value)
