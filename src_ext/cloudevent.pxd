# The members of a structured CloudEvent, header only (CloudEvents 1.0, JSON format 1.0.2).
#
# `read_event` is one pass over checked UTF-8. Texts stay where they are, or go unescaped into the arena, which is made when there is a use for it and is twice as long as the document: an unescaped text and a rewritten extension are never longer than what they come from. `event_parts` then decides what the members mean.

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memchr, memcmp, memcpy

from attribute_text cimport TEXT_GOOD, TEXT_MAX, check_text, check_traceparent, good_name, parse_time, parse_uuid7
from base64 cimport get_base64
from json_text cimport get_integer, put_escaped, skip_colon, skip_space, skip_string, skip_value, unescape, word_at
from record cimport (
    AT_CONTENT_TYPE, AT_EXTENSIONS, AT_ID, AT_KEY, AT_SUBJECT, AT_TRACEPARENT, CONTENT_TYPE, EXPIRES, EXTENSIONS,
    ID_TEXT, KEY, SUBJECT, TRACEPARENT, Fault, Parts, Slice, clear_id, content_type_name, content_type_number,
    refuse, set_time,
)
from render cimport is_json


cdef enum:
    IN_SPECVERSION = 0
    IN_ID = 1
    IN_SOURCE = 2
    IN_TYPE = 3
    IN_SUBJECT = 4
    IN_TIME = 5
    IN_DATACONTENTTYPE = 6
    IN_TRACEPARENT = 7
    IN_PARTITIONKEY = 8
    IN_EXPIRYTIME = 9
    IN_DATA_BASE64 = 10
    IN_DATASCHEMA = 11
    IN_DATA = 12
    IN_OTHER = 13


cdef struct Event:
    uint32_t present        # 1 << IN_… of what is there and not null
    Slice[13] texts         # by IN_…; for IN_DATA the JSON value
    Slice extensions        # a JSON object; empty if there are none
    uint8_t* arena          # to be freed by the caller
    uint8_t* text_room      # what is left for the payload, which is not longer than its member


