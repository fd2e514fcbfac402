# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""MessagePack, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/msgpack_py.py`, which is the contract.

Encoding writes into a buffer on the stack (`msgpack_builtin.pxd`) and copies the result once. Python converts what is no builtin, and says what is wrong with a value that cannot be written (`msgpack_plain.py`, shared with the twin). Decoding reads every head in one place (`read_head`), which has checked that what the head promises is there; nothing is allocated from a declared length.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from builtin cimport CR_object
from json_text cimport utf8_valid
from msgpack_builtin cimport CR_layout, CR_layouts, CR_leaf, CR_packed, short_items
from msgpack_wire cimport (
    ARRAY, BIN, EXTENSION, FALSE, FLOAT, MAP, NIL, SIGNED, STR, TRUE, UNSIGNED, Head, Reader, malformed, read_head,
)
from writer cimport Writer, writer_init, writer_release

from cloud_runtimes._native import _payload, hooks, limits
from cloud_runtimes._native.msgpack_plain import converted, leaf, moment
from cloud_runtimes._native.plain import Packed
from cloud_runtimes.errors import PayloadError

__all__ = ["decode", "encode", "set_limits"]

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define CR_KEY_CACHE 0
    #else
    #define CR_KEY_CACHE 1
    #endif
    #define CR_ASCII_DATA(o) ((const char*)PyUnicode_DATA(o))
    /* A str of ASCII, made without the decoder's search for its kind; NULL without an error where it is none. */
    static inline PyObject* CR_ascii(const char* at, Py_ssize_t size) {
        uint64_t word, seen = 0;
        Py_ssize_t i = 0;
        PyObject* text;
        if (size < 2) return NULL;
        if (size >= 8) {
            for (; i < size - 8; i += 8) {
                memcpy(&word, at + i, 8);
                seen |= word;
            }
            memcpy(&word, at + size - 8, 8);
            seen |= word;
        } else {
            for (; i < size; i++) seen |= (uint64_t)(unsigned char)at[i];
        }
        if (seen & 0x8080808080808080ULL) return NULL;
        text = PyUnicode_New(size, 127);
        if (text == NULL) {
            PyErr_Clear();
            return NULL;
        }
        memcpy(PyUnicode_DATA(text), at, (size_t)size);
        return text;
    }
    """
    PyObject* CR_ascii(const char*, Py_ssize_t)
    const bint CR_KEY_CACHE
    const char* CR_ASCII_DATA_P "CR_ASCII_DATA"(PyObject*)
    bint PyUnicode_IS_COMPACT_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH_P "PyUnicode_GET_LENGTH"(PyObject*)
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    Py_hash_t PyObject_Hash(object) except -1
    void Py_XDECREF(PyObject*)
    bint PyErr_ExceptionMatches(object)
    void PyErr_Clear()
    void Py_INCREF_P "Py_INCREF"(PyObject*)

cdef enum:
    DEEPEST = 512          # what the limit of decoding can be (`codec.limits`)
    STACK_BYTES = 1024
    FIRST_ITEMS = 256      # what a decoded list is sized for before its items have been seen
    VERIFY_BYTES = 8192    # longer input is checked whole before the first object is made
    CACHED_KEYS = 1024     # slots, a power of two
    CACHED_KEY_BYTES = 40
    LAYOUTS_MAX = 1024

ctypedef object (*ConvertedAs)(object, object)

cdef ConvertedAs converted_as = <ConvertedAs>PyCapsule_GetPointer(_payload._convert, "cloud_runtimes._native._payload._convert")

CR_packed = <PyTypeObject*>Packed
CR_leaf = <PyObject*>leaf

cdef dict layouts = {}


def find_layout(cls):
    """Find out how objects of a class are written, and note it."""
    if len(layouts) >= LAYOUTS_MAX:
        layouts.clear()
    layout = layouts[cls] = hooks.layout(cls)
    return layout


cdef object finder = find_layout
CR_layouts = <PyObject*>layouts
CR_layout = <PyObject*>finder


def encode(value) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses, attrs classes and pydantic models (all fields, by alias), ``msgspec.Struct``, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples, sets (lists). Keys are scalars. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    cdef char stack[STACK_BYTES]
    cdef Writer w
    cdef uint8_t* end
    writer_init(&w, stack, STACK_BYTES)
    end = short_items(&w, <uint8_t*>w.data, CR_object(value), -(type(value) is not dict), type(value) is not dict)
    if end == NULL or w.heap:
        return encode_long(&w, value, end)
    return PyBytes_FromStringAndSize(w.data, end - <uint8_t*>w.data)


cdef bytes encode_long(Writer* w, object value, uint8_t* end):
    # What is written already up to `end`, or what needs a conversion. The copy that `converted` makes belongs to this thread alone.
    try:
        if end == NULL:
            if w.length < 0:
                raise PayloadError("the value: a dict or list changed its size while it was encoded")
            copy = converted(value)
            end = short_items(w, <uint8_t*>w.data, CR_object(copy), -1, True)
        if end == NULL:
            raise MemoryError
        return PyBytes_FromStringAndSize(w.data, end - <uint8_t*>w.data)
    finally:
        writer_release(w)


cdef PyObject* _keys[CACHED_KEYS]   # direct-mapped; only touched under the GIL (CR_KEY_CACHE)
cdef Py_ssize_t most_depth = limits.DEFAULT.depth
cdef Py_ssize_t most_items = limits.DEFAULT.items
cdef Py_ssize_t most_bytes = limits.DEFAULT.bytes
cdef Py_ssize_t easy = VERIFY_BYTES  # up to here input can break no limit but the depth


def set_limits(Py_ssize_t depth, Py_ssize_t items, Py_ssize_t size):
    """Set what `cloud_runtimes.codec.limits` holds."""
    global most_depth, most_items, most_bytes, easy
    if not 1 <= depth <= DEEPEST:
        raise ValueError(f"depth={depth}")
    most_depth, most_items, most_bytes = depth, items, size
    easy = min(VERIFY_BYTES, items, size)


def decode(data, *, type=None) -> object:
    """Decode one MessagePack value that fills `data`.

    Args:
        data: contiguous bytes.
        type: what to convert the result into, strictly (see `cloud_runtimes.codec.convert`); None leaves it.

    Raises:
        PayloadError: not one whole MessagePack value (with the offset), beyond `cloud_runtimes.codec.limits`, or not of `type` (with the path).
        InvalidArgumentError: `type` is no supported annotation.
    """
    cdef Reader r
    if PyBytes_CheckExact(data):
        r.data = <const uint8_t*>PyBytes_AS_STRING(data)
        r.size = PyBytes_GET_SIZE(data)
        value = read_whole(&r)
    else:
        value = read_buffer(data)
    return value if type is None else converted_as(value, type)


cdef object read_buffer(object data):
    cdef Py_buffer view
    cdef Reader r
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError, ValueError):
        raise PayloadError(f"cannot decode {type(data).__name__}: give contiguous bytes") from None
    try:
        r.data = <const uint8_t*>view.buf
        r.size = view.len
        return read_whole(&r)
    finally:
        PyBuffer_Release(&view)


cdef object read_whole(Reader* r):
    cdef Head head
    r.position = 0
    if r.size > easy:
        if r.size > most_bytes:
            limits.refuse("MessagePack", "bytes", most_bytes)
        verify(r)
        r.position = 0
    read_head(r, &head)
    result = read_value(r, &head, 0)
    if r.position != r.size:
        malformed(f"{r.size - r.position} bytes follow the value", r.position)
    return result


cdef object read_value(Reader* r, Head* head, int depth):
    cdef double number
    cdef const char* at
    if head.kind == STR:
        at = <const char*>r.data + r.position
        r.position += head.length
        return read_str(at, head)
    if head.kind == UNSIGNED:
        return head.number
    if head.kind == SIGNED:
        return <int64_t>head.number
    if head.kind == MAP:
        return read_map(r, head, depth)
    if head.kind == ARRAY:
        return read_array(r, head, depth)
    if head.kind == NIL:
        return None
    if head.kind == TRUE:
        return True
    if head.kind == FALSE:
        return False
    if head.kind == FLOAT:
        memcpy(&number, &head.number, 8)
        return number
    at = <const char*>r.data + r.position
    r.position += head.length
    if head.kind == BIN:
        return PyBytes_FromStringAndSize(at, head.length)
    return read_extension(at, head)


cdef inline object read_str(const char* at, Head* head):
    # A bare pointer, so that no str pays for a frame that catches what bad ones raise.
    cdef PyObject* text = CR_ascii(at, head.length)
    if text == NULL:
        text = PyUnicode_DecodeUTF8(at, head.length, NULL)
    if text == NULL:
        return refuse_str(head)
    result = <object>text
    Py_XDECREF(text)
    return result


cdef object refuse_str(Head* head):
    cdef bint invalid = PyErr_ExceptionMatches(UnicodeDecodeError)
    PyErr_Clear()
    if not invalid:
        raise MemoryError()
    malformed("a str is not valid UTF-8", head.start)


cdef object read_key(Reader* r, Head* head):
    # A direct-mapped cache of short ASCII keys: the str and its hash are made once, not per event.
    cdef const char* at = <const char*>r.data + r.position
    cdef Py_ssize_t size = head.length
    cdef PyObject* cached
    cdef uint64_t a = 0
    cdef uint64_t b = 0
    cdef size_t slot
    if not CR_KEY_CACHE or size == 0 or size > CACHED_KEY_BYTES:
        r.position += size
        return read_str(at, head)
    if size >= 8:
        memcpy(&a, at, 8)
        memcpy(&b, at + size - 8, 8)
    elif size >= 4:
        memcpy(&a, at, 4)
        memcpy(&b, at + size - 4, 4)
    else:
        a = (<uint64_t><uint8_t>at[0] << 16) | (<uint64_t><uint8_t>at[size >> 1] << 8) | <uint8_t>at[size - 1]
    a = (a ^ (b * 0x9E3779B97F4A7C15ULL) ^ <uint64_t>size) * 0xD6E8FEB86659FD93ULL
    slot = <size_t>(a >> 54)
    cached = _keys[slot]
    r.position += size
    if cached != NULL and PyUnicode_GET_LENGTH_P(cached) == size and memcmp(CR_ASCII_DATA_P(cached), at, <size_t>size) == 0:
        return <object>cached
    key = read_str(at, head)
    if PyUnicode_IS_COMPACT_ASCII(key):
        PyObject_Hash(key)
        Py_INCREF_P(<PyObject*>key)
        cached = _keys[slot]
        _keys[slot] = <PyObject*>key
        Py_XDECREF(cached)
    return key


cdef object read_map(Reader* r, Head* head, int depth):
    # What is inside overwrites `head`: one for all depths keeps the stack small.
    cdef Py_ssize_t count = head.length
    cdef dict result = {}
    if depth >= most_depth:
        limits.refuse("MessagePack", "depth", most_depth, head.start)
    while count > 0:
        count -= 1
        read_head(r, head)
        if head.kind == STR:
            key = read_key(r, head)
        elif head.kind == MAP or head.kind == ARRAY:
            malformed("a map or an array cannot be a key", head.start)
        else:
            key = read_value(r, head, depth)
        read_head(r, head)
        item = read_value(r, head, depth + 1)
        PyDict_SetItem(result, key, item)
    return result


cdef object read_array(Reader* r, Head* head, int depth):
    # Sized for at most FIRST_ITEMS at once, else nested heads that promise much would reserve much.
    cdef Py_ssize_t count = head.length
    cdef Py_ssize_t first = count if count < FIRST_ITEMS else FIRST_ITEMS
    cdef Py_ssize_t i
    cdef list result
    if depth >= most_depth:
        limits.refuse("MessagePack", "depth", most_depth, head.start)
    result = PyList_New(first)
    for i in range(count):
        read_head(r, head)
        item = read_value(r, head, depth + 1)
        if i < first:
            Py_INCREF(item)
            PyList_SET_ITEM(result, i, item)
        else:
            result.append(item)
    return result


cdef object read_extension(const char* at, Head* head):
    return moment(head.code, at[:head.length], head.start)


cdef int verify(Reader* r) except -1:
    # The same checks without a result: for input that is refused nothing is allocated.
    cdef Py_ssize_t remaining[DEEPEST + 1]
    cdef uint8_t pairs[DEEPEST + 1]
    cdef Py_ssize_t room = most_items
    cdef int depth = 0
    cdef Head head
    remaining[0] = 1
    pairs[0] = False
    while depth >= 0:
        if remaining[depth] == 0:
            depth -= 1
            continue
        remaining[depth] -= 1
        read_head(r, &head)
        if head.kind == MAP or head.kind == ARRAY:
            if pairs[depth] and remaining[depth] & 1:
                malformed("a map or an array cannot be a key", head.start)
            if depth >= most_depth:
                limits.refuse("MessagePack", "depth", most_depth, head.start)
            room -= head.length
            if room < 0:
                limits.refuse("MessagePack", "items", most_items, head.start)
            depth += 1
            pairs[depth] = head.kind == MAP
            remaining[depth] = 2 * head.length if head.kind == MAP else head.length
        elif head.kind == STR or head.kind == BIN or head.kind == EXTENSION:
            if head.kind == STR:
                if utf8_valid(r.data + r.position, head.length) != head.length:
                    malformed("a str is not valid UTF-8", head.start)
            elif head.kind == EXTENSION:
                read_extension(<const char*>r.data + r.position, &head)
            r.position += head.length
    if r.position != r.size:
        malformed(f"{r.size - r.position} bytes follow the value", r.position)
    return 0
