# What spans of OpenTelemetry's API are made of; see the twin `telemetry_spans_py.py`.

cdef class ApiSpanBase:
    """What of a span of OpenTelemetry's API has to be fast; see the twin."""

    cdef readonly Span native
    cdef readonly bint _records, _marks
    cdef public object _context
    cdef object __weakref__

    def set_attribute(self, key, value):
        """Set an attribute; the last value counts. A list or mapping is copied."""
        if self.native.recording():
            self.native.put_attribute(key, value if otlp.is_simple(value) else frozen(value))

    def end(self, end_time=None):
        """End it: it is encoded now. Ending twice does nothing."""
        self.native.finish(-1 if end_time is None else <int64_t>time_of(end_time))


cdef inline ApiSpanBase new_api_span(Span span, bint records, bint marks):
    cdef ApiSpanBase wrapped
    if not bridged:
        raise not_bridged()
    wrapped = <ApiSpanBase>CR_new(api_span, ())
    wrapped.native = span
    wrapped._records = records
    wrapped._marks = marks
    return wrapped


cdef class ApiScopeBase:
    """Starts a span of OpenTelemetry's API when it is entered, which is the current one inside ``with``; see the twin."""

    cdef readonly object _start
    cdef readonly tuple _arguments
    cdef readonly bint _ends
    cdef ApiSpanBase span
    cdef object token

    def __init__(self, start, tuple arguments, bint ends):
        self._start = start
        self._arguments = arguments
        self._ends = ends

    def __enter__(self):
        if self.span is not None:
            raise entered_already()
        span = self._start(*self._arguments)
        self.token = attach(span)
        self.span = span
        return span

    def __exit__(self, kind, error, trace):
        span, token = self.span, self.token
        if span is None:
            return
        self.span = self.token = None
        give_back(token)
        if error is not None and isinstance(error, Exception):
            span._failed(error, False)
        if self._ends:
            span.native.finish(-1)
