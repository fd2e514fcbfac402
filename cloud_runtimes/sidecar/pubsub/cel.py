"""The expressions of routing rules: the part of the Common Expression Language that rules need, without functions of anybody else's.

Known are ``event`` and its members (``event.type``, ``event.data.a["b"][0]``), literals (text, raw text ``r"…"``, numbers, ``true``, ``false``, ``null``, lists), ``! - && || == != < <= > >= in + ? :``, parentheses, ``has(…)``, ``size(…)``, and the methods ``startsWith``, ``endsWith``, ``contains``, ``matches``, ``size``. What else stands in an expression is refused when it is read, with its place.

As CEL defines them (https://github.com/google/cel-spec, "langdef"): ``&&`` and ``||`` give an answer where either side has one, whatever the other's error; values of different types are unequal, and cannot be ordered; numbers are compared by value; a member that is not there is an error outside of ``has``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from ...errors import InvalidArgumentError

__all__ = ["Expression", "ExpressionError"]

_MAX: Final = 8192
_DEPTH: Final = 64
_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<number>(?:[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|0x[0-9a-fA-F]+|[0-9]+)u?)(?![\w.])
    |(?P<text>[rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[<>!()\[\].,+?:-])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([0-7]{3})|(.))", re.DOTALL)
_SIMPLE: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PLAIN: Final = frozenset("\\\"'`?")
_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_METHODS: Final = ("startsWith", "endsWith", "contains", "matches", "size")
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)

Scope = Mapping[str, Any]
Node = Callable[[Scope], Any]


class ExpressionError(Exception):
    """An event for which the expression has no value, such as one without a member that it names."""


class Expression:
    """An expression, read and checked.

    Raises:
        InvalidArgumentError: it is none, or has something that is not known; names the place and the remedy.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._node = _Reader(text).read()

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event fits.

        Raises:
            ExpressionError: it has no value for this event, or none that is true or false.
        """
        try:
            value = self._node({"event": event})
        except RecursionError:
            raise ExpressionError("the event is nested too deeply") from None
        if not isinstance(value, bool):
            raise ExpressionError(f"it gives {_kind(value)}, not true or false")
        return value


class _Reader:
    """Makes a tree of closures; precedence as in CEL's grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        if len(text) > _MAX:
            raise InvalidArgumentError(f"an expression of {len(text):,} characters: {_MAX:,} are taken")
        at = 0
        while True:
            match = _TOKEN.match(text, at)
            if match is None:
                self._refuse("this is not known", at)
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind], match.start(kind)))
            if kind == "end":
                return
            at = match.end()

    def read(self) -> Node:
        node = self._either()
        if self._tokens[self._at][0] != "end":
            self._refuse("the expression should end")
        return node

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        place = self._tokens[self._at][2] if at is None else at
        raise InvalidArgumentError(
            f"the expression {self._text[:200]!r} cannot be used: {why} at character {place + 1} ({self._text[place : place + 20]!r}). "
            'Rules compare members of the event: event.type == "x" && event.data.amount > 10; '
            "known are && || ! == != < <= > >= in + ?:, has, size, startsWith, endsWith, contains, matches"
        )

    def _take(self, *signs: str) -> str | None:
        kind, text, _ = self._tokens[self._at]
        if text in signs and (kind == "sign" or (kind == "name" and text == "in")):
            self._at += 1
            return text
        return None

    def _need(self, sign: str) -> None:
        if self._take(sign) is None:
            self._refuse(f"{sign!r} is missing")

    def _either(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH:
            self._refuse("it is nested too deeply")
        condition = self._or()
        if self._take("?") is not None:
            first = self._or()
            self._need(":")
            condition = _choice(condition, first, self._either())
        self._depth -= 1
        return condition

    def _or(self) -> Node:
        node = self._and()
        while self._take("||") is not None:
            node = _logic(node, self._and(), True)
        return node

    def _and(self) -> Node:
        node = self._relation()
        while self._take("&&") is not None:
            node = _logic(node, self._relation(), False)
        return node

    def _relation(self) -> Node:
        node = self._sum()
        while (sign := self._take("==", "!=", "<", "<=", ">", ">=", "in")) is not None:
            node = _relation(sign, node, self._sum())
        return node

    def _sum(self) -> Node:
        node = self._unary()
        while self._take("+") is not None:
            node = _added(node, self._unary())
        return node

    def _unary(self) -> Node:
        if (sign := self._take("!", "-")) is None:
            return self._member()
        self._depth += 1
        if self._depth > _DEPTH:
            self._refuse("it is nested too deeply")
        node = _denied(self._unary()) if sign == "!" else _negative(self._unary())
        self._depth -= 1
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._take(".") is not None:
                kind, name, _ = self._tokens[self._at]
                if kind != "name":
                    self._refuse("a name is missing")
                self._at += 1
                if self._take("(") is None:
                    node = _selected(node, name)
                    continue
                if name not in _METHODS:
                    self._at -= 2
                    self._refuse(f"the method {name!r} is not known")
                arguments = self._arguments(")")
                if len(arguments) != (0 if name == "size" else 1):
                    self._refuse(f"{name} takes {'nothing' if name == 'size' else 'one text'}")
                node = _called(name, node, arguments, self)
            elif self._take("[") is not None:
                index = self._either()
                self._need("]")
                node = _indexed(node, index)
            else:
                return node

    def _arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        if self._take(end) is not None:
            return found
        while True:
            found.append(self._either())
            if self._take(",") is None:
                self._need(end)
                return found

    def _primary(self) -> Node:
        kind, text, _ = self._tokens[self._at]
        if self._take("(") is not None:
            node = self._either()
            self._need(")")
            return node
        if self._take("[") is not None:
            return _listed(self._arguments("]"))
        if kind == "number":
            self._at += 1
            return _constant(self._number(text))
        if kind == "text":
            self._at += 1
            return _constant(self._unquoted(text))
        if kind != "name" or text in _RESERVED:
            self._refuse("a value is missing")
        if text in ("true", "false", "null"):
            self._at += 1
            return _constant({"true": True, "false": False, "null": None}[text])
        if text == "event":
            self._at += 1
            return _variable
        if text in ("has", "size") and self._tokens[self._at + 1][1] == "(":
            self._at += 2
            arguments = self._arguments(")")
            if len(arguments) != 1:
                self._refuse(f"{text} takes one value")
            if text == "size":
                return _called("size", arguments[0], [], self)
            if not isinstance(arguments[0], _Selected):
                self._refuse("has takes a member, such as has(event.subject)")
            return arguments[0].there
        self._refuse(f"{text!r} is not known")

    def _number(self, text: str) -> int | float:
        plain = text.removesuffix("u")
        if plain.startswith("0x"):
            return int(plain, 16)
        return int(plain) if plain.isdigit() else float(plain)

    def _unquoted(self, text: str) -> str:
        if text[0] in "rR":
            return text[2:-1]

        def one(match: re.Match[str]) -> str:
            for group, base in ((1, 16), (2, 16), (3, 8)):
                if match[group] is not None:
                    return chr(int(match[group], base))
            if match[4] in _SIMPLE:
                return _SIMPLE[match[4]]
            if match[4] not in _PLAIN:
                self._at -= 1
                self._refuse(f"the escape \\{match[4]} is not known")
            return str(match[4])

        return _ESCAPE.sub(one, text[1:-1])


class _Selected:
    """``operand.name``."""

    def __init__(self, operand: Node, name: str) -> None:
        self._operand = operand
        self._name = name

    def __call__(self, scope: Scope) -> Any:
        value = self._operand(scope)
        if not isinstance(value, Mapping):
            raise ExpressionError(f"{_kind(value)} has no member {self._name!r}")
        if self._name not in value:
            raise ExpressionError(f"there is no member {self._name!r}")
        return value[self._name]

    def there(self, scope: Scope) -> bool:
        """``has(operand.name)``."""
        value = self._operand(scope)
        if not isinstance(value, Mapping):
            raise ExpressionError(f"{_kind(value)} has no member {self._name!r}")
        return self._name in value


def _selected(operand: Node, name: str) -> Node:
    return _Selected(operand, name)


def _variable(scope: Scope) -> Any:
    return scope["event"]


def _constant(value: Any) -> Node:
    return lambda scope: value


def _listed(nodes: list[Node]) -> Node:
    return lambda scope: [node(scope) for node in nodes]


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{_kind(value)} is neither true nor false")
    return value


def _choice(condition: Node, first: Node, second: Node) -> Node:
    return lambda scope: (first if _truth(condition(scope)) else second)(scope)


def _denied(node: Node) -> Node:
    return lambda scope: not _truth(node(scope))


def _negative(node: Node) -> Node:
    def value(scope: Scope) -> Any:
        found = node(scope)
        if not _is_number(found):
            raise ExpressionError(f"-{_kind(found)} has no meaning")
        return -found

    return value


def _logic(left: Node, right: Node, decides: bool) -> Node:
    """``||`` where ``decides`` is true, else ``&&``: either side may decide, even if the other fails."""

    def value(scope: Scope) -> bool:
        failure: ExpressionError | None = None
        for node in (left, right):
            try:
                if _truth(node(scope)) is decides:
                    return decides
            except ExpressionError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return not decides

    return value


def _added(left: Node, right: Node) -> Node:
    def value(scope: Scope) -> Any:
        first, second = left(scope), right(scope)
        if (_is_number(first) and _is_number(second)) or (
            type(first) is type(second) and isinstance(first, (str, list))
        ):
            return first + second
        raise ExpressionError(f"{_kind(first)} and {_kind(second)} cannot be added")

    return value


def _relation(sign: str, left: Node, right: Node) -> Node:
    def value(scope: Scope) -> bool:
        first, second = left(scope), right(scope)
        if sign == "==":
            return _equal(first, second)
        if sign == "!=":
            return not _equal(first, second)
        if sign == "in":
            if isinstance(second, list):
                return any(_equal(first, each) for each in second)
            if isinstance(second, Mapping):
                return isinstance(first, str) and first in second
            raise ExpressionError(f"nothing is in {_kind(second)}: give a list or an object")
        if not (_is_number(first) and _is_number(second)) and not (
            type(first) is type(second) and isinstance(first, (str, bool))
        ):
            raise ExpressionError(f"{_kind(first)} and {_kind(second)} have no order")
        return bool(_ORDERS[sign](first, second))

    return value


def _indexed(operand: Node, index: Node) -> Node:
    def value(scope: Scope) -> Any:
        found, at = operand(scope), index(scope)
        if isinstance(found, Mapping):
            if isinstance(at, str) and at in found:
                return found[at]
            raise ExpressionError(f"there is no member {at!r:.80}")
        if isinstance(found, list):
            if _is_number(at) and int(at) == at and 0 <= at < len(found):
                return found[int(at)]
            raise ExpressionError(f"there is no element {at!r:.80}")
        raise ExpressionError(f"{_kind(found)} has no members")

    return value


def _called(name: str, operand: Node, arguments: list[Node], reader: _Reader) -> Node:
    if name == "size":

        def size(scope: Scope) -> int:
            found = operand(scope)
            if not isinstance(found, (str, list, Mapping)):
                raise ExpressionError(f"{_kind(found)} has no size")
            return len(found)

        return size
    argument = arguments[0]
    tests: dict[str, Callable[[str, str], bool]] = {
        "startsWith": lambda found, given: found.startswith(given),
        "endsWith": lambda found, given: found.endswith(given),
        "contains": lambda found, given: given in found,
    }
    test = tests.get(name) or _Pattern(argument, reader)

    def value(scope: Scope) -> bool:
        found, given = operand(scope), argument(scope)
        if not isinstance(found, str) or not isinstance(given, str):
            raise ExpressionError(f"{name} takes text, not {_kind(given if isinstance(found, str) else found)}")
        return test(found, given)

    return value


class _Pattern:
    """``matches``: a constant pattern, in the part of RE2 that cannot take long.

    Python's `re` goes back over what it has tried, RE2 does not: so a repeated group, which makes that expensive, and references back, which RE2 has not, are refused.
    """

    _DANGEROUS: Final = re.compile(r"\)\s*[*+{]|\\[1-9]|\(\?(?!:|i\)|P<)")

    def __init__(self, argument: Node, reader: _Reader) -> None:
        try:
            text = argument({})
        except (KeyError, ExpressionError):
            text = None
        if not isinstance(text, str):
            reader._refuse("matches takes a pattern that is written out")
        if self._DANGEROUS.search(text) or len(text) > 500:
            reader._refuse("matches takes no repeated groups, look-around or references")
        try:
            self._compiled = re.compile(text)
        except (re.error, OverflowError) as error:
            reader._refuse(f"the pattern {text!r:.80} is none: {error}")

    def __call__(self, found: str, given: str, /) -> bool:
        return self._compiled.search(found[:_MAX]) is not None


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


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if _is_number(value):
        return "a number"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
