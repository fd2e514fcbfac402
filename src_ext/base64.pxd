# Base64 (RFC 4648 §4), header only.

from libc.stdint cimport uint8_t, uint32_t


cdef inline uint8_t* put_base64(uint8_t* out, const uint8_t* p, Py_ssize_t size) noexcept nogil:
    cdef const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t bits
    while size > 2:
        bits = <uint32_t>p[0] << 16 | <uint32_t>p[1] << 8 | p[2]
        out[0] = digits[bits >> 18]
        out[1] = digits[bits >> 12 & 63]
        out[2] = digits[bits >> 6 & 63]
        out[3] = digits[bits & 63]
        p += 3
        out += 4
        size -= 3
    if size:
        bits = <uint32_t>p[0] << 16
        if size == 2:
            bits |= <uint32_t>p[1] << 8
        out[0] = digits[bits >> 18]
        out[1] = digits[bits >> 12 & 63]
        out[2] = digits[bits >> 6 & 63] if size == 2 else 0x3D
        out[3] = 0x3D
        out += 4
    return out


cdef inline int base64_value(uint8_t c) noexcept nogil:
    if 0x41 <= c <= 0x5A:
        return c - 0x41
    if 0x61 <= c <= 0x7A:
        return c - 0x47
    if 0x30 <= c <= 0x39:
        return c + 4
    return 62 if c == 0x2B else 63 if c == 0x2F else -1


cdef inline Py_ssize_t get_base64(const uint8_t* p, Py_ssize_t size, uint8_t* out) noexcept nogil:
    # Padded, without spaces or stray bits; -1 for anything else.
    cdef uint8_t* begin = out
    cdef Py_ssize_t at
    cdef int a, b, c, d
    cdef int pad = 0
    if size % 4:
        return -1
    if size:
        pad = (p[size - 1] == 0x3D) + (p[size - 1] == 0x3D and p[size - 2] == 0x3D)
    for at in range(0, size, 4):
        a = base64_value(p[at])
        b = base64_value(p[at + 1])
        c = base64_value(p[at + 2])
        d = base64_value(p[at + 3])
        if pad and at == size - 4:
            d = 0
            if pad == 2:
                c = 0
            if (pad == 2 and b & 15) or (pad == 1 and c & 3):
                return -1
        if a < 0 or b < 0 or c < 0 or d < 0:
            return -1
        out[0] = <uint8_t>(a << 2 | b >> 4)
        out[1] = <uint8_t>((b & 15) << 4 | c >> 2)
        out[2] = <uint8_t>((c & 3) << 6 | d)
        out += 3
    return out - begin - pad
