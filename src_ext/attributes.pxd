# From Python arguments to the slices of a record, header only; shared by the events and batch kernels.
#
# This is the part of encoding that may run Python code and fail. A slice borrows from its object, which the caller keeps alive. The classes of the errors are arguments, because a header imports nothing.

from cpython.buffer cimport PyBUF_SIMPLE, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from attribute_text cimport TEXT_EMPTY, TEXT_GOOD, TEXT_LONG, TEXT_MAX, check_text, check_traceparent, good_name
from json_text cimport escaped_size, put_escaped
from record cimport Slice


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL


cdef inline int take_text(object error, str name, object value, bint empty, Slice* text) except -1:
    # An attribute of CloudEvents type String (spec §3.1).
    cdef int code
    if not isinstance(value, str):
        raise error(f"{name} must be a string, not {type(value).__name__}")
    try:
        text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &text.size)
    except UnicodeEncodeError:
        raise error(f"{name} has an unpaired surrogate; give text that UTF-8 can hold") from None
    code = check_text(text.data, text.size, empty)
    if code == TEXT_GOOD:
        return 0
    if code == TEXT_EMPTY:
        raise error(f"{name} must not be empty; leave it out instead")
    if code == TEXT_LONG:
        raise error(f"{name} has {text.size} bytes; at most {TEXT_MAX} are allowed: put long values into the payload")
    raise error(f"{name} has a control or noncharacter, which CloudEvents forbids (spec §3.1); remove it")


cdef inline int take_traceparent(object error, object value, Slice* text) except -1:
    text.size = -1
    if isinstance(value, str):
        try:
            text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &text.size)
        except UnicodeEncodeError:
            text.size = -1
    if not check_traceparent(text.data, text.size):
        raise error("traceparent must be 1 to 512 printable ASCII characters, as W3C Trace Context writes it")
    return 0


cdef inline int take_payload(object error, object payload, Py_buffer* view, Slice* text) except -1:
    # 1 where `view` has to be released; bytes are borrowed as they are.
    if type(payload) is bytes:
        text.data = <const uint8_t*>PyBytes_AS_STRING(payload)
        text.size = PyBytes_GET_SIZE(payload)
        return 0
    try:
        PyObject_GetBuffer(payload, view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        raise error(f"payload must be bytes-like and contiguous, not {type(payload).__name__}; encode it first") from None
    text.data = <const uint8_t*>view.buf
    text.size = view.len
    return 1


cdef inline Slice slice_of(bytes text):
    # Borrows: the caller holds `text` in a variable for as long.
    cdef Slice result
    result.data = <const uint8_t*>PyBytes_AS_STRING(text)
    result.size = PyBytes_GET_SIZE(text)
    return result


cdef inline bint borrow_text(object value, bint empty, Slice* text) except -1:
    # Whether it is a sound String; what is not is left to a way that tells why.
    if type(value) is not str:
        return False
    try:
        text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &text.size)
    except UnicodeEncodeError:
        return False
    return check_text(text.data, text.size, empty) == TEXT_GOOD


cdef inline bytes plain_extensions(dict given, frozenset others):
    # The JSON object of extensions that are text, empty without any; `None` where one is not, or is among `others`. No other thread has the dict.
    cdef Slice name, value
    cdef Py_ssize_t size = 1
    cdef uint8_t* out
    cdef bytes result
    if not given:
        return b""
    for key, item in given.items():
        if not borrow_text(key, False, &name) or not good_name(name.data, name.size) or key in others or not borrow_text(item, True, &value):
            return None
        size += name.size + escaped_size(value.data, value.size) + 6
    if size > TEXT_MAX:
        return None
    result = PyBytes_FromStringAndSize(NULL, size)
    out = <uint8_t*>PyBytes_AS_STRING(result)
    for key, item in given.items():
        borrow_text(key, False, &name)
        borrow_text(item, True, &value)
        out[0] = c","
        out[1] = c'"'
        memcpy(out + 2, name.data, name.size)
        out += 2 + name.size
        memcpy(out, '":"', 3)
        out = put_escaped(out + 3, value.data, value.size)
        out[0] = c'"'
        out += 1
    out[0] = c"}"
    (<uint8_t*>PyBytes_AS_STRING(result))[0] = c"{"
    return result
