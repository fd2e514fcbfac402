# The bytes of records and frames, header only: layout and checks (docs/log-format.md).
#
# `Parts` is a record taken apart: pointers into memory that somebody else owns. It is filled, measured by `parts_size` and written by `parts_write`, or read by `parts_read` from bytes that `check_record` has proved sound.
# Nothing here touches a Python object; a refusal is a `Fault`, a constant text and where.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from attribute_text cimport TEXT_MAX, is_uuid7, parse_time, same_time, time_max, time_min


cdef enum:
    ID_TEXT = 1
    KEY = 2
    TRACEPARENT = 4
    CONTENT_TYPE = 8
    TYPE = 16
    SOURCE = 32
    SUBJECT = 64
    TIME_TEXT = 128
    EXTENSIONS = 256
    METADATA = 512
    EXPIRES = 1024
    RAW = 2048
    KNOWN_FLAGS = 0xFFF
    TEXTS = 10              # the flags of the lowest ten bits carry a text
    HEAD_SIZE = 32
    CONTENT_TYPES = 11      # numbers 0 to 10
    RECORD_MAX = 0x7FFFFFFF


cdef enum:                  # the positions in Parts.texts: the numbers of the bits
    AT_ID = 0
    AT_KEY = 1
    AT_TRACEPARENT = 2
    AT_CONTENT_TYPE = 3
    AT_TYPE = 4
    AT_SOURCE = 5
    AT_SUBJECT = 6
    AT_TIME = 7
    AT_EXTENSIONS = 8
    AT_METADATA = 9


cdef struct Slice:
    const uint8_t* data
    Py_ssize_t size


cdef struct Fault:
    const char* what
    Py_ssize_t at


cdef struct Parts:
    uint32_t flags
    uint8_t number
    uint8_t id[16]
    int64_t time_us
    int64_t expires
    Slice[10] texts         # by bit; only those whose flag is set mean anything
    Slice payload


# What the events kernel lends to the batch kernel: reads the clock (microseconds) and draws an id.
ctypedef int (*DrawNow)(int64_t* now, uint8_t* out) except -1


cdef inline void put_u32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value & 0xFF
    out[1] = (value >> 8) & 0xFF
    out[2] = (value >> 16) & 0xFF
    out[3] = value >> 24


cdef inline uint32_t get_u32(const uint8_t* p) noexcept nogil:
    return p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


cdef inline void put_i64(uint8_t* out, int64_t value) noexcept nogil:
    put_u32(out, <uint32_t>(<uint64_t>value & 0xFFFFFFFFULL))
    put_u32(out + 4, <uint32_t>(<uint64_t>value >> 32))


cdef inline int64_t get_i64(const uint8_t* p) noexcept nogil:
    return <int64_t>(<uint64_t>get_u32(p) | <uint64_t>get_u32(p + 4) << 32)


cdef inline int varint_size(Py_ssize_t value) noexcept nogil:
    cdef int size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_text(uint8_t* out, Slice text) noexcept nogil:
    cdef Py_ssize_t size = text.size
    while size > 0x7F:
        out[0] = (size & 0x7F) | 0x80
        out += 1
        size >>= 7
    out[0] = <uint8_t>size
    if text.size:
        memcpy(out + 1, text.data, text.size)
    return out + 1 + text.size


cdef inline Py_ssize_t get_varint(const uint8_t* body, Py_ssize_t* at, Py_ssize_t end) noexcept nogil:
    # Unsigned LEB128 below 2**32 in its shortest form; -1 for anything else.
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at[0] < end and shift < 35:
        byte = body[at[0]]
        at[0] += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32 or (byte == 0 and shift):
                return -1
            return <Py_ssize_t>value
        shift += 7
    return -1


cdef inline Py_ssize_t parts_size(const Parts* parts) noexcept nogil:
    # Of the whole record; may exceed RECORD_MAX, which the caller refuses.
    cdef Py_ssize_t size = HEAD_SIZE + parts.payload.size
    cdef uint32_t bits = parts.flags & 0x3FF
    cdef int bit = 0
    if parts.flags & EXPIRES:
        size += 8
    while bits:
        if bits & 1:
            size += varint_size(parts.texts[bit].size) + parts.texts[bit].size
        bits >>= 1
        bit += 1
    return size


cdef inline void parts_write(const Parts* parts, Py_ssize_t size, uint8_t* out) noexcept nogil:
    cdef uint32_t bits = parts.flags & 0x3FF
    cdef int bit = 0
    put_u32(out, <uint32_t>(size - 4))
    out[4] = parts.flags & 0xFF
    out[5] = parts.flags >> 8
    out[6] = parts.number
    out[7] = 0
    memcpy(out + 8, parts.id, 16)
    put_i64(out + 24, parts.time_us)
    out += HEAD_SIZE
    if parts.flags & EXPIRES:
        put_i64(out, parts.expires)
        out += 8
    while bits:
        if bits & 1:
            out = put_text(out, parts.texts[bit])
        bits >>= 1
        bit += 1
    if parts.payload.size:
        memcpy(out, parts.payload.data, parts.payload.size)


