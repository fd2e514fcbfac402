# One worker of a subscription: events to a handler, one at a time. Part of events.pyx; see the twin in `received_py.py`.


cdef class Worker:
    """Hands events to a handler; see the twin."""

    cdef object ready, popleft, handler, client, wake, enter, late
    cdef KeyedQueue keys
    cdef tuple takes
    cdef list done
    cdef bint typed
    cdef int64_t began, since, busy_ns
    cdef Py_ssize_t flush_at
    cdef readonly object event
    cdef public object error
    cdef readonly bint misfit
    cdef public bint stopped

    def __init__(
        self, ready, handler, takes, client, *, bint typed, Py_ssize_t flush_at, wake, enter, late=None,
        KeyedQueue keys=None,
    ):
        self.ready = ready
        self.popleft = ready.popleft
        self.handler = handler
        self.takes = tuple(takes)
        self.client = client
        self.typed = typed
        self.flush_at = flush_at
        self.wake = wake
        self.enter = enter
        self.late = late
        self.keys = keys
        self.done = []

    def next(self):
        """Take the next event; see the twin."""
        return self.take()

    cdef object take(self):
        cdef ReceivedEvent event
        if self.stopped or not len(self.ready):
            return None
        if self.keys is not None and self.keys.last_ns < monotonic_ns():
            return None
        try:
            event = <ReceivedEvent?>self.popleft()
        except IndexError:  # another worker was faster
            return None
        track(event)
        self.event = event
        self.began = monotonic_ns()
        if self.since == 0:
            self.since = self.began
        self.error = None
        self.misfit = False
        if self.typed and not event._decoded:
            try:
                data_of(event)
            except PayloadError as error:
                self.error = error
                self.misfit = True
        return event

    cdef bint has_context(self, ReceivedEvent event) except -1:
        cdef Parts room
        if isinstance(event._record, EventRecord):
            return (<EventRecord>event._record).read(&room).flags & TRACEPARENT != 0
        return event._record.traceparent is not None

    cdef object argument(self, int role, ReceivedEvent event):
        if role == 0:
            return event._data if event._decoded else data_of(event)
        return event if role == 1 else self.client

    def arguments(self):
        """Return the arguments of the handler for the current event."""
        return [self.argument(role, self.event) for role in self.takes]

    cdef int call(self, ReceivedEvent event) except -1:
        if len(self.takes) == 1:
            self.handler(self.argument(self.takes[0], event))
        else:
            self.handler(*self.arguments())
        return 0

    def run(self, Py_ssize_t limit):
        """Handle events; see the twin."""
        cdef ReceivedEvent event
        while limit > 0:
            taken = self.take()
            if taken is None:
                break
            event = <ReceivedEvent>taken
            if self.error is not None:
                return event
            try:
                if not self.has_context(event):
                    self.call(event)
                else:
                    entered = self.enter(event)
                    try:
                        self.call(event)
                    finally:
                        entered.leave()
            except BaseException as error:
                self.error = error
                self.rest()
                return event
            self.end()
            limit -= 1
        self.rest()
        return None

    cdef int rest(self) except -1:
        # once for many events: their clock is that of `began`
        with cython.critical_section(self):
            if self.since:
                self.busy_ns += monotonic_ns() - self.since
                self.since = 0
        return 0

    cdef int end(self) except -1:
        cdef ReceivedEvent event
        with cython.critical_section(self):
            event = <ReceivedEvent>self.event
            if self.keys is None:
                self.done.append(event)
            self.event = None
        if self.late is not None and event._settlement is not None:
            self.late(event)
        if self.keys is not None:
            self.keys.finish(event)
        if len(self.done if self.keys is None else self.keys.done) == self.flush_at:
            self.wake()
        return 0

    def finish(self):
        """Take the current event for handled."""
        self.end()
        self.rest()

    def leave(self):
        """Forget the current event, which has another answer."""
        self.event = self.error = None
        self.rest()

    @property
    def waiting(self):
        """How many events are handled and not taken."""
        return len(self.done)

    def take_done(self):
        """Return the events that were handled since the last call; see the twin."""
        with cython.critical_section(self):
            done = self.done
            self.done = []
        return done

    def held(self):
        """Return for how many seconds the current event has been with the handler; see the twin."""
        return (monotonic_ns() - self.began) / 1e9

    @property
    def busy(self):
        """For how many seconds it has had events; see the twin."""
        cdef int64_t since
        with cython.critical_section(self):
            since = self.since
            return (self.busy_ns + (monotonic_ns() - since if since else 0)) / 1e9


cdef class KeySlot:
    """The current event of a key, and those that wait for it."""

    cdef ReceivedEvent current
    cdef bint kept
    cdef object later


