# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""The publisher's buffer, compiled: the same results and errors as its twin `cloud_runtimes/_native/batch_py.py`, which is the contract.

Records are written straight into the open chunk, a block of memory that is a frame but for its count; sealed blocks wait in a list for `take`, which copies and recycles them.

Each method prepares first: whatever can fail, run Python code, create or release an object. Then comes one *section* of C without any of that, in which state goes from whole to whole. The GIL makes it atomic (free-threaded builds: a critical section, which nothing inside can suspend), and a signal handler or ``__del__`` that calls back never finds it half done.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_Check
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.memoryview cimport PyMemoryView_Check
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_GET_LENGTH
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, strchr

from attribute_text cimport parse_uuid7
from attributes cimport borrow_text, plain_extensions, slice_of, take_text
from blocks cimport Block, Blocks, body_of, free_blocks, new_block, recycle, reserve_in, seal
from carry cimport MORE, TRACEPARENT_SIZE, WHOLE, Carry
from objects cimport check_single
from record cimport (
    AT_CONTENT_TYPE, AT_EXTENSIONS, AT_ID, AT_KEY, AT_SOURCE, AT_SUBJECT, AT_TRACEPARENT, AT_TYPE, CONTENT_TYPE,
    CONTENT_TYPES, EXTENSIONS, HEAD_SIZE, ID_TEXT, KEY, RECORD_MAX, TRACEPARENT, DrawNow, Parts, Slice, clear_id,
    content_type_name, header_size, no_id, parts_read, parts_size, parts_write, put_header, put_u32,
)

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object)
    void* PyUnicode_DATA(object)

from cloud_runtimes._native import _events, _payload, _telemetry
from cloud_runtimes._native.attributes import MORE_THAN_TEXT
from cloud_runtimes.errors import InvalidArgumentError, PayloadError, ResourceExhaustedError

__all__ = ["ELSEWHERE", "BatchBuffer", "Chunk", "Entry"]

# ids come from the events kernel, so that those of the process strictly increase
cdef DrawNow draw_now = <DrawNow>PyCapsule_GetPointer(_events._draw_now, "cloud_runtimes._native._events._draw_now")
ctypedef object (*Written)(object, Slice*)
cdef Written written = <Written>PyCapsule_GetPointer(_payload._written, "cloud_runtimes._native._payload._written")
cdef Carry carry = <Carry>PyCapsule_GetPointer(_telemetry._carry, "cloud_runtimes._native._telemetry._carry")
cdef dict NUMBERS = {(<const char*>content_type_name(number).data).decode(): number for number in range(1, CONTENT_TYPES)}

cdef enum:
    FIRST_BYTES = 16384     # of a new block


@cython.final
cdef class Chunk:
    """A sealed frame of the buffer: `first` sequence number, `count` of events, `body`."""

    cdef readonly int64_t first
    cdef readonly Py_ssize_t count
    cdef readonly bytes body


