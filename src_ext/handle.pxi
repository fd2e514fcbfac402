# One worker of a subscription: events to a handler, one at a time. Part of events.pyx; see the twin in `received_py.py`.


cdef class Worker:
    """Hands events to a handler; see the twin."""

    cdef object ready, popleft, handler, client, wake, enter
    cdef tuple takes
    cdef list done
    cdef bint typed
    cdef int64_t began
    cdef Py_ssize_t flush_at
    cdef readonly object event
    cdef public object error
    cdef readonly bint misfit
    cdef public bint stopped

    def __init__(self, ready, handler, takes, client, *, bint typed, Py_ssize_t flush_at, wake, enter):
        self.ready = ready
        self.popleft = ready.popleft
        self.handler = handler
        self.takes = tuple(takes)
        self.client = client
        self.typed = typed
        self.flush_at = flush_at
        self.wake = wake
        self.enter = enter
        self.done = []

    def next(self):
        """Take the next event; see the twin."""
        return self.take()

    cdef object take(self):
        cdef ReceivedEvent event
        if self.stopped or not len(self.ready):
            return None
        try:
            event = <ReceivedEvent?>self.popleft()
        except IndexError:  # another worker was faster
            return None
        self.event = event
        self.began = monotonic_ns()
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
                return None
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
                return event
            self.end()
            limit -= 1
        return None

    cdef int end(self) except -1:
        with cython.critical_section(self):
            self.done.append(self.event)
            self.event = None
        if len(self.done) == self.flush_at:
            self.wake()
        return 0

    def finish(self):
        """Take the current event for handled."""
        self.end()

    def leave(self):
        """Forget the current event, which has another answer."""
        self.event = self.error = None

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
