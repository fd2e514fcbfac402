"""What every driver of a sidecar is: operations that are written once, for both APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...spi.driver import Driver
from ...spi.operation import Operation
from .transport import Flow, Transport

__all__ = ["SidecarDriver", "operation"]

P = ParamSpec("P")
T = TypeVar("T")


class SidecarDriver(Driver):
    """A driver of one component of the sidecar."""

    def __init__(self, transport: Any, name: str) -> None:
        self._transport: Transport = transport
        self._name = name


class _Operation:
    def __init__(self, flow: Callable[..., Flow[Any]]) -> None:
        self._flow = flow

    def __set_name__(self, owner: type, name: str) -> None:
        flow = self._flow

        def run(self: Any, op: Operation, /, *arguments: Any) -> Any:
            return self._transport.run(op, flow(self, op, *arguments))

        async def run_async(self: Any, op: Operation, /, *arguments: Any) -> Any:
            return await self._transport.run_async(op, flow(self, op, *arguments))

        setattr(owner, name, run)
        setattr(owner, f"{name}_async", run_async)


def operation(flow: Callable[Concatenate[Any, Operation, P], Flow[T]]) -> Callable[Concatenate[Any, Operation, P], T]:
    """Make a flow the method of its name, and its ``_async`` twin."""
    made: Any = _Operation(flow)
    return made  # type: ignore[no-any-return]
