# What a JSON document holds, header only: how deep it is and how many entries its containers have, read off its brackets and commas outside of strings.
#
# Nothing is checked: of what is no JSON the numbers mean nothing, and the parser tells. With SSE2 64 bytes are taken at a time: the quotes give, by a prefix sum of their parity, what lies in strings, and only counts of brackets are kept; a block with a backslash, and the tail, go byte by byte.

from libc.stdint cimport uint8_t


cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif
    typedef struct {
        Py_ssize_t depth, limit; /* containers around here, and how many may be */
        Py_ssize_t count;       /* entries, or a bound of them */
        int text, fresh;        /* in a string; behind an opening bracket, before anything else */
    } CR_Shape;
    /* Byte by byte to `stop`, or one behind; 1 where it is too deep. `count` is exact. */
    static int CR_shape_bytes(const uint8_t* p, Py_ssize_t* from, Py_ssize_t stop, CR_Shape* s) {
        Py_ssize_t at = *from;
        while (at < stop) {
            const uint8_t c = p[at++];
            if (s->text) {
                if (c == '"') s->text = 0;
                else if (c == '\\\\') at++;
            } else if (c == '"') {
                s->count += s->fresh;
                s->fresh = 0;
                s->text = 1;
            } else if (c == '[' || c == '{') {
                s->count += s->fresh;
                s->fresh = 1;
                if (++s->depth > s->limit) return 1;
            } else if (c == ']' || c == '}') {
                s->depth--;
                s->fresh = 0;
            } else if (c == ',') {
                s->count++;
            } else if (s->fresh && c != ' ' && c != '\\n' && c != '\\r' && c != '\\t') {
                s->count++;
                s->fresh = 0;
            }
        }
        *from = at;
        return 0;
    }
    #if defined(__SSE2__)
    static inline uint64_t CR_equal(const __m128i* block, char c) {
        const __m128i all = _mm_set1_epi8(c);
        return (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block[0], all))
            | (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block[1], all)) << 16
            | (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block[2], all)) << 32
            | (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block[3], all)) << 48;
    }
    static inline Py_ssize_t CR_ones(uint64_t bits) {
        bits -= (bits >> 1) & 0x5555555555555555ULL;
        bits = (bits & 0x3333333333333333ULL) + ((bits >> 2) & 0x3333333333333333ULL);
        bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0FULL;
        return (Py_ssize_t)((bits * 0x0101010101010101ULL) >> 56);
    }
    #endif
    /* 1 where it is deeper than `limit`; else `items` is at least the number of entries, if it was above 0. 2 where a bracket or string is not closed, or a bracket not opened. */
    static int CR_shape_bound(const uint8_t* p, Py_ssize_t size, Py_ssize_t limit, Py_ssize_t* items) {
        CR_Shape s = {0, limit, 0, 0, 0};
        Py_ssize_t at = 0;
    #if defined(__SSE2__)
        const __m128i lower = _mm_set1_epi8(0x20);
        while (size - at >= 64) {
            __m128i block[4];
            uint64_t text, opens, closes, commas;
            int i;
            for (i = 0; i < 4; i++) block[i] = _mm_loadu_si128((const __m128i*)(p + at + 16 * i));
            text = CR_equal(block, '"');
            commas = *items ? CR_equal(block, ',') : 0;
            if (CR_equal(block, '\\\\')) {
                if (CR_shape_bytes(p, &at, at + 64, &s)) return 1;
                continue;
            }
            for (i = 0; i < 4; i++) block[i] = _mm_or_si128(block[i], lower);
            for (i = 1; i < 64; i <<= 1) text ^= text << i;
            if (s.text) text = ~text;
            opens = CR_equal(block, '{') & ~text;
            closes = CR_equal(block, '}') & ~text;
            commas &= ~text;
            if (s.depth + CR_ones(opens) > limit) {
                /* maybe, so in order */
                uint64_t both = opens | closes;
                while (both) {
                    const uint64_t one = both & (0 - both);
                    s.depth += opens & one ? 1 : -1;
                    if (s.depth > limit) return 1;
                    both ^= one;
                }
            } else {
                s.depth += CR_ones(opens) - CR_ones(closes);
            }
            if (*items) s.count += CR_ones(commas) + CR_ones(opens);
            s.text = (int)(text >> 63);
            s.fresh = 0;
            at += 64;
        }
    #endif
        if (CR_shape_bytes(p, &at, size, &s)) return 1;
        *items = s.count + 1;
        return s.depth || s.text ? 2 : 0;
    }
    /* The number of entries of a document that is not too deep. */
    static Py_ssize_t CR_entries(const uint8_t* p, Py_ssize_t size) {
        CR_Shape s = {0, size, 0, 0, 0};
        Py_ssize_t at = 0;
        CR_shape_bytes(p, &at, size, &s);
        return s.count;
    }
    """
    int CR_shape_bound(const uint8_t*, Py_ssize_t, Py_ssize_t, Py_ssize_t*) nogil
    Py_ssize_t CR_entries(const uint8_t*, Py_ssize_t) nogil
