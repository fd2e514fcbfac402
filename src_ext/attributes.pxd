# From Python arguments to the slices of a record, header only; shared by the events and batch kernels.
#
# This is the part of encoding that may run Python code and fail. A slice borrows from its object, which the caller keeps alive. The classes of the errors are arguments, because a header imports nothing.

from cpython.buffer cimport PyBUF_SIMPLE, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from attribute_text cimport TEXT_EMPTY, TEXT_GOOD, TEXT_LONG, TEXT_MAX, check_text, check_traceparent
from cloudevent cimport good_name
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


cdef inline bytes escaped(Slice text):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, escaped_size(text.data, text.size))
    put_escaped(<uint8_t*>PyBytes_AS_STRING(out), text.data, text.size)
    return out


cdef inline tuple extension_json(object error, object mapping, object extensions):
    # The JSON object of extension attributes, and the traceparent found among them (spec §3.1.1). `mapping` is the class Mapping.
    cdef Slice text
    cdef list members = []
    cdef bytes joined, name_bytes, value_json
    traceparent = None
    if not isinstance(extensions, mapping):
        raise error(f"extensions must be a mapping, not {type(extensions).__name__}")
    for name, value in extensions.items():
        if isinstance(name, str) and name.isascii():
            name_bytes = name.encode()
        else:
            name_bytes = b""
        text = slice_of(name_bytes)
        if not good_name(text.data, text.size):
            raise error(f"extension {name!r}: a name is 1 to 100 of a-z and 0-9")
        if name == "traceparent":
            traceparent = value
            continue
        if name in ("id", "source", "specversion", "type", "datacontenttype", "subject", "time", "data", "partitionkey", "expirytime"):
            raise error(f"extension {name!r}: the name is an attribute of its own; give it as one")
        if isinstance(value, bool):
            value_json = b"true" if value else b"false"
        elif isinstance(value, int):
            if not -0x80000000 <= value <= 0x7FFFFFFF:
                raise error(f"extension {name!r}: an integer has 32 bits (CloudEvents §3.1); give a string")
            value_json = b"%d" % value
        else:
            take_text(error, f"extension {name!r}", value, name != "dataschema", &text)
            value_json = b'"%b"' % escaped(text)
        members.append(b'"%b":%b' % (name_bytes, value_json))
    joined = b"{%b}" % b",".join(members)
    if len(joined) > TEXT_MAX:
        raise error(f"extensions have {len(joined)} bytes of JSON; at most {TEXT_MAX} are allowed")
    return (joined if members else None), traceparent


cdef inline bytes metadata_json(object error, object mapping, object metadata):
    cdef list members = []
    cdef bytes joined, name_bytes, value_bytes
    if not isinstance(metadata, mapping):
        raise error(f"metadata must be a mapping, not {type(metadata).__name__}")
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise error(f"metadata {name!r} must be a string under a string")
        try:
            name_bytes = name.encode()
            value_bytes = value.encode()
        except UnicodeEncodeError:
            raise error(f"metadata {name!r} has an unpaired surrogate") from None
        members.append(b'"%b":"%b"' % (escaped(slice_of(name_bytes)), escaped(slice_of(value_bytes))))
    joined = b"{%b}" % b",".join(members)
    if len(joined) > TEXT_MAX:
        raise error(f"metadata has {len(joined)} bytes of JSON; at most {TEXT_MAX} are allowed")
    return joined if members else None
