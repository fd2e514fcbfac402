# From slices to Python objects, header only; the class of the error is an argument, because a header imports nothing.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr

from json_text cimport get_integer, skip_string, unescape, utf8_valid, word_at
from record cimport Fault, Slice, check_record


cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)


cdef inline object refused(object error, str where, const Fault* fault):
    place = f" at byte {fault.at}" if fault.at >= 0 else ""
    return error(f"{where}: {fault.what.decode()}{place}")


cdef inline int check_single(object error, bytes record) except -1:
    cdef Fault fault
    cdef Py_ssize_t size = PyBytes_GET_SIZE(record)
    cdef Py_ssize_t stop = check_record(<const uint8_t*>PyBytes_AS_STRING(record), 0, size, &fault)
    if stop < 0:
        raise refused(error, "record", &fault)
    if stop != size:
        raise error("record: bytes behind its end")
    return 0


cdef inline str text_of(object error, Slice text, str name):
    try:
        return PyUnicode_DecodeUTF8(<const char*>text.data, text.size, NULL)
    except UnicodeDecodeError:
        raise error(f"record: {name} is not UTF-8") from None


cdef inline str string_at(object error, Slice text, Py_ssize_t at, Py_ssize_t stop, str what):
    # The text of a JSON string.
    cdef bytes room
    cdef Py_ssize_t size = stop - at - 2
    if size == 0 or memchr(text.data + at + 1, 0x5C, size) == NULL:
        return PyUnicode_DecodeUTF8(<const char*>text.data + at + 1, size, NULL)
    room = PyBytes_FromStringAndSize(NULL, size)
    size = unescape(text.data + at + 1, size, <uint8_t*>PyBytes_AS_STRING(room))
    if size < 0:
        raise error(f"{what} has an unpaired surrogate at byte {at}")
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(room), size, NULL)


cdef inline dict read_object(object error, Slice text, str what, bint strings):
    # A stored JSON object of strings (and, unless `strings`, of booleans and 32-bit integers), written without spaces.
    cdef dict result = {}
    cdef const uint8_t* p = text.data
    cdef Fault fault
    cdef Py_ssize_t at = 1
    cdef Py_ssize_t end = text.size - 1
    cdef Py_ssize_t stop
    cdef int64_t number
    if utf8_valid(p, text.size) != text.size or end < 2 or p[0] != 0x7B or p[end] != 0x7D:
        raise error(f"{what}: no JSON object in UTF-8")
    while True:
        stop = skip_string(p, at, text.size, &fault)
        if stop < 0:
            raise refused(error, what, &fault)
        name = string_at(error, text, at, stop, what)
        if p[stop] != 0x3A:
            raise error(f"{what}: no colon at byte {stop}")
        at = stop + 1
        if p[at] == 0x22:
            stop = skip_string(p, at, text.size, &fault)
            if stop < 0:
                raise refused(error, what, &fault)
            result[name] = string_at(error, text, at, stop, what)
        elif not strings and word_at(p, at, text.size, "true", 4):
            result[name] = True
            stop = at + 4
        elif not strings and word_at(p, at, text.size, "false", 5):
            result[name] = False
            stop = at + 5
        else:
            stop = -1 if strings else get_integer(p, at, text.size, &number)
            if stop < 0:
                raise error(f"{what}: a value that is no string, boolean or 32-bit integer at byte {at}")
            result[name] = number
        if stop >= end:
            return result
        if p[stop] != 0x2C:
            raise error(f"{what}: no comma at byte {stop}")
        at = stop + 1
