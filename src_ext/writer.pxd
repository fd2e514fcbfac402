# A growable byte writer, header only: the caller's buffer first (usually on its stack), the heap once that overflows.
#
# Every step is `except -1` (only MemoryError is possible) and runs without the GIL; release never fails.
# A savepoint is one integer: keep `writer.length`, and give it to `writer_rollback`, or patch a header in place below it.
# The functions named `put_*` do not look at the capacity: `writer_reserve` has to come first.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint8_t* copy_short(uint8_t* p, const uint8_t* source, Py_ssize_t size) noexcept nogil:
    # Returns the end. What is short by two moves that overlap instead of a call.
    cdef uint64_t a, b, c, d
    cdef uint32_t e, f
    if size >= 8:
        if size > 32:
            memcpy(p, source, <size_t>size)
        elif size > 16:
            memcpy(&a, source, 8)
            memcpy(&b, source + 8, 8)
            memcpy(&c, source + size - 16, 8)
            memcpy(&d, source + size - 8, 8)
            memcpy(p, &a, 8)
            memcpy(p + 8, &b, 8)
            memcpy(p + size - 16, &c, 8)
            memcpy(p + size - 8, &d, 8)
        else:
            memcpy(&a, source, 8)
            memcpy(&b, source + size - 8, 8)
            memcpy(p, &a, 8)
            memcpy(p + size - 8, &b, 8)
    elif size >= 4:
        memcpy(&e, source, 4)
        memcpy(&f, source + size - 4, 4)
        memcpy(p, &e, 4)
        memcpy(p + size - 4, &f, 4)
    elif size:
        p[0] = source[0]
        p[size >> 1] = source[size >> 1]
        p[size - 1] = source[size - 1]
    return p + size


cdef struct Writer:
    char* data            # where the bytes are: the caller's buffer, or the heap
    Py_ssize_t length     # bytes written
    Py_ssize_t capacity   # bytes that fit into `data`
    bint heap             # `data` is ours to free


cdef inline void writer_init(Writer* w, char* buffer, Py_ssize_t capacity) noexcept nogil:
    # `buffer` must outlive the writer, which is the reason to put both on one stack frame.
    w.data = buffer
    w.length = 0
    w.capacity = capacity
    w.heap = False


cdef inline void writer_release(Writer* w) noexcept nogil:
    if w.heap:
        PyMem_RawFree(w.data)
    w.data = NULL
    w.length = 0
    w.capacity = 0
    w.heap = False


cdef inline bint writer_grew(Writer* w, Py_ssize_t extra) noexcept nogil:
    # Whether there is memory for it. At least doubles, so that n bytes cost O(n).
    cdef Py_ssize_t wanted
    cdef char* data
    if extra > (<Py_ssize_t>((<size_t>-1) >> 1)) // 2 - w.length:
        return False
    wanted = max(w.length + extra, 2 * w.capacity)
    data = <char*>(PyMem_RawRealloc(w.data, <size_t>wanted) if w.heap else PyMem_RawMalloc(<size_t>wanted))
    if data == NULL:
        return False
    if not w.heap:
        memcpy(data, w.data, <size_t>w.length)
    w.data = data
    w.capacity = wanted
    w.heap = True
    return True


cdef inline int writer_grow(Writer* w, Py_ssize_t extra) except -1 nogil:
    # The slow half of writer_reserve.
    if not writer_grew(w, extra):
        with gil:
            raise MemoryError()
    return 0


cdef inline int writer_reserve(Writer* w, Py_ssize_t extra) except -1 nogil:
    # After it `extra` more bytes fit.
    if extra > w.capacity - w.length:
        writer_grow(w, extra)
    return 0


cdef inline void writer_rollback(Writer* w, Py_ssize_t savepoint) noexcept nogil:
    w.length = savepoint


cdef inline void put_u8(Writer* w, uint8_t value) noexcept nogil:
    w.data[w.length] = <char>value
    w.length += 1


cdef inline void put_bytes(Writer* w, const char* source, Py_ssize_t size) noexcept nogil:
    copy_short(<uint8_t*>w.data + w.length, <const uint8_t*>source, size)
    w.length += size


cdef inline int write_bytes(Writer* w, const char* source, Py_ssize_t size) except -1 nogil:
    writer_reserve(w, size)
    put_bytes(w, source, size)
    return 0


cdef inline bytes writer_bytes(Writer* w):
    # An exact copy: the one allocation that a short result costs.
    return PyBytes_FromStringAndSize(w.data, w.length)
