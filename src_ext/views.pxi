# Views of events: what a record, or a CloudEvent in JSON, looks like to Python. Part of events.pyx.


cdef inline bytes bytes_of(Slice text):
    return PyBytes_FromStringAndSize(<const char*>text.data, text.size)


cdef dict object_of(Slice text, str what, bint strings):
    # A JSON object; what is more than text as our writers put it, without spaces and escapes, goes the long way.
    cdef dict result = {}
    cdef const uint8_t* p = text.data
    cdef Py_ssize_t at = 1
    cdef Py_ssize_t name, end, value
    try:
        while text.size - at > 1 and p[at - 1] == (c"{" if at == 1 else c",") and p[at] == c'"':
            name = at + 1
            end = skip_plain(p, name, text.size)
            value = end + 3
            if value >= text.size or memcmp(p + end, b'":"', 3):
                break
            at = skip_plain(p, value, text.size)
            if text.size - at < 2 or p[at] != c'"':
                break
            result[PyUnicode_DecodeUTF8(<char*>p + name, end - name, NULL)] = PyUnicode_DecodeUTF8(<char*>p + value, at - value, NULL)
            if p[at + 1] == c"}" and at + 2 == text.size:
                return result
            at += 2
    except UnicodeDecodeError:
        pass
    return parse_object(bytes_of(text), what, strings=strings)


@cython.freelist(64)
@cython.no_gc
cdef class EventRecord:
    """A view of one event in a frame. A text that is not UTF-8 raises `PayloadError` when it is touched."""

    cdef object owner           # the Frame; or the document, as bytes or text
    cdef const uint8_t* record

    cdef const Parts* read(self, Parts* room) except NULL:
        # Where the parts are, or in `room`.
        if self.owner is None:
            raise TypeError("records come from a Frame")
        parts_read(self.record, room)
        return room

    cdef const Slice* header(self) except NULL:
        if self.owner is None:
            raise TypeError("records come from a Frame")
        return (<Frame>self.owner).header

    cdef str common(self, int which):
        # Source, type or topic of the frame.
        if self.owner is None:
            raise TypeError("records come from a Frame")
        cdef Frame frame = <Frame>self.owner
        return frame.source if which == 0 else frame.type if which == 1 else frame.topic

    cdef str text(self, int flag, int at, str name):
        # `None` where the flag is not set
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return text_of(PayloadError, parts.texts[at], name) if parts.flags & flag else None

    cdef str id_text(self):
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        cdef uint8_t[36] out
        if parts.flags & ID_TEXT:
            return text_of(PayloadError, parts.texts[AT_ID], "id")
        put_uuid(out, parts.id)
        return PyUnicode_DecodeUTF8(<char*>out, UUID_ROOM, NULL)

    @property
    def id(self):
        """CloudEvents ``id``."""
        return self.id_text()

    @property
    def source(self):
        """CloudEvents ``source``."""
        return self.text(SOURCE, AT_SOURCE, "source") or self.common(0)

    @property
    def type(self):
        """CloudEvents ``type``."""
        return self.text(TYPE, AT_TYPE, "type") or self.common(1)

    @property
    def topic(self):
        """The topic it was first published to."""
        return self.common(2)

    @property
    def subject(self):
        """CloudEvents ``subject``."""
        return self.text(SUBJECT, AT_SUBJECT, "subject")

    @property
    def time_us(self):
        """CloudEvents ``time`` in microseconds since 1970 UTC."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return parts.time_us

    @property
    def time_text(self):
        """CloudEvents ``time`` as RFC 3339, as it was given."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        cdef uint8_t[27] out
        if parts.flags & TIME_TEXT:
            return text_of(PayloadError, parts.texts[AT_TIME], "time")
        return PyUnicode_DecodeUTF8(<char*>out, put_time(out, parts.time_us), NULL)

    @property
    def key(self):
        """The ordering key (``partitionkey``)."""
        return self.text(KEY, AT_KEY, "key")

    @property
    def traceparent(self):
        """W3C trace context."""
        return self.text(TRACEPARENT, AT_TRACEPARENT, "traceparent")

    @property
    def content_type(self):
        """CloudEvents ``datacontenttype``."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return text_of(PayloadError, parts.texts[AT_CONTENT_TYPE], "content_type") if parts.flags & CONTENT_TYPE else NAMES[parts.number]

    @property
    def payload(self):
        """The payload as encoded."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return bytes_of(parts.payload)

    @property
    def extensions(self):
        """Other CloudEvents attributes: strings, integers, booleans; also ``dataschema``."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return object_of(parts.texts[AT_EXTENSIONS], "record: extensions", False) if parts.flags & EXTENSIONS else {}

    @property
    def metadata(self):
        """The publisher's metadata."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return object_of(parts.texts[AT_METADATA], "record: metadata", True) if parts.flags & METADATA else {}

    @property
    def expires_us(self):
        """When it expires, in microseconds since 1970 UTC."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return parts.expires if parts.flags & EXPIRES else None

    @property
    def raw(self):
        """Whether it was published without an envelope."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        return bool(parts.flags & RAW)

    def to_json(self):
        """CloudEvents 1.0 structured JSON (docs/log-format.md, "CloudEvents JSON")."""
        cdef Parts room
        cdef const Parts* parts = self.read(&room)
        cdef const Slice* header = self.header()
        return rendered(parts, header[0], header[1])


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class ClaimedRecord(EventRecord):
    """A record of a slice that a member of a group holds: what settles it is itself."""

    cdef readonly object marks  # of the slice
    cdef readonly Py_ssize_t position


