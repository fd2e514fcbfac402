# Encoding of `msgpack.pyx`.

def encode(value) -> bytes:
    """Encode a value as MessagePack, every part in its shortest form.

    Besides MessagePack's own types: dataclasses (all fields), pydantic models, enum members (their value), aware datetimes (the timestamp extension), date and time (ISO 8601), UUID and Decimal (their str), tuples. Keys are None, bool, int, float, str or bytes. Containers nest up to 128 deep.

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
    # What is not exactly one of the builtins above; `plain` gives one of them, or one of the three here.
    cdef Py_buffer view
    kind = type(value)
    if kind is _datetime:
        return write_timestamp(w, value)
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