@cython.final
cdef class BatchBuffer:
    """Encodes events into frames, in memory bounded by `buffer_bytes`; see the twin for arguments and errors."""

    cdef bytes header               # of a frame without records
    cdef object ready
    cdef int64_t batch_events
    cdef Py_ssize_t batch_bytes, buffer_bytes
    cdef Block* open                # `tag`: sequence number of its first event
    cdef Blocks blocks
    cdef int64_t accepted, delivered, failed, dropped, batches, taken
    cdef Py_ssize_t bytes_, taken_bytes
    cdef bint closed

    def __cinit__(self, source, type, topic, *, batch_events, batch_bytes, buffer_bytes, ready):
        cdef Slice[3] texts
        take_text(InvalidArgumentError, "source", source, False, &texts[0])
        take_text(InvalidArgumentError, "type", type, False, &texts[1])
        take_text(InvalidArgumentError, "topic", topic, True, &texts[2])
        if not 0 < batch_events < 1 << 32 or batch_bytes < 1 or buffer_bytes < 1:
            raise InvalidArgumentError("batch_events, batch_bytes and buffer_bytes must be at least 1")
        self.header = PyBytes_FromStringAndSize(NULL, header_size(texts))
        put_header(<uint8_t*>PyBytes_AS_STRING(self.header), 0, texts)
        self.batch_events = batch_events
        self.batch_bytes = min(batch_bytes, 1 << 62)
        self.buffer_bytes = min(buffer_bytes, 1 << 62)
        self.blocks.first, self.blocks.limit = FIRST_BYTES, self.batch_bytes
        self.ready = ready

    def __dealloc__(self):
        free(self.open)
        free_blocks(&self.blocks)

    # ---- sections: called with the buffer locked, touch no object ----

    cdef void seal_open(self) noexcept:
        put_u32(body_of(self.open) + 4, <uint32_t>self.open.count)
        seal(&self.blocks, self.open)
        self.open = NULL
        self.batches += 1

    cdef int64_t add(self, const Parts* parts, const uint8_t* record, Py_ssize_t size, bint* wake) noexcept:
        # Appends `parts`, or `record` as it is. The sequence number, 0 where it does not fit now, -1 without memory.
        cdef Py_ssize_t header = PyBytes_GET_SIZE(self.header)
        cdef Block* block = self.open
        cdef bint idle = block == NULL and self.blocks.head == NULL
        cdef Py_ssize_t needed = size
        wake[0] = False
        if self.closed:
            return 0
        if block != NULL and (block.size + size > self.batch_bytes or self.bytes_ + size > self.buffer_bytes):
            self.seal_open()
            block = NULL
            wake[0] = True
        if block == NULL:
            needed += header
        if self.bytes_ + needed > self.buffer_bytes:
            return 0
        if block == NULL:
            block = self.open = new_block(&self.blocks, header + size)
            if block == NULL:
                return -1
            block.size = header
            block.tag = self.accepted + 1
            memcpy(body_of(block), PyBytes_AS_STRING(self.header), header)
            wake[0] = wake[0] or idle
        elif not reserve_in(&self.blocks, &self.open, block.size + size):
            return -1
        block = self.open
        if parts != NULL:
            parts_write(parts, size, body_of(block) + block.size)
        else:
            memcpy(body_of(block) + block.size, record, size)
        block.size += size
        block.count += 1
        self.bytes_ += needed
        self.accepted += 1
        if block.count == self.batch_events or block.size + HEAD_SIZE > self.batch_bytes:
            self.seal_open()
            wake[0] = True
        return self.accepted

    cdef int refuse_large(self, Py_ssize_t size) except -1:
        header = PyBytes_GET_SIZE(self.header)
        if header + size > self.buffer_bytes:
            raise ResourceExhaustedError(
                f"an event of {size} bytes (and {header} of frame header) can never fit into buffer_bytes={self.buffer_bytes}; raise it, or send less"
            )
        return 0

    def append(self, bytes record not None):
        """Take a record made by `encode_record`; its sequence number, or 0 when the buffer is full now."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(record)
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(record)
        cdef int64_t sequence
        cdef bint wake
        check_single(PayloadError, record)
        self.refuse_large(size)
        with cython.critical_section(self):
            sequence = self.add(NULL, data, size, &wake)
        if sequence < 0:
            raise MemoryError
        if wake:
            self.ready()
        return sequence

    def close(self):
        """Take nothing any more: every append returns 0."""
        with cython.critical_section(self):
            self.closed = True

    def seal(self):
        """Seal the open chunk; returns whether there was one. `ready` is not called."""
        cdef bint is_open
        with cython.critical_section(self):
            is_open = self.open != NULL
            if is_open:
                self.seal_open()
        return is_open

    def take(self, Py_ssize_t max_bytes):
        """Remove sealed chunks in order: at least one if there is any, else as many as `max_bytes` hold."""
        cdef list result = []
        cdef Chunk chunk
        cdef Block* block
        cdef Py_ssize_t size
        cdef Py_ssize_t total = 0
        cdef int64_t first = 0
        cdef bint same
        while True:
            with cython.critical_section(self):
                block = self.blocks.head
                size = block.size if block != NULL else -1
                if block != NULL:
                    first = block.tag
            if size < 0 or (result and total + size > max_bytes):
                return result
            try:
                chunk = Chunk.__new__(Chunk)
                chunk.body = PyBytes_FromStringAndSize(NULL, size)
                result.append(chunk)
            except MemoryError:
                if result:
                    return result
                raise
            with cython.critical_section(self):
                # another thread may have taken it while the object was made
                block = self.blocks.head
                same = block != NULL and block.tag == first and block.size == size
                if same:
                    memcpy(PyBytes_AS_STRING(chunk.body), body_of(block), size)
                    chunk.first = first
                    chunk.count = block.count
                    self.blocks.head = block.next
                    self.taken += block.count
                    self.taken_bytes += size
                    recycle(&self.blocks, block)
            if same:
                total += size
            else:
                result.pop()

    def settle(self, int64_t count, Py_ssize_t size, int64_t failed):
        """Account for taken events: `count` are settled, `failed` of them failed; their frames had `size` bytes."""
        cdef bint good
        with cython.critical_section(self):
            good = 0 <= failed <= count <= self.taken and 0 <= size <= self.taken_bytes
            if good:
                self.taken -= count
                self.taken_bytes -= size
                self.bytes_ -= size
                self.failed += failed
                self.delivered += count - failed
        if not good:
            raise InvalidArgumentError(f"settle({count}, {size}, {failed}): more than was taken")

    @property
    def has_sealed(self):
        """Whether `take` would give something."""
        return self.blocks.head != NULL

    @property
    def open_events(self):
        """Events in the open chunk."""
        cdef uint32_t count = 0
        with cython.critical_section(self):
            if self.open != NULL:
                count = self.open.count
        return count

    def drop(self):
        """Count an event that was refused."""
        with cython.critical_section(self):
            self.dropped += 1

    def stats(self):
        """One snapshot: accepted, delivered, failed, dropped, buffered events, batches sealed, buffered bytes."""
        cdef int64_t accepted, delivered, failed, dropped, batches
        cdef Py_ssize_t size
        with cython.critical_section(self):
            accepted = self.accepted
            delivered = self.delivered
            failed = self.failed
            dropped = self.dropped
            batches = self.batches
            size = self.bytes_
        return accepted, delivered, failed, dropped, accepted - delivered - failed, batches, size


include "entry.pxi"