@cython.final
@cython.no_gc
cdef class Document(EventRecord):
    """A view of a structured CloudEvent in JSON, checked; its texts stay where they are until they are asked for."""

    cdef Parts parts
    cdef Slice[3] headings
    cdef uint8_t* arena

    def __dealloc__(self):
        free(self.arena)

    cdef const Parts* read(self, Parts* room) except NULL:
        if self.owner is None:
            raise TypeError("documents come from read_cloudevent")
        return &self.parts

    cdef const Slice* header(self) except NULL:
        self.read(NULL)
        return self.headings

    cdef str common(self, int which):
        return text_of(PayloadError, self.header()[which], "an attribute")


cdef Document read_document(object data):
    cdef Document document = Document.__new__(Document)
    cdef Event event
    cdef Slice text
    data = take_document(data, &text)
    event.arena = NULL
    try:
        # near the limit of a record it is the packed size that counts
        take_event(&text, text.size > RECORD_MAX >> 1, &event, &document.parts, document.headings)
        if text.size > RECORD_MAX >> 1:
            packed(&document.parts, NULL)
    except:
        free(event.arena)
        raise
    document.headings[2].data = text.data
    document.headings[2].size = 0
    document.arena = event.arena
    document.owner = data
    return document


cdef object event_class = None
ctypedef object (*ReadJson)(bytes, object)

cdef ReadJson read_json = NULL      # into a type; NULL: `decode_other` does all
cdef object decode_other = None     # of an event, whatever its content type is
cdef int JSON_NUMBER = NUMBERS["application/json"]


cdef inline ReceivedEvent new_event(object cls):
    return <ReceivedEvent>CR_new(cls, ())


cdef class ReceivedEvent:
    """What an event that was received consists of; see the twin."""

    cdef readonly object _record
    cdef public object _fetcher
    cdef public object _token
    cdef public object _type
    cdef public bint _raw
    cdef public bint _decoded
    cdef public object _data
    cdef public object _settlement
    cdef public object pubsub_name
    cdef public object delivery_count

    def __init__(self, record, *, fetcher=None, token=None, pubsub_name="", delivery_count=None, type=None, raw=False):
        self._record = record
        self._fetcher = fetcher
        self._token = token
        self._type = type
        self._raw = raw
        self.pubsub_name = pubsub_name
        self.delivery_count = delivery_count

    @property
    def id(self):
        """CloudEvents ``id``: with `source` it names the event; the same in every delivery."""
        return (<EventRecord>self._record).id_text() if isinstance(self._record, EventRecord) else self._record.id

    @property
    def data(self):
        """The payload, decoded by its content type, into ``type=`` where the subscription gave one. An event without data has ``None``.

        Raises:
            PayloadError: it cannot be decoded; names the path.
        """
        return self._data if self._decoded else data_of(self)


cdef object data_of(ReceivedEvent event):
    cdef Parts room
    cdef const Parts* parts
    if read_json != NULL and isinstance(event._record, EventRecord) and not event._raw and event._type is not bytes:
        parts = (<EventRecord>event._record).read(&room)
        if parts.number == JSON_NUMBER and parts.payload.size and not parts.flags & CONTENT_TYPE:
            event._data = read_json(bytes_of(parts.payload), event._type)
            event._decoded = True
            return event._data
    event._data = decode_other(event)
    event._decoded = True
    return event._data


event_class = ReceivedEvent


def receive_as(cls, decode_json, decode_any):
    """Set the class of what `decode_event` returns, a subclass of `ReceivedEvent`, and what decodes its data; see the twin."""
    global event_class, read_json, decode_other
    if not issubclass(cls, ReceivedEvent):
        raise TypeError(f"{cls.__name__} is no subclass of ReceivedEvent")
    from cloud_runtimes._native import _payload
    event_class, decode_other = cls, decode_any
    if decode_json is _payload.decode_json:
        read_json = <ReadJson>PyCapsule_GetPointer(_payload._read_json, "cloud_runtimes._native._payload._read_json")


def decode_event(data):
    """Decode structured JSON into an event; see the twin for the rules."""
    cdef Document document = read_document(data)
    cdef ReceivedEvent event = new_event(event_class)
    event._record = document
    event.pubsub_name = ""
    return event


# ---- a batch at a time: what a subscription does with every event ----
#
# Tens of thousands of events may wait, and of a batch all are there at once. A garbage collection looks at each of them some times over, and
# finds nothing: that is a third of what large batches cost. So it sees an event once somebody else may refer to it, and does not run while many are made.


