# What the kernels ask of the operating system, header only: two clocks and random bytes.

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifdef _WIN32
    #ifndef WIN32_LEAN_AND_MEAN
    #define WIN32_LEAN_AND_MEAN
    #endif
    #include <windows.h>
    int rand_s(unsigned int*);  /* stdlib.h hides it, unless asked before its first inclusion */
    static int64_t CR_wall_ns(void) {
        FILETIME now;
        GetSystemTimePreciseAsFileTime(&now);
        /* in units of 100 ns, since 1601 */
        return ((int64_t)((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime) - 116444736000000000LL) * 100;
    }
    static int64_t CR_monotonic_ns(void) {
        LARGE_INTEGER ticks, rate;
        QueryPerformanceCounter(&ticks);
        QueryPerformanceFrequency(&rate);
        return ticks.QuadPart / rate.QuadPart * 1000000000 + ticks.QuadPart % rate.QuadPart * 1000000000 / rate.QuadPart;
    }
    static int CR_random(void* out, size_t size) {
        unsigned int word;
        size_t at, part;
        for (at = 0; at < size; at += part) {
            part = size - at < sizeof(word) ? size - at : sizeof(word);
            if ((errno = rand_s(&word))) return -1;
            memcpy((char*)out + at, &word, part);
        }
        return 0;
    }
    #else
    #include <time.h>
    #include <unistd.h>
    #include <sys/random.h>
    static int64_t CR_clock_ns(clockid_t which) {
        struct timespec now;
        clock_gettime(which, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    #define CR_wall_ns() CR_clock_ns(CLOCK_REALTIME)
    #define CR_monotonic_ns() CR_clock_ns(CLOCK_MONOTONIC)
    #define CR_random getentropy
    #endif
    """
    int64_t wall_ns "CR_wall_ns"() noexcept nogil
    int64_t monotonic_ns "CR_monotonic_ns"() noexcept nogil
    int random_bytes "CR_random"(void*, size_t) noexcept nogil  # up to 256; not 0, with errno, where the system gives none
