# Log records of `telemetry.pyx`.


@cython.final
cdef class Logger:
    """Writes log records of one scope, with the ids of the current span; see the twin."""

    cdef Buffer buffer
    cdef otlp.Limits limits
    cdef int scope
    cdef public int level

    def __init__(self, Buffer buffer not None, limits, int scope, int level=1):
        self.buffer = buffer
        read_limits(limits, &self.limits)
        self.scope = scope
        self.level = level

    def debug(self, message, /, **attributes):
        """Record at level debug."""
        if self.level <= 5:
            self.write(0, 5, "DEBUG", message, attributes)

    def info(self, message, /, **attributes):
        """Record at level info."""
        if self.level <= 9:
            self.write(0, 9, "INFO", message, attributes)

    def warning(self, message, /, **attributes):
        """Record at level warning."""
        if self.level <= 13:
            self.write(0, 13, "WARN", message, attributes)

    def error(self, message, /, **attributes):
        """Record at level error."""
        if self.level <= 17:
            self.write(0, 17, "ERROR", message, attributes)

    def critical(self, message, /, **attributes):
        """Record at level critical."""
        if self.level <= 21:
            self.write(0, 21, "FATAL", message, attributes)

    def exception(self, message, /, **attributes):
        """Record at level error, with the exception that is being handled."""
        if self.level > 17:
            return
        error = sys.exc_info()[1]
        if error is not None:
            attributes = exception_attributes(error, attributes)
        self.write(0, 17, "ERROR", message, attributes)

    def log(self, level, message, /, **attributes):
        """Record at a level by name; see the twin."""
        number = severities.get(level) if isinstance(level, str) else None
        if number is None:
            raise wrong("level", level, SEVERITIES)
        if self.level <= number:
            self.write(0, number, severity_names[number], message, attributes)

    def emit(self, int64_t time, int severity, str name not None, body, dict attributes):
        """Record what another library logged; see the twin."""
        if severity >= self.level:
            self.write(time, severity, name, body, attributes)

    def record(
        self, int64_t time, int64_t observed, int severity, str name not None, body, dict attributes,
        bytes trace not None, bytes span not None, uint32_t flags, str event not None,
    ):
        """Record what came through OpenTelemetry's API; see the twin."""
        if PyBytes_GET_SIZE(trace) not in (0, 16) or PyBytes_GET_SIZE(span) not in (0, 8):
            raise InvalidArgumentError("a trace id has 16 bytes, a span id 8")
        self.put(
            time, observed, severity, name, body, attributes,
            <const uint8_t*>PyBytes_AS_STRING(trace) if PyBytes_GET_SIZE(trace) else NULL,
            <const uint8_t*>PyBytes_AS_STRING(span) if PyBytes_GET_SIZE(span) else NULL,
            flags, event,
        )

    cdef int write(self, int64_t time, int severity, str name, body, dict attributes) except -1:
        cdef int64_t now = wall_now()
        cdef uint32_t flags = 0
        cdef const uint8_t* ids = ids_of(get_current(), &flags)
        return self.put(
            time if time else now, now, severity, name, body, attributes, ids, ids + 16 if ids != NULL else NULL, flags, ""
        )

    cdef int put(
        self, int64_t time, int64_t observed, int severity, str name, body, dict attributes,
        const uint8_t* trace, const uint8_t* span, uint32_t flags, str event,
    ) except -1:
        cdef Writer w
        cdef char[SCRATCH] room
        writer_init(&w, room, SCRATCH)
        try:
            self.encode(&w, time, observed, severity, name, body, attributes, trace, span, flags, event)
        except BaseException:
            writer_release(&w)
            self.buffer.drop(1, FAILED)
            raise
        self.buffer.put(self.scope, &w, 1)
        return 0

    cdef int encode(
        self, Writer* w, int64_t time, int64_t observed, int severity, str name, body, dict attributes,
        const uint8_t* trace, const uint8_t* span, uint32_t flags, str event,
    ) except -1:
        cdef Py_ssize_t start, dropped
        if time:
            fixed64_field(w, 0x09, time)
        if severity & 0x7F:
            varint_field(w, 0x10, severity & 0x7F)
        if name:
            text_field(w, 0x1A, name)
        start = begin(w, 0x2A)
        if type(body) is str:
            put_value(w, body, -1, 0)
        else:
            try:
                put_value(w, body, -1, 0)
            except Exception:
                writer_rollback(w, start)
                put_value(w, f"<str() of {body.__class__.__name__} failed>", -1, 0)
        finish(w, start)
        dropped = put_attributes(w, 0x32, attributes, &self.limits)
        if dropped:
            varint_field(w, 0x38, dropped)
        if trace != NULL:
            writer_reserve(w, 5)
            put_u8(w, 0x45)
            put_fixed32(w, flags)
            data_field(w, 0x4A, trace, 16)
        if span != NULL:
            data_field(w, 0x52, span, 8)
        if observed:
            fixed64_field(w, 0x59, observed)
        if event:
            text_field(w, 0x62, event)
        return 0
