# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""JSON payloads through orjson and CloudEvents around them, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/payload_py.py`, which is the contract.

orjson writes and reads. What it is to read is first held against the limits, which a short document cannot break and few brackets neither. What it wrote is looked through for `null` (which alone can stand for NaN) and copied once: into a bytes object of its size, or into an envelope. `use` says who writes, so that without orjson nothing here is called.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen

from attribute_text cimport UUID_ROOM, put_time, put_uuid
from attributes cimport slice_of, take_text
from builtin cimport (
    CR_BORROW, CR_item, CR_object, CR_small_int, Py_None_P, Py_SIZE, Py_TYPE, PyBool_Type, PyDict_Next, PyDict_Type, PyFloat_AS_DOUBLE, PyFloat_Type,
    PyList_Type, PyLong_Type, PyObject_CallOneArg, PyTuple_Type, PyUnicode_Type,
)
from json_shape cimport CR_entries, CR_shape_bound
from json_text cimport (
    CR_WIDE, CR_ctz, CR_stops, DEPTH_MAX, escaped_size, put_escaped, skip_colon, skip_digits, skip_escaped, skip_plain, skip_space,
    skip_value, unescape, word_at,
)
from record cimport DrawNow, Fault, Parts, Slice
from render cimport put

from cloud_runtimes._native import _events, hooks, limits
from cloud_runtimes._native.plain import NONFINITE, has_nonfinite
from cloud_runtimes.errors import InvalidArgumentError, PayloadError

__all__ = ["decode_json", "encode_event", "encode_json", "set_limits", "use"]

cdef extern from *:
    """
    #define CR_HEAD "{\\"specversion\\":\\"1.0\\",\\"id\\":\\""
    #define CR_SOURCE "\\",\\"source\\":\\""
    #define CR_TYPE "\\",\\"type\\":\\""
    #define CR_TIME "\\",\\"time\\":\\""
    #define CR_REST "\\",\\"datacontenttype\\":\\"application/json\\",\\"data\\":"
    #define CR_owned(o) (o)
    /* Loops without branches, which compilers turn into vector instructions. */
    static inline Py_ssize_t CR_nulls(const uint8_t* p, Py_ssize_t size) {
        Py_ssize_t count = 0, at = 0, i;
        while (size - at >= 67) {
            uint8_t some = 0;
            for (i = at; i < at + 64; i++)
                some += (p[i] == 'n') & (p[i + 1] == 'u') & (p[i + 2] == 'l') & (p[i + 3] == 'l');
            count += some;
            at += 64;
        }
        for (; size - at >= 4; at++)
            count += p[at] == 'n' && p[at + 1] == 'u' && p[at + 2] == 'l' && p[at + 3] == 'l';
        return count;
    }
    static inline Py_ssize_t CR_openings(const uint8_t* p, Py_ssize_t size) {
        Py_ssize_t count = 0, at = 0, i;
        while (size - at >= 64) {
            uint8_t some = 0;
            for (i = at; i < at + 64; i++) some += (p[i] | 0x20) == '{';
            count += some;
            at += 64;
        }
        for (; at < size; at++) count += (p[at] | 0x20) == '{';
        return count;
    }
    """
    const char* HEAD "CR_HEAD"
    const char* SOURCE "CR_SOURCE"
    const char* TYPE "CR_TYPE"
    const char* TIME "CR_TIME"
    const char* DATA "CR_REST"
    size_t VECTORCALL_0 "(0 | PY_VECTORCALL_ARGUMENTS_OFFSET)"
    size_t VECTORCALL_3 "(3 | PY_VECTORCALL_ARGUMENTS_OFFSET)"
    Py_ssize_t CR_nulls(const uint8_t*, Py_ssize_t)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    PyObject* PyObject_Vectorcall(PyObject*, PyObject**, size_t, PyObject*)
    object CR_owned(PyObject*)
    Py_ssize_t CR_openings(const uint8_t*, Py_ssize_t)

cdef enum:
    PLANS_MAX = 2048
    FEW_BYTES = 4096  # longer documents mostly have more brackets than they may be deep
    # A longer document that is cut off is refused here: orjson reads into a tree of its own, up to nine times as large, before it refuses.
    CHECK_BYTES = 131072

