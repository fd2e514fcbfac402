# Metrics of `telemetry.pyx`: instruments that aggregate, see the twin `telemetry_metrics_py.py`.
#
# A set of attributes is found by its encoding, as in the twin (`known`). In front of that stands a table of sets that need no encoding: exact text, integers and booleans in the order in which they were given, compared without running Python code.
#
# What is looked up, counted and collected changes in sections, as in `telemetry.pyx`. Encoding attributes may run Python code and lies between two of them, so a series that was found may have been collected meanwhile: then it is of another generation, and is looked for again.

cdef class Instrument:
    # What all instruments share; see the twin.
    cdef Buffer buffer
    cdef bytes head
    cdef int kind, filter, size
    cdef bint delta
    cdef double* bounds
    cdef dict known                 # encoded attributes → Series
    cdef bytes overflow             # encoded attributes of the series beyond the limit
    cdef int64_t generation         # grows when series are forgotten
    cdef Slot* slots
    cdef int slots_used
    cdef list held                  # what the slots point to
    cdef Series plain               # the series without attributes
    cdef int64_t begun

    def __dealloc__(self):
        free(self.slots)
        free(self.bounds)

    cdef int prepare(self, Buffer buffer, int kind, str name, str unit, str description, bint delta, int exemplars, bounds) except -1:
        cdef Writer w
        cdef char[256] room
        cdef int i
        self.buffer = buffer
        self.kind = kind
        self.delta = delta
        self.filter = exemplars
        self.known = {}
        self.held = []
        self.overflow = self.encoded({"otel.metric.overflow": True})
        writer_init(&w, room, 256)
        try:
            text_field(&w, 0x0A, name)
            if description:
                text_field(&w, 0x12, description)
            if unit:
                text_field(&w, 0x1A, unit)
            self.head = writer_bytes(&w)
        finally:
            writer_release(&w)
        if kind == EXPLICIT:
            bounds = [float(bound) for bound in bounds]
            self.bounds = <double*>malloc((len(bounds) + 1) * sizeof(double))
            if self.bounds == NULL:
                raise MemoryError
            for i in range(len(bounds)):
                self.bounds[i] = bounds[i]
            self.size = len(bounds) + 1
        self.begun = wall_now()
        return 0

    cdef void forget(self, dict known, list held) noexcept:
        # In a section: only these series are left. The caller holds what was there before.
        if self.slots != NULL:
            memset(self.slots, 0, SLOTS * sizeof(Slot))
        self.slots_used = 0
        self.held = held
        self.plain = None
        self.known = known
        self.generation += 1

    def reset(self):
        """Begin anew, in a forked child; what is bound stays so."""
        before = self.known, self.held, self.plain
        for each in before[0].values():
            (<Series>each).clear()
        self.forget({name: its for name, its in before[0].items() if (<Series>its).bound}, [])
        self.begun = wall_now()

    cdef bytes encoded(self, dict attributes):
        cdef Writer w
        cdef char[SCRATCH] room
        writer_init(&w, room, SCRATCH)
        try:
            put_attributes(&w, point_tags[self.kind], attributes, &unlimited)
            return writer_bytes(&w)
        finally:
            writer_release(&w)

    cdef Series make(self, bytes key):
        cdef Series series = Series.__new__(Series)
        cdef int slots = 1
        series.attributes = key
        if self.kind == EXPLICIT:
            series.size = slots = self.size
            series.buckets = <int64_t*>malloc(self.size * sizeof(int64_t))
            if series.buckets == NULL:
                raise MemoryError
        elif self.kind == EXPONENTIAL:
            slots = EXPONENTIAL_EXEMPLARS
            series.positive.counts = <int64_t*>malloc(MAX_BUCKETS * sizeof(int64_t))
            series.negative.counts = <int64_t*>malloc(MAX_BUCKETS * sizeof(int64_t))
            if series.positive.counts == NULL or series.negative.counts == NULL:
                raise MemoryError
        series.exemplar_slots = slots
        series.clear()
        return series

    cdef Series find_encoded(self, attributes):
        given = attributes_of(attributes) or {}
        cdef dict kept = {name: given[name] for name in sorted([name for name in given if isinstance(name, str)])}
        cdef bytes own = self.encoded(kept)
        cdef bytes key
        cdef Series fresh = None
        cdef Series found = None
        while True:
            with cython.critical_section(self):
                key = own  # each time: a collection may have made room
                found = self.known.get(key)
                if found is None and PyDict_Size(self.known) >= SERIES - 1:
                    key = self.overflow
                    found = self.known.get(key)
                if found is None and fresh is not None:
                    fresh.attributes = key
                    fresh.generation = self.generation
                    PyDict_SetItem(self.known, key, fresh)
                    found = fresh
            if found is not None:
                return found
            fresh = self.make(key)

    cdef Series look_up(self, dict attributes, uint64_t* hash_, Slot** free_):
        # In a section, of the attributes too. `None`: not in the table; the hash is 0 where it cannot be, else `free_` is its place.
        cdef uint64_t mixed = 0x9E3779B97F4A7C15ULL
        cdef PyObject* key
        cdef PyObject* value
        cdef Py_ssize_t at = 0
        cdef Slot* slot
        cdef uint64_t start
        hash_[0] = 0
        if self.slots == NULL:
            return None
        while PyDict_Next(attributes, &at, &key, &value):
            if type(<object>key) is not str:
                return None
            if type(<object>value) is not str and type(<object>value) is not int and type(<object>value) is not bool:
                return None
            mixed = (mixed ^ <uint64_t>PyObject_Hash(<object>key)) * 0x9FB21C651E98DF25ULL
            mixed = (mixed ^ mixed >> 29 ^ <uint64_t>PyObject_Hash(<object>value)) * 0x9FB21C651E98DF25ULL
        mixed ^= mixed >> 32
        start = mixed & (SLOTS - 1)
        slot = &self.slots[start]
        while slot.series != NULL:
            if slot.hash == mixed and same_items(<tuple>slot.items, attributes):
                return <Series>slot.series
            start = (start + 1) & (SLOTS - 1)
            slot = &self.slots[start]
        hash_[0] = mixed
        free_[0] = slot
        return None

    cdef int remember(self, dict attributes, Series series) except -1:
        # Puts a series into the table, if attributes, which nobody else has, can stand there.
        cdef uint64_t mixed
        cdef Slot* slot = NULL
        cdef tuple items = tuple([each for one in attributes.items() for each in one])
        cdef tuple pair = (items, series)
        with cython.critical_section(self):
            if self.slots == NULL:
                self.slots = <Slot*>malloc(SLOTS * sizeof(Slot))
                if self.slots != NULL:
                    memset(self.slots, 0, SLOTS * sizeof(Slot))
            if self.slots_used < SLOTS_USED and self.lives(series) and self.look_up(attributes, &mixed, &slot) is None and mixed:
                self.held.append(pair)
                slot.hash = mixed
                slot.items = <PyObject*>items
                slot.series = <PyObject*>series
                self.slots_used += 1
        return 0

    cdef inline bint lives(self, Series series) noexcept:
        # In a section: whether it has not been collected for the last time.
        return series.bound or series.generation == self.generation

    cdef Series bound_to(self, attributes):
        cdef Series series
        cdef bint known = False
        while not known:
            series = self.find_encoded(attributes)
            with cython.critical_section(self):
                known = self.lives(series)
                if known:
                    series.bound = True
        return series

    cdef int measure(self, value, Series series, attributes) except -1:
        cdef Number number
        cdef const uint8_t* ids = NULL
        cdef int64_t now = 0
        cdef bint done = False
        cdef uint64_t mixed
        cdef Slot* slot
        read_number(value, &number)
        if number.is_float:
            if (self.kind == SUM and number.real < 0) or not isfinite(number.real):
                self.buffer.drop(1, INVALID)
                return 0
        elif self.kind == SUM and number.whole < 0:
            self.buffer.drop(1, INVALID)
            return 0
        if self.filter:
            span = get_current()
            if type(span) is Span:
                if (<Span>span).flags & SAMPLED:
                    ids = (<Span>span).ids
            elif type(span) is SpanContext:
                if (<SpanContext>span).trace_flags & SAMPLED:
                    ids = (<SpanContext>span).ids
            if ids != NULL or self.filter == 2:
                now = wall_now()
        if series is not None:
            with cython.critical_section(self):
                self.count(series, &number, now, ids)
            return 0
        if type(attributes) is dict:
            with cython.critical_section(self, attributes):
                series = self.look_up(attributes, &mixed, &slot)
                if series is not None:
                    self.count(series, &number, now, ids)
            if series is not None:
                return 0
            attributes = PyDict_Copy(attributes)  # what others change meanwhile is not mistaken for it
        while not done:
            with cython.critical_section(self):
                series = self.plain if attributes is None else None
            if series is None:
                series = self.find_encoded(attributes)
                if type(attributes) is dict:
                    self.remember(attributes, series)
            with cython.critical_section(self):
                done = self.lives(series)
                if done:
                    self.count(series, &number, now, ids)
                    if attributes is None:
                        self.plain = series
        return 0

    cdef void count(self, Series series, const Number* number, int64_t now, const uint8_t* ids) noexcept:
        # In a section. `now` 0: no exemplar.
        cdef Exemplar* exemplar
        cdef int slot = self.add_to(series, number)
        if not now:
            return
        if series.exemplars == NULL:
            series.exemplars = <Exemplar*>malloc(series.exemplar_slots * sizeof(Exemplar))
            if series.exemplars == NULL:
                return
            memset(series.exemplars, 0, series.exemplar_slots * sizeof(Exemplar))
        exemplar = &series.exemplars[slot]
        exemplar.time = now
        exemplar.number = number[0]
        exemplar.has_ids = ids != NULL
        if ids != NULL:
            memcpy(exemplar.ids, ids, 24)

    cdef int add_to(self, Series series, const Number* number) noexcept:
        cdef double real
        cdef int low, high, middle
        cdef int64_t whole
        series.count += 1
        if self.kind == GAUGE:
            series.total = number[0]
            return 0
        if self.kind <= UP_DOWN:
            if not series.total.is_float and not number.is_float:
                if not add_overflows(series.total.whole, number.whole, &whole):
                    series.total.whole = whole
                    return 0
            real = as_double(&series.total) + as_double(number)
            series.total.is_float = True
            series.total.real = real
            return 0
        real = as_double(number)
        series.total.real = as_double(&series.total) + real
        series.total.is_float = True
        if series.count == 1 or real < series.minimum:
            series.minimum = real
        if series.count == 1 or real > series.maximum:
            series.maximum = real
        if self.kind == EXPLICIT:
            low = 0
            high = self.size - 1
            while low < high:
                middle = (low + high) // 2
                if self.bounds[middle] < real:
                    low = middle + 1
                else:
                    high = middle
            series.buckets[low] += 1
            return low
        if real == 0.0:
            series.zeros += 1
        elif real > 0:
            count_in(series, &series.positive, real)
        else:
            count_in(series, &series.negative, -real)
        series.seen += 1
        return (series.seen - 1) % EXPONENTIAL_EXEMPLARS

    # -- collecting --

    def collect(self, int64_t now):
        """Return the ``Metric`` of OTLP and how many points it has; see the twin."""
        cdef Writer w
        cdef int64_t points
        # objects are made before the section, and go behind it
        cdef dict known
        cdef dict staying = {}
        cdef list gone
        cdef list held = []
        cdef Series plain
        writer_init(&w, NULL, 0)
        try:
            with cython.critical_section(self):
                points = self.put_points(&w, now, staying)
                if self.delta:
                    # the limit of series is one of each interval; what is bound stays
                    known, gone, plain = self.known, self.held, self.plain
                    self.forget(staying, held)
                    self.begun = now
            return writer_bytes(&w), points
        finally:
            writer_release(&w)

    cdef int64_t put_points(self, Writer* w, int64_t now, dict staying) except -1:
        cdef PyObject* key
        cdef PyObject* value
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t data, point
        cdef int64_t points = 0
        cdef Series series
        otlp.write_bytes(w, PyBytes_AS_STRING(self.head), PyBytes_GET_SIZE(self.head))
        data = begin(w, data_tags[self.kind])
        while PyDict_Next(self.known, &at, &key, &value):
            series = <Series>value
            if series.count:
                point = begin(w, 0x0A)
                self.put_point(w, series, now)
                finish(w, point)
                points += 1
            if series.bound:
                PyDict_SetItem(staying, <object>key, series)
        if self.kind != GAUGE:
            varint_field(w, 0x10, 1 if self.delta else 2)
        if self.kind == SUM:
            varint_field(w, 0x18, 1)
        finish(w, data)
        at = 0
        while PyDict_Next(self.known, &at, &key, &value):
            series = <Series>value
            if self.delta:
                series.clear()
            else:
                series.clear_exemplars()
        return points

    cdef int put_double(self, Writer* w, uint8_t tag, double value) except -1:
        cdef uint64_t bits
        memcpy(&bits, &value, 8)
        return fixed64_field(w, tag, bits)

    cdef int put_exemplars(self, Writer* w, uint8_t tag, Series series) except -1:
        cdef int i
        cdef Exemplar* exemplar
        cdef Py_ssize_t start
        if series.exemplars == NULL:
            return 0
        for i in range(series.exemplar_slots):
            exemplar = &series.exemplars[i]
            if not exemplar.time:
                continue
            start = begin(w, tag)
            fixed64_field(w, 0x11, exemplar.time)
            if exemplar.number.is_float:
                self.put_double(w, 0x19, exemplar.number.real)
            if exemplar.has_ids:
                data_field(w, 0x22, exemplar.ids + 16, 8)
                data_field(w, 0x2A, exemplar.ids, 16)
            if not exemplar.number.is_float:
                fixed64_field(w, 0x31, <uint64_t>exemplar.number.whole)
            finish(w, start)
        return 0

    cdef int put_point(self, Writer* w, Series series, int64_t now) except -1:
        cdef Py_ssize_t start
        cdef int i
        if self.kind == EXPONENTIAL:
            otlp.write_bytes(w, PyBytes_AS_STRING(series.attributes), PyBytes_GET_SIZE(series.attributes))
        if self.kind != GAUGE:
            fixed64_field(w, 0x11, self.begun)
        fixed64_field(w, 0x19, now)
        if self.kind <= GAUGE:
            if series.total.is_float:
                self.put_double(w, 0x21, series.total.real)
            self.put_exemplars(w, 0x2A, series)
            if not series.total.is_float:
                fixed64_field(w, 0x31, <uint64_t>series.total.whole)
            otlp.write_bytes(w, PyBytes_AS_STRING(series.attributes), PyBytes_GET_SIZE(series.attributes))
            return 0
        fixed64_field(w, 0x21, series.count)
        self.put_double(w, 0x29, as_double(&series.total))
        if self.kind == EXPLICIT:
            start = begin(w, 0x32)
            for i in range(self.size):
                writer_reserve(w, 8)
                otlp.put_fixed64(w, <uint64_t>series.buckets[i])
            finish(w, start)
            if self.size > 1:
                data_field(w, 0x3A, self.bounds, (self.size - 1) * sizeof(double))
            self.put_exemplars(w, 0x42, series)
            otlp.write_bytes(w, PyBytes_AS_STRING(series.attributes), PyBytes_GET_SIZE(series.attributes))
            self.put_double(w, 0x59, series.minimum)
            self.put_double(w, 0x61, series.maximum)
            return 0
        if series.scale:
            varint_field(w, 0x30, zigzag(series.scale))
        if series.zeros:
            fixed64_field(w, 0x39, series.zeros)
        put_range(w, 0x42, &series.positive)
        put_range(w, 0x4A, &series.negative)
        self.put_exemplars(w, 0x5A, series)
        self.put_double(w, 0x61, series.minimum)
        self.put_double(w, 0x69, series.maximum)
        return 0


cdef bint same_items(tuple items, dict attributes) except -1:
    # Exact text, integers and booleans: comparing them runs no Python code.
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t n = 0
    if len(items) != 2 * PyDict_Size(attributes):
        return False
    while PyDict_Next(attributes, &at, &key, &value):
        mine = items[n]
        if <PyObject*>mine != key and not PyObject_RichCompareBool(mine, <object>key, Py_EQ):
            return False
        mine = items[n + 1]
        if <PyObject*>mine != value:
            if type(mine) is not type(<object>value) or not PyObject_RichCompareBool(mine, <object>value, Py_EQ):
                return False
        n += 2
    return True
