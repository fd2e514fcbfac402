"""Which path of the application takes an event."""

from __future__ import annotations

from ...errors import InvalidArgumentError
from ..settings import Subscription
from .cel import Expression
from .envelope import Envelope

__all__ = ["Routes"]


class Routes:
    """The rules of a subscription, read.

    Raises:
        InvalidArgumentError: a rule cannot be used; names the subscription.
    """

    def __init__(self, subscription: Subscription, *, grpc: bool) -> None:
        self._rules: list[tuple[Expression | None, str]] = []
        where = f"the subscription to {subscription.topic!r} of {subscription.pubsub_name!r}"
        for match, path in subscription.rules:
            if not path and not grpc:
                raise InvalidArgumentError(f"{where}: a rule needs a path")
            try:
                self._rules.append((Expression(match) if match.strip() else None, path))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{where}: {error.message}") from None
        if subscription.default_route:
            self._rules.append((None, subscription.default_route))
        elif not self._rules and grpc:  # one method takes them all
            self._rules.append((None, ""))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._rules)

    def path(self, envelope: Envelope) -> str | None:
        """Return the path of an event, ``None``: no rule takes it.

        Raises:
            ExpressionError: a rule has no answer for it.
        """
        if self._rules[0][0] is None:
            return self._rules[0][1]
        members = envelope.members()
        for expression, path in self._rules:
            if expression is None or expression.matches(members):
                return path
        return None
