# Tracers of `telemetry.pyx`, which begin spans; see the twin `telemetry_spans_py.py`.

@cython.final
cdef class Traces:
    """What the tracers of one service share; see the twin."""

    cdef Buffer buffer
    cdef otlp.Limits limits
    cdef public Sampler sampler
    cdef int64_t offset, offset_until   # wall clock less monotonic, and the monotonic time until which that is believed

    def __init__(self, Buffer buffer not None, limits, Sampler sampler not None):
        self.buffer = buffer
        read_limits(limits, &self.limits)
        self.sampler = sampler


@cython.final
cdef class Tracer:
    """Makes spans of one instrumentation scope; see the twin."""

    cdef Traces traces
    cdef int scope

    def __init__(self, Traces traces not None, int scope):
        self.traces = traces
        self.scope = scope

    def span(self, name, *, attributes=None, kind="internal", parent=None, links=()):
        """Start a span that is current inside ``with``; see the twin for arguments and errors."""
        return new_span(self, name, attributes, kind, parent, links, True)

    def start_span(self, name, *, attributes=None, kind="internal", parent=None, links=()):
        """Start a span that becomes nobody's parent by itself; arguments as of `span`."""
        return new_span(self, name, attributes, kind, parent, links, False)

    def _begin(self, name, attributes, int kind, parent, time, bint records, bint marks):
        """Start a span of OpenTelemetry's API; see the twin."""
        cdef Span span = begin_span(self, name, copied_frozen(attributes), kind, get_current() if parent is Ellipsis else parent)
        if time is not None:
            span.start = time
        return new_api_span(span, records, marks)


cdef dict copied_attributes(attributes):
    if attributes is None:
        return None
    return PyDict_Copy(attributes) if type(attributes) is dict else attributes_of(attributes)


cdef dict copied_frozen(attributes):
    # as `frozen_attributes`, fast where all values are plain
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t at = 0
    if attributes is None:
        return None
    if type(attributes) is not dict:
        return frozen_attributes(attributes)
    while PyDict_Next(attributes, &at, &key, &value):
        if not otlp.is_simple(<object>value):
            return frozen_attributes(attributes)
    return PyDict_Copy(attributes)


cdef Span new_span(Tracer tracer, name, attributes, kind, parent, links, bint makes_current):
    cdef Span span
    cdef int number_ = 1
    if kind is not "internal":
        number = kinds.get(kind) if isinstance(kind, str) else None
        if number is None:
            raise wrong("kind", kind, KINDS)
        number_ = number
    span = begin_span(tracer, name, copied_attributes(attributes), number_, get_current() if parent is None else parent)
    span.makes_current = makes_current
    if links is not () and span.flags & SAMPLED:
        for link in links:
            if isinstance(link, (Span, SpanContext)):
                span.add_link(link)
            else:
                span.add_link(*link)
    return span


cdef Span begin_span(Tracer tracer, name, dict attributes, int kind, parent):
    cdef Span span, above
    cdef SpanContext context
    cdef int flags = -1
    cdef int64_t now
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a span's name is text, not {name.__class__.__name__}")
    span = Span.__new__(Span)
    span._kind = kind
    span.tracer = tracer
    span.name_ = name
    span.attributes_ = attributes
    if type(parent) is Span:
        above = <Span>parent
        memcpy(span.ids, above.ids, 16)
        memcpy(span.ids + 24, above.ids + 16, 8)
        span.has_parent = True
        span.state = above.state
        span.offset = above.offset
        span.has_offset = True
        flags = above.flags
    elif parent is None:
        draw_ids(span.ids, 2)
        span.state = ""
    elif type(parent) is SpanContext:
        context = <SpanContext>parent
        memcpy(span.ids, context.ids, 16)
        memcpy(span.ids + 24, context.ids + 16, 8)
        span.has_parent = True
        span.state = context.trace_state
        span.parent_remote = context.is_remote
        flags = context.trace_flags
    else:
        raise refuse_parent(parent)
    draw_ids(span.ids + 16, 1)
    span.flags = (flags & ~SAMPLED) if flags > 0 else 0
    if tracer.traces.sampler.sample(flags, span.ids):
        span.flags |= SAMPLED
    now = monotonic_now()
    if not span.has_offset:
        # one reading of the wall clock for a trace: its spans are ordered, and no step of the clock bends them
        if clock is not None or now >= tracer.traces.offset_until:
            tracer.traces.offset = wall_now() - now
            tracer.traces.offset_until = now + OFFSET_TIME
        span.offset = tracer.traces.offset
        span.has_offset = True
    span.start = now + span.offset
    return span
