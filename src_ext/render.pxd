# Structured JSON from a record, header only (docs/log-format.md, "CloudEvents JSON").
#
# `prepare` decides the form of every member and measures; `put_event` writes exactly that many bytes. A JSON payload goes in as it is, once it has been checked: one that is no JSON would write members of its own.

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy, strlen

from attribute_text cimport UUID_ROOM, put_time, put_uuid
from base64 cimport put_base64
from json_text cimport escaped_size, is_value, put_escaped, utf8_valid
from record cimport (
    AT_CONTENT_TYPE, AT_EXTENSIONS, AT_ID, AT_KEY, AT_SOURCE, AT_SUBJECT, AT_TIME, AT_TRACEPARENT, AT_TYPE,
    CONTENT_TYPE, EXPIRES, EXTENSIONS, ID_TEXT, KEY, SOURCE, SUBJECT, TIME_TEXT, TRACEPARENT, TYPE, Parts, Slice,
    content_type_name,
)


cdef enum:
    DATA_NONE = 0
    DATA_JSON = 1
    DATA_TEXT = 2
    DATA_BASE64 = 3


cdef struct Member:
    const char* name        # `,"name":"`
    Slice text


cdef struct Rendering:
    Member[9] members
    int count
    int data
    Slice extensions        # without braces
    Slice payload
    uint8_t[36] id          # what members point to
    uint8_t[27] time
    uint8_t[27] expiry
    Py_ssize_t size         # of the whole


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if 0x41 <= c <= 0x5A else c


cdef inline bint same_letters(const uint8_t* p, const char* letters, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if lower(p[i]) != <uint8_t>letters[i]:
            return False
    return True


cdef inline bint is_json(Slice type_) noexcept nogil:
    # `*/json` or `*/*+json`, without parameters (JSON format §3.1.1).
    cdef const uint8_t* p = type_.data
    cdef Py_ssize_t size = type_.size
    cdef const void* semicolon = memchr(p, 0x3B, size) if size else NULL
    if semicolon != NULL:
        size = <const uint8_t*>semicolon - p
    while size and (p[size - 1] == 0x20 or p[size - 1] == 0x09):
        size -= 1
    return size > 4 and same_letters(p + size - 4, "json", 4) and (p[size - 5] == 0x2F or (p[size - 5] == 0x2B and memchr(p, 0x2F, size) != NULL))


cdef inline bint is_text(Slice type_) noexcept nogil:
    return type_.size >= 5 and same_letters(type_.data, "text/", 5)


cdef inline void add(Rendering* r, const char* name, Slice text) noexcept nogil:
    if text.size:
        r.members[r.count].name = name
        r.members[r.count].text = text
        r.count += 1


cdef inline void add_flagged(Rendering* r, const Parts* parts, int flag, int at, const char* name) noexcept nogil:
    if parts.flags & flag:
        add(r, name, parts.texts[at])


cdef inline Slice id_of(const Parts* parts, uint8_t* room) noexcept nogil:
    cdef Slice text
    if parts.flags & ID_TEXT:
        return parts.texts[AT_ID]
    put_uuid(room, parts.id)
    text.data = room
    text.size = UUID_ROOM
    return text


cdef inline const char* prepare(Rendering* r, const Parts* parts, Slice source, Slice type_) noexcept nogil:
    # NULL, or the member that is not UTF-8.
    cdef Slice text, media
    cdef int i
    r.count = 0
    add(r, ',"id":"', id_of(parts, r.id))
    add(r, ',"source":"', parts.texts[AT_SOURCE] if parts.flags & SOURCE else source)
    add(r, ',"type":"', parts.texts[AT_TYPE] if parts.flags & TYPE else type_)
    add_flagged(r, parts, SUBJECT, AT_SUBJECT, ',"subject":"')
    if parts.flags & TIME_TEXT:
        text = parts.texts[AT_TIME]
    else:
        text.size = put_time(r.time, parts.time_us)
        text.data = r.time
    add(r, ',"time":"', text)
    media = parts.texts[AT_CONTENT_TYPE] if parts.flags & CONTENT_TYPE else content_type_name(parts.number)
    add(r, ',"datacontenttype":"', media)
    add_flagged(r, parts, KEY, AT_KEY, ',"partitionkey":"')
    add_flagged(r, parts, TRACEPARENT, AT_TRACEPARENT, ',"traceparent":"')
    if parts.flags & EXPIRES:
        text.size = put_time(r.expiry, parts.expires)
        text.data = r.expiry
        add(r, ',"expirytime":"', text)
    r.size = strlen('{"specversion":"1.0"') + 1
    for i in range(r.count):
        text = r.members[i].text
        if utf8_valid(text.data, text.size) != text.size:
            return r.members[i].name
        r.size += strlen(r.members[i].name) + escaped_size(text.data, text.size) + 1
    r.extensions.size = 0
    if parts.flags & EXTENSIONS:
        r.extensions.data = parts.texts[AT_EXTENSIONS].data + 1
        r.extensions.size = parts.texts[AT_EXTENSIONS].size - 2
        r.size += r.extensions.size + 1
    r.payload = parts.payload
    r.data = DATA_BASE64
    if media.size == 0:
        if r.payload.size == 0:
            r.data = DATA_NONE
    elif is_json(media):
        if r.payload.size == 0:
            r.data = DATA_NONE
        elif is_value(r.payload.data, r.payload.size):
            r.data = DATA_JSON
    elif is_text(media) and utf8_valid(r.payload.data, r.payload.size) == r.payload.size:
        r.data = DATA_TEXT
    if r.data == DATA_JSON:
        r.size += strlen(',"data":') + r.payload.size
    elif r.data == DATA_TEXT:
        r.size += strlen(',"data":""') + escaped_size(r.payload.data, r.payload.size)
    elif r.data == DATA_BASE64:
        r.size += strlen(',"data_base64":""') + (r.payload.size + 2) // 3 * 4
    return NULL


cdef inline uint8_t* put(uint8_t* out, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    memcpy(out, text, size)
    return out + size


cdef inline void put_event(const Rendering* r, uint8_t* out) noexcept nogil:
    cdef int i
    out = put(out, '{"specversion":"1.0"')
    for i in range(r.count):
        out = put(out, r.members[i].name)
        out = put_escaped(out, r.members[i].text.data, r.members[i].text.size)
        out[0] = 0x22
        out += 1
    if r.extensions.size:
        out[0] = 0x2C
        memcpy(out + 1, r.extensions.data, r.extensions.size)
        out += 1 + r.extensions.size
    if r.data == DATA_JSON:
        out = put(out, ',"data":')
        memcpy(out, r.payload.data, r.payload.size)
        out += r.payload.size
    elif r.data == DATA_TEXT:
        out = put(out, ',"data":"')
        out = put_escaped(out, r.payload.data, r.payload.size)
        out = put(out, '"')
    elif r.data == DATA_BASE64:
        out = put(out, ',"data_base64":"')
        out = put_base64(out, r.payload.data, r.payload.size)
        out = put(out, '"')
    out[0] = 0x7D
