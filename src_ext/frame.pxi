# Frames: a batch of events, with every length checked and the offsets kept. Part of events.pyx.


cdef uint32_t fnv1a(Slice text) noexcept:
    # RFC 9923
    cdef uint32_t digest = 0x811C9DC5
    cdef Py_ssize_t i
    for i in range(text.size):
        digest = (digest ^ text.data[i]) * <uint32_t>0x01000193
    return digest


@cython.final
cdef class Frame:
    """A checked frame; a sequence of `EventRecord`. See the twin for the errors."""

    cdef bytes body
    cdef uint32_t* offsets      # of each record, and of the end
    cdef Py_ssize_t count
    cdef Slice[3] header        # source, type, topic
    cdef readonly str source
    cdef readonly str type
    cdef readonly str topic

    def __cinit__(self, bytes body not None):
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(body)
        cdef Py_ssize_t end = PyBytes_GET_SIZE(body)
        cdef Py_ssize_t at = 8
        cdef Py_ssize_t size, i, count
        cdef Fault fault
        if end < 3 or memcmp(p, "CRF", 3) != 0:
            raise PayloadError("frame: it does not begin with CRF")
        if end < 4 or p[3] != 1:
            raise PayloadError(f"frame: version {p[3] if end > 3 else 'none'}, this package reads version 1; upgrade it")
        if end < 8 or end >= 0xFFFFFFFF:
            raise PayloadError("frame: cut off in its header, or larger than 4 GiB")
        count = get_u32(p + 4)
        for i in range(3):
            size = get_varint(p, &at, end)
            if size < 0 or size > end - at or (size == 0 and i < 2):
                raise PayloadError("frame: source, type or topic is empty or leaves the frame")
            self.header[i].data = p + at
            self.header[i].size = size
            at += size
        self.source = text_of(PayloadError, self.header[0], "source of the frame")
        self.type = text_of(PayloadError, self.header[1], "type of the frame")
        self.topic = text_of(PayloadError, self.header[2], "topic of the frame")
        if count > (end - at) // HEAD_SIZE:
            raise PayloadError(f"frame: {count} records cannot be held by {end - at} bytes")
        self.offsets = <uint32_t*>PyMem_RawMalloc((count + 1) * sizeof(uint32_t))
        if self.offsets == NULL:
            raise MemoryError
        for i in range(count):
            self.offsets[i] = <uint32_t>at
            at = check_record(p, at, end, &fault)
            if at < 0:
                raise refused(PayloadError, "frame", &fault)
        if at != end:
            raise PayloadError(f"frame: {end - at} bytes behind its {count} records")
        self.offsets[count] = <uint32_t>end
        self.count = count
        self.body = body

    def __dealloc__(self):
        PyMem_RawFree(self.offsets)

    cdef const uint8_t* at(self, Py_ssize_t index) except NULL:
        if not 0 <= index < self.count:
            raise IndexError(f"record {index} of a frame of {self.count}")
        return <const uint8_t*>PyBytes_AS_STRING(self.body) + self.offsets[index]

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t index):
        cdef const uint8_t* record = self.at(index)
        cdef EventRecord result = EventRecord.__new__(EventRecord)
        result.owner = self
        result.record = record
        return result

    def record_bytes(self, Py_ssize_t index):
        """The bytes of one record (`IndexError`)."""
        cdef const uint8_t* record = self.at(index)
        return PyBytes_FromStringAndSize(<const char*>record, self.offsets[index + 1] - self.offsets[index])

    def expires(self, Py_ssize_t index):
        """When a record expires, in microseconds since 1970 UTC; 0 for never (`IndexError`)."""
        cdef Parts parts
        parts_read(self.at(index), &parts)
        return parts.expires

    def deliver(self, Py_ssize_t start, positions, int64_t now_us, marks, list out not None):
        """Append the record of each position; see the twin."""
        cdef Parts parts
        cdef const uint8_t* at
        cdef ClaimedRecord record
        cdef Py_ssize_t position
        cdef list expired = []
        for number in positions:
            position = number
            at = self.at(start + position)
            if (at[4] | <uint32_t>at[5] << 8) & EXPIRES:
                parts_read(at, &parts)
                if parts.expires <= now_us:
                    expired.append(number)
                    continue
            record = ClaimedRecord.__new__(ClaimedRecord)
            record.owner = self
            record.record = at
            record.marks = marks
            record.position = position
            out.append(record)
        return expired

    def partition(self, Py_ssize_t parts):
        """Deal the records out by their keys; see the twin."""
        cdef const uint8_t* body = <const uint8_t*>PyBytes_AS_STRING(self.body)
        cdef Parts record
        cdef Py_ssize_t index, part
        cdef list parts_of = [[] for _ in range(parts + 1)]
        for index in range(self.count):
            part = parts
            parts_read(body + self.offsets[index], &record)
            if record.flags & KEY:
                part = fnv1a(record.texts[AT_KEY]) % <uint32_t>parts
            (<list>parts_of[part]).append(index)
        if len(<list>parts_of[parts]) == self.count:
            parts_of[parts] = range(self.count)
        return parts_of

    def structured(self):
        """Each record as structured JSON; see the twin."""
        cdef const uint8_t* body = <const uint8_t*>PyBytes_AS_STRING(self.body)
        cdef Parts parts
        cdef Py_ssize_t index
        cdef list out = []
        for index in range(self.count):
            parts_read(body + self.offsets[index], &parts)
            out.append(rendered(&parts, self.header[0], self.header[1]))
        return out

    def render(self, template):
        """All records in one buffer, by a template; see the twin."""
        return render_frame(self, check_template(template))

    def select(self, indices):
        """A new frame with the same header and these records, in this order (`IndexError`)."""
        cdef list parts = [None]
        for index in indices:
            parts.append(self.record_bytes(index))
        cdef bytes head = PyBytes_FromStringAndSize(NULL, header_size(self.header))
        put_header(<uint8_t*>PyBytes_AS_STRING(head), <uint32_t>(len(parts) - 1), self.header)
        parts[0] = head
        return b"".join(parts)
