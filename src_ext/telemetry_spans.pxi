# Spans of `telemetry.pyx`; see the twin `telemetry_spans_py.py`.

ctypedef int (*Encode)(Span, Writer*, int64_t, const otlp.Limits*) noexcept


cdef int encode_span(Span span, Writer* w, int64_t end, const otlp.Limits* limits) except -1:
    return span.encode(w, end, limits)


cdef inline int try_encode(Span span, Writer* w, int64_t end, const otlp.Limits* limits) noexcept:
    # -1 with the exception set: the caller looks. Without a `try`, for which the interpreter's state would be looked up.
    return (<Encode>encode_span)(span, w, end, limits)


cdef int pass_on() except -1:
    # raises what is set
    return -1


@cython.final
@cython.freelist(32)
cdef class Span:
    """A span, encoded when it ends; see the twin for methods, arguments and errors."""

    cdef Tracer tracer
    cdef str name_, state, message
    # Attributes of a plain key and value, as long as they are few, stand in the span itself: making a dict of them takes longer than
    # encoding them. Neither text nor numbers refer to anything, so the collector need not know of these.
    cdef PyObject* keys[INLINE]
    cdef PyObject* values[INLINE]
    cdef int inlined                # how many; none once there is a dict
    cdef uint64_t lengths           # of the keys, a bit each (modulo 64): one of another length is new without a look at them
    cdef dict attributes_
    cdef list events, links
    cdef object token
    cdef SpanContext context_
    cdef uint8_t[32] ids            # trace, span, parent
    cdef int64_t start, offset
    cdef uint32_t dropped, dropped_events, dropped_links
    cdef int flags, status
    cdef readonly int _kind
    cdef bint has_parent, has_offset, parent_remote, makes_current, ended
    cdef object __weakref__

    def __init__(self):
        raise InvalidArgumentError("spans are made by a tracer: tracer.span(…)")

    @property
    def name(self):
        """Its name."""
        return self.own_name()

    # References that another thread may replace: read, and written, in a section.

    cdef str own_name(self):
        cdef Section section
        cdef str name
        lock(&section, self)
        name = self.name_
        unlock(&section)
        return name

    cdef list own_list(self, bint links):
        # Of events or of links, made where there is none.
        cdef Section section
        cdef list fresh = []
        cdef list items
        lock(&section, self)
        items = self.links if links else self.events
        if items is None:
            items = fresh
            if links:
                self.links = items
            else:
                self.events = items
        unlock(&section)
        return items

    @property
    def context(self):
        """What of it travels."""
        cdef SpanContext context, created
        with cython.critical_section(self):
            context = self.context_
        if context is None:
            created = SpanContext.__new__(SpanContext)
            memcpy(created.ids, self.ids, 24)
            created.trace_flags = self.flags
            created.trace_state = self.state
            with cython.critical_section(self):
                if self.context_ is None:
                    self.context_ = created
                context = self.context_
        return context

    @property
    def is_recording(self):
        """Whether it is sampled and has not ended."""
        return self.recording()

    cdef inline bint recording(self) noexcept:
        return self.flags & SAMPLED and not self.ended

    @property
    def attributes(self):
        """A copy of its attributes."""
        cdef dict copied
        with cython.critical_section(self):
            copied = self.inline_dict() if self.inlined else dict(self.attributes_ or {})
        return copied

    def __repr__(self):
        return f"<Span {self.own_name()!r} {self.context.traceparent}{' ended' if self.ended else ''}>"

    cpdef set_attribute(self, key, value):
        """Set an attribute; the last value counts."""
        self.put_attribute(key, value)

    cdef int put_attribute(self, key, value) except -1:
        cdef Section section
        cdef bint held
        if not self.recording():
            return 0
        if self.attributes_ is None:
            if type(key) is str and PyUnicode_GET_LENGTH(key) and otlp.is_simple(value):
                lock(&section, self)
                held = self.attributes_ is None and self.hold(<str>key, value)
                unlock(&section)
                if held:
                    return 0
            with cython.critical_section(self):
                if self.attributes_ is None:
                    self.attributes_ = self.inline_dict()
                    self.let_go()
        if PyDict_Size(self.attributes_) >= self.tracer.traces.limits.attributes and not PyDict_Contains(self.attributes_, key):
            self.dropped += 1
            return 0
        return PyDict_SetItem(self.attributes_, key, value)

    cdef inline bint hold(self, str key, value) noexcept:
        # Returns whether it could; if not there must be a dict.
        cdef uint64_t bit = 1ULL << (PyUnicode_GET_LENGTH(key) & 63)
        cdef int i = self.find_inline(<PyObject*>key) if self.lengths & bit else self.inlined
        cdef PyObject* before
        if i < self.inlined:
            before = self.values[i]
            Py_INCREF(value)
            self.values[i] = <PyObject*>value
            Py_DECREF(<object>before)
            return True
        if i >= INLINE:
            return False
        if i >= self.tracer.traces.limits.attributes:
            self.dropped += 1
            return True
        Py_INCREF(key)
        Py_INCREF(value)
        self.keys[i] = <PyObject*>key
        self.values[i] = <PyObject*>value
        self.lengths |= bit
        self.inlined = i + 1
        return True

    cdef int find_inline(self, PyObject* key) noexcept:
        # Its place, or the next free one.
        cdef int i
        for i in range(self.inlined):
            if self.keys[i] == key:
                return i
        for i in range(self.inlined):
            if same_text(self.keys[i], key):
                return i
        return self.inlined

    cdef dict inline_dict(self):
        cdef int i
        cdef dict attributes = {}
        for i in range(self.inlined):
            PyDict_SetItem(attributes, <object>self.keys[i], <object>self.values[i])
        return attributes

    def __dealloc__(self):
        self.let_go()

    cdef void let_go(self) noexcept:
        cdef PyObject* key
        cdef PyObject* value
        while self.inlined:
            self.inlined -= 1
            key = self.keys[self.inlined]
            value = self.values[self.inlined]
            Py_DECREF(<object>key)
            Py_DECREF(<object>value)
        self.lengths = 0

    cdef int put_inline(self, Writer* w, const otlp.Limits* limits) except -1:
        cdef int i
        cdef PyObject* key
        cdef PyObject* value
        for i in range(self.inlined):
            key = self.keys[i]
            value = self.values[i]
            otlp.put_key_value(w, 0x4A, <str><object>key, <object>value, limits.value_length, 0)
        return 0

    def set_attributes(self, attributes):
        """Set several attributes."""
        for key, value in (attributes_of(attributes) or {}).items():
            self.set_attribute(key, value)

    def update_name(self, name):
        """Give it another name."""
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a span's name is text, not {name.__class__.__name__}")
        if not self.ended:
            with cython.critical_section(self):
                self.name_, name = name, self.name_  # the old one goes behind the section

    cpdef add_event(self, name, attributes=None):
        """Add an event, with the present time."""
        self.put_event(name, copied_attributes(attributes), -1)

    def _event(self, name, dict attributes, time):
        self.put_event(name, attributes, -1 if time is None else <int64_t>time)

    cdef int put_event(self, name, dict attributes, int64_t time) except -1:
        # `time` -1: now
        cdef Writer w
        cdef char[SCRATCH] room
        cdef Py_ssize_t dropped
        cdef list events
        if not isinstance(name, str):
            raise InvalidArgumentError(f"an event's name is text, not {name.__class__.__name__}")
        if not self.recording():
            return 0
        events = self.own_list(False)
        if len(events) >= self.tracer.traces.limits.events:
            self.dropped_events += 1
            return 0
        writer_init(&w, room, SCRATCH)
        try:
            fixed64_field(&w, 0x09, monotonic_now() + self.offset if time < 0 else time)
            if name:
                text_field(&w, 0x12, name)
            dropped = put_attributes(&w, 0x1A, attributes, &self.tracer.traces.limits)
            if dropped:
                varint_field(&w, 0x20, dropped)
            events.append(writer_bytes(&w))
        finally:
            writer_release(&w)
        return 0

    cpdef record_exception(self, exception, attributes=None):
        """Add an event ``exception`` with its type, message and stack trace."""
        if not isinstance(exception, BaseException):
            raise InvalidArgumentError(f"expected an exception, not {exception.__class__.__name__}")
        if self.recording():
            self.add_event("exception", exception_attributes(exception, attributes))

    cpdef add_link(self, context, attributes=None):
        """Add a link to a span of this or another trace."""
        cdef uint32_t flags
        cdef const uint8_t* ids = ids_of(context, &flags)
        if ids == NULL:
            raise refuse_parent(context)
        if type(context) is SpanContext and (<SpanContext>context).is_remote:
            flags |= IS_REMOTE
        self.put_link(ids, flags, state_of(context), copied_attributes(attributes))

    def _link(self, bytes ids not None, uint32_t flags, str state not None, bint remote, dict attributes):
        if PyBytes_GET_SIZE(ids) != 24:
            raise InvalidArgumentError("a trace id has 16 bytes, a span id 8")
        if remote:
            flags |= IS_REMOTE
        self.put_link(<const uint8_t*>PyBytes_AS_STRING(ids), flags, state, attributes)

    cdef int put_link(self, const uint8_t* ids, uint32_t flags, str state, dict attributes) except -1:
        cdef Writer w
        cdef char[SCRATCH] room
        cdef Py_ssize_t dropped
        cdef list links
        if not self.recording():
            return 0
        links = self.own_list(True)
        if len(links) >= self.tracer.traces.limits.links:
            self.dropped_links += 1
            return 0
        writer_init(&w, room, SCRATCH)
        try:
            data_field(&w, 0x0A, ids, 16)
            data_field(&w, 0x12, ids + 16, 8)
            if state:
                text_field(&w, 0x1A, state)
            dropped = put_attributes(&w, 0x22, attributes, &self.tracer.traces.limits)
            if dropped:
                varint_field(&w, 0x28, dropped)
            writer_reserve(&w, 5)
            put_u8(&w, 0x35)
            put_fixed32(&w, flags | HAS_IS_REMOTE)
            links.append(writer_bytes(&w))
        finally:
            writer_release(&w)
        return 0

    cpdef set_status(self, status, description=None):
        """Set the status; see the twin."""
        number = statuses.get(status) if isinstance(status, str) else None
        if number is None:
            raise wrong("status", status, STATUSES)
        if description is not None and not isinstance(description, str):
            raise InvalidArgumentError(f"a status's description is text, not {description.__class__.__name__}")
        self._mark(number, description or "")

    cpdef _mark(self, int number, str message):
        if not self.ended and number and self.status != 1:
            message = message if number == 2 else ""
            with cython.critical_section(self):
                self.status = number
                self.message, message = message, self.message

    cpdef end(self):
        """End it: it is encoded now. Ending twice does nothing."""
        self.finish(-1)

    cdef int finish(self, int64_t time) except -1:
        # `time` -1: now
        cdef Writer w
        cdef char[SCRATCH] room
        cdef Traces traces
        cdef Section section
        cdef bint ended
        lock(&section, self)
        ended = self.ended
        self.ended = True
        unlock(&section)
        if ended or not self.flags & SAMPLED:
            return 0
        traces = self.tracer.traces
        if time < 0:
            time = monotonic_now() + self.offset
        writer_init(&w, room, SCRATCH)
        if try_encode(self, &w, time, &traces.limits) < 0:
            self.encode_without(&w, time, traces)
        traces.buffer.put(self.tracer.scope, &w, 1)
        return 0

    cdef int encode_without(self, Writer* w, int64_t time, Traces traces) except -1:
        # Behind a failure of `encode`: of a dict each attribute that cannot be encoded, such as an integer of too many digits, is left out.
        try:
            pass_on()
        except Exception:
            writer_rollback(w, 0)
        except BaseException:
            writer_release(w)
            traces.buffer.drop(1, FAILED)
            raise
        with cython.critical_section(self):
            if self.inlined:
                self.attributes_ = self.inline_dict()
                self.let_go()
        if try_encode(self, w, time, &traces.limits) < 0:
            writer_release(w)
            traces.buffer.drop(1, FAILED)
            return -1
        return 0

    cdef int encode(self, Writer* w, int64_t end, const otlp.Limits* limits) except -1:
        cdef Section section
        cdef Py_ssize_t dropped, start
        cdef str name, message
        cdef list events, links
        cdef int status
        # `end` has been called: what comes to the name and the status from now on is too late
        lock(&section, self)
        name = self.name_
        events = self.events
        links = self.links
        status = self.status
        message = self.message
        unlock(&section)
        data_field(w, 0x0A, self.ids, 16)
        data_field(w, 0x12, self.ids + 16, 8)
        if self.state:
            text_field(w, 0x1A, self.state)
        if self.has_parent:
            data_field(w, 0x22, self.ids + 24, 8)
        if name:
            text_field(w, 0x2A, name)
        varint_field(w, 0x30, self._kind)
        fixed64_field(w, 0x39, self.start)
        fixed64_field(w, 0x41, end)
        dropped = self.dropped
        with cython.critical_section(self):
            self.put_inline(w, limits)
        if self.attributes_ is not None:
            dropped += put_attributes(w, 0x4A, self.attributes_, limits)
        if dropped:
            varint_field(w, 0x50, dropped)
        if events is not None:
            for event in events:
                bytes_field(w, 0x5A, event)
        if self.dropped_events:
            varint_field(w, 0x60, self.dropped_events)
        if links is not None:
            for link in links:
                bytes_field(w, 0x6A, link)
        if self.dropped_links:
            varint_field(w, 0x70, self.dropped_links)
        if status:
            start = begin(w, 0x7A)
            if message:
                text_field(w, 0x12, message)
            varint_field(w, 0x18, status)
            finish(w, start)
        writer_reserve(w, 6)
        put_u8(w, 0x85)
        put_u8(w, 0x01)
        put_fixed32(w, self.flags | HAS_IS_REMOTE | (IS_REMOTE if self.parent_remote else 0))
        return 0

    cdef Span enter(self):
        if self.makes_current and self.token is None:
            self.token = set_current(self)
        return self

    def __enter__(self):
        return self.enter()

    cdef int leave(self, error) except -1:
        cdef Section section
        lock(&section, self)
        token = self.token
        if token is not None:
            self.token = None
        unlock(&section)
        if token is not None:
            give_back(token)
        if error is not None and isinstance(error, Exception) and self.recording():
            self.record_exception(error)
            if not self.status:
                described = exception_attributes(error)
                self.set_status("error", f"{described['exception.type']}: {described['exception.message']}")
        self.finish(-1)
        return 0

    def __exit__(self, kind, error, trace):
        self.leave(error)

    async def __aenter__(self):
        return self.enter()

    async def __aexit__(self, kind, error, trace):
        self.leave(error)
