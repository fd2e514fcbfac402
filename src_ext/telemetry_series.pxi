# Series of `telemetry.pyx`: what one instrument knows of one set of attributes; see the twin `telemetry_series_py.py`.

cdef enum:
    SERIES = 2000
    SLOTS = 8192                # of the table, a power of two
    SLOTS_USED = 4000
    MAX_SCALE = 20
    MAX_BUCKETS = 160
    EXPONENTIAL_EXEMPLARS = 20
    INVALID = 7
    SUM = 0
    UP_DOWN = 1
    GAUGE = 2
    EXPLICIT = 3
    EXPONENTIAL = 4

cdef uint8_t[5] point_tags = [0x3A, 0x3A, 0x3A, 0x4A, 0x0A]
cdef uint8_t[5] data_tags = [0x3A, 0x3A, 0x2A, 0x4A, 0x52]
cdef otlp.Limits unlimited
unlimited.attributes = 1 << 30
unlimited.value_length = -1


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
    int64_t* counts             # MAX_BUCKETS of them


cdef struct Slot:
    uint64_t hash
    PyObject* items             # what was given, flat; owned by the instrument's list
    PyObject* series


@cython.final
cdef class Series:
    # State of one series; `count` is 0 where there is nothing to tell.
    cdef bytes attributes
    cdef bint bound             # it outlives every collection
    cdef int64_t generation     # of the instrument, when it was made
    cdef int64_t count, zeros, seen
    cdef Number total
    cdef double minimum, maximum
    cdef int scale, size
    cdef int64_t* buckets
    cdef Range positive, negative
    cdef Exemplar* exemplars
    cdef int exemplar_slots

    def __dealloc__(self):
        free(self.buckets)
        free(self.positive.counts)
        free(self.negative.counts)
        free(self.exemplars)

    cdef void clear(self) noexcept:
        self.count = self.zeros = self.seen = 0
        self.total.is_float = False
        self.total.whole = 0
        self.minimum = self.maximum = 0.0
        self.scale = MAX_SCALE
        self.positive.used = self.negative.used = 0
        if self.buckets != NULL:
            memset(self.buckets, 0, self.size * sizeof(int64_t))
        self.clear_exemplars()

    cdef void clear_exemplars(self) noexcept:
        if self.exemplars != NULL:
            memset(self.exemplars, 0, self.exemplar_slots * sizeof(Exemplar))
        self.seen = 0


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


cdef void count_in(Series series, Range* range_, double value) noexcept:
    # Counts a value; where the buckets become too many, halves the scale until they do not.
    cdef int64_t index = bucket_of(value, series.scale)
    cdef int64_t low = index
    cdef int64_t high = index
    cdef int change = 0
    if range_.used:
        low = min(index, range_.low)
        high = max(index, range_.low + range_.used - 1)
    while (high >> change) - (low >> change) >= MAX_BUCKETS:
        change += 1
    if change:
        series.scale -= change
        shrink(&series.positive, change)
        shrink(&series.negative, change)
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


cdef int read_real(value, Number* out) except -1:
    out.is_float = True
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        out.real = float(value)
    except OverflowError:
        out.real = float("inf")
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"a measurement is a number, not {value.__class__.__name__}") from None
    return 0


cdef int read_number(value, Number* out) except -1:
    cdef int overflow
    if otlp.PyLong_Check(value):
        out.whole = otlp.PyLong_AsLongLongAndOverflow(value, &overflow)
        out.is_float = overflow != 0
        if not overflow:
            return 0
    elif otlp.PyFloat_Check(value):
        out.is_float = True
        out.real = otlp.PyFloat_AS_DOUBLE(value)
        return 0
    return read_real(value, out)


cdef inline uint64_t zigzag(int64_t value) noexcept nogil:
    return <uint64_t>value << 1 if value >= 0 else (<uint64_t>-value << 1) - 1


cdef int put_range(Writer* w, uint8_t tag, const Range* range_) except -1:
    cdef Py_ssize_t start, inner
    cdef int64_t i
    if not range_.used:
        return 0
    start = begin(w, tag)
    if range_.low:
        varint_field(w, 0x08, zigzag(range_.low))
    inner = begin(w, 0x12)
    for i in range(range_.used):
        writer_reserve(w, 10)
        otlp.put_varint(w, <uint64_t>range_.counts[i])
    finish(w, inner)
    finish(w, start)
    return 0
