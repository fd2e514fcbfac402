# Just as much JSON as events need, header only: UTF-8, escaping, skipping a value.
#
# A value is checked token by token without building anything (RFC 8259); the result is the offset behind it, or -1 and a `Fault`.
# The scanning functions take UTF-8 that `utf8_valid` has passed. Nothing here touches a Python object.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from attribute_text cimport utf8_step
from record cimport Fault, refuse


cdef extern from *:
    """
    #if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define CR_LITTLE 1
    #define CR_ctz(word) __builtin_ctzll(word)
    #else
    #define CR_LITTLE 0
    #define CR_ctz(word) 0
    #endif
    #if defined(__GNUC__) && defined(__SSE2__)
    #include <emmintrin.h>
    #define CR_WIDE 1
    /* Of 16 bytes, a bit for each quote, backslash and control character. */
    static inline unsigned CR_stops(const uint8_t* p) {
        __m128i x = _mm_loadu_si128((const __m128i*)p);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1F)), x);
        __m128i quote = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x22));
        __m128i slash = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x5C));
        return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, _mm_or_si128(quote, slash)));
    }
    #else
    #define CR_WIDE 0
    #define CR_stops(p) 0
    #endif
    /* The letter behind the backslash of a control character. */
    static const uint8_t CR_escapes[] = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu";
    """
    const uint8_t CR_escapes[]
    const bint CR_LITTLE
    const bint CR_WIDE
    int CR_ctz(uint64_t) nogil
    unsigned int CR_stops(const uint8_t*) nogil


cdef enum:
    DEPTH_MAX = 128


