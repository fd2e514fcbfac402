# UUIDv7 that strictly increase, header only (RFC 9562 §5.7 and §6.2, fixed-length dedicated counter).
#
# 48 bits of milliseconds, 42 bits of counter that starts at random below 2**41 in each new millisecond, 32 random bits. Random bytes come from the system, 256 at a time, and are used once.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from system cimport random_bytes


cdef struct Ids:
    uint64_t last_ms
    uint64_t last_counter
    uint8_t[256] noise
    int noise_left


cdef inline bint next_id(Ids* ids, int64_t now, uint8_t* out) noexcept nogil:
    # `now` in microseconds. False, with errno, where the system gives no random bytes; nothing has changed then.
    cdef uint64_t ms = 0 if now < 0 else <uint64_t>now // 1000
    cdef uint64_t counter
    cdef int i
    if ms >> 48:
        ms = (1ULL << 48) - 1
    if ids.noise_left < 12:
        if random_bytes(ids.noise, 256):
            return False
        ids.noise_left = 256
    ids.noise_left -= 12
    if ms > ids.last_ms:
        ids.last_ms = ms
        memcpy(&counter, ids.noise + ids.noise_left + 4, 8)
        ids.last_counter = counter & ((1ULL << 41) - 1)
    else:
        ids.last_counter += 1
        if ids.last_counter >> 42:
            ids.last_counter = 0
            ids.last_ms += 1
    ms = ids.last_ms
    counter = ids.last_counter
    for i in range(6):
        out[i] = ms >> (40 - 8 * i) & 0xFF
    out[6] = 0x70 | counter >> 38 & 0xF
    out[7] = counter >> 30 & 0xFF
    out[8] = 0x80 | counter >> 24 & 0x3F
    out[9] = counter >> 16 & 0xFF
    out[10] = counter >> 8 & 0xFF
    out[11] = counter & 0xFF
    memcpy(out + 12, ids.noise + ids.noise_left, 4)
    return True


cdef inline bint reseed_ids(Ids* ids) noexcept nogil:
    # In a forked child: another counter in the last millisecond, other random bytes.
    cdef uint64_t counter
    ids.noise_left = 0
    if random_bytes(&counter, 8):
        return False
    ids.last_counter = counter & ((1ULL << 41) - 1)
    return True
