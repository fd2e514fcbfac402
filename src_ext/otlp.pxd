# OTLP's protobuf for values and attributes, header only; what it writes equals `cloud_runtimes/_native/otlp_py.py`.
#
# A field with a length is written behind one byte kept free for it (`begin`); `finish` writes the length there, and moves the content where it needs more bytes. So everything is one pass, and `writer_rollback` to where a field began takes it back.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from builtin cimport CR_small_int
from writer cimport Writer, copy_short, put_bytes, put_u8, write_bytes, writer_reserve, writer_rollback


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    bint PyUnicode_CheckExact(object)
    bint PyUnicode_Check(object)
    bint PyUnicode_IS_COMPACT_ASCII(object)
    void* PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    bint PyLong_Check(object)
    int64_t PyLong_AsLongLongAndOverflow(object, int*) except? -1
    bint PyFloat_Check(object)
    double PyFloat_AS_DOUBLE(object)
    bytes PyUnicode_AsEncodedString(object, const char*, const char*)
    object PyUnicode_Substring(object, Py_ssize_t, Py_ssize_t)


cdef enum:
    MAX_DEPTH = 16
    SHORT = 112     # characters of a key and its text value, or of the key: all lengths take one byte each then


cdef struct Limits:
    Py_ssize_t attributes
    Py_ssize_t value_length
    Py_ssize_t events
    Py_ssize_t links


cdef inline void put_varint(Writer* w, uint64_t value) noexcept nogil:
    # up to ten bytes
    while value > 0x7F:
        put_u8(w, <uint8_t>(value & 0x7F | 0x80))
        value >>= 7
    put_u8(w, <uint8_t>value)


cdef inline void put_little(uint8_t* at, uint64_t value) noexcept nogil:
    # by a pointer of its own: the compiler makes one store of it
    at[0] = <uint8_t>value
    at[1] = <uint8_t>(value >> 8)
    at[2] = <uint8_t>(value >> 16)
    at[3] = <uint8_t>(value >> 24)
    at[4] = <uint8_t>(value >> 32)
    at[5] = <uint8_t>(value >> 40)
    at[6] = <uint8_t>(value >> 48)
    at[7] = <uint8_t>(value >> 56)


cdef inline void put_fixed64(Writer* w, uint64_t value) noexcept nogil:
    put_little(<uint8_t*>w.data + w.length, value)
    w.length += 8


cdef inline void put_fixed32(Writer* w, uint32_t value) noexcept nogil:
    cdef uint8_t* at = <uint8_t*>w.data + w.length
    at[0] = <uint8_t>value
    at[1] = <uint8_t>(value >> 8)
    at[2] = <uint8_t>(value >> 16)
    at[3] = <uint8_t>(value >> 24)
    w.length += 4


cdef inline int fixed64_field(Writer* w, uint8_t tag, uint64_t value) except -1:
    writer_reserve(w, 9)
    put_u8(w, tag)
    put_fixed64(w, value)
    return 0


cdef inline int varint_field(Writer* w, uint8_t tag, uint64_t value) except -1:
    writer_reserve(w, 11)
    put_u8(w, tag)
    put_varint(w, value)
    return 0


cdef inline int data_field(Writer* w, uint8_t tag, const void* data, Py_ssize_t size) except -1:
    cdef uint8_t* at
    writer_reserve(w, size + 11)
    at = <uint8_t*>w.data + w.length
    at[0] = tag
    if size < 0x80:
        at[1] = <uint8_t>size
        w.length = <char*>copy_short(at + 2, <const uint8_t*>data, size) - w.data
        return 0
    w.length += 1
    put_varint(w, <uint64_t>size)
    put_bytes(w, <const char*>data, size)
    return 0


cdef inline int bytes_field(Writer* w, uint8_t tag, bytes data) except -1:
    return data_field(w, tag, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline Py_ssize_t begin(Writer* w, uint8_t tag) except -1:
    writer_reserve(w, 2)
    put_u8(w, tag)
    put_u8(w, 0)
    return w.length


cdef inline int finish(Writer* w, Py_ssize_t start) except -1:
    cdef Py_ssize_t size = w.length - start
    cdef Py_ssize_t more = 0
    cdef uint64_t rest = <uint64_t>size >> 7
    if rest == 0:
        w.data[start - 1] = <char>size
        return 0
    while rest:
        more += 1
        rest >>= 7
    writer_reserve(w, more)
    memmove(w.data + start + more, w.data + start, size)
    w.length = start - 1
    put_varint(w, <uint64_t>size)
    w.length = start + more + size
    return 0


cdef inline int text_field(Writer* w, uint8_t tag, str value) except -1:
    cdef Py_ssize_t size
    cdef const char* data
    if PyUnicode_IS_COMPACT_ASCII(value):
        return data_field(w, tag, PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value))
    # UTF-8 is not kept in the string: attributes would hold twice their size; a lone surrogate is written as its escape
    return bytes_field(w, tag, PyUnicode_AsEncodedString(value, "utf-8", "backslashreplace"))


cdef inline int cut_text_field(Writer* w, uint8_t tag, str value, Py_ssize_t limit) except -1:
    if limit >= 0 and PyUnicode_GET_LENGTH(value) > limit:
        return text_field(w, tag, PyUnicode_Substring(value, 0, limit))
    return text_field(w, tag, value)


