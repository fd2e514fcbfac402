# Spans as OpenTelemetry's API wants them; see the twin `telemetry_api_py.py`.


cdef inline int64_t time_or_now(value) except -2:
    # -1: now
    return -1 if value is None else <int64_t>time_of(value)


cdef inline ApiSpan new_api_span(Span span, bint records, bint marks):
    cdef ApiSpan made = ApiSpan.__new__(ApiSpan)
    made.span = span
    made.records = records
    made.marks = marks
    return made


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


@cython.final
@cython.freelist(32)
cdef class ApiSpan:
    """A span with the methods of `opentelemetry.trace.Span`; see the twin for arguments and errors."""

    cdef Span span
    cdef object context_
    cdef bint records, marks
    cdef object __weakref__

    def __init__(self):
        raise InvalidArgumentError("spans are made by a tracer")

    # -- what it is --

    def get_span_context(self):
        """Return what of it travels."""
        cdef Span span = self.span
        if self.context_ is None:
            self.context_ = api.span_context(PyBytes_FromStringAndSize(<char*>span.ids, 24), span.flags, span.state)
        return self.context_

    def is_recording(self):
        """Tell whether it is sampled and has not ended."""
        return self.span.recording()

    @property
    def context(self):
        """What of it travels."""
        return self.get_span_context()

    @property
    def name(self):
        """Its name."""
        return self.span.name_

    @property
    def kind(self):
        """Its kind."""
        return api_kinds[self.span.kind - 1]

    @property
    def attributes(self):
        """A copy of its attributes."""
        return self.span.attributes

    @property
    def native(self):
        """The span of `cloud_runtimes.telemetry` that it is."""
        return self.span

    def __repr__(self):
        return f"<Api{repr(self.span)[1:]}"

    # -- what is told to it --

    def set_attribute(self, key, value):
        """Set an attribute; the last value counts. A list or mapping is copied."""
        if self.span.recording():
            self.span.set_attribute(key, value if otlp.is_simple(value) else frozen(value))

    def set_attributes(self, attributes):
        """Set several attributes."""
        cdef dict copied = copied_frozen(attributes)
        if copied is not None:
            for key, value in copied.items():
                self.span.set_attribute(key, value)

    def update_name(self, name):
        """Give it another name."""
        self.span.update_name(name)

    def add_event(self, name, attributes=None, timestamp=None):
        """Add an event."""
        self.span.put_event(name, copied_frozen(attributes), time_or_now(timestamp))

    def record_exception(self, exception, attributes=None, timestamp=None, escaped=False):
        """Add an event ``exception`` with its type, message and stack trace."""
        if not isinstance(exception, BaseException):
            raise InvalidArgumentError(f"expected an exception, not {exception.__class__.__name__}")
        self.put_exception(exception, attributes, time_or_now(timestamp), escaped)

    cdef int put_exception(self, exception, attributes, int64_t time, escaped) except -1:
        if self.span.recording():
            more = {"exception.escaped": str(escaped), **(frozen_attributes(attributes) or {})}
            self.span.put_event("exception", exception_attributes(exception, more), time)
        return 0

    def add_link(self, context, attributes=None):
        """Add a link to the span of a context; see the twin."""
        cdef bytes ids
        cdef str state
        cdef uint32_t flags
        link = api.link(context, attributes)
        if link is None:
            return
        ids, flags, state, remote = link
        if PyBytes_GET_SIZE(ids) != 24:
            raise InvalidArgumentError("a trace id has 16 bytes, a span id 8")
        if remote:
            flags |= IS_REMOTE
        self.span.put_link(<const uint8_t*>PyBytes_AS_STRING(ids), flags, state, copied_frozen(attributes))

    def set_status(self, status, description=None):
        """Set the status; see the twin."""
        code = status
        if code not in api_codes:
            code = getattr(status, "status_code", None)
            description = getattr(status, "description", None)
        if code not in api_codes:
            raise InvalidArgumentError(f"expected a Status or a StatusCode, not {status.__class__.__name__}")
        self.span.mark(api_codes.index(code), description if isinstance(description, str) else "")

    def end(self, end_time=None):
        """End it: it is encoded now. Ending twice does nothing."""
        self.span.finish(time_or_now(end_time))

    # -- with --

    cdef int failed(self, error, bint records, bint marks, bint escaped) except -1:
        if not self.span.recording():
            return 0
        if records:
            self.put_exception(error, None, -1, escaped)
        if marks:
            self.span.mark(2, f"{error.__class__.__name__}: {message_of(error)}")
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.failed(error, self.records, self.marks, True)
        self.span.finish(-1)


