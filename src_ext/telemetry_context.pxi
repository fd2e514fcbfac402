# What of a span travels, and which new traces are recorded, of `telemetry.pyx`; see the twin `telemetry_context_py.py`.

@cython.final
cdef class Variable:
    """A `ContextVar` that tells when it is used for the first time; its methods are those of one."""

    cdef object inner

    def __init__(self, name):
        self.inner = ContextVar(name, default=None)

    def get(self):
        return get_in(self.inner)

    def set(self, value):
        global any_context
        any_context = True
        return PyContextVar_Set(self.inner, value)

    def reset(self, token):
        PyContextVar_Reset(self.inner, token)


baggage = Variable("cloud_runtimes_baggage")
cdef object baggage_var = (<Variable>baggage).inner


cdef const char* HEX = "0123456789abcdef"


cdef inline uint8_t* put_hex(uint8_t* out, const uint8_t* raw, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        out[0] = HEX[raw[i] >> 4]
        out[1] = HEX[raw[i] & 15]
        out += 2
    return out


cdef inline const uint8_t* ids_of(span, uint32_t* flags) noexcept:
    # Of a `Span` or `SpanContext`; NULL for anything else.
    if type(span) is Span:
        flags[0] = (<Span>span).flags
        return (<Span>span).ids
    if type(span) is SpanContext:
        flags[0] = (<SpanContext>span).trace_flags
        return (<SpanContext>span).ids
    return NULL


cdef inline str state_of(span):
    return (<Span>span).state if type(span) is Span else (<SpanContext>span).trace_state


cdef int carry(uint8_t* out) except -1:
    cdef const uint8_t* ids
    cdef uint32_t flags
    cdef uint8_t sent
    if not any_context:
        return NOTHING
    parent = get_current()
    if get_in(baggage_var):
        return MORE
    if parent is None:
        return NOTHING
    ids = ids_of(parent, &flags)
    if ids == NULL or state_of(parent):
        return MORE
    sent = <uint8_t>flags
    memcpy(out, b"00-", 3)
    out = put_hex(out + 3, ids, 16)
    out[0] = c'-'
    out = put_hex(out + 1, ids + 16, 8)
    out[0] = c'-'
    put_hex(out + 1, &sent, 1)
    return WHOLE


cdef Carry lent = carry
_carry = PyCapsule_New(<void*>lent, "cloud_runtimes._native._telemetry._carry", NULL)


def outgoing():
    """Return the header ``traceparent`` of this context, and whether there is more to carry; see the twin."""
    cdef uint8_t[TRACEPARENT_SIZE] header
    cdef int carried = carry(header)
    if carried == WHOLE:
        return (<char*>header)[:TRACEPARENT_SIZE].decode("ascii"), False
    return None, carried == MORE


@cython.final
cdef class SpanContext:
    """What of a span travels: its ids, flags and trace state; see the twin for arguments and errors."""

    cdef uint8_t[24] ids
    cdef readonly int trace_flags
    cdef readonly str trace_state
    cdef readonly bint is_remote

    def __init__(self, trace_id, span_id, int trace_flags=0, str trace_state not None="", bint is_remote=False):
        memcpy(self.ids, PyBytes_AS_STRING(id_bytes(trace_id, 16)), 16)
        memcpy(self.ids + 16, PyBytes_AS_STRING(id_bytes(span_id, 8)), 8)
        if not 0 <= trace_flags <= 255:
            raise InvalidArgumentError(f"trace_flags={trace_flags}: give 0 to 255")
        self.trace_flags = trace_flags
        self.trace_state = trace_state
        self.is_remote = is_remote

    @property
    def trace_id(self):
        """32 hexadecimal digits."""
        return (<char*>self.ids)[:16].hex()

    @property
    def span_id(self):
        """16 hexadecimal digits."""
        return (<char*>self.ids)[16:24].hex()

    @property
    def is_sampled(self):
        """Whether the trace is recorded."""
        return bool(self.trace_flags & SAMPLED)

    @property
    def traceparent(self):
        """The header of W3C Trace Context."""
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags:02x}"

    def __repr__(self):
        return f"<SpanContext {self.traceparent}>"


cdef enum:
    REMOTE_FLAGS = 0x03     # level 2, section 3.2.2.5: sampled and random; the other bits are zero for whoever does not know them


cdef inline int hex_digit(Py_UCS4 c) noexcept:
    # Lower case alone, as the recommendation has it; -1 for another character.
    return <int>c - 0x30 if 0x30 <= c <= 0x39 else <int>c - 0x57 if 0x61 <= c <= 0x66 else -1


def remote_context(str text not None, str trace_state not None=""):
    """Return the context of a ``traceparent`` from elsewhere; see the twin."""
    cdef SpanContext context
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(text)
    cdef uint8_t[26] fields     # version, trace id, span id, flags
    cdef Py_ssize_t at = 0
    cdef int i, high, low
    cdef uint8_t some
    if size < 55 or text[2] != "-" or text[35] != "-" or text[52] != "-":
        return None
    for i in range(26):
        if i == 1 or i == 17 or i == 25:
            at += 1
        high = hex_digit(text[at])
        low = hex_digit(text[at + 1])
        if high < 0 or low < 0:
            return None
        fields[i] = <uint8_t>(high << 4 | low)
        at += 2
    # a later version may have more behind the flags, 00 has nothing
    if fields[0] == 0xFF or (size > 55 and (fields[0] == 0 or text[55] != "-")):
        return None
    some = 0
    for i in range(1, 17):
        some |= fields[i]
    high = some
    some = 0
    for i in range(17, 25):
        some |= fields[i]
    if high == 0 or some == 0:
        return None
    context = SpanContext.__new__(SpanContext)
    memcpy(context.ids, fields + 1, 24)
    context.trace_flags = fields[25] & REMOTE_FLAGS
    context.trace_state = trace_state
    context.is_remote = True
    return context


@cython.final
cdef class Sampler:
    """Decides which new traces are recorded; see the twin for arguments and errors."""

    cdef uint64_t bound
    cdef bint always, parent_based
    cdef double rate, room, tokens
    cdef int64_t last

    def __init__(self, double ratio=1.0, double rate=0.0, bint parent_based=True):
        if not 0.0 <= ratio <= 1.0:
            raise InvalidArgumentError(f"ratio={ratio}: give a share of traces, 0 to 1")
        if not 0.0 <= rate < float("inf"):
            raise InvalidArgumentError(f"rate={rate}: give traces per second, 0 for no limit")
        bound = round(ratio * (1 << 64))
        self.always = bound == 1 << 64
        self.bound = 0 if self.always else bound
        self.rate = rate
        self.parent_based = parent_based
        self.room = max(1.0, rate)
        self.tokens = self.room
        self.last = monotonic_now()

    cdef bint sample(self, int parent_flags, const uint8_t* trace) except -1:
        # `parent_flags` -1: there is no parent
        cdef uint64_t low = 0
        cdef int64_t now
        cdef int i
        cdef bint taken
        if self.parent_based and parent_flags >= 0:
            return parent_flags & SAMPLED
        if not self.always:
            for i in range(8, 16):
                low = low << 8 | trace[i]
            if low >= self.bound:
                return False
        if self.rate == 0.0:
            return True
        now = monotonic_now()
        with cython.critical_section(self):
            self.tokens = min(self.room, self.tokens + max(0, now - self.last) * 1e-9 * self.rate)
            self.last = now
            taken = self.tokens >= 1.0
            if taken:
                self.tokens -= 1.0
        return taken
