# The text of attributes, header only: UTF-8 and the rules of CloudEvents §3.1, UUIDs, RFC 3339 times.
#
# Every `put_` writes into room that the caller has; every `parse_` tells whether it could. Nothing here touches a Python object.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy


cdef enum:
    TEXT_GOOD = 0
    TEXT_EMPTY = 1
    TEXT_LONG = 2
    TEXT_FORBIDDEN = 3
    TEXT_BROKEN = 4         # no UTF-8


cdef enum:
    TEXT_MAX = 65536
    UUID_ROOM = 36
    TIME_ROOM = 27          # YYYY-MM-DDTHH:MM:SS.ffffffZ


cdef inline int64_t time_min() noexcept nogil:
    return -62135596800000000LL       # 0001-01-01


cdef inline int64_t time_max() noexcept nogil:
    return 253402300799999999LL       # 9999-12-31, the last microsecond


cdef inline int utf8_step(const uint8_t* p, Py_ssize_t remaining, uint32_t* point) noexcept nogil:
    # The length of the sequence that begins at a byte above 0x7F, and its code point; 0 if it is no UTF-8 (RFC 3629 §4).
    cdef uint32_t lead = p[0]
    if lead < 0xC2 or lead > 0xF4 or remaining < 2 or p[1] & 0xC0 != 0x80:
        return 0
    if lead < 0xE0:
        point[0] = (lead & 0x1F) << 6 | p[1] & 0x3F
        return 2
    if remaining < 3 or p[2] & 0xC0 != 0x80:
        return 0
    if lead < 0xF0:
        point[0] = (lead & 0x0F) << 12 | <uint32_t>(p[1] & 0x3F) << 6 | p[2] & 0x3F
        return 0 if point[0] < 0x800 or 0xD800 <= point[0] <= 0xDFFF else 3
    if remaining < 4 or p[3] & 0xC0 != 0x80:
        return 0
    point[0] = (lead & 0x07) << 18 | <uint32_t>(p[1] & 0x3F) << 12 | <uint32_t>(p[2] & 0x3F) << 6 | p[3] & 0x3F
    return 0 if point[0] < 0x10000 or point[0] > 0x10FFFF else 4


cdef inline int check_text(const uint8_t* p, Py_ssize_t size, bint empty) noexcept nogil:
    # The rules of a CloudEvents String (spec §3.1): no control characters, no noncharacters.
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    cdef uint64_t ones = 0x0101010101010101ULL
    cdef uint32_t point
    cdef int step
    if size == 0 and not empty:
        return TEXT_EMPTY
    if size > TEXT_MAX:
        return TEXT_LONG
    while at < size:
        point = p[at]
        step = 1
        if 0x20 <= point < 0x7F and size - at >= 8:
            # eight printable ASCII characters at once
            memcpy(&word, p + at, 8)
            if not (word | (word - ones * 0x20) | (word + ones)) & ones * 0x80:
                at += 8
                continue
        if point > 0x7F:
            step = utf8_step(p + at, size - at, &point)
            if step == 0:
                return TEXT_BROKEN
        if point < 0x20 or 0x7F <= point <= 0x9F or 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE:
            return TEXT_FORBIDDEN
        at += step
    return TEXT_GOOD