cdef inline Py_ssize_t utf8_valid(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    # The offset of the first byte that is no UTF-8; `size` if there is none.
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    cdef uint64_t second, third, fourth
    cdef uint32_t point
    cdef int step
    while at < size:
        if p[at] < 0x80:
            if size - at >= 32:
                memcpy(&word, p + at, 8)
                memcpy(&second, p + at + 8, 8)
                memcpy(&third, p + at + 16, 8)
                memcpy(&fourth, p + at + 24, 8)
                if not (word | second | third | fourth) & <uint64_t>0x8080808080808080ULL:
                    at += 32
                    continue
            if size - at >= 8:
                memcpy(&word, p + at, 8)
                if not word & <uint64_t>0x8080808080808080ULL:
                    at += 8
                    continue
            at += 1
            continue
        step = utf8_step(p + at, size - at, &point)
        if step == 0:
            return at
        at += step
    return size


cdef inline Py_ssize_t skip_plain(const uint8_t* p, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    # The offset of the next quote, backslash or control character: eight bytes at a time, then one by one.
    cdef uint64_t word, quote, slash, mask
    cdef uint64_t ones = 0x0101010101010101ULL
    while size - at >= 8:
        memcpy(&word, p + at, 8)
        quote = word ^ ones * 0x22
        slash = word ^ ones * 0x5C
        mask = ((word - ones * 0x20) & ~word | (quote - ones) & ~quote | (slash - ones) & ~slash) & ones * 0x80
        if mask:
            # a borrow only marks bytes behind a true find, so the first mark is one
            if CR_LITTLE:
                return at + (CR_ctz(mask) >> 3)
            break
        at += 8
    while at < size and p[at] >= 0x20 and p[at] != 0x22 and p[at] != 0x5C:
        at += 1
    return at


cdef inline Py_ssize_t escaped_size(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    # How long the text is once escaped: quote, backslash and control characters, nothing else (RFC 8259 §7).
    cdef Py_ssize_t at = skip_plain(p, 0, size)
    cdef Py_ssize_t extra = 0
    while at < size:
        extra += 1 if p[at] >= 0x20 or CR_escapes[p[at]] != 0x75 else 5
        at = skip_plain(p, at + 1, size)
    return size + extra


cdef inline uint8_t* put_escaped(uint8_t* out, const uint8_t* p, Py_ssize_t size) noexcept nogil:
    cdef const char* digits = "0123456789abcdef"
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t stop
    cdef uint8_t c
    while True:
        stop = skip_plain(p, at, size)
        if stop > at:
            memcpy(out, p + at, stop - at)
            out += stop - at
        if stop >= size:
            return out
        c = p[stop]
        at = stop + 1
        out[0] = 0x5C
        out[1] = c if c >= 0x20 else CR_escapes[c]
        if out[1] == 0x75:
            memcpy(out + 2, "00", 2)
            out[4] = digits[c >> 4]
            out[5] = digits[c & 15]
            out += 4
        out += 2


cdef inline Py_ssize_t skip_space(const uint8_t* p, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    while at < size and (p[at] == 0x20 or p[at] == 0x0A or p[at] == 0x0D or p[at] == 0x09):
        at += 1
    return at


cdef inline int hex_value(uint8_t c) noexcept nogil:
    if 0x30 <= c <= 0x39:
        return c - 0x30
    c |= 0x20
    if 0x61 <= c <= 0x66:
        return c - 0x57
    return -1


cdef inline int hex4(const uint8_t* p) noexcept nogil:
    # Four hexadecimal digits, or -1.
    cdef int a = hex_value(p[0])
    cdef int b = hex_value(p[1])
    cdef int c = hex_value(p[2])
    cdef int d = hex_value(p[3])
    return -1 if a < 0 or b < 0 or c < 0 or d < 0 else a << 12 | b << 8 | c << 4 | d


cdef inline Py_ssize_t skip_string(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    cdef Py_ssize_t stop = at + 1
    cdef unsigned int mask
    if CR_WIDE and size - at > 16 and p[at] == 0x22:
        # most have no escape
        while size - stop >= 16:
            mask = CR_stops(p + stop)
            if mask:
                stop += CR_ctz(mask)
                if p[stop] == 0x22:
                    return stop + 1
                break
            stop += 16
    return skip_escaped(p, at, size, fault)


cdef inline Py_ssize_t skip_escaped(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    # The same, whatever is in it.
    cdef Py_ssize_t begin = at
    cdef uint8_t c
    if at < size and p[at] == 0x22:
        at += 1
        while True:
            at = skip_plain(p, at, size)
            if at >= size or p[at] < 0x20:
                break
            if p[at] == 0x22:
                return at + 1
            if size - at < 2:
                break
            c = p[at + 1]
            if c == 0x75:
                if size - at < 6 or hex4(p + at + 2) < 0:
                    break
                at += 6
            elif c == 0x22 or c == 0x5C or c == 0x2F or c == 0x62 or c == 0x66 or c == 0x6E or c == 0x72 or c == 0x74:
                at += 2
            else:
                break
    return refuse(fault, "no complete JSON string", begin)


cdef inline Py_ssize_t skip_colon(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    # With the spaces around it.
    at = skip_space(p, at, size)
    if at >= size or p[at] != 0x3A:
        return refuse(fault, "no colon", at)
    return skip_space(p, at + 1, size)


cdef inline Py_ssize_t skip_name(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    # `"name" :` and the spaces behind.
    at = skip_string(p, at, size, fault)
    return -1 if at < 0 else skip_colon(p, at, size, fault)


cdef inline bint word_at(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, const char* word, int length) noexcept nogil:
    return size - at >= length and memcmp(p + at, word, length) == 0


cdef inline Py_ssize_t skip_digits(const uint8_t* p, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    while at < size and 0x30 <= p[at] <= 0x39:
        at += 1
    return at


cdef inline Py_ssize_t skip_scalar(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    cdef Py_ssize_t begin = at
    cdef Py_ssize_t stop
    if word_at(p, at, size, "true", 4) or word_at(p, at, size, "null", 4):
        return at + 4
    if word_at(p, at, size, "false", 5):
        return at + 5
    if at < size and p[at] == 0x2D:
        at += 1
    stop = skip_digits(p, at, size)
    if stop == at:
        return refuse(fault, "no JSON value", begin)
    if p[at] == 0x30:
        stop = at + 1       # a digit behind a leading zero is refused by whoever looks for a comma
    at = stop
    if at < size and p[at] == 0x2E:
        stop = skip_digits(p, at + 1, size)
        if stop == at + 1:
            return at
        at = stop
    if at < size and p[at] | 0x20 == 0x65:
        stop = at + 1
        if stop < size and (p[stop] == 0x2B or p[stop] == 0x2D):
            stop += 1
        if skip_digits(p, stop, size) > stop:
            return skip_digits(p, stop, size)
    return at


cdef inline Py_ssize_t skip_value(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, Fault* fault) noexcept nogil:
    # The offset behind the value at `at`, at most DEPTH_MAX arrays and objects deep.
    cdef uint8_t[DEPTH_MAX + 1] opened  # the bracket of each level
    cdef Py_ssize_t depth = 0
    cdef uint8_t c
    while True:
        c = p[at] if at < size else 0
        if c == 0x7B or c == 0x5B:
            if depth == DEPTH_MAX:
                return refuse(fault, "data nested too deep", at)
            at = skip_space(p, at + 1, size)
            if at >= size or p[at] != c + 2:
                depth += 1
                opened[depth] = c
                if c == 0x7B:
                    at = skip_name(p, at, size, fault)
                    if at < 0:
                        return -1
                continue
            at += 1
        elif c == 0x22:
            at = skip_string(p, at, size, fault)
        else:
            at = skip_scalar(p, at, size, fault)
        if at < 0:
            return -1
        while True:
            if depth == 0:
                return at
            at = skip_space(p, at, size)
            if at >= size:
                return refuse(fault, "the end", at)
            if p[at] == 0x2C:
                at = skip_space(p, at + 1, size)
                if opened[depth] == 0x7B:
                    at = skip_name(p, at, size, fault)
                    if at < 0:
                        return -1
                break
            if p[at] != opened[depth] + 2:
                return refuse(fault, "no comma or closing bracket", at)
            depth -= 1
            at += 1


cdef inline bint is_value(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    # One JSON value in UTF-8, with spaces around.
    cdef Fault fault
    cdef Py_ssize_t at = skip_value(p, skip_space(p, 0, size), size, &fault)
    return at >= 0 and skip_space(p, at, size) == size and utf8_valid(p, size) == size


cdef inline Py_ssize_t get_integer(const uint8_t* p, Py_ssize_t at, Py_ssize_t size, int64_t* value) noexcept nogil:
    # A 32-bit integer without fraction and exponent; -1 for anything else.
    cdef bint negative = at < size and p[at] == 0x2D
    cdef Py_ssize_t stop
    if negative:
        at += 1
    stop = skip_digits(p, at, size)
    if stop == at or stop - at > 10 or (p[at] == 0x30 and stop - at > 1):
        return -1
    value[0] = 0
    while at < stop:
        value[0] = value[0] * 10 + p[at] - 0x30
        at += 1
    if negative:
        value[0] = -value[0]
    if at >= size or not -(<int64_t>1 << 31) <= value[0] < <int64_t>1 << 31 or p[at] == 0x2E or p[at] | 0x20 == 0x65:
        return -1
    return at


cdef inline uint8_t* put_point(uint8_t* out, uint32_t point) noexcept nogil:
    if point < 0x80:
        out[0] = <uint8_t>point
        return out + 1
    if point < 0x800:
        out[0] = 0xC0 | point >> 6
        out[1] = 0x80 | point & 0x3F
        return out + 2
    if point < 0x10000:
        out[0] = 0xE0 | point >> 12
        out[1] = 0x80 | point >> 6 & 0x3F
        out[2] = 0x80 | point & 0x3F
        return out + 3
    out[0] = 0xF0 | point >> 18
    out[1] = 0x80 | point >> 12 & 0x3F
    out[2] = 0x80 | point >> 6 & 0x3F
    out[3] = 0x80 | point & 0x3F
    return out + 4


cdef inline Py_ssize_t unescape(const uint8_t* p, Py_ssize_t size, uint8_t* out) noexcept nogil:
    # The text between the quotes of a string that skip_string has passed, never longer than it; -1 for an unpaired surrogate.
    cdef uint8_t* begin = out
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t stop
    cdef uint32_t point, low
    cdef uint8_t c
    while True:
        stop = skip_plain(p, at, size)
        if stop > at:
            memcpy(out, p + at, stop - at)
            out += stop - at
        if stop >= size:
            return out - begin
        c = p[stop + 1]
        at = stop + 2
        if c != 0x75:
            out[0] = 8 if c == 0x62 else 12 if c == 0x66 else 10 if c == 0x6E else 13 if c == 0x72 else 9 if c == 0x74 else c
            out += 1
            continue
        point = <uint32_t>hex4(p + at)
        at += 4
        if 0xD800 <= point <= 0xDFFF:
            if point > 0xDBFF or size - at < 6 or p[at] != 0x5C or p[at + 1] != 0x75:
                return -1
            low = <uint32_t>hex4(p + at + 2)
            if not 0xDC00 <= low <= 0xDFFF:
                return -1
            at += 6
            point = 0x10000 + ((point - 0xD800) << 10) + low - 0xDC00
        out = put_point(out, point)
