"""Handlers of the application: sync or async, and the values of their parameters.

A parameter gets what it is annotated with: the payload's type, an object that describes the call (such as an event,
a request or a run), or the client. A parameter without an annotation gets a value by its position.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_origin

from ..errors import InvalidArgumentError

DATA: Final = 0
CONTEXT: Final = 1
"""What tells of the call."""
CLIENT: Final = 2
_UNKNOWN: Final = -1


class Signature(NamedTuple):
    """Signature of a handler.

    Attributes:
        takes: what each of its arguments is.
        type: what the data is decoded into; ``None``: what the content type says.
    """

    takes: tuple[int, ...]
    type: Any


def is_async_callable(handler: Any) -> bool:
    """Return whether calling ``handler`` gives a coroutine."""
    if inspect.isfunction(handler) or inspect.ismethod(handler):
        return inspect.iscoroutinefunction(handler)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def signature(
    handler: Callable[..., Any],
    label: str,
    *,
    context: type,
    client: object,
    type: Any = None,
    roles: tuple[int, ...] = (DATA, CONTEXT),
) -> Signature:
    """Return what a handler takes.

    Args:
        handler: of the application.
        label: for messages.
        context: the class that tells of the call; its type argument is that of the data.
        client: that the handler belongs to.
        type: what the data is decoded into, whatever the annotations say.
        roles: what parameters without annotations get.

    Raises:
        InvalidArgumentError: it takes something else, or an annotation cannot be resolved.
    """
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # some built-ins tell nothing
        return Signature(roles[:1], type)
    reader = _Reader(handler, label, context, client, type)
    rest = list(roles)
    takes: list[int] = []
    for parameter, (kind, inner) in zip(parameters, map(reader.read, parameters), strict=True):
        if kind != _UNKNOWN and kind in rest:
            rest.remove(kind)
        required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            takes += rest
            rest.clear()
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if required:
                raise reader.refused(parameter)
        elif kind == _UNKNOWN and rest:
            takes.append(rest.pop(0))
        elif kind != _UNKNOWN and kind not in takes:
            takes.append(kind)
            type = inner if type is None else type
        elif required:
            raise reader.refused(parameter)
        else:
            break  # what follows has defaults too
    return Signature(tuple(takes), type)


class _Reader:
    """Reads the annotations of one handler."""

    def __init__(self, handler: Callable[..., Any], label: str, context: type, client: object, given: Any) -> None:
        self._handler = handler
        self._label = label
        self._context = context
        self._client = client
        self._given = given
        self._names = _names(handler)

    def read(self, parameter: inspect.Parameter) -> tuple[int, Any]:
        """Return what a parameter gets, and the type of the data as far as it tells."""
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, dict(self._names))  # noqa: S307  # of the application itself
            except Exception:  # a name that is imported for type checkers alone, say
                return self._unresolved(annotation)
        if annotation in (parameter.empty, Any, object) or parameter.kind is parameter.VAR_POSITIONAL:
            return _UNKNOWN, None
        origin = get_origin(annotation) or annotation
        if origin is self._context:
            inner = next(iter(get_args(annotation)), Any)
            return CONTEXT, None if inner is Any or isinstance(inner, TypeVar) else inner
        if isinstance(origin, type) and isinstance(self._client, origin):
            return CLIENT, None
        return DATA, annotation

    def _unresolved(self, annotation: str) -> tuple[int, Any]:
        head, bracket, _ = annotation.partition("[")
        name = head.rpartition(".")[2].strip()
        if name == self._client.__class__.__name__:
            return CLIENT, None
        if name == self._context.__name__ and (not bracket or self._given is not None):
            return CONTEXT, None
        if self._given is not None:
            return DATA, None
        raise InvalidArgumentError(
            f"{self._label}: the annotation {annotation!r} of {self._handler!r:.80} cannot be resolved: "
            "define or import its name at module level, and outside of TYPE_CHECKING, or give type="
        )

    def refused(self, parameter: inspect.Parameter) -> InvalidArgumentError:
        """Return the error for a parameter that gets nothing."""
        return InvalidArgumentError(
            f"{self._label}: a handler takes the data, the {self._context.__name__} and the client, each at most once, "
            f"as positional arguments; {self._handler!r:.80} needs {parameter.name!r} too"
        )


def running(handlers: Iterable[Callable[..., Any]]) -> list[str]:
    """Return the names of those handlers that run now, in a thread or in a task of a loop."""
    names = {
        each.__code__: getattr(each, "__qualname__", "")
        for handler in handlers
        for each in _wrapped(handler)
        if hasattr(each, "__code__")
    }
    found = dict.fromkeys(names[frame.f_code] for frame in _frames() if frame.f_code in names)
    return [name.rpartition("<locals>.")[2] for name in found]


def _frames() -> Iterator[FrameType]:
    """Yield the frames of all threads, and of all tasks of loops that wait."""
    loops = set()
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            yield frame
            if frame.f_code.co_name == "run_forever":
                loops.add(frame.f_locals.get("self"))
            frame = frame.f_back
    if loops:
        import asyncio

        for loop in loops:
            for task in asyncio.all_tasks(loop):
                step: Any = task.get_coro()
                while (frame := getattr(step, "cr_frame", None)) is not None:
                    yield frame
                    step = step.cr_await


def _names(handler: Any) -> Mapping[str, Any]:
    """Return the names that annotations of a handler may use."""
    for each in _wrapped(handler):
        namespace = getattr(each, "__globals__", None)
        if namespace is not None:
            names: Mapping[str, Any] = namespace
            return names
    return {}


def _wrapped(handler: Any) -> Iterator[Any]:
    """Yield a handler, and what it stands for."""
    while isinstance(handler, partial):
        handler = handler.func
    handler = inspect.unwrap(handler)
    yield handler
    yield getattr(handler, "__func__", None)
    yield getattr(type(handler).__call__, "__func__", type(handler).__call__)
