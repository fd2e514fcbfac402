# RESP2, the protocol of Redis: commands are rendered, replies are read. Part of events.pyx; see the twin `resp_py.py`.

cdef enum:
    LINE_MAX = 65536
    DEPTH_MAX = 32
    VALUES_MAX = 2097152    # of one reply
    REPLY_MAX = 1073741824  # bytes of one
    ROOM_MAX = 2097152      # bytes that are kept for the next reply

cdef object NO_RESP = "what answers does not speak Redis' protocol"


def pack_command(arguments):
    """Render a command as an array of bulk strings; see the twin."""
    cdef Writer out
    cdef char[512] room
    cdef Slice text
    cdef bytes digits
    writer_init(&out, room, sizeof(room))
    try:
        write_bytes(&out, "*", 1)
        write_decimal(&out, len(arguments))
        write_bytes(&out, "\r\n", 2)
        for argument in arguments:
            if isinstance(argument, bytes):
                text = slice_of(argument)
            elif isinstance(argument, str):
                text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(argument, &text.size)
            elif isinstance(argument, int):
                digits = b"%d" % argument
                text = slice_of(digits)
            else:
                raise TypeError(f"an argument is bytes, text or a number, not {argument.__class__.__name__}")
            write_bytes(&out, "$", 1)
            write_decimal(&out, text.size)
            write_bytes(&out, "\r\n", 2)
            write_bytes(&out, <const char*>text.data, text.size)
            write_bytes(&out, "\r\n", 2)
        return writer_bytes(&out)
    finally:
        writer_release(&out)


