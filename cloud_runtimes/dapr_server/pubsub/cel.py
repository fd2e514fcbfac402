"""The expressions of routing rules: the part of the Common Expression Language that rules need, without functions of anybody else's.

Known are ``event`` and its members (``event.type``, ``event.data.a["b"][0]``), literals (text, raw text ``r"…"``, numbers, ``true``, ``false``, ``null``, lists), ``! - && || == != < <= > >= in + ? :``, parentheses, ``has(…)``, ``size(…)``, and the methods ``startsWith``, ``endsWith``, ``contains``, ``matches``, ``size``. What else stands in an expression is refused when it is read, with its place.

As CEL defines them (https://github.com/google/cel-spec, "langdef"): ``&&`` and ``||`` give an answer where either side has one, whatever the other's error; values of different types are unequal, and cannot be ordered; numbers are compared by value; a member that is not there is an error outside of ``has``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from ...errors import InvalidArgumentError
from .cel_nodes import (
    MAX,
    ExpressionError,
    Node,
    Selected,
    added,
    called,
    choice,
    constant,
    denied,
    indexed,
    kind_of,
    listed,
    logic,
    negative,
    relation,
    selected,
    variable,
)

__all__ = ["Expression", "ExpressionError"]

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


class Expression:
    """An expression, read and checked.

    Raises:
        InvalidArgumentError: it is none, or has something that is not known; names the place and the remedy.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._node = _Reader(text).read()

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event fits.

        Raises:
            ExpressionError: it has no value for this event, or none that is true or false.
        """
        try:
            value = self._node({"event": event})
        except RecursionError:
            raise ExpressionError("the event is nested too deeply") from None
        if not isinstance(value, bool):
            raise ExpressionError(f"it gives {kind_of(value)}, not true or false")
        return value


class _Reader:
    """Makes a tree of closures; precedence as in CEL's grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        if len(text) > MAX:
            raise InvalidArgumentError(f"an expression of {len(text):,} characters: {MAX:,} are taken")
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
        position = self._tokens[self._at][2] if at is None else at
        raise InvalidArgumentError(
            f"the expression {self._text[:200]!r} cannot be used: {why} at character {position + 1} ({self._text[position : position + 20]!r}). "
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
            condition = choice(condition, first, self._either())
        self._depth -= 1
        return condition

    def _or(self) -> Node:
        node = self._and()
        while self._take("||") is not None:
            node = logic(node, self._and(), True)
        return node

    def _and(self) -> Node:
        node = self._relation()
        while self._take("&&") is not None:
            node = logic(node, self._relation(), False)
        return node

    def _relation(self) -> Node:
        node = self._sum()
        while (sign := self._take("==", "!=", "<", "<=", ">", ">=", "in")) is not None:
            node = relation(sign, node, self._sum())
        return node

    def _sum(self) -> Node:
        node = self._unary()
        while self._take("+") is not None:
            node = added(node, self._unary())
        return node

    def _unary(self) -> Node:
        if (sign := self._take("!", "-")) is None:
            return self._member()
        self._depth += 1
        if self._depth > _DEPTH:
            self._refuse("it is nested too deeply")
        node = denied(self._unary()) if sign == "!" else negative(self._unary())
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
                    node = selected(node, name)
                    continue
                if name not in _METHODS:
                    self._at -= 2
                    self._refuse(f"the method {name!r} is not known")
                arguments = self._arguments(")")
                if len(arguments) != (0 if name == "size" else 1):
                    self._refuse(f"{name} takes {'nothing' if name == 'size' else 'one text'}")
                node = called(name, node, arguments, self._refuse)
            elif self._take("[") is not None:
                index = self._either()
                self._need("]")
                node = indexed(node, index)
            else:
                return node

    def _arguments(self, end: str) -> list[Node]:
        arguments: list[Node] = []
        if self._take(end) is not None:
            return arguments
        while True:
            arguments.append(self._either())
            if self._take(",") is None:
                self._need(end)
                return arguments

    def _primary(self) -> Node:
        kind, text, _ = self._tokens[self._at]
        if self._take("(") is not None:
            node = self._either()
            self._need(")")
            return node
        if self._take("[") is not None:
            return listed(self._arguments("]"))
        if kind == "number":
            self._at += 1
            return constant(self._number(text))
        if kind == "text":
            self._at += 1
            return constant(self._unquoted(text))
        if kind != "name" or text in _RESERVED:
            self._refuse("a value is missing")
        if text in ("true", "false", "null"):
            self._at += 1
            return constant({"true": True, "false": False, "null": None}[text])
        if text == "event":
            self._at += 1
            return variable
        if text in ("has", "size") and self._tokens[self._at + 1][1] == "(":
            self._at += 2
            arguments = self._arguments(")")
            if len(arguments) != 1:
                self._refuse(f"{text} takes one value")
            if text == "size":
                return called("size", arguments[0], [], self._refuse)
            if not isinstance(arguments[0], Selected):
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
