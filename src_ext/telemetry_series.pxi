# Series of `telemetry.pyx`: what one instrument knows of one set of attributes; see the twin `telemetry_metrics_py.py`.

cdef enum:
    SERIES = 2000
    SLOTS = 8192                # of the table, a power of two
    SLOTS_USED = 4000
    MAX_SCALE = 20
    MAX_BUCKETS = 160
    EXPONENTIAL_EXEMPLARS = 20
    INVALID = 7         # place of the cause `invalid`
    SUM = 0
    UP_DOWN = 1
    GAUGE = 2
    EXPLICIT = 3
    EXPONENTIAL = 4


cdef struct Number:
    bint is_float
    int64_t whole
    double real


cdef struct Exemplar:
    int64_t time                # 0: none
    Number number
    bint has_ids
    uint8_t[24] ids


cdef struct Range:
    int64_t low                 # index of the first bucket
    int64_t used
    int64_t* counts             # room for MAX_BUCKETS, or for explicit buckets


cdef struct Slot:
    uint64_t hash
    PyObject* items             # what was given, flat; owned by the instrument's list
    PyObject* series


cdef struct State:
    int64_t count, zeros, seen
    Number total
    double minimum, maximum
    int scale
    Range positive, negative
    Exemplar* exemplars


@cython.final
cdef class Series:
    # `state.count` is 0 where there is nothing to tell.
    cdef bytes attributes
    cdef bint bound             # it outlives every collection
    cdef bint gone              # collected for the last time
    cdef int size               # explicit buckets, or MAX_BUCKETS
    cdef int exemplar_slots
    cdef State state

    def __dealloc__(self):
        free(self.state.positive.counts)
        free(self.state.negative.counts)
        free(self.state.exemplars)

    cdef int allocate(self, int kind, int size) except -1:
        self.size = size if kind == EXPLICIT else MAX_BUCKETS
        self.exemplar_slots = size if kind == EXPLICIT else EXPONENTIAL_EXEMPLARS if kind == EXPONENTIAL else 1
        if kind >= EXPLICIT:
            self.state.positive.counts = <int64_t*>malloc(self.size * sizeof(int64_t))
            self.state.negative.counts = <int64_t*>malloc(self.size * sizeof(int64_t))
            if self.state.positive.counts == NULL or self.state.negative.counts == NULL:
                raise MemoryError
            memset(self.state.positive.counts, 0, self.size * sizeof(int64_t))
        self.clear(kind)
        return 0

    cdef void clear(self, int kind) noexcept:
        cdef State fresh
        memset(&fresh, 0, sizeof(State))
        fresh.scale = MAX_SCALE
        fresh.positive.counts = self.state.positive.counts
        fresh.negative.counts = self.state.negative.counts
        if kind == EXPLICIT:
            fresh.positive.used = self.size
            memset(fresh.positive.counts, 0, self.size * sizeof(int64_t))
        free(self.state.exemplars)
        self.state = fresh

    cdef void move(self, Series other, int kind, bint clear) noexcept:
        # In a section: takes over what `other` holds. Exemplars are told once, the rest stays there unless `clear`.
        cdef State own = self.state
        self.state = other.state
        if clear:
            other.state = own
        else:
            self.state.positive.counts = own.positive.counts
            self.state.negative.counts = own.negative.counts
            if kind >= EXPLICIT:
                memcpy(own.positive.counts, other.state.positive.counts, self.size * sizeof(int64_t))
                memcpy(own.negative.counts, other.state.negative.counts, self.size * sizeof(int64_t))
            other.state.exemplars = NULL
            other.state.seen = 0

    cdef object point(self):
        cdef int i
        cdef Exemplar* one
        cdef list exemplars = []
        for i in range(self.exemplar_slots if self.state.exemplars != NULL else 0):
            one = &self.state.exemplars[i]
            if one.time:
                exemplars.append((one.time, number_of(&one.number), (<char*>one.ids)[:24] if one.has_ids else b""))
        return Point(
            self.attributes, self.state.count, number_of(&self.state.total), self.state.minimum, self.state.maximum,
            self.state.scale, self.state.zeros, range_of(&self.state.positive), range_of(&self.state.negative), exemplars,
        )


cdef object number_of(const Number* number):
    return number.real if number.is_float else number.whole


cdef tuple range_of(const Range* range_):
    cdef int64_t i
    return range_.low, [range_.counts[i] for i in range(range_.used)]


cdef inline double as_double(const Number* number) noexcept nogil:
    return number.real if number.is_float else <double>number.whole


cdef int64_t bucket_of(double value, int scale) noexcept nogil:
    # of a positive value; see `_index` of the twin
    cdef int exponent
    cdef bint exact = frexp(value, &exponent) == 0.5
    if scale <= 0:
        return <int64_t>(exponent - 2 if exact else exponent - 1) >> -scale
    if exact:
        return (<int64_t>(exponent - 1) << scale) - 1 if exponent >= 1 else -(<int64_t>(1 - exponent) << scale) - 1
    return <int64_t>ceil(log(value) * ldexp(1.4426950408889634, scale)) - 1


cdef void shrink(Range* range_, int change) noexcept nogil:
    cdef int64_t low = range_.low >> change
    cdef int64_t i, j
    if not range_.used:
        return
    for i in range(range_.used):
        j = ((range_.low + i) >> change) - low
        if j != i:
            range_.counts[j] += range_.counts[i]
            range_.counts[i] = 0
    range_.used = ((range_.low + range_.used - 1) >> change) - low + 1
    range_.low = low


cdef void count_in(State* state, Range* range_, double value) noexcept:
    # Counts a value; where the buckets become too many, halves the scale until they do not.
    cdef int64_t index = bucket_of(value, state.scale)
    cdef int64_t low = index
    cdef int64_t high = index
    cdef int change = 0
    if range_.used:
        low = min(index, range_.low)
        high = max(index, range_.low + range_.used - 1)
    while (high >> change) - (low >> change) >= MAX_BUCKETS:
        change += 1
    if change:
        state.scale -= change
        shrink(&state.positive, change)
        shrink(&state.negative, change)
        index >>= change
    if not range_.used:
        memset(range_.counts, 0, MAX_BUCKETS * sizeof(int64_t))
        range_.low = index
        range_.used = 1
    elif index < range_.low:
        memmove(range_.counts + (range_.low - index), range_.counts, range_.used * sizeof(int64_t))
        memset(range_.counts, 0, (range_.low - index) * sizeof(int64_t))
        range_.used += range_.low - index
        range_.low = index
    elif index >= range_.low + range_.used:
        range_.used = index - range_.low + 1
    range_.counts[index - range_.low] += 1


cdef int read_number(value, Number* out) except -1:
    cdef int overflow
    out.is_float = True
    if otlp.PyLong_Check(value):
        out.whole = otlp.PyLong_AsLongLongAndOverflow(value, &overflow)
        out.is_float = overflow != 0
        if not overflow:
            return 0
    elif otlp.PyFloat_Check(value):
        out.real = otlp.PyFloat_AS_DOUBLE(value)
        return 0
    out.real = real_number(value)
    return 0
