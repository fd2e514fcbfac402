# Metrics of `telemetry.pyx`: instruments that aggregate, see the twin `telemetry_metrics_py.py`.
#
# A set of attributes is found by its encoding, as in the twin (`known`). In front of that stands a table of sets that need no encoding: exact text, integers and booleans in the order in which they were given, compared without running Python code.
#
# What is looked up, counted and collected changes in sections, as in `telemetry.pyx`. Encoding attributes may run Python code and lies between two of them, so a series that was found may be `gone` meanwhile, and is looked for again.

cdef class Instrument:
    # What all instruments share; see the twin.
    cdef Buffer buffer
    cdef bytes head
    cdef int kind, filter, size
    cdef bint delta
    cdef tuple bounds_given         # as they are told
    cdef double* bounds
    cdef dict known                 # encoded attributes → Series
    cdef bytes overflow             # encoded attributes of the series beyond the limit
    cdef Slot* slots
    cdef int slots_used
    cdef list held                  # what the slots point to
    cdef Series plain               # the series without attributes
    cdef int64_t begun

    def __init__(self, Buffer buffer not None, str name not None, str unit="", str description="", *, delta=False, exemplars=1, bounds=()):
        cdef int i
        self.head = metric_head(name, unit, description)
        self.overflow = attributes_key(self.kind, OVERFLOW)
        self.bounds_given = tuple([float(bound) for bound in bounds])
        self.size = len(self.bounds_given) + 1
        self.bounds = <double*>malloc(self.size * sizeof(double))
        if self.bounds == NULL:
            raise MemoryError
        for i in range(self.size - 1):
            self.bounds[i] = self.bounds_given[i]
        self.buffer = buffer
        self.delta = delta
        self.filter = exemplars
        self.known = {}
        self.held = []
        self.begun = wall_now()

    def __dealloc__(self):
        free(self.slots)
        free(self.bounds)

    cdef dict forget(self):
        # Returns all series; only those that are bound are known from here on.
        cdef PyObject* key
        cdef PyObject* value
        cdef Py_ssize_t at = 0
        # objects are made before the section, and go behind it
        cdef dict known = self.known
        cdef dict staying = {}
        cdef list fresh = []
        cdef list held
        cdef Series plain
        with cython.critical_section(self):
            while PyDict_Next(known, &at, &key, &value):
                if (<Series>value).bound:
                    PyDict_SetItem(staying, <object>key, <object>value)
                else:
                    (<Series>value).gone = True
            if self.slots != NULL:
                memset(self.slots, 0, SLOTS * sizeof(Slot))
            self.slots_used = 0
            held, plain = self.held, self.plain
            self.held, self.plain, self.known = fresh, None, staying
        return known

    def reset(self):
        """Begin anew, in a forked child; what is bound stays so."""
        for series in self.forget().values():
            (<Series>series).clear(self.kind)
        self.begun = wall_now()

    cdef Series make(self, bytes key):
        cdef Series series = Series.__new__(Series)
        series.attributes = key
        series.allocate(self.kind, self.size)
        return series

    cdef Series find_encoded(self, attributes):
        cdef Series series
        cdef Series fresh = self.make(attributes_key(self.kind, attributes))
        with cython.critical_section(self):
            series = self.known.get(fresh.attributes)
            if series is None:
                if PyDict_Size(self.known) >= SERIES - 1:
                    fresh.attributes = self.overflow
                series = self.known.setdefault(fresh.attributes, fresh)
        return series

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
            if self.slots_used < SLOTS_USED and not series.gone and self.look_up(attributes, &mixed, &slot) is None and mixed:
                self.held.append(pair)
                slot.hash = mixed
                slot.items = <PyObject*>items
                slot.series = <PyObject*>series
                self.slots_used += 1
        return 0

    cdef Series bound_to(self, attributes):
        cdef Series series = None
        while series is None or series.gone:
            series = self.find_encoded(attributes)
            with cython.critical_section(self):
                series.bound = not series.gone
        return series

    cdef int measure(self, value, Series series, attributes) except -1:
        cdef Number number
        cdef const uint8_t* ids = NULL
        cdef int64_t now = 0
        cdef bint done = False
        cdef uint64_t mixed
        cdef uint32_t flags
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
            ids = ids_of(span, &flags)
            if ids != NULL and not flags & SAMPLED:
                ids = NULL
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
                done = not series.gone
                if done:
                    self.count(series, &number, now, ids)
                    if attributes is None:
                        self.plain = series
        return 0

    cdef void count(self, Series series, const Number* number, int64_t now, const uint8_t* ids) noexcept:
        # In a section. `now` 0: no exemplar.
        cdef Exemplar* exemplar
        cdef int slot = self.add_to(&series.state, number)
        cdef size_t room = series.exemplar_slots * sizeof(Exemplar)
        if not now:
            return
        if series.state.exemplars == NULL:
            series.state.exemplars = <Exemplar*>malloc(room)
            if series.state.exemplars == NULL:
                return
            memset(series.state.exemplars, 0, room)
        exemplar = &series.state.exemplars[slot]
        exemplar.time = now
        exemplar.number = number[0]
        exemplar.has_ids = ids != NULL
        if ids != NULL:
            memcpy(exemplar.ids, ids, 24)

    cdef int add_to(self, State* state, const Number* number) noexcept:
        # Returns the slot of an exemplar.
        cdef double real
        cdef int low, high, middle
        cdef int64_t whole
        state.count += 1
        if self.kind == GAUGE:
            state.total = number[0]
            return 0
        if self.kind <= UP_DOWN:
            if not state.total.is_float and not number.is_float:
                if not add_overflows(state.total.whole, number.whole, &whole):
                    state.total.whole = whole
                    return 0
            real = as_double(&state.total) + as_double(number)
            state.total.is_float = True
            state.total.real = real
            return 0
        real = as_double(number)
        state.total.real = as_double(&state.total) + real
        state.total.is_float = True
        if state.count == 1 or real < state.minimum:
            state.minimum = real
        if state.count == 1 or real > state.maximum:
            state.maximum = real
        if self.kind == EXPLICIT:
            low = 0
            high = self.size - 1
            while low < high:
                middle = (low + high) // 2
                if self.bounds[middle] < real:
                    low = middle + 1
                else:
                    high = middle
            state.positive.counts[low] += 1
            return low
        if real == 0.0:
            state.zeros += 1
        elif real > 0:
            count_in(state, &state.positive, real)
        else:
            count_in(state, &state.negative, -real)
        state.seen += 1
        return (state.seen - 1) % EXPONENTIAL_EXEMPLARS

    def collect(self, int64_t now):
        """Return the ``Metric`` of OTLP and how many points it has; see the twin."""
        cdef Series taken
        cdef list points = []
        cdef int64_t begun = self.begun
        cdef dict known
        if self.delta:
            # the limit of series is one of each interval; what is bound stays
            known = self.forget()
            self.begun = now
        else:
            with cython.critical_section(self):
                known = PyDict_Copy(self.known)
        for series in known.values():
            taken = self.make((<Series>series).attributes)
            with cython.critical_section(self):
                taken.move(<Series>series, self.kind, self.delta)
            if taken.state.count:
                points.append(taken.point())
        return metric(self.head, self.kind, self.delta, self.bounds_given, begun, now, points)


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