# ids come from the events kernel, so that those of the process strictly increase
cdef DrawNow draw_now = <DrawNow>PyCapsule_GetPointer(_events._draw_now, "cloud_runtimes._native._events._draw_now")
cdef object dumps = None
cdef object default = None
cdef object long_default = None
cdef object fragment = None
cdef uint64_t fragments = 0    # made so far
cdef object options = None
cdef object explain = None
cdef object loads = None
cdef object long_way = None
cdef Py_ssize_t most_depth = limits.DEFAULT.depth
cdef Py_ssize_t most_items = limits.DEFAULT.items
cdef Py_ssize_t most_bytes = limits.DEFAULT.bytes
cdef Py_ssize_t easy = 2 * most_depth  # a shorter document can break no limit


def use(dumps_, default_, options_, explain_, loads_):
    """Say who writes JSON (orjson's `dumps`), with which arguments, and what explains its errors; and who reads it."""
    global dumps, default, long_default, options, explain, loads, fragment
    dumps, default, options, explain, loads = dumps_, default_, options_, explain_, loads_
    long_default = default_
    if CR_BORROW:
        from orjson import Fragment
        default, fragment = as_fragment, Fragment


def as_fragment(value):
    """Return for `dumps` what stands for a value: its JSON, if its class is known."""
    global fragments
    cdef Slice text
    cdef object out = short_way(value, &text)
    if out is None:
        return long_default(value)
    fragments += 1
    return fragment(out)


def set_limits(Py_ssize_t depth, Py_ssize_t items, Py_ssize_t size):
    """Set what `cloud_runtimes.codec.limits` holds."""
    global most_depth, most_items, most_bytes, easy
    if not 1 <= depth <= limits.MAX_DEPTH:
        raise ValueError(f"depth={depth}")
    most_depth, most_items, most_bytes = depth, items, size
    easy = min(2 * depth, 2 * items, size)


cdef int check_shape(const uint8_t* text, Py_ssize_t size) except -1:
    cdef bint many = size > 2 * most_items
    cdef Py_ssize_t items = many
    cdef int shape
    if size > most_bytes:
        limits.refuse("JSON", "bytes", most_bytes)
    if not many and size <= FEW_BYTES and CR_openings(text, size) <= most_depth:
        return 0
    shape = CR_shape_bound(text, size, most_depth, &items)
    if shape == 1:
        limits.refuse("JSON", "depth", most_depth)
    if many and items > most_items and CR_entries(text, size) > most_items:
        limits.refuse("JSON", "items", most_items)
    if shape and size > CHECK_BYTES:
        raise PayloadError("not JSON: a bracket or text that is not closed, or a bracket that is not opened")
    return 0


cdef int check_other(object data) except -1:
    # What has neither bytes nor UTF-8 is left to `loads`.
    cdef Py_buffer view
    cdef Py_ssize_t size = 0
    cdef const char* text
    if isinstance(data, str):
        try:
            text = PyUnicode_AsUTF8AndSize(data, &size)
        except UnicodeEncodeError:
            return 0
        return check_shape(<const uint8_t*>text, size) if size > easy else 0
    if not PyObject_CheckBuffer(data):
        return 0
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (BufferError, ValueError):
        return 0
    try:
        return check_shape(<const uint8_t*>view.buf, view.len) if view.len > easy else 0
    finally:
        PyBuffer_Release(&view)


cdef object MISS = object()
cdef dict plans = {}    # type → `Node`, or None for what goes the long way

include "typed_read.pxi"
include "typed_convert.pxi"
include "typed_write.pxi"


cdef object plan_of(object type):
    try:
        plan = plans.get(type, MISS)
    except TypeError:  # cannot be hashed
        return None
    if plan is MISS:
        if len(plans) >= PLANS_MAX:
            plans.clear()
        plan = plans[type] = hooks.plan(type)
    elif plan is not None and (<Node>plan).annotation is not None and (<Node>plan).annotation is not type:
        plan = plans[type] = hooks.plan(type)  # equal to the one that is known, and not the same
    return plan


cdef object refuse_json():
    # Called with the error of `loads` set.
    try:
        return CR_owned(NULL)
    except ValueError as error:
        raise PayloadError(f"not JSON: {error}") from error


cdef object loaded_as(object data, object type):
    # What `loads` makes of checked bytes or text, as a value of a type.
    cdef PyObject* loaded = PyObject_CallOneArg(CR_object(loads), CR_object(data))
    cdef object value
    if loaded == NULL:
        return refuse_json()
    value = CR_owned(loaded)
    return value if type is None else hooks.convert(value, type)


