"""Commands that go to a server together, each with what takes in its reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from .engine import Script, is_unknown
from .resp import Batch, Flow, ReplyError, Value

_Take: TypeAlias = Callable[[Any], None]


class Pipeline:
    """See the module; ``run`` runs the steps of a call on another connection, ``key`` is one that all have the slot of."""

    def __init__(self, run: Callable[[Flow[Any]], Any], key: Value) -> None:
        self._run = run
        self._key = key
        self._commands: list[tuple[tuple[Value, ...], _Take | None]] = []

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, take: _Take | None, *command: Value) -> None:
        """Add a command; ``None``: nothing depends on its reply, also where it is an error."""
        self._commands.append((command, take))

    def run(self, take: _Take, script: Script, keys: Sequence[Value], *arguments: Value) -> None:
        """Add a script, which is run anew where the server does not know it."""

        def taken(reply: Any) -> None:
            take(self._run(script.run(keys, *arguments)) if is_unknown(reply) else reply)

        self._commands.append((script.command(keys, *arguments), taken))

    def batch(self) -> Batch:
        """Return the commands; there is one at least."""
        return Batch(*(command for command, _ in self._commands), key=self._key)

    def taken(self, replies: Sequence[Any]) -> None:
        """Take in the replies, then raise the first that is an error: it does not keep the others from being taken in."""
        failed: list[ReplyError] = []
        for reply, (_, take) in zip(replies, self._commands, strict=True):
            if take is None:
                continue
            if isinstance(reply, ReplyError) and not is_unknown(reply):
                failed.append(reply)
            else:
                take(reply)
        if failed:
            raise failed[0]