cdef inline bint good_name(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    # CloudEvents §3.1: lower-case letters and digits; 100 is our limit.
    cdef Py_ssize_t i
    if not 0 < size <= 100:
        return False
    for i in range(size):
        if not (0x61 <= p[i] <= 0x7A or 0x30 <= p[i] <= 0x39):
            return False
    return True


cdef inline bint check_traceparent(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if not 0 < size <= 512:
        return False
    for i in range(size):
        if not 0x20 <= p[i] <= 0x7E:
            return False
    return True


cdef inline bint is_uuid7(const uint8_t* raw) noexcept nogil:
    return raw[6] >> 4 == 7 and raw[8] >> 6 == 2


cdef inline void put_uuid(uint8_t* out, const uint8_t* raw) noexcept nogil:
    # 8-4-4-4-12 lower-case hexadecimal digits (RFC 9562 §4).
    cdef const char* digits = "0123456789abcdef"
    cdef int i
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[0] = 0x2D
            out += 1
        out[0] = digits[raw[i] >> 4]
        out[1] = digits[raw[i] & 15]
        out += 2


cdef inline int lower_hex(uint8_t c) noexcept nogil:
    if 0x30 <= c <= 0x39:
        return c - 0x30
    if 0x61 <= c <= 0x66:
        return c - 0x57
    return -1


cdef inline bint parse_uuid7(const uint8_t* p, Py_ssize_t size, uint8_t* raw) noexcept nogil:
    # Only what put_uuid writes, and only version 7.
    cdef Py_ssize_t at = 0
    cdef int i, high, low
    if size != UUID_ROOM:
        return False
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            if p[at] != 0x2D:
                return False
            at += 1
        high = lower_hex(p[at])
        low = lower_hex(p[at + 1])
        if high < 0 or low < 0:
            return False
        raw[i] = <uint8_t>(high << 4 | low)
        at += 2
    return is_uuid7(raw)


cdef inline void put_digits(uint8_t* out, uint32_t value, int count) noexcept nogil:
    while count:
        count -= 1
        out[count] = 0x30 + value % 10
        value //= 10


cdef inline int put_time(uint8_t* out, int64_t us) noexcept nogil:
    # RFC 3339 in UTC within TIME_ROOM bytes; gives the length. March is the first month, so that the leap day is the last of its year.
    cdef uint64_t since = <uint64_t>(us - time_min()) + <uint64_t>306 * 86400000000ULL     # from 0000-03-01
    cdef uint32_t micro = <uint32_t>(since % 1000000)
    cdef uint64_t seconds = since // 1000000
    cdef uint32_t second = <uint32_t>(seconds % 86400)
    cdef uint32_t day = <uint32_t>(seconds // 86400)
    cdef uint32_t century = (4 * day + 3) // 146097
    cdef uint32_t year, month
    day -= century * 146097 // 4
    year = (4 * day + 3) // 1461
    day -= 1461 * year // 4
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year += 100 * century
    month += 3
    if month > 12:
        month -= 12
        year += 1
    put_digits(out, year, 4)
    out[4] = 0x2D
    put_digits(out + 5, month, 2)
    out[7] = 0x2D
    put_digits(out + 8, day + 1, 2)
    out[10] = 0x54
    put_digits(out + 11, second // 3600, 2)
    out[13] = 0x3A
    put_digits(out + 14, second // 60 % 60, 2)
    out[16] = 0x3A
    put_digits(out + 17, second % 60, 2)
    if not micro:
        out[19] = 0x5A
        return 20
    out[19] = 0x2E
    put_digits(out + 20, micro, 6)
    out[26] = 0x5A
    return TIME_ROOM


cdef inline int get_digits(const uint8_t* p, int count) noexcept nogil:
    # -1 where there is anything but digits
    cdef int value = 0
    cdef int i
    for i in range(count):
        if not 0x30 <= p[i] <= 0x39:
            return -1
        value = value * 10 + p[i] - 0x30
    return value


cdef inline int month_days(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline bint parse_time(const uint8_t* p, Py_ssize_t size, int64_t* us) noexcept nogil:
    # RFC 3339 §5.6; finer digits than microseconds are cut, the result is held within time_min and time_max.
    cdef int year, month, day, hour, minute, second, zone_hour, zone_minute
    cdef int offset = 0
    cdef int digits = 0
    cdef int64_t micro = 0
    cdef int64_t minutes, result
    cdef Py_ssize_t at = 19
    if size < 20 or p[4] != 0x2D or p[7] != 0x2D or p[13] != 0x3A or p[16] != 0x3A or p[10] | 0x20 != 0x74:
        return False
    year = get_digits(p, 4)
    month = get_digits(p + 5, 2)
    day = get_digits(p + 8, 2)
    hour = get_digits(p + 11, 2)
    minute = get_digits(p + 14, 2)
    second = get_digits(p + 17, 2)
    if year < 0 or not 1 <= month <= 12 or not 1 <= day <= month_days(year, month):
        return False
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return False
    if p[at] == 0x2E:
        at += 1
        while at < size and 0x30 <= p[at] <= 0x39:
            if digits < 6:
                micro = micro * 10 + p[at] - 0x30
            if digits < 7:
                digits += 1
            at += 1
        if digits == 0:
            return False
        while digits < 6:
            micro *= 10
            digits += 1
    if size - at == 1 and p[at] | 0x20 == 0x7A:
        pass
    elif size - at == 6 and (p[at] == 0x2B or p[at] == 0x2D) and p[at + 3] == 0x3A:
        zone_hour = get_digits(p + at + 1, 2)
        zone_minute = get_digits(p + at + 4, 2)
        if not 0 <= zone_hour <= 23 or not 0 <= zone_minute <= 59:
            return False
        offset = zone_hour * 60 + zone_minute
        if p[at] == 0x2D:
            offset = -offset
    else:
        return False
    if month < 3:
        year -= 1
        month += 12
    # counted from 0000-03-01 plus 400 years, which keeps every term positive
    year += 400
    minutes = 365 * <int64_t>year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1
    minutes = (minutes - 146097 - 719468) * 1440 + hour * 60 + minute - offset
    if second == 60 and (minutes + <int64_t>1440 * 800000) % 1440 != 1439:
        # a leap second stands only at 23:59 UTC (§5.7)
        return False
    result = (minutes * 60 + second) * 1000000 + micro
    us[0] = time_min() if result < time_min() else time_max() if result > time_max() else result
    return True


cdef inline bint same_time(const uint8_t* p, Py_ssize_t size, int64_t us) noexcept nogil:
    # Whether put_time gives this text back.
    cdef uint8_t[27] text
    return put_time(text, us) == size and memcmp(text, p, size) == 0