cdef object read_json(bytes data, object type):
    cdef object value
    if PyBytes_GET_SIZE(data) > easy:
        check_shape(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    if type is not None:
        plan = plan_of(type)
        if plan is not None:
            value = read_into(<Node>plan, data)
            if value is not MISS:
                return value
    return loaded_as(data, type)


ctypedef object (*ReadJson)(bytes, object)

cdef ReadJson lent_reader = read_json
# what this kernel lends to the kernel of events
_read_json = PyCapsule_New(<void*>lent_reader, "cloud_runtimes._native._payload._read_json", NULL)


def decode_json(data, *, type=None):
    """Decode one JSON document (RFC 8259); see `cloud_runtimes.codec.json.decode`."""
    if PyBytes_CheckExact(data):
        return read_json(data, type)
    check_other(data)
    value = loaded_as(data, None)
    return value if type is None else converted_as(value, type)


cdef int nonfinite(PyObject* value, Py_ssize_t* nulls) noexcept:
    # As `has_nonfinite`, of exact builtins: 1 or 0, or -1 where there is anything else. No Python code runs, so references are borrowed. Once all of the `nulls` that were written are found to be None, none is left that could be NaN.
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef PyObject* item = NULL
    cdef PyObject* key = NULL
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t i
    cdef int status = 0
    if kind == &PyUnicode_Type or kind == &PyLong_Type or kind == &PyBool_Type:
        return 0
    if value == Py_None_P:
        nulls[0] -= 1
        return 0
    if kind == &PyFloat_Type:
        return not isfinite(PyFloat_AS_DOUBLE(value))
    if kind == &PyDict_Type:
        while status == 0 and nulls[0] > 0 and PyDict_Next(value, &position, &key, &item):
            if Py_TYPE(item) != &PyUnicode_Type:
                status = nonfinite(item, nulls)
        return status
    if kind == &PyList_Type or kind == &PyTuple_Type:
        for i in range(Py_SIZE(value)):
            if status or nulls[0] <= 0:
                return status
            status = nonfinite(CR_item(value, i), nulls)
        return status
    return -1


cdef object refuse(object value):
    # Called with the error of `dumps` set.
    try:
        return CR_owned(NULL)
    except TypeError as error:
        reason = explain(value, error)
        raise reason from reason.__cause__


cdef int check_nulls(object value, Py_ssize_t nulls) except -1:
    cdef int status = nonfinite(CR_object(value), &nulls) if CR_BORROW else -1
    if status < 0:
        status = has_nonfinite(value)
    if status:
        raise explain(value, ValueError(NONFINITE))
    return 0


cdef inline bint is_planned(PyObject* value) noexcept:
    # Whether a value may be one that is written without orjson.
    return CR_BORROW and Py_TYPE(value) != &PyDict_Type and Py_TYPE(value) != &PyList_Type


cdef inline object written(object value, Slice* text):
    cdef object out
    if is_planned(CR_object(value)):
        out = short_way(value, text)
        if out is not None:
            return out
    return written_by_orjson(value, text)


cdef inline object written_by_orjson(object value, Slice* text):
    # What orjson writes, checked; `text` borrows from it. Called by hand: a `try` here would cost every event.
    cdef PyObject* arguments[4]
    cdef PyObject* raw
    cdef Py_ssize_t nulls
    cdef Py_ssize_t items = 0
    cdef uint64_t before = fragments
    arguments[1] = CR_object(value)
    arguments[2] = CR_object(default)
    arguments[3] = CR_object(options)
    raw = PyObject_Vectorcall(CR_object(dumps), &arguments[1], VECTORCALL_3, NULL)
    if raw == NULL:
        return refuse(value)
    out = CR_owned(raw)
    if fragments != before and CR_shape_bound(<const uint8_t*>PyBytes_AS_STRING(out), PyBytes_GET_SIZE(out), DEEPEST_OUT, &items) == 1:
        # orjson has not counted the containers of a fragment
        arguments[2] = CR_object(long_default)
        raw = PyObject_Vectorcall(CR_object(dumps), &arguments[1], VECTORCALL_3, NULL)
        if raw == NULL:
            return refuse(value)
        out = CR_owned(raw)
    text.data = <const uint8_t*>PyBytes_AS_STRING(out)
    text.size = PyBytes_GET_SIZE(out)
    nulls = CR_nulls(text.data, text.size)
    if nulls:
        check_nulls(value, nulls)
    return out


ctypedef object (*Written)(object, Slice*)

cdef object lend(object value, Slice* text):
    return written(value, text)

cdef Written lent = lend
# what this kernel lends to the batch kernel
_written = PyCapsule_New(<void*>lent, "cloud_runtimes._native._payload._written", NULL)


def encode_json(value):
    """Encode a value as JSON (UTF-8, no spaces).

    Besides the JSON types: dataclasses, attrs classes and pydantic models (all fields, by alias), ``msgspec.Struct``, enum members (their value), datetime, date and time (ISO 8601), UUID and Decimal (their str), tuples, sets (lists). Keys are str. Containers nest up to 254 deep.

    Raises:
        PayloadError: NaN, an infinity, an int beyond 64 bits, a lone surrogate, a key that is not a str, bytes, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    cdef Slice text
    cdef object out
    if is_planned(CR_object(value)):
        out = short_way(value, &text)
        if out is not None:
            return out
    out = written_by_orjson(value, &text)
    # kept, orjson's own would hold the 4 KB that it was written into
    return PyBytes_FromStringAndSize(<const char*>text.data, text.size)


def encode_event(data, source, type, *, id=None, time=None, subject=None, content_type=None, extensions=None):
    """Encode an event as structured JSON (media type ``application/cloudevents+json``).

    Args:
        data: the payload: bytes-like, text or what JSON can hold; `None` for no data.
        source, type: CloudEvents attributes, not empty.
        id: `None` draws a UUIDv7.
        time: RFC 3339 text, kept as it is, or a datetime with a time zone; `None` is now.
        subject: CloudEvents ``subject``.
        content_type: media type of `data`; `None` goes by its Python type.
        extensions: other attributes: names of ``a-z0-9``; strings, 32-bit integers, booleans. ``dataschema`` and ``traceparent`` go here too.

    Raises:
        InvalidArgumentError: an attribute breaks a rule of CloudEvents 1.0.2 §3.1.
        PayloadError: `data` cannot be encoded.
    """
    cdef Slice source_text, type_text
    cdef uint8_t[27] time_text
    cdef uint8_t* p
    cdef Py_ssize_t size, time_size
    cdef Parts parts
    cdef bytes out
    global long_way
    if (
        dumps is None or id is not None or time is not None or subject is not None or content_type is not None
        or extensions is not None or Py_TYPE(CR_object(data)) != &PyDict_Type
    ):
        if long_way is None:
            from cloud_runtimes._native.payload_py import encode_event_with
            from functools import partial
            long_way = partial(encode_event_with, _events, hooks.encode_payload)
        return long_way(data, source, type, id, time, subject, content_type, extensions)
    payload = written(data, &parts.payload)
    if CR_openings(parts.payload.data, parts.payload.size) > DEPTH_MAX:
        # maybe too deep to be copied in as it is
        return _events.render_cloudevent(_events.encode_record(payload, "application/json"), source, type)
    draw_now(&parts.time_us, parts.id)
    take_text(InvalidArgumentError, "source", source, False, &source_text)
    take_text(InvalidArgumentError, "type", type, False, &type_text)
    # what `render` would write, with what is known to need no check or escape
    time_size = put_time(time_text, parts.time_us)
    size = strlen(HEAD) + UUID_ROOM + strlen(SOURCE) + escaped_size(source_text.data, source_text.size)
    size += strlen(TYPE) + escaped_size(type_text.data, type_text.size) + strlen(TIME) + time_size + strlen(DATA)
    out = PyBytes_FromStringAndSize(NULL, size + parts.payload.size + 1)
    p = put(<uint8_t*>PyBytes_AS_STRING(out), HEAD)
    put_uuid(p, parts.id)
    p = put_escaped(put(p + UUID_ROOM, SOURCE), source_text.data, source_text.size)
    p = put_escaped(put(p, TYPE), type_text.data, type_text.size)
    p = put(p, TIME)
    memcpy(p, time_text, time_size)
    p = put(p + time_size, DATA)
    memcpy(p, parts.payload.data, parts.payload.size)
    p[parts.payload.size] = 0x7D
    return out
