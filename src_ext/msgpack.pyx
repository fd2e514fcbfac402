# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""MessagePack, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/msgpack_py.py`, which is the contract.

Encoding writes into a buffer on the stack and copies the result once: first the short way (`msgpack_builtin.pxd`), which takes exact builtins only, and where that gives up the long way below. Python decides what a value that is no builtin becomes (`plain.py`, shared with the twin). Decoding reads every head in one place (`read_head`), which has checked that what the head promises is there; nothing is allocated from a declared length.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from json_text cimport utf8_valid
from msgpack_builtin cimport CR_BORROW, CR_object, short_container
from msgpack_wire cimport (
    ARRAY, BIN, EXTENSION, FALSE, FLOAT, MAP, NIL, SIGNED, STR, TRUE, UNSIGNED, Head, Reader, big_endian, malformed,
    put_bin_head, put_container_head, put_double, put_negative, put_str_head, put_timestamp, put_unsigned, read_head,
)
from writer cimport Writer, put_bytes, put_u8, write_u8, writer_bytes, writer_init, writer_release, writer_reserve

import datetime

from cloud_runtimes._native import hooks, limits
from cloud_runtimes._native.plain import Packed, Refused, located, payload_error, plain, plain_key
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
    const char* CR_ASCII_DATA(object)
    const char* CR_ASCII_DATA_P "CR_ASCII_DATA"(PyObject*)
    bint PyUnicode_IS_COMPACT_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    Py_ssize_t PyUnicode_GET_LENGTH_P "PyUnicode_GET_LENGTH"(PyObject*)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    Py_hash_t PyObject_Hash(object) except -1
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    double PyFloat_AS_DOUBLE(object)
    PyTypeObject* Py_TYPE(object)
    void Py_XDECREF(PyObject*)
    bint PyErr_ExceptionMatches(object)
    void PyErr_Clear()
    void Py_INCREF_P "Py_INCREF"(PyObject*)
    PyTypeObject PyUnicode_Type, PyLong_Type, PyFloat_Type, PyDict_Type, PyList_Type, PyTuple_Type, PyBytes_Type

cdef enum:
    MAX_DEPTH = 128        # nested containers that are encoded; also what ends a cycle
    DEEPEST = 512          # what the limit of decoding can be (`codec.limits`)
    MAX_COUNT = 0xFFFFFFFF
    STACK_BYTES = 1024
    FIRST_ITEMS = 256      # what a decoded list is sized for before its items have been seen
    VERIFY_BYTES = 8192    # longer input is checked whole before the first object is made
    CACHED_KEYS = 1024     # slots, a power of two
    CACHED_KEY_BYTES = 40

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_timedelta = datetime.timedelta
_datetime = datetime.datetime


# ---------------------------------------------------------------- encoding

