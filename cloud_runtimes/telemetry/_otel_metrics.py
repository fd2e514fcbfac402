"""OpenTelemetry's metrics API over the instruments of this service."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import opentelemetry.metrics as otel
from opentelemetry import context as otel_context

from .._core.logs import repeated
from ..errors import InvalidArgumentError
from ._meter import Meter as NativeMeter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.util.types import Attributes

I = TypeVar("I")  # noqa: E741


class Instruments(NativeMeter):
    """The instruments of one scope of the API. Where two of one name differ there are two, and a warning (Metrics API, "Instrument": duplicates must work); names are the same whatever their case."""

    def _make(
        self,
        kind: str,
        make: Callable[..., I],
        name: str,
        unit: str,
        description: str,
        *,
        bounds: Any = None,
        callback: Any = None,
        **options: Any,
    ) -> I:
        self._check(name, unit, description)
        key = (name.lower(), kind, unit, description)
        with self._lock:
            entry = self.instruments.get(key)
            if entry is None:
                if any(key[0] == other[0] for other in self.instruments):
                    repeated(
                        f"telemetry-duplicate-{key[0]}",
                        "telemetry: there is another instrument %s, of another kind, unit or description; both are exported",
                        name,
                    )
                instrument = make(self._buffer, name, unit, description, **options)
                entry = self.instruments[key] = ((bounds,), instrument, callback)
            elif entry[0] != (bounds,):
                repeated(
                    f"telemetry-bounds-{key[0]}",
                    "telemetry: the instrument %s has the bounds that were given first",
                    name,
                )
        self._watch()
        return cast(I, entry[1])


@contextmanager
def _inside(context: Context) -> Iterator[None]:
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


class _Wrapped:
    def __init__(self, inner: Any = None) -> None:
        self._inner = inner


class _Adding(_Wrapped):
    def add(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:
        if context is None:
            self._inner.add(amount, attributes)
        else:  # for the exemplar
            with _inside(context):
                self._inner.add(amount, attributes)


class _Counter(_Adding, otel.Counter):
    pass


class _UpDownCounter(_Adding, otel.UpDownCounter):
    pass


class _Histogram(_Wrapped, otel.Histogram):
    def record(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:
        if context is None:
            self._inner.record(amount, attributes)
        else:
            with _inside(context):
                self._inner.record(amount, attributes)


class _Gauge(_Wrapped, otel._Gauge):
    def set(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:
        if context is None:
            self._inner.set(amount, attributes)
        else:
            with _inside(context):
                self._inner.set(amount, attributes)


class _ObservableCounter(_Wrapped, otel.ObservableCounter):
    pass


class _ObservableUpDownCounter(_Wrapped, otel.ObservableUpDownCounter):
    pass


class _ObservableGauge(_Wrapped, otel.ObservableGauge):
    pass


def _observations(name: str, callbacks: Iterable[Any] | None) -> Callable[[], Iterator[Any]]:
    """Return one callback for several: of functions, and of generators that get options and yield observations."""
    ready = [_sender(each) if inspect.isgenerator(each) else each for each in callbacks or ()]

    def observe() -> Iterator[Any]:
        for callback in ready:
            try:
                for each in callback(otel.CallbackOptions()):
                    yield each.value, each.attributes
            except Exception as error:
                repeated(f"telemetry-callback-{name}", "telemetry: a callback of %s failed", name, exc_info=error)

    return observe


def _sender(generator: Any) -> Callable[[otel.CallbackOptions], Iterable[otel.Observation]]:
    next(generator)

    def send(options: otel.CallbackOptions) -> Iterable[otel.Observation]:
        try:
            return cast("Iterable[otel.Observation]", generator.send(options))
        except StopIteration:
            return ()

    return send


class Meter(otel.Meter):
    """Makes the instruments of one scope; made by `TelemetryService.meter_provider`'s ``get_meter``."""

    def __init__(
        self, name: str, version: str | None, schema_url: str | None, instruments: Instruments, explicit: bool
    ) -> None:
        super().__init__(name, version, schema_url)
        self._instruments = instruments
        self._explicit = explicit

    def create_counter(self, name: str, unit: str = "", description: str = "") -> otel.Counter:
        """Return a sum that only grows."""
        return _Counter(self._instruments.counter(name, unit or "", description or ""))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> otel.UpDownCounter:
        """Return a sum that goes up and down."""
        return _UpDownCounter(self._instruments.up_down_counter(name, unit or "", description or ""))

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> otel._Gauge:
        """Return a value of which the last counts."""
        return _Gauge(self._instruments.gauge(name, unit or "", description or ""))

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> otel.Histogram:
        """Return a distribution.

        Args:
            explicit_bucket_boundaries_advisory: upper bounds of the buckets, unless the setting ``histograms`` wants exponential ones; what are none is left aside with a warning.
        """
        advice = explicit_bucket_boundaries_advisory if self._explicit else None
        unit, description = unit or "", description or ""
        if advice is not None:
            problem: object = "give a sequence of numbers"
            if isinstance(advice, Sequence) and all(isinstance(bound, (int, float)) for bound in advice):
                try:
                    return _Histogram(self._instruments.histogram(name, unit, description, bounds=advice))
                except InvalidArgumentError as error:
                    problem = error
            repeated(f"telemetry-advice-{name}", "telemetry: %s: the advice of bounds is none: %s", name, problem)
        return _Histogram(self._instruments.histogram(name, unit, description))

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> otel.ObservableCounter:
        """Have a sum that only grows read at each collection."""
        self._observe("counter", name, callbacks, unit, description)
        return _ObservableCounter()

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> otel.ObservableUpDownCounter:
        """Have a sum that goes up and down read at each collection."""
        self._observe("up_down_counter", name, callbacks, unit, description)
        return _ObservableUpDownCounter()

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> otel.ObservableGauge:
        """Have a value read at each collection."""
        self._observe("gauge", name, callbacks, unit, description)
        return _ObservableGauge()

    def _observe(self, kind: str, name: str, callbacks: Sequence[Any] | None, unit: str, description: str) -> None:
        self._instruments._observable(kind, name, _observations(name, callbacks), unit or "", description or "")
