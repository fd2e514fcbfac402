"""Drivers whose methods are flows of one connection."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from ...spi.driver import Driver
from ...spi.operation import Operation
from .connection import Connection, Flow

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from . import PostgresComponent
    from .database import PostgresDatabase

P = ParamSpec("P")
T = TypeVar("T")


class _OnDatabase(Protocol):
    executor: Executor

    @property
    def database(self) -> PostgresDatabase: ...


D = TypeVar("D", bound=_OnDatabase)


class PostgresDriver(Driver):
    """A driver of one database.

    Attributes:
        database: runs its flows.
        name: of the store or bus.
    """

    def __init__(self, component: PostgresComponent, name: str) -> None:
        self.component = component
        self.database = component.engine
        self.name = name


def on_connection(
    flow: Callable[Concatenate[D, Connection, P], Flow[T]],
) -> tuple[Callable[Concatenate[D, Operation, P], T], Callable[Concatenate[D, Operation, P], Coroutine[Any, Any, T]]]:
    """Return the method that a flow of one connection stands for, and its asynchronous twin; see `spi.flow.both_apis`."""

    def call(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.run(op, lambda connection: flow(self, connection, *args, **kwargs))

    def call_async(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.database.run_async(op, lambda connection: flow(self, connection, *args, **kwargs), self.executor)

    return call, call_async