def encode(value) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses (all fields), pydantic models, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples. Keys are scalars. Containers nest up to 128 deep.

    Raises:
        PayloadError: an int outside -2**63 … 2**64-1, a lone surrogate, a datetime without tzinfo, a set or another type; the message gives the path. What code of the user's own raised is its cause.
    """
    cdef char stack[STACK_BYTES]
    cdef Writer w
    cdef uint8_t* end
    writer_init(&w, stack, STACK_BYTES)
    if CR_BORROW:
        end = short_container(&w, <uint8_t*>w.data, CR_object(value), 0)
        if end != NULL:
            if not w.heap:
                return PyBytes_FromStringAndSize(w.data, end - <uint8_t*>w.data)
            w.length = end - <uint8_t*>w.data
            return released(&w)
    return encode_long(&w, value)


cdef bytes released(Writer* w):
    try:
        return writer_bytes(w)
    finally:
        writer_release(w)


cdef bytes encode_long(Writer* w, object value):
    w.length = 0
    try:
        write_value(w, value, 0)
        return writer_bytes(w)
    except Exception as error:
        refused = payload_error(error)
        raise refused from refused.__cause__
    finally:
        writer_release(w)


cdef int write_value(Writer* w, object value, int depth) except -1:
    cdef PyTypeObject* kind = Py_TYPE(value)
    if kind == &PyUnicode_Type:
        return write_str(w, value)
    if kind == &PyLong_Type:
        return write_int(w, value)
    if value is None:
        return write_u8(w, 0xC0)
    if value is True:
        return write_u8(w, 0xC3)
    if value is False:
        return write_u8(w, 0xC2)
    if kind == &PyFloat_Type:
        return write_float(w, PyFloat_AS_DOUBLE(value))
    if kind == &PyDict_Type:
        return write_dict(w, value, depth)
    if kind == &PyList_Type:
        return write_list(w, value, depth)
    if kind == &PyTuple_Type:
        return write_tuple(w, value, depth)
    if kind == &PyBytes_Type:
        return write_bin(w, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return write_other(w, value, depth)


cdef inline int write_int(Writer* w, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    writer_reserve(w, 9)
    if overflow:
        return write_big(w, value, overflow)
    if number >= 0:
        put_unsigned(w, <uint64_t>number)
    else:
        put_negative(w, number)
    return 0


cdef int write_big(Writer* w, object value, int overflow) except -1:
    if overflow > 0:
        try:
            put_unsigned(w, PyLong_AsUnsignedLongLong(value))
            return 0
        except OverflowError:
            pass
    raise Refused("an int outside -2**63 ... 2**64-1 cannot be encoded")


cdef inline int write_float(Writer* w, double value) except -1:
    writer_reserve(w, 9)
    put_double(w, value)
    return 0


cdef inline int write_str(Writer* w, object value) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* data
    if PyUnicode_IS_COMPACT_ASCII(value):
        size = PyUnicode_GET_LENGTH(value)
        data = CR_ASCII_DATA(value)
    else:
        data = utf8(value, &size)
    if size > MAX_COUNT:
        raise Refused("longer than 2**32-1 bytes")
    writer_reserve(w, size + 5)
    put_str_head(w, <uint32_t>size)
    put_bytes(w, data, size)
    return 0


cdef const char* utf8(object value, Py_ssize_t* size) except NULL:
    try:
        return PyUnicode_AsUTF8AndSize(value, size)
    except UnicodeEncodeError:
        raise Refused("a str with a lone surrogate is not valid UTF-8") from None


cdef int write_bin(Writer* w, const char* data, Py_ssize_t size) except -1:
    if size > MAX_COUNT:
        raise Refused("longer than 2**32-1 bytes")
    writer_reserve(w, size + 5)
    put_bin_head(w, <uint32_t>size)
    put_bytes(w, data, size)
    return 0


cdef inline int write_head(Writer* w, Py_ssize_t count, uint8_t fix, uint8_t wide, int depth) except -1:
    # The head of an array (0x90, 0xDC) or a map (0x80, 0xDE) one level below `depth`.
    if depth >= MAX_DEPTH:
        raise Refused(f"nested deeper than {MAX_DEPTH} containers (or it contains itself)")
    if count > MAX_COUNT:
        raise Refused("more than 2**32-1 items")
    writer_reserve(w, 5)
    put_container_head(w, <uint32_t>count, fix, wide)
    return 0


cdef int write_dict(Writer* w, object value, int depth) except -1:
    cdef Py_ssize_t count = PyDict_Size(value)
    cdef Py_ssize_t written = 0
    cdef Py_ssize_t position = 0
    cdef PyObject* key_at = NULL
    cdef PyObject* item_at = NULL
    cdef object key, item
    write_head(w, count, 0x80, 0xDE, depth)
    key = None
    try:
        # References are held: code that runs for an item may change the dict. Then the count tells.
        with cython.critical_section(value):
            while written <= count and PyDict_Next(value, &position, &key_at, &item_at):
                key = <object>key_at
                item = <object>item_at
                write_key(w, key)
                write_value(w, item, depth + 1)
                written += 1
    except Exception as error:
        raise located(error, key)
    if written != count or PyDict_Size(value) != count:
        raise Refused("the dict changed its size while it was encoded")
    return 0


cdef inline int write_key(Writer* w, object key) except -1:
    if Py_TYPE(key) == &PyUnicode_Type:
        return write_str(w, key)
    return write_value(w, plain_key(key), MAX_DEPTH)


cdef int write_list(Writer* w, list value, int depth) except -1:
    cdef Py_ssize_t count = PyList_GET_SIZE(value)
    cdef Py_ssize_t i = 0
    cdef object item
    write_head(w, count, 0x90, 0xDC, depth)
    try:
        with cython.critical_section(value):
            while i < count and i < PyList_GET_SIZE(value):
                item = value[i]
                write_value(w, item, depth + 1)
                i += 1
    except Exception as error:
        raise located(error, i)
    if i != count or PyList_GET_SIZE(value) != count:
        raise Refused("the list changed its size while it was encoded")
    return 0


cdef int write_tuple(Writer* w, tuple value, int depth) except -1:
    cdef Py_ssize_t count = len(value)
    cdef Py_ssize_t i = 0
    write_head(w, count, 0x90, 0xDC, depth)
    try:
        while i < count:
            write_value(w, value[i], depth + 1)
            i += 1
    except Exception as error:
        raise located(error, i)
    return 0


cdef int write_other(Writer* w, object value, int depth) except -1:
    # What is not exactly one of the builtins above; `plain` gives one of them, or one of the four here.
    cdef Py_buffer view
    kind = type(value)
    if kind is _datetime:
        return write_timestamp(w, value)
    if kind is Packed:
        writer_reserve(w, PyBytes_GET_SIZE(value))
        put_bytes(w, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        return 0
    if kind is not bytearray and kind is not memoryview:
        return write_value(w, plain(value), depth)
    try:
        PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    except BufferError:
        raise Refused("a memoryview that is not contiguous cannot be encoded") from None
    try:
        return write_bin(w, <const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int write_timestamp(Writer* w, object value) except -1:
    cdef int64_t seconds
    cdef uint32_t nanoseconds
    if value.utcoffset() is None:
        raise Refused("a datetime without tzinfo names no moment: give it one, e.g. tzinfo=timezone.utc")
    delta = _datetime.__sub__(value, _EPOCH)
    seconds = <int64_t>delta.days * 86400 + <int64_t>delta.seconds
    nanoseconds = <uint32_t>delta.microseconds * 1000
    writer_reserve(w, 15)
    put_timestamp(w, seconds, nanoseconds)
    return 0


# ---------------------------------------------------------------- decoding

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
        type: what to convert the result into, strictly (see `cloud_runtimes.codec._convert`); None leaves it.

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
    return value if type is None else hooks.convert(value, type)


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
    return read_extension(<const uint8_t*>at, head)


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


cdef object read_map(Reader* r, Head* outer, int depth):
    cdef Head head
    cdef Py_ssize_t count = outer.length
    cdef dict result = {}
    if depth >= most_depth:
        limits.refuse("MessagePack", "depth", most_depth, outer.start)
    while count > 0:
        count -= 1
        read_head(r, &head)
        if head.kind == STR:
            key = read_key(r, &head)
        elif head.kind == MAP or head.kind == ARRAY:
            malformed("a map or an array cannot be a key", head.start)
        else:
            key = read_value(r, &head, depth)
        read_head(r, &head)
        item = read_value(r, &head, depth + 1)
        PyDict_SetItem(result, key, item)
    return result


cdef object read_array(Reader* r, Head* outer, int depth):
    # Sized for at most FIRST_ITEMS at once, else nested heads that promise much would reserve much.
    cdef Head head
    cdef Py_ssize_t count = outer.length
    cdef Py_ssize_t first = count if count < FIRST_ITEMS else FIRST_ITEMS
    cdef Py_ssize_t i
    cdef list result
    if depth >= most_depth:
        limits.refuse("MessagePack", "depth", most_depth, outer.start)
    result = PyList_New(first)
    for i in range(count):
        read_head(r, &head)
        item = read_value(r, &head, depth + 1)
        if i < first:
            Py_INCREF(item)
            PyList_SET_ITEM(result, i, item)
        else:
            result.append(item)
    return result


cdef object read_extension(const uint8_t* at, Head* head):
    cdef int64_t seconds
    cdef uint64_t word
    cdef uint64_t nanoseconds = 0
    if head.code != -1:
        malformed(f"extension type {head.code} is not known", head.start)
    if head.length == 4:
        seconds = <int64_t>big_endian(at, 4)
    elif head.length == 8:
        word = big_endian(at, 8)
        nanoseconds = word >> 34
        seconds = <int64_t>(word & 0x3FFFFFFFFULL)
    elif head.length == 12:
        nanoseconds = big_endian(at, 4)
        seconds = <int64_t>big_endian(at + 4, 8)
    else:
        malformed(f"a timestamp of {head.length} bytes", head.start)
        return None
    if nanoseconds > 999999999:
        malformed(f"a timestamp with {nanoseconds} nanoseconds", head.start)
    try:
        return _EPOCH + _timedelta(0, seconds, nanoseconds // 1000)
    except OverflowError:
        malformed("a timestamp outside the years 1 to 9999", head.start)


cdef int verify(Reader* r) except -1:
    # The same checks without a result: for input that is refused nothing is allocated.
    cdef Py_ssize_t left[DEEPEST + 1]
    cdef uint8_t pairs[DEEPEST + 1]
    cdef Py_ssize_t room = most_items
    cdef int depth = 0
    cdef Head head
    left[0] = 1
    pairs[0] = False
    while depth >= 0:
        if left[depth] == 0:
            depth -= 1
            continue
        left[depth] -= 1
        read_head(r, &head)
        if head.kind == MAP or head.kind == ARRAY:
            if pairs[depth] and left[depth] & 1:
                malformed("a map or an array cannot be a key", head.start)
            if depth >= most_depth:
                limits.refuse("MessagePack", "depth", most_depth, head.start)
            room -= head.length
            if room < 0:
                limits.refuse("MessagePack", "items", most_items, head.start)
            depth += 1
            pairs[depth] = head.kind == MAP
            left[depth] = 2 * head.length if head.kind == MAP else head.length
        elif head.kind == STR or head.kind == BIN or head.kind == EXTENSION:
            if head.kind == STR:
                if utf8_valid(r.data + r.position, head.length) != head.length:
                    malformed("a str is not valid UTF-8", head.start)
            elif head.kind == EXTENSION:
                read_extension(r.data + r.position, &head)
            r.position += head.length
    if r.position != r.size:
        malformed(f"{r.size - r.position} bytes follow the value", r.position)
    return 0
