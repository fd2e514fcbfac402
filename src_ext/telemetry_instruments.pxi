# The instruments of `telemetry.pyx`, alone and with their attributes given once; see the twin `telemetry_metrics_py.py`.

@cython.final
cdef class Counter(Instrument):
    """A sum that only grows; see the twin."""

    def __cinit__(self, *_, **__):
        self.kind = SUM

    def add(self, value=1, attributes=None):
        """Add to the sum of these attributes."""
        self.measure(value, None, attributes)

    def bind(self, attributes=None):
        """Return a counter of these attributes alone."""
        return BoundCounter(self, attributes)


@cython.final
cdef class UpDownCounter(Instrument):
    """A sum that goes up and down; see the twin."""

    def __cinit__(self, *_, **__):
        self.kind = UP_DOWN

    def add(self, value=1, attributes=None):
        """Add to the sum of these attributes."""
        self.measure(value, None, attributes)

    def bind(self, attributes=None):
        """Return an up-down counter of these attributes alone."""
        return BoundCounter(self, attributes)


@cython.final
cdef class Gauge(Instrument):
    """A value of which the last counts; see the twin."""

    def __cinit__(self, *_, **__):
        self.kind = GAUGE

    def set(self, value, attributes=None):
        """Set the value of these attributes."""
        self.measure(value, None, attributes)

    def bind(self, attributes=None):
        """Return a gauge of these attributes alone."""
        return BoundGauge(self, attributes)


@cython.final
cdef class Histogram(Instrument):
    """A distribution in explicit buckets, or, without bounds, in exponential ones; see the twin."""

    def __init__(self, buffer, name, unit="", description="", *, delta=False, exemplars=1, bounds=None):
        self.kind = EXPONENTIAL if bounds is None else EXPLICIT
        Instrument.__init__(self, buffer, name, unit, description, delta=delta, exemplars=exemplars, bounds=bounds or ())

    def record(self, value, attributes=None):
        """Record a value of these attributes."""
        self.measure(value, None, attributes)

    def bind(self, attributes=None):
        """Return a histogram of these attributes alone."""
        return BoundHistogram(self, attributes)


cdef class Bound:
    cdef Instrument instrument
    cdef Series series

    def __init__(self, Instrument instrument not None, attributes):
        self.instrument = instrument
        self.series = instrument.bound_to(attributes)


@cython.final
cdef class BoundCounter(Bound):
    """A sum with its attributes given once."""

    def add(self, value=1):
        """Add to the sum."""
        self.instrument.measure(value, self.series, None)


@cython.final
cdef class BoundGauge(Bound):
    """A gauge with its attributes given once."""

    def set(self, value):
        """Set the value."""
        self.instrument.measure(value, self.series, None)


@cython.final
cdef class BoundHistogram(Bound):
    """A histogram with its attributes given once."""

    def record(self, value):
        """Record a value."""
        self.instrument.measure(value, self.series, None)
