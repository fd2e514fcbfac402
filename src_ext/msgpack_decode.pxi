# Decoding of `msgpack.pyx`.

cdef PyObject* _keys[CACHED_KEYS]   # direct-mapped; only touched under the GIL (CR_KEY_CACHE)
cdef Py_ssize_t most_depth = _limits.DEFAULT.depth
cdef Py_ssize_t most_items = _limits.DEFAULT.items
cdef Py_ssize_t most_bytes = _limits.DEFAULT.bytes
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
    if type is not None:
        from cloud_runtimes.codec._convert import convert

        return convert(value, type)
    return value


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
            _limits.refuse("MessagePack", "bytes", most_bytes)
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
        _limits.refuse("MessagePack", "depth", most_depth, outer.start)
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
        _limits.refuse("MessagePack", "depth", most_depth, outer.start)
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
                _limits.refuse("MessagePack", "depth", most_depth, head.start)
            room -= head.length
            if room < 0:
                _limits.refuse("MessagePack", "items", most_items, head.start)
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
