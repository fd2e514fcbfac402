# MessagePack on the wire, header only: heads written in their shortest form, and heads read with their promises checked.
#
# Nothing here knows a Python value. The `put_*` steps want `writer_reserve` first: 9 bytes for a number, 5 for a head, 15 for a timestamp.
# Source: github.com/msgpack/msgpack/blob/master/spec.md, "Formats" and "Timestamp extension type".

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from writer cimport Writer, put_u8, put_u16, put_u32, put_u64


# ---------------------------------------------------------------- writing

cdef inline void put_unsigned(Writer* w, uint64_t number) noexcept nogil:
    if number < 0x80:
        put_u8(w, <uint8_t>number)
    elif number <= 0xFF:
        put_u8(w, 0xCC)
        put_u8(w, <uint8_t>number)
    elif number <= 0xFFFF:
        put_u8(w, 0xCD)
        put_u16(w, <uint16_t>number)
    elif number <= 0xFFFFFFFFULL:
        put_u8(w, 0xCE)
        put_u32(w, <uint32_t>number)
    else:
        put_u8(w, 0xCF)
        put_u64(w, number)


cdef inline void put_negative(Writer* w, int64_t number) noexcept nogil:
    if number >= -32:
        put_u8(w, <uint8_t>number)
    elif number >= -0x80:
        put_u8(w, 0xD0)
        put_u8(w, <uint8_t>number)
    elif number >= -0x8000:
        put_u8(w, 0xD1)
        put_u16(w, <uint16_t>number)
    elif number >= -0x80000000LL:
        put_u8(w, 0xD2)
        put_u32(w, <uint32_t>number)
    else:
        put_u8(w, 0xD3)
        put_u64(w, <uint64_t>number)


cdef inline void put_double(Writer* w, double number) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    put_u8(w, 0xCB)
    put_u64(w, bits)


cdef inline void put_str_head(Writer* w, uint32_t size) noexcept nogil:
    if size < 32:
        put_u8(w, 0xA0 | <uint8_t>size)
    elif size <= 0xFF:
        put_u8(w, 0xD9)
        put_u8(w, <uint8_t>size)
    elif size <= 0xFFFF:
        put_u8(w, 0xDA)
        put_u16(w, <uint16_t>size)
    else:
        put_u8(w, 0xDB)
        put_u32(w, size)


cdef inline void put_bin_head(Writer* w, uint32_t size) noexcept nogil:
    if size <= 0xFF:
        put_u8(w, 0xC4)
        put_u8(w, <uint8_t>size)
    elif size <= 0xFFFF:
        put_u8(w, 0xC5)
        put_u16(w, <uint16_t>size)
    else:
        put_u8(w, 0xC6)
        put_u32(w, size)


cdef inline void put_container_head(Writer* w, uint32_t count, uint8_t fix, uint8_t wide) noexcept nogil:
    # An array is (0x90, 0xDC), a map (0x80, 0xDE): the tag of the shortest form and that of 16 bits.
    if count < 16:
        put_u8(w, fix | <uint8_t>count)
    elif count <= 0xFFFF:
        put_u8(w, wide)
        put_u16(w, <uint16_t>count)
    else:
        put_u8(w, wide + 1)
        put_u32(w, count)


cdef inline void put_timestamp(Writer* w, int64_t seconds, uint32_t nanoseconds) noexcept nogil:
    # Extension type -1: 32, 64 or 96 bits, the shortest that holds it.
    if 0 <= seconds <= 0xFFFFFFFFLL and nanoseconds == 0:
        put_u16(w, 0xD6FF)
        put_u32(w, <uint32_t>seconds)
    elif 0 <= seconds < (<int64_t>1 << 34):
        put_u16(w, 0xD7FF)
        put_u64(w, (<uint64_t>nanoseconds << 34) | <uint64_t>seconds)
    else:
        put_u16(w, 0xC70C)
        put_u8(w, 0xFF)
        put_u32(w, nanoseconds)
        put_u64(w, <uint64_t>seconds)


# ---------------------------------------------------------------- reading

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
    cdef uint64_t left = <uint64_t>(r.size - r.position)
    if count > left:
        malformed(f"the value that begins here needs {count - left} bytes more than there are", start)
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
