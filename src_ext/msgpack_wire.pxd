# MessagePack on the wire, header only: heads read with their promises checked. Nothing here knows a Python value.
#
# Source: github.com/msgpack/msgpack/blob/master/spec.md, "Formats".

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum Kind:
    NIL, FALSE, TRUE, UNSIGNED, SIGNED, FLOAT, STR, BIN, ARRAY, MAP, EXTENSION

cdef struct Reader:
    const uint8_t* data
    Py_ssize_t size
    Py_ssize_t position

cdef struct Head:
    Kind kind
    Py_ssize_t start     # offset of the value, for messages
    Py_ssize_t length    # STR, BIN, EXTENSION: bytes; ARRAY, MAP: items
    uint64_t number      # UNSIGNED; SIGNED and FLOAT: its bits
    int8_t code          # EXTENSION: its type


cdef inline int malformed(object reason, Py_ssize_t at) except -1:
    from cloud_runtimes.errors import PayloadError

    raise PayloadError(f"not MessagePack: {reason} (at byte {at})")


cdef inline uint64_t big_endian(const uint8_t* at, int width) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(width):
        number = (number << 8) | at[i]
    return number


cdef inline int need(Reader* r, uint64_t count, Py_ssize_t start) except -1:
    cdef uint64_t available = <uint64_t>(r.size - r.position)
    if count > available:
        malformed(f"the value that begins here needs {count - available} bytes more than there are", start)
    return 0


cdef inline uint64_t widen(uint32_t bits) noexcept nogil:
    cdef float single
    cdef double number
    cdef uint64_t wide
    memcpy(&single, &bits, 4)
    number = single
    memcpy(&wide, &number, 8)
    return wide


cdef inline int read_wide_head(Reader* r, Head* head, uint8_t first) except -1:
    cdef int width
    cdef uint64_t length
    cdef Py_ssize_t start = head.start
    if first == 0xC1:
        malformed("0xC1 is never used", start)
    if 0xCA <= first <= 0xD3:
        width = 4 if first == 0xCA else 8 if first == 0xCB else 1 << (first & 3)
        need(r, width, start)
        head.number = big_endian(r.data + r.position, width)
        r.position += width
        if first <= 0xCB:
            head.kind = FLOAT
            if width == 4:
                head.number = widen(<uint32_t>head.number)
        elif first <= 0xCF:
            head.kind = UNSIGNED
        else:
            head.kind = SIGNED
            if width == 1:
                head.number = <uint64_t><int64_t><int8_t>head.number
            elif width == 2:
                head.number = <uint64_t><int64_t><int16_t>head.number
            elif width == 4:
                head.number = <uint64_t><int64_t><int32_t>head.number
        return 0
    if 0xD4 <= first <= 0xD8:
        head.kind = EXTENSION
        length = <uint64_t>1 << (first - 0xD4)
    else:
        # bin C4-C6, ext C7-C9, str D9-DB: 8, 16, 32 bits of length; array DC-DD, map DE-DF: 16, 32
        if first <= 0xC9:
            head.kind = BIN if first <= 0xC6 else EXTENSION
            width = 1 << ((first - 0xC4) % 3)
        elif first <= 0xDB:
            head.kind = STR
            width = 1 << (first - 0xD9)
        else:
            head.kind = ARRAY if first <= 0xDD else MAP
            width = 2 if first == 0xDC or first == 0xDE else 4
        need(r, width, start)
        length = big_endian(r.data + r.position, width)
        r.position += width
    if head.kind == EXTENSION:
        need(r, 1, start)
        head.code = <int8_t>r.data[r.position]
        r.position += 1
    need(r, 2 * length if head.kind == MAP else length, start)
    head.length = <Py_ssize_t>length
    return 0


cdef inline int read_head(Reader* r, Head* head) except -1:
    # After it the bytes of a STR, BIN or EXTENSION are known to be there, and one byte for each item of an ARRAY or two of a MAP.
    cdef uint8_t first
    cdef Py_ssize_t start = r.position
    head.start = start
    if start >= r.size:
        malformed("the data ends where a value should begin", start)
    first = r.data[start]
    r.position = start + 1
    if first < 0x80:
        head.kind = UNSIGNED
        head.number = first
        return 0
    if 0xA0 <= first < 0xC0:
        head.kind = STR
        head.length = first & 0x1F
        return need(r, <uint64_t>head.length, start)
    if first < 0x90:
        head.kind = MAP
        head.length = first & 0x0F
        return need(r, 2 * <uint64_t>head.length, start)
    if first < 0xA0:
        head.kind = ARRAY
        head.length = first & 0x0F
        return need(r, <uint64_t>head.length, start)
    if first >= 0xE0:
        head.kind = SIGNED
        head.number = <uint64_t><int64_t><int8_t>first
        return 0
    if first == 0xC0:
        head.kind = NIL
        return 0
    if first == 0xC2 or first == 0xC3:
        head.kind = TRUE if first & 1 else FALSE
        return 0
    return read_wide_head(r, head, first)