cdef inline int put_value(Writer* w, object value, Py_ssize_t limit, int depth) except -1:
    # The fields of an AnyValue.
    cdef int overflow
    cdef int64_t number
    cdef double real
    cdef uint64_t bits
    cdef Py_ssize_t start, item, index
    if PyUnicode_Check(value):
        return cut_text_field(w, 0x0A, <str>value, limit)
    if value is True or value is False:
        return varint_field(w, 0x10, value is True)
    if PyLong_Check(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow:
            return varint_field(w, 0x18, <uint64_t>number)
    elif PyFloat_Check(value):
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        return fixed64_field(w, 0x21, bits)
    elif isinstance(value, (bytes, bytearray)):
        return bytes_field(w, 0x3A, bytes(value[:limit] if limit >= 0 else value))
    elif value is None:
        return 0
    elif isinstance(value, (list, tuple, dict)):
        if depth >= MAX_DEPTH:
            return cut_text_field(w, 0x0A, "<nested too deeply>", limit)
        if isinstance(value, dict):
            start = begin(w, 0x32)
            for key, each in list(value.items()):
                put_key_value(w, 0x0A, key if isinstance(key, str) else str(key), each, limit, depth + 1)
            return finish(w, start)
        start = begin(w, 0x2A)
        for each in value:
            item = begin(w, 0x0A)
            put_value(w, each, limit, depth + 1)
            finish(w, item)
        return finish(w, start)
    return cut_text_field(w, 0x0A, str(value), limit)


cdef inline bint put_short(Writer* w, uint8_t tag, str key, object value, Py_ssize_t limit) except -1:
    # A key and value of which each length takes one byte, in one go: nearly every attribute. Returns whether it was one.
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(key)
    cdef Py_ssize_t more = 0
    cdef uint8_t* start
    cdef uint8_t* inner
    cdef uint8_t* at
    cdef long long number
    cdef uint64_t rest
    cdef double real
    if not PyUnicode_IS_COMPACT_ASCII(key) or size > SHORT:
        return False
    if type(value) is str:
        more = PyUnicode_GET_LENGTH(value)
        if not PyUnicode_IS_COMPACT_ASCII(value) or size + more > SHORT or (limit >= 0 and more > limit):
            return False
    writer_reserve(w, size + more + 17)
    start = <uint8_t*>w.data + w.length
    start[0] = tag
    start[2] = 0x0A
    start[3] = <uint8_t>size
    inner = copy_short(start + 4, <const uint8_t*>PyUnicode_DATA(key), size)
    inner[0] = 0x12
    at = inner + 3
    if type(value) is str:
        inner[2] = 0x0A
        at[0] = <uint8_t>more
        at = copy_short(at + 1, <const uint8_t*>PyUnicode_DATA(value), more)
    elif type(value) is bool:
        inner[2] = 0x10
        at[0] = value is True
        at += 1
    elif type(value) is int:
        if not CR_small_int(<PyObject*>value, &number):
            return False
        inner[2] = 0x18
        rest = <uint64_t>number
        while rest > 0x7F:
            at[0] = <uint8_t>(rest & 0x7F | 0x80)
            at += 1
            rest >>= 7
        at[0] = <uint8_t>rest
        at += 1
    elif type(value) is float:
        inner[2] = 0x21
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&rest, &real, 8)
        put_little(at, rest)
        at += 8
    else:
        return False
    start[1] = <uint8_t>(at - start - 2)
    inner[1] = <uint8_t>(at - inner - 2)
    w.length = <char*>at - w.data
    return True


cdef inline int put_key_value(Writer* w, uint8_t tag, str key, object value, Py_ssize_t limit, int depth) except -1:
    cdef Py_ssize_t start, inner
    if put_short(w, tag, key, value, limit):
        return 0
    start = begin(w, tag)
    text_field(w, 0x0A, key)
    inner = begin(w, 0x12)
    put_value(w, value, limit, depth)
    finish(w, inner)
    return finish(w, start)


cdef inline bint is_simple(object value) noexcept:
    # Whether writing it runs no Python code.
    return type(value) is str or type(value) is int or type(value) is float or type(value) is bool


cdef inline int put_attribute(
    Writer* w, uint8_t tag, object key, object value, const Limits* limits, Py_ssize_t* written, Py_ssize_t* dropped
) except -1:
    cdef Py_ssize_t savepoint
    if value is None:
        return 0
    if written[0] >= limits.attributes or not PyUnicode_Check(key) or PyUnicode_GET_LENGTH(key) == 0:
        dropped[0] += 1
        return 0
    savepoint = w.length
    try:
        put_key_value(w, tag, key, value, limits.value_length, 0)
        written[0] += 1
    except Exception:
        writer_rollback(w, savepoint)
        dropped[0] += 1
    return 0


cdef inline Py_ssize_t put_attributes(Writer* w, uint8_t tag, dict attributes, const Limits* limits) except -1:
    # How many were dropped.
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t written = 0
    cdef Py_ssize_t dropped = 0
    cdef Py_ssize_t savepoint = w.length
    cdef bint simple = True
    if attributes is None or not attributes:
        return 0
    try:
        while PyDict_Next(attributes, &at, &key, &value):
            if <object>value is None:
                continue
            if not is_simple(<object>value):
                simple = False
                break
            if written >= limits.attributes or not PyUnicode_Check(<object>key) or PyUnicode_GET_LENGTH(<object>key) == 0:
                dropped += 1
            else:
                put_key_value(w, tag, <str><object>key, <object>value, limits.value_length, 0)
                written += 1
    except Exception:  # an integer of too many digits
        simple = False
    if not simple:
        # begin again, over a copy: writing the values may run Python code, which may change the dict
        writer_rollback(w, savepoint)
        written = dropped = 0
        for each, its in list(attributes.items()):
            put_attribute(w, tag, each, its, limits, &written, &dropped)
    return dropped
