# The way into the buffer of `batch.pyx`.

cdef object ENCODE_JSON = _payload.encode_json


cdef enum:
    OTHER_WAY = -2

ELSEWHERE = OTHER_WAY
cdef dict CONTEXT_TEXTS = {"id": AT_ID, "type": AT_TYPE, "source": AT_SOURCE, "subject": AT_SUBJECT}


# What a content type stands for: what becomes of data that is not bytes-like.
cdef enum:
    NOTHING     # all goes the other way
    JSON        # straight into orjson
    VALUES      # `encode`
    TEXT
    OCTETS


cdef bint is_uri_reference(Slice text) noexcept:
    # Whether all characters are those of RFC 3986, appendix A; what is percent-encoded goes the other way.
    cdef Py_ssize_t at
    cdef uint8_t c
    for at in range(text.size):
        c = text.data[at]
        if not (c"a" <= c | 32 <= c"z" or c"-" <= c <= c";" or c and strchr("_~?#[]@!$&'()*+,=", c)):
            return False
    return True


cdef bytes take_attributes(dict given, Parts* parts):
    # Fills in what is text and sound; the extensions, empty without any, `None` where something goes the other way.
    cdef Slice value
    cdef dict extensions = {}
    cdef int place
    for name, item in given.items():
        place = CONTEXT_TEXTS.get(name, -1) if type(name) is str else -1
        if place < 0:
            extensions[name] = item
        elif not borrow_text(item, False, &value):
            return None
        elif place == AT_ID and parse_uuid7(value.data, value.size, parts.id):
            continue
        elif place == AT_SOURCE and not is_uri_reference(value):
            return None
        else:
            parts.flags |= <uint32_t>1 << place
            parts.texts[place] = value
    return None if extensions and parts.flags & EXTENSIONS else plain_extensions(extensions, MORE_THAN_TEXT)


@cython.final
cdef class Entry:
    """The way into a buffer that `Publisher.send` is; see the twin for arguments and errors."""

    cdef object encode, other, failed, content_type
    cdef bytes template     # a record with what is the same in all
    cdef Parts base         # it, taken apart
    cdef BatchBuffer buffer
    cdef Py_ssize_t max_event
    cdef int kind
    cdef int number, octets_number  # of the content type, of values and of bytes; 0: it is written out

    def __cinit__(self, encode, other, failed, content_type=None, kind="json", constant=None):
        self.template = _events.encode_record(b"", None, **(constant or {}))
        parts_read(<const uint8_t*>PyBytes_AS_STRING(self.template), &self.base)
        self.encode = encode
        self.other = other
        self.failed = failed
        self.content_type = content_type
        self.number = NUMBERS.get("application/json" if content_type is None else content_type, 0)
        self.octets_number = NUMBERS["application/octet-stream"] if content_type is None else self.number
        if encode is not None:
            self.kind = JSON if encode is ENCODE_JSON else VALUES
        else:
            self.kind = {"text": TEXT, "bytes": OCTETS}.get(kind, NOTHING)

    def aim(self, BatchBuffer buffer, Py_ssize_t max_event=0):
        """Let events go into a buffer; `None`: all the other way."""
        self.max_event = max_event
        self.buffer = buffer

    def send(self, data, *, key=None, attributes=None, metadata=None, timeout=...):
        """Encode an event into the buffer and return its sequence number; see `Publisher.send`."""
        cdef int64_t sequence
        if metadata is None:
            sequence = self.add(data, key, attributes)
            if sequence > 0:
                return sequence
        options = {"key": key, "attributes": attributes, "metadata": metadata}
        if timeout is not ...:
            options["timeout"] = timeout
        return self.other(data, **options)

    def offer(self, data, key=None, attributes=None):
        """Do as `send` does without the other way: 0 when there is no room now, `ELSEWHERE` for what never goes this way."""
        return self.add(data, key, attributes)

    cdef object payload(self, object data, Parts* parts):
        # Fills in payload and content type. The object that holds the payload; `None` for what goes the other way.
        cdef int kind = self.kind
        cdef object held
        parts.number = self.number
        if type(data) is dict and kind == JSON:
            return written(data, &parts.payload)
        if PyBytes_Check(data) or PyByteArray_Check(data) or PyMemoryView_Check(data):
            if PyBytes_Check(data) and type(data) is not bytes:
                return None
            parts.number = self.octets_number
            if type(data) is bytes:
                held = data
            else:
                try:
                    held = PyBytes_FromObject(data)
                except ValueError:  # released
                    return None
        elif kind == JSON:
            return written(data, &parts.payload)
        elif kind == VALUES:
            held = self.encode(data)
        elif kind == TEXT and type(data) is str:
            if PyUnicode_IS_COMPACT_ASCII(data):
                parts.payload.data = <const uint8_t*>PyUnicode_DATA(data)
                parts.payload.size = PyUnicode_GET_LENGTH(data)
                return data
            try:
                held = PyUnicode_AsUTF8String(data)
            except UnicodeEncodeError:
                return None
        else:
            return None
        parts.payload = slice_of(<bytes?>held)
        return held

    cdef int64_t add(self, object data, object key, object attributes) except -1:
        cdef BatchBuffer buffer = self.buffer
        cdef Parts parts
        cdef uint8_t[16] id
        cdef dict own = None    # a copy: encoding data may run code that changes the other
        cdef bytes extensions = None
        cdef uint8_t[TRACEPARENT_SIZE] header
        cdef Py_ssize_t size
        cdef int64_t sequence
        cdef bint wake
        cdef int carried
        if buffer is None or self.kind == NOTHING:
            return OTHER_WAY
        try:
            parts.flags = self.base.flags
            if parts.flags:
                parts.texts = self.base.texts
            if not parts.flags & TRACEPARENT:
                carried = carry(header)
                if carried == MORE:
                    return OTHER_WAY
                if carried == WHOLE:
                    parts.texts[AT_TRACEPARENT].data = header
                    parts.texts[AT_TRACEPARENT].size = TRACEPARENT_SIZE
                    parts.flags |= TRACEPARENT
            clear_id(parts.id)
            if attributes is not None:
                if type(attributes) is not dict:
                    return OTHER_WAY
                own = attributes.copy()
                extensions = take_attributes(own, &parts)
                if extensions is None:
                    return OTHER_WAY
                if extensions:
                    parts.texts[AT_EXTENSIONS] = slice_of(extensions)
                    parts.flags |= EXTENSIONS
            if key is not None:
                take_text(InvalidArgumentError, "key", key, False, &parts.texts[AT_KEY])
                parts.flags |= KEY
            held = self.payload(data, &parts)
            if held is None or parts.payload.size > self.max_event:
                return OTHER_WAY
            if parts.number == 0:
                take_text(InvalidArgumentError, "content_type", self.content_type, False, &parts.texts[AT_CONTENT_TYPE])
                parts.flags |= CONTENT_TYPE
            size = parts_size(&parts)
            if size - 4 > RECORD_MAX:
                return OTHER_WAY
            buffer.refuse_large(size)
            draw_now(&parts.time_us, id)
            if no_id(parts.id) and not parts.flags & ID_TEXT:
                memcpy(parts.id, id, 16)
            with cython.critical_section(buffer):
                sequence = buffer.add(&parts, NULL, size, &wake)
            if sequence < 0:
                raise MemoryError
            if wake:
                buffer.ready()
            return sequence
        except BaseException as error:
            self.failed(error)
            raise