@cython.final
cdef class ReplyReader:
    """A parser of replies; see the twin."""

    cdef object error
    cdef object nothing
    cdef char* data
    cdef Py_ssize_t begin       # of the reply at hand
    cdef Py_ssize_t seen        # up to here it was looked for its end
    cdef Py_ssize_t end
    cdef Py_ssize_t room
    cdef Py_ssize_t missing     # values of the reply of which the end was not seen
    cdef Py_ssize_t values      # that it has, as far as is known

    def __init__(self, error, nothing):
        self.error = error
        self.nothing = nothing
        self.missing = 1

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def feed(self, bytes received not None):
        """Take in what was received."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(received)
        cdef char* data
        if not size:
            return
        if self.begin and size > self.room - self.end:
            memmove(self.data, self.data + self.begin, self.end - self.begin)
            self.seen -= self.begin
            self.end -= self.begin
            self.begin = 0
        if size > self.room - self.end:
            data = <char*>PyMem_RawRealloc(self.data, 2 * self.end + size)
            if data == NULL:
                raise MemoryError
            self.data = data
            self.room = 2 * self.end + size
        memcpy(self.data + self.end, PyBytes_AS_STRING(received), size)
        self.end += size

    def gets(self):
        """Return the next reply."""
        return self.next(None) if self.whole() else self.nothing

    def take(self, list values not None, Py_ssize_t count, topic=None):
        """Append replies; see the twin."""
        while len(values) < count:
            if not self.whole():
                return False
            values.append(self.next(topic))
        return True

    cdef object next(self, topic):
        cdef Py_ssize_t at = self.begin
        reply = None if topic is None else self.events(topic)
        if reply is None:
            reply = self.value(&at, 0)
        self.begin = self.seen
        self.missing = 1
        self.values = 0
        if self.begin == self.end:
            self.begin = self.seen = self.end = 0
            if self.room > ROOM_MAX:
                PyMem_RawFree(self.data)
                self.data = NULL
                self.room = 0
        return reply

    cdef Py_ssize_t line(self, Py_ssize_t at) except -2:
        # Where a line ends, without CRLF; -1: not yet.
        cdef const void* end_of_line = memchr(self.data + at, 0x0D, self.end - at) if at < self.end else NULL
        cdef Py_ssize_t stop = <char*>end_of_line - self.data
        if end_of_line == NULL or stop + 1 == self.end:
            if self.end - at > LINE_MAX:
                raise ConnectionError(NO_RESP)
            return -1
        if stop - at > LINE_MAX or stop == at or self.data[stop + 1] != 0x0A:
            raise ConnectionError(NO_RESP)
        return stop

    cdef int64_t number(self, Py_ssize_t at, Py_ssize_t stop) except? -2:
        cdef bint negative = at < stop and self.data[at] == 0x2D
        cdef uint64_t number = 0
        cdef Py_ssize_t i
        for i in range(at + negative, stop):
            if not 0x30 <= self.data[i] <= 0x39:
                raise ConnectionError(NO_RESP)
            number = 10 * number + self.data[i] - 0x30
        if not 0 < stop - at - negative < 20 or number > (<uint64_t>1 << 63) - 1 + negative:
            raise ConnectionError(NO_RESP)
        return <int64_t>(0 - number) if negative else <int64_t>number

    cdef int64_t size_of(self, Py_ssize_t at, Py_ssize_t stop) except -2:
        cdef int64_t number = self.number(at, stop)
        if not -1 <= number <= REPLY_MAX:
            raise ConnectionError(NO_RESP)
        return number

    cdef bint whole(self) except -1:
        # Whether all of the reply is there; `seen` is its end then. What was seen is not looked at again.
        cdef Py_ssize_t stop
        cdef int64_t size
        while self.missing:
            if self.seen == self.end:
                return False
            kind = self.data[self.seen]
            if kind != 0x24 and kind != 0x2A and kind != 0x2B and kind != 0x2D and kind != 0x3A:    # $ * + - :
                raise ConnectionError(NO_RESP)
            stop = self.line(self.seen)
            if stop < 0:
                return False
            if kind == 0x24 or kind == 0x2A:
                size = max(self.size_of(self.seen + 1, stop), -1)
                if kind == 0x2A:
                    self.missing += max(size, 0)
                    self.values += max(size, 0)
                    if self.values > VALUES_MAX:
                        raise ConnectionError(NO_RESP)
                elif size >= 0:
                    if stop + size - self.begin > REPLY_MAX:
                        raise ConnectionError(NO_RESP)
                    if size + 4 > self.end - stop:
                        return False
                    stop += size + 2
                    if self.data[stop] != 0x0D or self.data[stop + 1] != 0x0A:
                        raise ConnectionError(NO_RESP)
            self.seen = stop + 2
            self.missing -= 1
        return True

    cdef object value(self, Py_ssize_t* at, int depth):
        # The value that begins there, all of which is in memory; moves to its end.
        cdef Py_ssize_t start = at[0] + 1
        cdef Py_ssize_t stop = self.line(at[0])
        cdef int64_t size, i
        cdef list items
        kind = self.data[start - 1]
        at[0] = stop + 2
        if kind == 0x3A:
            return self.number(start, stop)
        if kind == 0x2B:
            return PyBytes_FromStringAndSize(self.data + start, stop - start)
        if kind == 0x2D:
            return self.error(self.data[start:stop].decode("utf-8", "replace"))
        size = self.size_of(start, stop)
        if size < 0:
            return None
        if kind == 0x24:
            at[0] += size + 2
            return PyBytes_FromStringAndSize(self.data + stop + 2, size)
        if depth == DEPTH_MAX:
            raise ConnectionError(NO_RESP)
        items = []
        for i in range(size):
            items.append(self.value(at, depth + 1))
        return items

    cdef int64_t head(self, Py_ssize_t* at, char kind):
        # The size of the value that begins there; -1: it is of another kind. Moves behind its head.
        cdef Py_ssize_t stop
        cdef int64_t size
        if at[0] >= self.seen or self.data[at[0]] != kind:
            return -1
        stop = self.line(at[0])
        size = self.size_of(at[0] + 1, stop)
        at[0] = stop + 2
        return size

    cdef bint bulk(self, Py_ssize_t* at, Slice* text):
        text.size = self.head(at, 0x24)
        text.data = <const uint8_t*>self.data + at[0]
        at[0] += text.size + 2
        return text.size >= 0

    cdef object events(self, topic):
        # Stream, ids and frame of the answer to a read of one stream whose entries are events in the field `data`; else None.
        cdef Py_ssize_t at = self.begin
        cdef Slice name, id, text
        cdef int64_t count, i
        cdef list ids
        cdef Packer packer
        if self.head(&at, 0x2A) != 1 or self.head(&at, 0x2A) != 2 or not self.bulk(&at, &name):
            return None
        count = self.head(&at, 0x2A)
        if count < 1:
            return None
        packer = Packer(topic)
        ids = []
        for i in range(count):
            if self.head(&at, 0x2A) != 2 or not self.bulk(&at, &id) or self.head(&at, 0x2A) != 2:
                return None
            if not self.bulk(&at, &text) or text.size != 4 or memcmp(text.data, "data", 4):
                return None
            if not self.bulk(&at, &text) or (text.size >= 3 and not memcmp(text.data, "CRF", 3)):
                return None
            try:
                packer.add(&text)
            except PayloadError:
                return None
            ids.append(bytes_of(id))
        return bytes_of(name), ids, packer.frame()