cdef inline void parts_read(const uint8_t* record, Parts* parts) noexcept nogil:
    # `record` has passed check_record.
    cdef Py_ssize_t end = 4 + <Py_ssize_t>get_u32(record)
    cdef Py_ssize_t at = HEAD_SIZE
    cdef uint32_t bits
    cdef int bit = 0
    parts.flags = record[4] | <uint32_t>record[5] << 8
    parts.number = record[6]
    memcpy(parts.id, record + 8, 16)
    parts.time_us = get_i64(record + 24)
    parts.expires = 0
    if parts.flags & EXPIRES:
        parts.expires = get_i64(record + at)
        at += 8
    bits = parts.flags & 0x3FF
    while bits:
        if bits & 1:
            parts.texts[bit].size = get_varint(record, &at, end)
            parts.texts[bit].data = record + at
            at += parts.texts[bit].size
        bits >>= 1
        bit += 1
    parts.payload.data = record + at
    parts.payload.size = end - at


cdef inline bint no_id(const uint8_t* raw) noexcept nogil:
    cdef int i
    for i in range(16):
        if raw[i]:
            return False
    return True


cdef inline Py_ssize_t refuse(Fault* fault, const char* what, Py_ssize_t at) noexcept nogil:
    fault.what = what
    fault.at = at
    return -1


cdef inline Py_ssize_t check_record(const uint8_t* body, Py_ssize_t at, Py_ssize_t end, Fault* fault) noexcept nogil:
    # Proves that a record lies in body[at:end] and every text in the record; gives the offset behind it, or -1.
    cdef const uint8_t* record = body + at
    cdef Py_ssize_t size, stop, length
    cdef Py_ssize_t here = at + HEAD_SIZE
    cdef uint32_t flags, bits
    cdef int64_t moment
    if end - at < HEAD_SIZE:
        return refuse(fault, "a record that is cut off", at)
    size = get_u32(record)
    if size < HEAD_SIZE - 4 or size > end - at - 4:
        return refuse(fault, "a record whose size leaves the frame", at)
    stop = at + 4 + size
    flags = record[4] | <uint32_t>record[5] << 8
    if flags & ~<uint32_t>KNOWN_FLAGS:
        return refuse(fault, "a record with flags of a later version; upgrade this package", at)
    if record[6] >= CONTENT_TYPES or record[7] or (record[6] and flags & CONTENT_TYPE):
        return refuse(fault, "a record with a content type that this version does not know", at)
    if not (no_id(record + 8) if flags & ID_TEXT else is_uuid7(record + 8)):
        return refuse(fault, "a record without a valid id", at)
    moment = get_i64(record + 24)
    if not time_min() <= moment <= time_max():
        return refuse(fault, "a record with a time beyond the years 0001 to 9999", at)
    if flags & EXPIRES:
        if stop - here < 8 or not 0 < get_i64(body + here) <= time_max():
            return refuse(fault, "a record without a valid expiry", at)
        here += 8
    bits = flags & 0x3FF
    while bits:
        if bits & 1:
            length = get_varint(body, &here, stop)
            if length <= 0 or length > stop - here:
                return refuse(fault, "a record with a text that leaves it", at)
            here += length
        bits >>= 1
    return stop


cdef extern from *:
    """
    static const char* const CR_content_types[] = {
        "", "application/json", "application/octet-stream", "text/plain", "application/msgpack", "application/cloudevents+json",
        "application/xml", "text/html", "text/csv", "application/x-protobuf", "application/x-ndjson",
    };
    """
    const char* const CR_content_types[]


cdef inline Slice content_type_name(int number) noexcept nogil:
    # Of a content type that has a number; empty for 0.
    cdef Slice text
    text.data = <const uint8_t*>CR_content_types[number]
    text.size = strlen(CR_content_types[number])
    return text


cdef inline uint8_t content_type_number(Slice text) noexcept nogil:
    cdef int number
    cdef Slice name
    for number in range(1, CONTENT_TYPES):
        name = content_type_name(number)
        if name.size == text.size and memcmp(name.data, text.data, text.size) == 0:
            return <uint8_t>number
    return 0


cdef inline void clear_id(uint8_t* raw) noexcept nogil:
    memset(raw, 0, 16)


cdef inline Py_ssize_t header_size(const Slice* header) noexcept nogil:
    # Of a frame with the texts source, type, topic.
    cdef Py_ssize_t size = 8
    cdef int i
    for i in range(3):
        size += varint_size(header[i].size) + header[i].size
    return size


cdef inline void put_header(uint8_t* out, uint32_t count, const Slice* header) noexcept nogil:
    cdef int i
    memcpy(out, "CRF\x01", 4)
    put_u32(out + 4, count)
    out += 8
    for i in range(3):
        out = put_text(out, header[i])


cdef inline bint set_time(Slice text, bint packed, Parts* parts) noexcept nogil:
    # A time as number, and as text where the number does not give it back, or unless `packed`; False if it is none.
    if text.size > TEXT_MAX or not parse_time(text.data, text.size, &parts.time_us):
        return False
    if not packed or not same_time(text.data, text.size, parts.time_us):
        parts.flags |= TIME_TEXT
        parts.texts[AT_TIME] = text
    return True