@cython.final
cdef class KeyedQueue:
    """Ready events in the order of their keys; see the twin."""

    cdef object ready
    cdef dict slots
    cdef list done
    cdef int64_t last_ns
    cdef readonly Py_ssize_t waiting

    def __init__(self, ready):
        self.ready = ready
        self.done = []
        self.slots = {}
        self.last_ns = INT64_MAX

    @property
    def until(self):
        """The last moment to take an event; see the twin."""
        return inf if self.last_ns == INT64_MAX else self.last_ns / 1e9

    @until.setter
    def until(self, double seconds):
        self.last_ns = INT64_MAX if seconds > 9e9 else <int64_t>(seconds * 1e9)

    cdef object key_of(self, ReceivedEvent event):
        # by a hash: two keys that share one wait for each other
        cdef Parts room
        cdef const Parts* parts
        if isinstance(event._record, EventRecord):
            parts = (<EventRecord>event._record).read(&room)
            return fnv1a(parts.texts[AT_KEY]) if parts.flags & KEY else None
        return event._record.key

    cdef KeySlot slot_of(self, ReceivedEvent event, key):
        cdef KeySlot slot = <KeySlot>self.slots.get(key)
        return slot if slot is not None and slot.current is event else None

    cdef bint advance(self, key, KeySlot slot) except -1:
        slot.kept = False
        if not slot.later:
            del self.slots[key]
            return False
        slot.current = <ReceivedEvent>slot.later.popleft()
        self.waiting -= 1
        self.ready.append(slot.current)
        return True

    def add(self, events):
        """Queue events; see the twin."""
        cdef KeySlot slot
        with cython.critical_section(self):
            for item in events:
                key = self.key_of(<ReceivedEvent?>item)
                if key is not None:
                    slot = <KeySlot>self.slots.get(key)
                    if slot is not None:
                        if slot.later is None:
                            slot.later = deque()
                        slot.later.append(item)
                        self.waiting += 1
                        continue
                    slot = KeySlot.__new__(KeySlot)
                    slot.current = <ReceivedEvent>item
                    self.slots[key] = slot
                self.ready.append(item)

    cpdef bint release(self, ReceivedEvent event) except -1:
        """Let the next event of a key become ready; see the twin."""
        cdef bint more = False
        cdef KeySlot slot
        key = self.key_of(event)
        if key is not None:
            with cython.critical_section(self):
                slot = self.slot_of(event, key)
                if slot is not None and not slot.kept:
                    more = self.advance(key, slot)
        return more

    cpdef bint finish(self, ReceivedEvent event) except -1:
        """Note that an event is handled, and release it; see the twin."""
        with cython.critical_section(self):
            self.done.append(event)
        return self.release(event)

    @property
    def handled(self):
        """How many events are handled and not taken."""
        return len(self.done)

    def take_done(self):
        """Return the events that were handled since the last call; see the twin."""
        with cython.critical_section(self):
            done = self.done
            self.done = []
        return done

    def keep(self, ReceivedEvent event):
        """Have an event hold back its key; see the twin."""
        cdef KeySlot slot
        key = self.key_of(event)
        if key is None:
            return True
        with cython.critical_section(self):
            slot = self.slot_of(event, key)
            if slot is not None:
                slot.kept = True
        return slot is not None

    def replace(self, ReceivedEvent event not None, ReceivedEvent again):
        """Make another delivery ready, or the next event of the key; see the twin."""
        cdef bint more = True
        cdef KeySlot slot = None
        key = self.key_of(event)
        with cython.critical_section(self):
            if key is not None:
                slot = self.slot_of(event, key)
            if key is not None and slot is None:
                more = False
            elif again is None:
                more = slot is not None and self.advance(key, slot)
            else:
                if slot is not None:
                    slot.current = again
                    slot.kept = False
                self.ready.append(again)
        return more

    def sweep(self):
        """Remove the events that are not handed out any more; see the twin."""
        cdef KeySlot slot
        cdef list swept = []
        with cython.critical_section(self):
            for _ in range(len(self.ready)):
                try:
                    event = self.ready.popleft()
                except IndexError:  # taken meanwhile
                    break
                (swept if left(<ReceivedEvent?>event) else self.ready).append(event)
            ready = set(map(id, swept))
            for key, item in list(self.slots.items()):
                slot = <KeySlot>item
                if slot.later:
                    gone = [event for event in slot.later if left(<ReceivedEvent?>event)]
                    if gone:
                        swept += gone
                        self.waiting -= len(gone)
                        slot.later = deque([event for event in slot.later if not left(<ReceivedEvent?>event)])
                if id(slot.current) in ready:
                    self.advance(key, slot)
        return swept


cdef bint left(ReceivedEvent event) except -1:
    cdef Marks marks
    if not isinstance(event._record, ClaimedRecord):
        return False
    marks = <Marks?>(<ClaimedRecord>event._record).marks
    return marks.void or marks.leaving