@cython.final
@cython.freelist(32)
cdef class ApiScope:
    """Starts a span when it is entered, which is the current one inside ``with``; also a decorator; see the twin."""

    cdef ApiTracer tracer
    cdef object name, context, kind, attributes, links, time
    cdef bint records, marks, ends
    cdef ApiSpan span
    cdef object token

    def __init__(self):
        raise InvalidArgumentError("scopes are made by a tracer: tracer.start_as_current_span(…)")

    def again(self):
        """Return another one of the same arguments."""
        return new_scope(
            self.tracer, self.name, self.context, self.kind, self.attributes, self.links, self.time, self.records, self.marks, self.ends
        )

    def __call__(self, function):
        return decorated(self, function)

    cdef ApiSpan enter(self):
        if self.span is not None:
            raise InvalidArgumentError("start_as_current_span: it is entered already; each span wants one of its own")
        span = start_api_span(
            self.tracer, self.name, self.context, self.kind, self.attributes, self.links, self.time, self.records, self.marks
        )
        self.token = attach(span)
        self.span = span
        return span

    cdef int leave(self, error) except -1:
        cdef ApiSpan span = self.span
        token = self.token
        if span is None:
            return 0
        self.span = None
        self.token = None
        give_back(token)
        if error is not None and isinstance(error, Exception):
            span.failed(error, self.records, self.marks, False)
        if self.ends:
            span.span.finish(-1)
        return 0

    def __enter__(self):
        return self.enter()

    def __exit__(self, kind, error, trace):
        self.leave(error)


cdef ApiScope new_scope(ApiTracer tracer, name, context, kind, attributes, links, time, bint records, bint marks, bint ends):
    cdef ApiScope scope = ApiScope.__new__(ApiScope)
    scope.tracer = tracer
    scope.name = name
    scope.context = context
    scope.kind = kind
    scope.attributes = attributes
    scope.links = links
    scope.time = time
    scope.records = records
    scope.marks = marks
    scope.ends = ends
    return scope


@cython.final
cdef class ApiTracer:
    """A tracer with the methods of `opentelemetry.trace.Tracer`; see the twin for arguments and errors."""

    cdef Tracer tracer
    cdef object __weakref__

    def __init__(self, Tracer tracer not None):
        self.tracer = tracer

    def start_span(
        self, name, context=None, kind=None, attributes=None, links=None, start_time=None,
        bint record_exception=True, bint set_status_on_exception=True,
    ):
        """Start a span that becomes nobody's parent by itself; see the twin."""
        return start_api_span(self, name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)

    def start_as_current_span(
        self, name, context=None, kind=None, attributes=None, links=None, start_time=None,
        bint record_exception=True, bint set_status_on_exception=True, bint end_on_exit=True,
    ):
        """Return what starts a span for ``with``, or decorates a function; see the twin."""
        return new_scope(
            self, name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception, end_on_exit
        )


cdef ApiSpan start_api_span(ApiTracer tracer, name, context, kind, attributes, links, time, bint records, bint marks):
    cdef Span span
    cdef ApiSpan made
    cdef int number = 1
    cdef int64_t start
    if not bridged:
        raise not_bridged()
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a span's name is text, not {name.__class__.__name__}")
    if kind is not None and kind is not api_kinds[0]:
        if kind not in api_kinds:
            raise InvalidArgumentError(f"kind={kind!r}: give a SpanKind")
        number = api_kinds.index(kind) + 1
    start = time_or_now(time)
    if context is None:
        parent = get_current()
    else:
        parent = context.get(api_key)
        if parent is not None:
            parent = inward(parent)
    span = begin_span(tracer.tracer, name, copied_frozen(attributes), number, parent)
    if start >= 0:
        span.start = start
    made = new_api_span(span, records, marks)
    if links and span.recording():
        for link in filter(None, links):
            made.add_link(link.context, link.attributes)
    return made