cdef inline int known_name(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    if word_at(p, 0, size, "id", 2) and size == 2:
        return IN_ID
    if size == 4:
        return IN_DATA if memcmp(p, "data", 4) == 0 else IN_TYPE if memcmp(p, "type", 4) == 0 else IN_TIME if memcmp(p, "time", 4) == 0 else IN_OTHER
    if size == 6 and memcmp(p, "source", 6) == 0:
        return IN_SOURCE
    if size == 7 and memcmp(p, "subject", 7) == 0:
        return IN_SUBJECT
    if size == 10 and memcmp(p, "expirytime", 10) == 0:
        return IN_EXPIRYTIME
    if size == 10 and memcmp(p, "dataschema", 10) == 0:
        return IN_DATASCHEMA
    if size == 11 and memcmp(p, "specversion", 11) == 0:
        return IN_SPECVERSION
    if size == 11 and memcmp(p, "traceparent", 11) == 0:
        return IN_TRACEPARENT
    if size == 11 and memcmp(p, "data_base64", 11) == 0:
        return IN_DATA_BASE64
    if size == 12 and memcmp(p, "partitionkey", 12) == 0:
        return IN_PARTITIONKEY
    if size == 15 and memcmp(p, "datacontenttype", 15) == 0:
        return IN_DATACONTENTTYPE
    return IN_OTHER


cdef inline Py_ssize_t get_text(const uint8_t* p, Py_ssize_t at, Py_ssize_t stop, Slice* text, uint8_t** room, Fault* fault) noexcept nogil:
    # The text of the string token p[at:stop], in place if nothing is escaped. Without an arena the document has no backslash.
    text.data = p + at + 1
    text.size = stop - at - 2
    if room[0] != NULL and text.size and memchr(text.data, 0x5C, text.size) != NULL:
        text.size = unescape(text.data, text.size, room[0])
        if text.size < 0:
            return refuse(fault, "an unpaired surrogate", at)
        text.data = room[0]
        room[0] += text.size
    return stop


cdef inline Py_ssize_t read_extension(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, int which, Slice name, uint8_t** room, uint8_t** out, Fault* fault) noexcept nogil:
    # Writes `"name":value,`
    cdef Py_ssize_t stop
    cdef Slice text
    cdef int64_t value
    cdef uint8_t* end = out[0]
    end[0] = 0x22
    memcpy(end + 1, name.data, name.size)
    end += name.size + 1
    end[0] = 0x22
    end[1] = 0x3A
    end += 2
    if at < size and p[at] == 0x22:
        stop = skip_string(p, at, size, fault)
        if stop < 0 or get_text(p, at, stop, &text, room, fault) < 0:
            return -1
        if check_text(text.data, text.size, which != IN_DATASCHEMA) != TEXT_GOOD:
            return refuse(fault, "an attribute that is empty, longer than 64 KiB or has a control or noncharacter (spec section 3.1)", at)
        end[0] = 0x22
        end = put_escaped(end + 1, text.data, text.size)
        end[0] = 0x22
        end += 1
    elif which == IN_DATASCHEMA:
        return refuse(fault, "dataschema that is no string", at)
    elif word_at(p, at, size, "true", 4):
        memcpy(end, "true", 4)
        end += 4
        stop = at + 4
    elif word_at(p, at, size, "false", 5):
        memcpy(end, "false", 5)
        end += 5
        stop = at + 5
    else:
        stop = get_integer(p, at, size, &value)
        if stop < 0:
            return refuse(fault, "an attribute that is no string, boolean or 32-bit integer", at)
        if value < 0:
            end[0] = 0x2D
            end += 1
            value = -value
        end += snprintf(<char*>end, 12, "%u", <unsigned int>value)
    end[0] = 0x2C
    out[0] = end + 1
    return stop


cdef inline int open_arena(Event* event, Py_ssize_t size, uint8_t** room, uint8_t** out) except -1:
    # snprintf needs a byte for its NUL
    event.arena = <uint8_t*>malloc(2 * size + 32)
    if event.arena == NULL:
        raise MemoryError
    room[0] = event.arena
    event.extensions.data = event.arena + size
    event.arena[size] = 0x7B
    out[0] = event.arena + size + 1
    return 0


cdef inline int read_event(const uint8_t* p, Py_ssize_t size, Event* event, Fault* fault) except -2:
    # 0, or -1 with a fault.
    cdef set others = None
    cdef bytes other
    cdef uint32_t seen = 0
    cdef Py_ssize_t at, stop, begin
    cdef int which
    cdef Slice name
    cdef uint8_t* room = NULL
    cdef uint8_t* out = NULL
    event.arena = NULL
    event.present = 0
    event.extensions.size = 0
    if memchr(p, 0x5C, size) != NULL:
        open_arena(event, size, &room, &out)
    at = skip_space(p, 0, size)
    if at >= size or p[at] != 0x7B:
        return <int>refuse(fault, "no JSON object", at)
    at = skip_space(p, at + 1, size)
    while True:
        begin = at
        stop = skip_string(p, at, size, fault)
        if stop < 0 or get_text(p, at, stop, &name, &room, fault) < 0:
            return -1
        which = known_name(name.data, name.size)
        if which == IN_OTHER:
            if not good_name(name.data, name.size):
                return <int>refuse(fault, "an attribute name that is not 1 to 100 of a-z and 0-9 (spec section 3.1)", at)
            if others is None:
                others = set()
            other = name.data[:name.size]
            if other in others:
                return <int>refuse(fault, "an attribute that stands twice", at)
            others.add(other)
        elif seen >> which & 1:
            return <int>refuse(fault, "an attribute that stands twice", at)
        else:
            seen |= <uint32_t>1 << which
        at = skip_colon(p, stop, size, fault)
        if at < 0:
            return -1
        if which == IN_DATA:
            stop = skip_value(p, at, size, fault)
            event.texts[which].data = p + at
            event.texts[which].size = stop - at
            event.present |= <uint32_t>1 << which
        elif word_at(p, at, size, "null", 4):
            # JSON format §2.2: null is unset
            stop = at + 4
        elif which == IN_OTHER or which == IN_DATASCHEMA:
            if event.arena == NULL:
                open_arena(event, size, &room, &out)
            stop = read_extension(p, at, size, which, name, &room, &out, fault)
        else:
            if at >= size or p[at] != 0x22:
                return <int>refuse(fault, "an attribute that is no string", begin)
            stop = skip_string(p, at, size, fault)
            if stop >= 0:
                stop = get_text(p, at, stop, &event.texts[which], &room, fault)
            event.present |= <uint32_t>1 << which
        if stop < 0:
            return -1
        at = skip_space(p, stop, size)
        if at < size and p[at] == 0x7D:
            break
        if at >= size or p[at] != 0x2C:
            return <int>refuse(fault, "no comma or closing bracket", at)
        at = skip_space(p, at + 1, size)
    at = skip_space(p, at + 1, size)
    if at != size:
        return <int>refuse(fault, "something behind the event", at)
    if event.arena == NULL and (event.present >> IN_DATA_BASE64 & 1 or event.present >> IN_DATA & 1 and event.texts[IN_DATA].data[0] == 0x22):
        open_arena(event, size, &room, &out)
    event.text_room = room
    if event.arena != NULL and out - event.extensions.data > 1:
        out[-1] = 0x7D      # instead of the last comma
        event.extensions.size = out - event.extensions.data
    return 0


cdef inline int good_text(const Event* event, int which) noexcept nogil:
    # 1, or 0 where it is absent, or -1
    if not event.present >> which & 1:
        return 0
    return 1 if check_text(event.texts[which].data, event.texts[which].size, False) == TEXT_GOOD else -1


cdef inline int event_payload(const Event* event, Parts* parts, Slice* media, Fault* fault) noexcept nogil:
    # JSON format §3.1.2: `data` is JSON unless its type says otherwise and it is a string.
    cdef Slice text
    parts.payload.data = NULL
    parts.payload.size = 0
    if event.present >> IN_DATA & 1:
        if event.present >> IN_DATA_BASE64 & 1:
            return <int>refuse(fault, "data and data_base64, which exclude each other", -1)
        if not media.size:
            media[0] = content_type_name(1)
        parts.payload = event.texts[IN_DATA]
        if parts.payload.data[0] == 0x22 and not is_json(media[0]):
            text = parts.payload
            parts.payload.data = event.text_room
            parts.payload.size = unescape(text.data + 1, text.size - 2, event.text_room)
            if parts.payload.size < 0:
                return <int>refuse(fault, "data with an unpaired surrogate", -1)
    elif event.present >> IN_DATA_BASE64 & 1:
        text = event.texts[IN_DATA_BASE64]
        parts.payload.data = event.text_room
        parts.payload.size = get_base64(text.data, text.size, event.text_room)
        if parts.payload.size < 0:
            return <int>refuse(fault, "data_base64 that is not base64 of RFC 4648 section 4 with padding", -1)
    else:
        media.size = 0
    return 0


cdef inline int event_parts(const Event* event, int64_t now, bint packed, Parts* parts, Slice* header, Fault* fault) noexcept nogil:
    # What the members mean; fills in source and type of the header. 0, or -1 with a fault. Unless `packed`, id and time stay the texts that they are, which gives the same values.
    cdef Slice media
    cdef Slice text = event.texts[IN_SPECVERSION]
    parts.flags = parts.number = 0
    parts.expires = 0
    parts.time_us = now
    if not event.present & 1 or text.size != 3 or memcmp(text.data, "1.0", 3) != 0:
        return <int>refuse(fault, "no specversion '1.0'", -1)
    if good_text(event, IN_ID) != 1:
        return <int>refuse(fault, "no id, or one that CloudEvents forbids (spec section 3.1)", -1)
    if good_text(event, IN_SOURCE) != 1:
        return <int>refuse(fault, "no source, or one that CloudEvents forbids (spec section 3.1)", -1)
    if good_text(event, IN_TYPE) != 1:
        return <int>refuse(fault, "no type, or one that CloudEvents forbids (spec section 3.1)", -1)
    header[0] = event.texts[IN_SOURCE]
    header[1] = event.texts[IN_TYPE]
    text = event.texts[IN_ID]
    if not packed or not parse_uuid7(text.data, text.size, parts.id):
        clear_id(parts.id)
        parts.flags |= ID_TEXT
        parts.texts[AT_ID] = text
    media.data = NULL
    media.size = 0
    if event.present >> IN_DATACONTENTTYPE & 1:
        if good_text(event, IN_DATACONTENTTYPE) < 0:
            return <int>refuse(fault, "a datacontenttype that CloudEvents forbids (spec section 3.1)", -1)
        media = event.texts[IN_DATACONTENTTYPE]
    if event_payload(event, parts, &media, fault) < 0:
        return -1
    if media.size:
        parts.number = content_type_number(media)
        if not parts.number:
            parts.flags |= CONTENT_TYPE
            parts.texts[AT_CONTENT_TYPE] = media
    if event.present >> IN_PARTITIONKEY & 1:
        if good_text(event, IN_PARTITIONKEY) < 0:
            return <int>refuse(fault, "a partitionkey that CloudEvents forbids (spec section 3.1)", -1)
        parts.flags |= KEY
        parts.texts[AT_KEY] = event.texts[IN_PARTITIONKEY]
    if event.present >> IN_TRACEPARENT & 1:
        text = event.texts[IN_TRACEPARENT]
        if not check_traceparent(text.data, text.size):
            return <int>refuse(fault, "a traceparent that is not 1 to 512 printable ASCII characters", -1)
        parts.flags |= TRACEPARENT
        parts.texts[AT_TRACEPARENT] = text
    if event.present >> IN_SUBJECT & 1:
        if good_text(event, IN_SUBJECT) < 0:
            return <int>refuse(fault, "a subject that CloudEvents forbids (spec section 3.1)", -1)
        parts.flags |= SUBJECT
        parts.texts[AT_SUBJECT] = event.texts[IN_SUBJECT]
    if event.present >> IN_TIME & 1 and not set_time(event.texts[IN_TIME], packed, parts):
        return <int>refuse(fault, "a time that is no RFC 3339 timestamp", -1)
    if event.present >> IN_EXPIRYTIME & 1:
        text = event.texts[IN_EXPIRYTIME]
        if text.size > TEXT_MAX or not parse_time(text.data, text.size, &parts.expires):
            return <int>refuse(fault, "an expirytime that is no RFC 3339 timestamp", -1)
        parts.flags |= EXPIRES
        if parts.expires < 1:
            parts.expires = 1
    if event.extensions.size:
        if event.extensions.size > TEXT_MAX:
            return <int>refuse(fault, "extensions of more than 64 KiB", -1)
        parts.flags |= EXTENSIONS
        parts.texts[AT_EXTENSIONS] = event.extensions
    return 0
