"""Which handler takes a path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .request import Reply, Request

__all__ = ["Handler", "Route", "Router"]

Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """``Route("GET", "/v1.0/state/{store}/{key*}", handler)``: ``{x}`` is one segment, ``{x*}`` all that follow, at least one.

    Methods are separated by spaces; ``*``: any. ``open``: without a token.
    """

    methods: str
    path: str
    handler: Any
    open: bool = False


class Router:
    """Finds the route of a path by its first two segments, then by trying the few that begin with them."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], list[tuple[tuple[str, ...], frozenset[str], Route]]] = {}

    def add(self, *routes: Route) -> None:
        """Add routes; of two that fit the first is taken."""
        for route in routes:
            segments = tuple(route.path[1:].split("/"))
            methods = frozenset(route.methods.split())
            self._routes.setdefault((segments[0], segments[1]), []).append((segments[2:], methods, route))

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        """Return the route and what its placeholders hold; ``None``: there is none."""
        segments = path[1:].split("/")
        if len(segments) < 2:
            return None, {}
        rest = segments[2:]
        for pattern, methods, route in self._routes.get((segments[0], segments[1]), ()):
            if method not in methods and "*" not in methods:
                continue
            params = _match(pattern, rest)
            if params is not None:
                return route, params
        return None, {}


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for index, wanted in enumerate(pattern):
        if wanted.endswith("*}"):
            rest = "/".join(segments[index:])
            if not rest:
                return None
            params[wanted[1:-2]] = rest
            return params
        if index >= len(segments):
            return None
        if wanted.startswith("{"):
            params[wanted[1:-1]] = segments[index]
        elif wanted != segments[index]:
            return None
    return params if len(pattern) == len(segments) else None
