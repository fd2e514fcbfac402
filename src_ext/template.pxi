# Rendering a frame by a template (`Frame.render`), so that a broker's protocol takes one call for a batch.

cdef enum:
    AS_IT_IS = 0
    JSON = 1
    ID = 2
    KEY_OF = 3
    LENGTH = 4
    TEMPLATE_MAX = 32

cdef dict FIELDS = {"json": JSON, "id": ID, "key": KEY_OF}


cdef struct Piece:
    int kind
    Slice text              # of what stands as it is, and of the record at hand
    int first               # of a length: which pieces it is of
    int last


cdef int decimal(uint8_t* out, Py_ssize_t number) noexcept:
    # Returns how many digits were written.
    cdef uint8_t[20] digits
    cdef int count = 0, i
    while True:
        digits[count] = <uint8_t>(0x30 + number % 10)
        count += 1
        number //= 10
        if not number:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef int take_template(template, Piece* pieces) except -1:
    cdef int count = 0, other
    for item in template:
        if count == TEMPLATE_MAX:
            raise ValueError(f"a template has at most {TEMPLATE_MAX} parts")
        if isinstance(item, bytes):
            pieces[count].kind = AS_IT_IS
            pieces[count].text.data = <const uint8_t*>PyBytes_AS_STRING(item)
            pieces[count].text.size = PyBytes_GET_SIZE(item)
        elif isinstance(item, range):
            pieces[count].kind = LENGTH
            pieces[count].first = item.start
            pieces[count].last = item.stop
        elif item in FIELDS:
            pieces[count].kind = FIELDS[item]
        else:
            raise ValueError(f"a template has bytes, ranges, 'json', 'id' and 'key', not {item!r}")
        count += 1
    for other in range(count):
        if pieces[other].kind == LENGTH:
            if not 0 <= pieces[other].first <= pieces[other].last <= count:
                raise ValueError(f"part {other} of the template is the length of parts that are not there")
            for item in range(pieces[other].first, pieces[other].last):
                if pieces[<int>item].kind == LENGTH:
                    raise ValueError(f"part {other} of the template is the length of a length")
    return count


cdef bytes render_frame(Frame frame, template):
    cdef Piece[TEMPLATE_MAX] pieces
    cdef uint8_t[36] id_room
    cdef uint8_t[20] digits
    cdef char[4096] room
    cdef Writer out
    cdef Parts parts
    cdef Rendering rendering
    cdef const uint8_t* body = <const uint8_t*>PyBytes_AS_STRING(frame.body)
    cdef Py_ssize_t index, total
    cdef int number, inner, size
    kept = tuple(template)  # its bytes are borrowed
    cdef int count = take_template(kept, pieces)
    writer_init(&out, room, sizeof(room))
    try:
        for index in range(frame.count):
            parts_read(body + frame.offsets[index], &parts)
            rendering.size = -1
            for number in range(count):
                if pieces[number].kind == JSON:
                    if rendering.size < 0:
                        measure(&rendering, &parts, frame.header[0], frame.header[1])
                    pieces[number].text.size = rendering.size
                elif pieces[number].kind == ID:
                    if parts.flags & ID_TEXT:
                        pieces[number].text = parts.texts[AT_ID]
                    else:
                        put_uuid(id_room, parts.id)
                        pieces[number].text.data = id_room
                        pieces[number].text.size = UUID_ROOM
                elif pieces[number].kind == KEY_OF:
                    pieces[number].text.size = 0
                    if parts.flags & KEY:
                        pieces[number].text = parts.texts[AT_KEY]
            for number in range(count):
                if pieces[number].kind == LENGTH:
                    total = 0
                    for inner in range(pieces[number].first, pieces[number].last):
                        total += pieces[inner].text.size
                    size = decimal(digits, total)
                    write_bytes(&out, <const char*>digits, size)
                elif pieces[number].kind == JSON:
                    writer_reserve(&out, rendering.size)
                    put_event(&rendering, <uint8_t*>out.data + out.length)
                    out.length += rendering.size
                else:
                    write_bytes(&out, <const char*>pieces[number].text.data, pieces[number].text.size)
        return writer_bytes(&out)
    finally:
        writer_release(&out)
