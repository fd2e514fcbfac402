# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""Events, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/events_py.py`, which is the contract.

An event is a record, a batch of them a frame (docs/log-format.md). A record is taken apart into slices that borrow (`record.pxd`), measured, and written once into a bytes object of exactly its size; JSON is made the same way (`json_text.pxd`, `cloudevent.pxd`). A `Frame` checks every length when it is made and keeps the offsets (`frame.pxi`); an `EventRecord` points into it, or into the JSON of one event (`views.pxi`).
"""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcmp, memcpy, memmove, strlen

from attribute_text cimport UUID_ROOM, parse_uuid7, put_time, put_uuid, time_max, time_min
from attributes cimport PyUnicode_AsUTF8AndSize, plain_extensions, slice_of, take_payload, take_text, take_traceparent
from cloudevent cimport IN_TIME, Event, event_parts, read_event
from ids cimport Ids, next_id, reseed_ids
from json_text cimport is_value, skip_plain, utf8_valid
from objects cimport (
    CR_new, PyGC_Disable, PyGC_Enable, PyObject_GC_IsTracked, PyObject_GC_Track, PyObject_GC_UnTrack, PyUnicode_DecodeUTF8,
    check_single, refused, text_of,
)
from record cimport (
    AT_CONTENT_TYPE, AT_EXTENSIONS, AT_ID, AT_KEY, AT_METADATA, AT_SOURCE, AT_SUBJECT, AT_TIME, AT_TRACEPARENT,
    AT_TYPE, CONTENT_TYPE, CONTENT_TYPES, EXPIRES, EXTENSIONS, HEAD_SIZE, ID_TEXT, KEY, METADATA, RAW, RECORD_MAX, SOURCE, SUBJECT,
    TIME_TEXT, TRACEPARENT, TYPE, DrawNow, Fault, Parts, Slice, check_record, clear_id, content_type_name, get_u32, get_varint,
    header_size, parts_read, parts_size, parts_write, put_header, set_time,
)
from render cimport Rendering, id_of, prepare, put_event
from system cimport monotonic_ns, wall_ns
from writer cimport Writer, write_bytes, writer_bytes, writer_init, writer_release, writer_reserve

from collections import deque
from math import inf

from cloud_runtimes._native.attributes import MORE_THAN_TEXT, check_template, encode_extensions, encode_metadata, parse_object
from cloud_runtimes.errors import InvalidArgumentError, PayloadError

__all__ = [
    "ClaimedRecord", "EventRecord", "Frame", "KeyedQueue", "Marks", "ReceivedEvent", "ReplyReader", "Worker", "all_settled", "build_frame", "decode_event", "encode_record", "hand_out", "mark_ranges", "mark_records", "pack_cloudevents", "pack_command", "parse_cloudevent",
    "read_cloudevent", "receive_as", "receive_events", "render_cloudevent", "reseed", "settle_events", "take_messages", "uuid7", "uuid7_text",
]

cdef tuple NAMES = tuple([(<const char*>content_type_name(number).data).decode() or None for number in range(CONTENT_TYPES)])
cdef dict NUMBERS = {name: number for number, name in enumerate(NAMES) if number}

# ---- ids: one state for the process, changed without running Python code ----

cdef object clock = None        # a function of milliseconds, in tests
cdef object guard = object()    # what free-threaded builds lock
cdef Ids ids
ids.last_ms = ids.last_counter = ids.noise_left = 0


cdef int64_t now_us() except? -1:
    return wall_ns() // 1000 if clock is None else <int64_t>clock() * 1000


cdef int draw(int64_t now, uint8_t* out) except -1:
    cdef bint good
    with cython.critical_section(guard):
        good = next_id(&ids, now, out)
    if not good:
        PyErr_SetFromErrno(OSError)
    return 0


cdef int draw_now(int64_t* now, uint8_t* out) except -1:
    now[0] = now_us()
    return draw(now[0], out)


cdef DrawNow lent = draw_now
_draw_now = PyCapsule_New(<void*>lent, "cloud_runtimes._native._events._draw_now", NULL)


def _set_clock(fn):
    """Replace the wall clock by a function of milliseconds; `None` gives it back. For tests."""
    global clock
    clock = fn


def uuid7():
    """Draw an id: the 16 bytes of a UUIDv7, greater than every earlier one of this process."""
    cdef uint8_t[16] raw
    draw(now_us(), raw)
    return PyBytes_FromStringAndSize(<char*>raw, 16)


def uuid7_text(raw):
    """Render 16 bytes as lower-case hexadecimal, 8-4-4-4-12."""
    cdef uint8_t[36] out
    if len(raw) != 16:
        raise ValueError(f"an id has 16 bytes, not {len(raw)}")
    put_uuid(out, <const uint8_t*>PyBytes_AS_STRING(bytes(raw)))
    return PyUnicode_DecodeUTF8(<char*>out, UUID_ROOM, NULL)


def reseed():
    """Forget the counter and the random bytes in a forked child; the last millisecond is kept."""
    if not reseed_ids(&ids):
        PyErr_SetFromErrno(OSError)


cdef void set_text(Parts* parts, int at, bytes text) noexcept:
    if text:
        parts.flags |= <uint32_t>1 << at
        parts.texts[at] = slice_of(text)


cdef bytes packed(const Parts* parts, const Slice* header):
    # The record; behind the header of a frame unless that is NULL.
    cdef Py_ssize_t size = parts_size(parts)
    if size - 4 > RECORD_MAX:
        raise PayloadError(f"payload has {parts.payload.size} bytes; a record holds less than 2 GiB")
    cdef Py_ssize_t room = 0 if header == NULL else header_size(header)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, room + size)
    parts_write(parts, size, <uint8_t*>PyBytes_AS_STRING(out) + room)
    if header != NULL:
        put_header(<uint8_t*>PyBytes_AS_STRING(out), 1, header)
    return out


def encode_record(
    payload, content_type, *, id=None, time=None, key=None, traceparent=None, type=None, source=None, subject=None,
    extensions=None, metadata=None, expires=None, bint raw=False,
):
    """Encode one record; see the twin for the arguments and errors."""
    cdef Parts parts
    cdef Py_buffer view
    cdef Slice text
    cdef int64_t now
    cdef bytes extension_bytes, metadata_bytes
    cdef int held
    parts.flags = RAW if raw else 0
    parts.number = 0
    parts.expires = 0
    if content_type is not None:
        take_text(InvalidArgumentError, "content_type", content_type, False, &parts.texts[AT_CONTENT_TYPE])
        parts.number = NUMBERS.get(content_type, 0)
        if not parts.number:
            parts.flags |= CONTENT_TYPE
    now = now_us()
    if id is None:
        draw(now, parts.id)
    else:
        take_text(InvalidArgumentError, "id", id, False, &parts.texts[AT_ID])
        if not parse_uuid7(parts.texts[AT_ID].data, parts.texts[AT_ID].size, parts.id):
            parts.flags |= ID_TEXT
            clear_id(parts.id)
    parts.time_us = now
    if isinstance(time, str):
        text.size = 0
        if time.isascii():
            text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(time, &text.size)
        if not set_time(text, True, &parts):
            raise InvalidArgumentError("time must be an RFC 3339 timestamp such as 2024-05-06T07:08:09Z")
    elif isinstance(time, int):
        if not time_min() <= time <= time_max():
            raise InvalidArgumentError("time must lie within the years 0001 to 9999, in microseconds since 1970 UTC")
        parts.time_us = time
    elif time is not None:
        raise InvalidArgumentError(f"time must be RFC 3339 text or microseconds, not {time.__class__.__name__}")
    if extensions is not None:
        own = None
        extension_bytes = plain_extensions((<dict>extensions).copy(), MORE_THAN_TEXT) if extensions.__class__ is dict else None
        if extension_bytes is None:
            extension_bytes, own = encode_extensions(extensions)
        if own is not None:
            if traceparent is not None and traceparent != own:
                raise InvalidArgumentError("traceparent is given as an argument and as another extension; give one")
            traceparent = own
        set_text(&parts, AT_EXTENSIONS, extension_bytes)
    if key is not None:
        parts.flags |= KEY
        take_text(InvalidArgumentError, "key", key, False, &parts.texts[AT_KEY])
    if traceparent is not None:
        parts.flags |= TRACEPARENT
        take_traceparent(InvalidArgumentError, traceparent, &parts.texts[AT_TRACEPARENT])
    if type is not None:
        parts.flags |= TYPE
        take_text(InvalidArgumentError, "type", type, False, &parts.texts[AT_TYPE])
    if source is not None:
        parts.flags |= SOURCE
        take_text(InvalidArgumentError, "source", source, False, &parts.texts[AT_SOURCE])
    if subject is not None:
        parts.flags |= SUBJECT
        take_text(InvalidArgumentError, "subject", subject, False, &parts.texts[AT_SUBJECT])
    if metadata is not None:
        metadata_bytes = encode_metadata(metadata)
        set_text(&parts, AT_METADATA, metadata_bytes)
    if expires is not None:
        if not isinstance(expires, int) or not 0 < expires <= time_max():
            raise InvalidArgumentError("expires must be microseconds since 1970 UTC, above zero, up to the year 9999")
        parts.flags |= EXPIRES
        parts.expires = expires
    held = take_payload(PayloadError, payload, &view, &parts.payload)
    try:
        return packed(&parts, NULL)
    finally:
        if held:
            PyBuffer_Release(&view)


def build_frame(source, type, topic, records):
    """Make a frame of records; see the twin for the errors."""
    cdef Slice[3] header
    take_text(InvalidArgumentError, "source", source, False, &header[0])
    take_text(InvalidArgumentError, "type", type, False, &header[1])
    take_text(InvalidArgumentError, "topic", topic, True, &header[2])
    cdef list parts = [None]
    parts.extend(records)
    for record in parts[1:]:
        if not isinstance(record, bytes):
            raise TypeError(f"a record is bytes, not {record.__class__.__name__}")
        check_single(PayloadError, record)
    cdef bytes head = PyBytes_FromStringAndSize(NULL, header_size(header))
    put_header(<uint8_t*>PyBytes_AS_STRING(head), <uint32_t>(len(parts) - 1), header)
    parts[0] = head
    return b"".join(parts)


def render_cloudevent(record, source, type):
    """Render one record as CloudEvents structured JSON without a frame; see the twin for the errors."""
    cdef Slice source_text, type_text
    cdef Parts parts
    take_text(InvalidArgumentError, "source", source, False, &source_text)
    take_text(InvalidArgumentError, "type", type, False, &type_text)
    if not isinstance(record, bytes):
        raise TypeError(f"a record is bytes, not {record.__class__.__name__}")
    check_single(PayloadError, record)
    parts_read(<const uint8_t*>PyBytes_AS_STRING(record), &parts)
    return rendered(&parts, source_text, type_text)


cdef int measure(Rendering* rendering, const Parts* parts, Slice source, Slice type_) except -1:
    cdef const char* broken
    cdef Slice text = parts.texts[AT_EXTENSIONS]
    if parts.flags & EXTENSIONS:
        # they go in as they are
        if text.size < 3 or memcmp(text.data, '{"', 2) or text.data[text.size - 1] != 0x7D or not is_value(text.data, text.size):
            raise PayloadError("record: extensions: no JSON object")
    broken = prepare(rendering, parts, source, type_)
    if broken != NULL:
        raise PayloadError(f"record: {broken[2:strlen(broken) - 3].decode()} is not UTF-8")
    return 0


cdef bytes rendered(const Parts* parts, Slice source, Slice type_):
    cdef Rendering rendering
    measure(&rendering, parts, source, type_)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, rendering.size)
    put_event(&rendering, <uint8_t*>PyBytes_AS_STRING(out))
    return out


cdef int take_event(const Slice* text, bint packed, Event* event, Parts* parts, Slice* header) except -1:
    # The caller frees event.arena, which is NULL when this is called.
    cdef Fault fault
    cdef int64_t now = 0
    cdef Py_ssize_t good = utf8_valid(text.data, text.size)
    if good != text.size:
        raise PayloadError(f"CloudEvent: no UTF-8 at byte {good}")
    if read_event(text.data, text.size, event, &fault) < 0:
        raise refused(PayloadError, "CloudEvent", &fault)
    if not event.present >> IN_TIME & 1:
        now = now_us()
    if event_parts(event, now, packed, parts, header, &fault) < 0:
        raise refused(PayloadError, "CloudEvent", &fault)
    return 0


cdef object take_document(object data, Slice* text):
    # Bytes and text as they are, a copy of what may change; the text borrows from the result.
    cdef Py_buffer view
    if isinstance(data, str):
        try:
            text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(data, &text.size)
        except UnicodeEncodeError:
            raise PayloadError("CloudEvent: text with an unpaired surrogate") from None
        return data
    if take_payload(PayloadError, data, &view, text):
        try:
            data = PyBytes_FromStringAndSize(<const char*>text.data, text.size)
        finally:
            PyBuffer_Release(&view)
        text.data = <const uint8_t*>PyBytes_AS_STRING(data)
    return data


def parse_cloudevent(data, topic=""):
    """Make a frame of one record from structured JSON; see the twin for the rules."""
    cdef Slice[3] header
    cdef Slice text
    cdef Event event
    cdef Parts parts
    take_text(InvalidArgumentError, "topic", topic, True, &header[2])
    held = take_document(data, &text)
    event.arena = NULL
    try:
        take_event(&text, True, &event, &parts, header)
        return packed(&parts, header)
    finally:
        free(event.arena)


cdef inline bint same_text(Slice one, Slice two) noexcept:
    return one.size == two.size and memcmp(one.data, two.data, one.size) == 0


@cython.final
@cython.no_gc
cdef class Packer:
    # One frame, of the structured events that are added. What the first of them says of source and type is its header.

    cdef Writer out
    cdef char[4096] room
    cdef uint32_t count
    cdef Slice[3] header
    cdef bytes source
    cdef bytes type
    cdef object topic

    def __cinit__(self, topic):
        writer_init(&self.out, self.room, sizeof(self.room))
        self.topic = topic      # from which the slice borrows
        take_text(InvalidArgumentError, "topic", topic, True, &self.header[2])

    def __dealloc__(self):
        writer_release(&self.out)

    cdef int add(self, const Slice* text) except -1:
        # PayloadError: it is none, and nothing has changed
        cdef Slice[3] own
        cdef Event event
        cdef Parts parts
        cdef Py_ssize_t size
        event.arena = NULL
        try:
            take_event(text, True, &event, &parts, own)
            size = parts_size(&parts) + own[0].size + own[1].size + 10
            if size - 4 > RECORD_MAX:
                raise PayloadError(f"payload has {parts.payload.size} bytes; a record holds less than 2 GiB")
            if not self.count:
                # copies, since the first document may not outlive its turn
                self.source, self.type = bytes_of(own[0]), bytes_of(own[1])
                self.header[0], self.header[1] = slice_of(self.source), slice_of(self.type)
                size = header_size(self.header)
                writer_reserve(&self.out, size)
                put_header(<uint8_t*>self.out.data, 0, self.header)
                self.out.length = size
            else:
                if not same_text(own[0], self.header[0]):
                    parts.flags |= SOURCE
                    parts.texts[AT_SOURCE] = own[0]
                if not same_text(own[1], self.header[1]):
                    parts.flags |= TYPE
                    parts.texts[AT_TYPE] = own[1]
            size = parts_size(&parts)
            writer_reserve(&self.out, size)
            parts_write(&parts, size, <uint8_t*>self.out.data + self.out.length)
            self.out.length += size
            self.count += 1
        finally:
            free(event.arena)
        return 0

    cdef bytes frame(self):
        put_header(<uint8_t*>self.out.data, self.count, self.header)
        return writer_bytes(&self.out)


def pack_cloudevents(documents, topic=""):
    """Make one frame of the events of several documents; see the twin."""
    cdef Packer packer = Packer(topic)
    cdef Slice text
    cdef list bad = []
    for index, data in enumerate(documents):
        try:
            data = take_document(data, &text)
            packer.add(&text)
        except PayloadError:
            bad.append(index)
    return packer.frame() if packer.count else None, bad


def read_cloudevent(data):
    """Check structured JSON and return a `EventRecord` that points into it; see the twin for the rules."""
    return read_document(data)


include "views.pxi"
include "handle.pxi"
include "template.pxi"
include "resp.pxi"
include "nats.pxi"
include "frame.pxi"
