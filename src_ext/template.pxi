# Rendering a frame by a template (`Frame.render`), so that a broker's protocol takes one call for a batch.

cdef enum:
    AS_IT_IS = 0
    JSON = 1
    ID = 2
    KEY_OF = 3
    TIME_OF = 4
    LENGTH = 5
    BINARY_LENGTH = 6
    PART_OF = 7
    TEMPLATE_MAX = 32

cdef dict FIELDS = {"json": JSON, "id": ID, "key": KEY_OF, "time": TIME_OF}


cdef struct Piece:
    int kind
    Slice text              # of what stands as it is, and of the record at hand
    int first               # of a length: which pieces it is of
    int last
    int width               # of a binary one, bytes
    uint32_t parts          # of the number of a part: how many there are
    char[10] digits         # and the number


cdef void take_part(part, Piece* piece) except *:
    if isinstance(part, bytes):
        piece.kind = AS_IT_IS
        piece.text = slice_of(part)
    elif isinstance(part, range):
        piece.kind = LENGTH
        piece.first = part.start
        piece.last = part.stop
    elif isinstance(part, tuple) and part[0] == "key":
        piece.kind = PART_OF
        piece.parts = part[1]
    elif isinstance(part, tuple):
        piece.kind = BINARY_LENGTH
        piece.first = part[0].start
        piece.last = part[0].stop
        piece.width = piece.text.size = part[1]
    else:
        piece.kind = FIELDS[part]


cdef int decimal(Py_ssize_t number, char* end) noexcept:
    # The digits before an end; returns how many there are.
    cdef int count = 0
    while not count or number:
        count += 1
        end[-count] = <char>(0x30 + number % 10)
        number //= 10
    return count


cdef int write_decimal(Writer* out, Py_ssize_t number) except -1:
    cdef char[20] digits
    cdef int count = decimal(number, digits + 20)
    return write_bytes(out, digits + 20 - count, count)


cdef int write_binary(Writer* out, Py_ssize_t number, int width) except -1:
    cdef char[8] octets
    cdef int at
    if width < 8 and number >> (8 * width):
        raise OverflowError(f"a length of {number:,} bytes does not fit {width} bytes")
    for at in range(width):
        octets[width - 1 - at] = <char>(number >> (8 * at))
    return write_bytes(out, octets, width)


cdef bytes render_frame(Frame frame, list template):
    # The template was checked; its bytes are borrowed.
    cdef Piece[TEMPLATE_MAX] pieces
    cdef uint8_t[36] id_room
    cdef uint8_t[27] time_room
    cdef char[4096] room
    cdef Writer out
    cdef Parts parts
    cdef Rendering rendering
    cdef Piece* piece
    cdef Py_ssize_t index, total
    cdef int number, inner
    cdef int count = <int>len(template)
    for number in range(count):
        take_part(template[number], &pieces[number])
    writer_init(&out, room, sizeof(room))
    try:
        for index in range(frame.count):
            parts_read(frame.at(index), &parts)
            rendering.size = -1
            for number in range(count):
                piece = &pieces[number]
                if piece.kind == JSON:
                    if rendering.size < 0:
                        measure(&rendering, &parts, frame.header[0], frame.header[1])
                    piece.text.size = rendering.size
                elif piece.kind == ID:
                    piece.text = id_of(&parts, id_room)
                elif piece.kind == KEY_OF:
                    piece.text.size = 0
                    if parts.flags & KEY:
                        piece.text = parts.texts[AT_KEY]
                elif piece.kind == PART_OF:
                    piece.text.size = 0
                    if parts.flags & KEY:
                        piece.text.size = decimal(fnv1a(parts.texts[AT_KEY]) % piece.parts, piece.digits + 10)
                        piece.text.data = <uint8_t*>piece.digits + 10 - piece.text.size
                elif piece.kind == TIME_OF:
                    if parts.flags & TIME_TEXT:
                        piece.text = parts.texts[AT_TIME]
                    else:
                        piece.text.size = put_time(time_room, parts.time_us)
                        piece.text.data = time_room
            for number in range(count):
                piece = &pieces[number]
                if LENGTH <= piece.kind <= BINARY_LENGTH:
                    total = 0
                    for inner in range(piece.first, piece.last):
                        total += pieces[inner].text.size
                    if piece.kind == LENGTH:
                        write_decimal(&out, total)
                    else:
                        write_binary(&out, total, piece.width)
                elif piece.kind == JSON:
                    writer_reserve(&out, rendering.size)
                    put_event(&rendering, <uint8_t*>out.data + out.length)
                    out.length += rendering.size
                else:
                    write_bytes(&out, <const char*>piece.text.data, piece.text.size)
        return writer_bytes(&out)
    finally:
        writer_release(&out)
