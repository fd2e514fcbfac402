"""Engines: what all clients of a process share of the servers that their settings name, and components over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

from ..._core import fork
from ..._core.threads import Mutex, in_background
from ...errors import ClosedError
from ...spi.flow import FlowDriver
from ...spi.operation import Method, Operation
from .._home import HomeComponent

if TYPE_CHECKING:
    from .notify import Notifier

E = TypeVar("E", bound="Engine")
C = TypeVar("C", bound="EngineComponent[Any]")


_lock: Final = Mutex()
_engines: Final[dict[tuple[type, Any], Any]] = {}
"""Those of this process, by class and settings."""


def engines(kind: type[E]) -> list[E]:
    """Return those of a class."""
    with _lock:
        return [engine for engine in _engines.values() if isinstance(engine, kind)]


class Engine(ABC):
    """See the module; made by `acquire`.

    Attributes:
        notifier: wakes waiters of all processes; ``None``: nobody waits for others.
    """

    notifier: Notifier | None = None

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._users = 0

    @classmethod
    def acquire(cls, settings: Any) -> Self:
        """Return the process's engine for some settings, made without I/O; each call needs one `release`."""
        key = cls, settings
        with _lock:
            engine: Self = _engines.get(key) or cls(settings)
            _engines[key] = engine
            engine._users += 1
            return engine

    def release(self) -> None:
        """Give up one use; the last one closes all connections."""
        key = type(self), self.settings
        with _lock:
            self._users -= 1
            if self._users > 0:
                return
            if _engines.get(key) is self:
                del _engines[key]
        self._close()

    @abstractmethod
    def ready(self, op: Operation) -> None:
        """Return once the servers answer."""

    @abstractmethod
    def _close(self) -> None:
        """Close all connections."""


class EngineDriver(FlowDriver, Generic[C]):
    """A driver whose flows run on the engine of its component.

    Attributes:
        name: of the store or bus.
    """

    def __init__(self, component: C, name: str) -> None:
        self.component = component
        self.flows = component.engine
        self.name = name


class EngineComponent(HomeComponent, Generic[E]):
    """Drivers over one engine.

    Attributes:
        engine_class: of the engine: its module here, and its name.
    """

    engine_class: ClassVar[tuple[str, str]]
    _engine: E | None = None

    @property
    def engine(self) -> E:
        """The engine, made without I/O.

        Raises:
            ClosedError: the client was closed.
            UnsupportedError: a package that it needs is not installed.
        """
        engine = self._engine
        if engine is not None:
            return engine
        with fork.importing, self._lock:  # in this order, as everywhere
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._engine is None:
                module, name = self.engine_class
                self._engine = getattr(self._module(module), name).acquire(self.settings)
            return self._engine

    def ready(self) -> None:
        wait_ready = Method(self.name, "wait_ready", repeatable=True, writes=False)
        self.engine.ready(Operation(wait_ready, self.name, 5.0))

    def in_background(
        self, work: Callable[[], Any], pauses: Sequence[float] = (0.0, 0.5, 2.0, 5.0), *, again: bool = False
    ) -> None:
        """Run a flow of the engine in a thread, for what a caller left behind; where that fails, a lease expires.

        Args:
            work: makes the flow, for each attempt.
            pauses, again: see `_core.threads.in_background`.
        """
        with suppress(ClosedError):
            engine: Any = self.engine
            undo = Method(self.name, "undo", repeatable=True)
            in_background(
                f"{self.name}-undo", lambda: engine.run(Operation(undo, self.name, 5.0), work()), pauses, again=again
            )

    def close(self, timeout: float | None) -> None:
        super().close(timeout)
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            if engine.notifier is not None:
                engine.notifier.wake_all()  # who waits for this client looks whether it is open
            engine.release()
