"""Operators of expressions: each is a function from its operands to a function of the event."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, Protocol

from .patterns import MAX_TEXT, Pattern, TooLong

MAX: Final = 8192
_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Scope = Mapping[str, Any]
Node = Callable[[Scope], Any]


class Refuse(Protocol):
    """Refuses the expression, at the place where its reader is."""

    def __call__(self, why: str) -> NoReturn: ...


class ExpressionError(Exception):
    """An event for which the expression has no value, such as one without a member that it names."""


class Selected:
    """``operand.name``."""

    def __init__(self, operand: Node, name: str) -> None:
        self._operand = operand
        self._name = name

    def __call__(self, scope: Scope) -> Any:
        value = self._operand(scope)
        if not isinstance(value, Mapping):
            raise ExpressionError(f"{kind_of(value)} has no member {self._name!r}")
        if self._name not in value:
            raise ExpressionError(f"there is no member {self._name!r}")
        return value[self._name]

    def there(self, scope: Scope) -> bool:
        """``has(operand.name)``."""
        value = self._operand(scope)
        if not isinstance(value, Mapping):
            raise ExpressionError(f"{kind_of(value)} has no member {self._name!r}")
        return self._name in value


def selected(operand: Node, name: str) -> Node:
    return Selected(operand, name)


def variable(scope: Scope) -> Any:
    return scope["event"]


def constant(value: Any) -> Node:
    return lambda scope: value


def listed(nodes: list[Node]) -> Node:
    return lambda scope: [node(scope) for node in nodes]


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{kind_of(value)} is neither true nor false")
    return value


def choice(condition: Node, first: Node, second: Node) -> Node:
    return lambda scope: (first if _truth(condition(scope)) else second)(scope)


def denied(node: Node) -> Node:
    return lambda scope: not _truth(node(scope))


def negative(node: Node) -> Node:
    def value(scope: Scope) -> Any:
        number = node(scope)
        if not _is_number(number):
            raise ExpressionError(f"-{kind_of(number)} has no meaning")
        return -number

    return value


def logic(left_operand: Node, right: Node, decides: bool) -> Node:
    """``||`` where ``decides`` is true, else ``&&``: either side may decide, even if the other fails."""

    def value(scope: Scope) -> bool:
        failure: ExpressionError | None = None
        for node in (left_operand, right):
            try:
                if _truth(node(scope)) is decides:
                    return decides
            except ExpressionError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return not decides

    return value


def added(left_operand: Node, right: Node) -> Node:
    def value(scope: Scope) -> Any:
        first, second = left_operand(scope), right(scope)
        if (_is_number(first) and _is_number(second)) or (
            type(first) is type(second) and isinstance(first, (str, list))
        ):
            if not _is_number(first) and len(first) + len(second) > MAX_TEXT:
                raise ExpressionError(f"{kind_of(first)} of more than {MAX_TEXT:,} elements is not made")
            return first + second
        raise ExpressionError(f"{kind_of(first)} and {kind_of(second)} cannot be added")

    return value


def relation(sign: str, left_operand: Node, right: Node) -> Node:
    def value(scope: Scope) -> bool:
        first, second = left_operand(scope), right(scope)
        if sign == "==":
            return _equal(first, second)
        if sign == "!=":
            return not _equal(first, second)
        if sign == "in":
            if isinstance(second, list):
                return any(_equal(first, each) for each in second)
            if isinstance(second, Mapping):
                return isinstance(first, str) and first in second
            raise ExpressionError(f"nothing is in {kind_of(second)}: give a list or an object")
        if not (_is_number(first) and _is_number(second)) and not (
            type(first) is type(second) and isinstance(first, (str, bool))
        ):
            raise ExpressionError(f"{kind_of(first)} and {kind_of(second)} have no order")
        return bool(_ORDERS[sign](first, second))

    return value


def indexed(operand: Node, index: Node) -> Node:
    def value(scope: Scope) -> Any:
        container, at = operand(scope), index(scope)
        if isinstance(container, Mapping):
            if isinstance(at, str) and at in container:
                return container[at]
            raise ExpressionError(f"there is no member {at!r:.80}")
        if isinstance(container, list):
            if _is_number(at) and int(at) == at and 0 <= at < len(container):
                return container[int(at)]
            raise ExpressionError(f"there is no element {at!r:.80}")
        raise ExpressionError(f"{kind_of(container)} has no members")

    return value


def called(name: str, operand: Node, arguments: list[Node], refuse: Refuse) -> Node:
    if name == "size":

        def size(scope: Scope) -> int:
            subject = operand(scope)
            if not isinstance(subject, (str, list, Mapping)):
                raise ExpressionError(f"{kind_of(subject)} has no size")
            return len(subject)

        return size
    argument = arguments[0]
    tests: dict[str, Callable[[str, str], bool]] = {
        "startsWith": lambda subject, given: subject.startswith(given),
        "endsWith": lambda subject, given: subject.endswith(given),
        "contains": lambda subject, given: given in subject,
    }
    test = tests.get(name) or _matching(argument, refuse)

    def value(scope: Scope) -> bool:
        subject, given = operand(scope), argument(scope)
        if not isinstance(subject, str) or not isinstance(given, str):
            raise ExpressionError(f"{name} takes text, not {kind_of(given if isinstance(subject, str) else subject)}")
        return test(subject, given)

    return value


def _matching(argument: Node, refuse: Refuse) -> Callable[[str, str], bool]:
    """``matches``: a constant pattern, so that it is read once."""
    try:
        text = argument({})
    except (KeyError, ExpressionError):
        text = None
    if not isinstance(text, str):
        refuse("matches takes a pattern that is written out")
    try:
        pattern = Pattern(text)
    except ValueError as error:
        refuse(str(error))

    def test(subject: str, given: str) -> bool:
        try:
            return pattern.search(subject)
        except TooLong as error:
            raise ExpressionError(str(error)) from None

    return test


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(first: Any, second: Any) -> bool:
    if _is_number(first) and _is_number(second):
        return bool(first == second)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)
    return type(first) is type(second) and first == second


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if _is_number(value):
        return "a number"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