def receive_events(cls, records, deliveries, fetcher, str pubsub_name not None, type, bint raw):
    """Make an event, of a subclass of `ReceivedEvent`, of each record; see the twin."""
    cdef ReceivedEvent event
    cdef list events = []
    if not issubclass(cls, ReceivedEvent):
        raise TypeError(f"{cls.__name__} is no subclass of ReceivedEvent")
    cdef bint collects = PyGC_Disable()
    try:
        for record in records:
            event = new_event(cls)
            PyObject_GC_UnTrack(event)
            event._record = event._token = record
            event._fetcher = fetcher
            event._type = type
            event._raw = raw
            event.pubsub_name = pubsub_name
            event.delivery_count = deliveries
            events.append(event)
    finally:
        if collects:
            PyGC_Enable()
    return events


cdef inline void track(ReceivedEvent event):
    if not PyObject_GC_IsTracked(event):
        PyObject_GC_Track(event)


def hand_out(events, bint decode):
    """Let others have events, decoded if they are to be; see the twin."""
    cdef ReceivedEvent event
    cdef list misfits = []
    cdef bint collects = PyGC_Disable()
    try:
        for item in events:
            event = <ReceivedEvent?>item
            track(event)
            if decode and not event._decoded:
                try:
                    data_of(event)
                except PayloadError as error:
                    misfits.append((event, error))
    finally:
        if collects:
            PyGC_Enable()
    return misfits


def settle_events(events, settlement):
    """Give those that have no answer this one; see the twin."""
    cdef ReceivedEvent event
    cdef bint fresh
    cdef list tokens = []
    for item in events:
        event = <ReceivedEvent?>item
        with cython.critical_section(event):
            fresh = event._settlement is None
            if fresh:
                event._settlement = settlement
        if fresh:
            tokens.append(event._token)
    return tokens


def all_settled(events):
    """Whether every event has an answer."""
    for item in events:
        if (<ReceivedEvent?>item)._settlement is None:
            return False
    return True


cdef class Marks:
    """Settled positions of a slice; see the twin."""

    cdef bytearray bits
    cdef readonly Py_ssize_t length
    cdef readonly Py_ssize_t remaining
    cdef public bint touched
    cdef public bint void
    cdef public bint leaving

    def __cinit__(self, *_, **__):
        self.bits = bytearray()

    def __init__(self, Py_ssize_t length, settled=None):
        cdef Py_ssize_t position
        if length < 0 or (settled is not None and len(settled) != (length + 7) // 8):
            raise ValueError("a bitmap has one bit for each position")
        self.bits = bytearray((length + 7) // 8) if settled is None else bytearray(settled)
        self.length = self.remaining = length
        self.touched = self.void = self.leaving = False
        if settled is not None:
            for position in range(length):
                self.remaining -= <uint8_t>PyByteArray_AS_STRING(self.bits)[position >> 3] >> (position & 7) & 1

    @property
    def settled(self):
        """The bitmap, least significant bit first."""
        return bytes(self.bits)

    def open(self, Py_ssize_t start, Py_ssize_t stop):
        """The positions from ``start`` to ``stop`` that are not settled; see the twin."""
        cdef const char* bits = PyByteArray_AS_STRING(self.bits)
        cdef Py_ssize_t position
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"positions {start} to {stop} of {self.length}")
        return [position for position in range(start, stop) if not <uint8_t>bits[position >> 3] >> (position & 7) & 1]

    cdef int mark(self, Py_ssize_t position) except -1:
        cdef char* byte
        cdef int bit = 1 << (position & 7)
        if not 0 <= position < self.length:
            raise IndexError(f"position {position} of {self.length}")
        byte = PyByteArray_AS_STRING(self.bits) + (position >> 3)
        if byte[0] & bit:
            return 0
        byte[0] |= bit
        self.remaining -= 1
        self.touched = True
        return 1

    def settle(self, Py_ssize_t position):
        """Mark a position; ``False`` if it was marked before."""
        return self.mark(position) == 1


def mark_records(records):
    """Mark the positions of delivered records as settled; see the twin."""
    cdef ClaimedRecord record
    cdef Marks marks
    cdef list marked = []
    for item in records:
        record = <ClaimedRecord?>item
        marks = <Marks?>record.marks
        if not marks.void and marks.mark(record.position):
            marked.append(record)
    return marked


def mark_ranges(records):
    """Mark the positions of delivered records as settled, and return ranges of them; see the twin."""
    cdef ClaimedRecord record
    cdef Marks marks
    cdef Marks last = None
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t stop = 0
    cdef list ranges = []
    for item in records:
        record = <ClaimedRecord?>item
        marks = <Marks?>record.marks
        if marks.void or not marks.mark(record.position):
            continue
        if marks is not last or record.position != stop:
            if last is not None:
                ranges.append((last, start, stop))
            last, start = marks, record.position
        stop = record.position + 1
    if last is not None:
        ranges.append((last, start, stop))
    return ranges
