# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""Spans, log records, metrics and their buffer, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/telemetry_py.py`, which is the contract.

A record is encoded on the stack first (that may run Python code), then comes one *section* of C that appends it to the open block of its scope and changes the counters: no Python code, no object made or released. The GIL makes it atomic (free-threaded builds: a critical section), and a signal handler or ``__del__`` that records never finds it half done.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContextVar_Get, PyContextVar_Reset, PyContextVar_Set
from cpython.dict cimport (
    PyDict_Contains, PyDict_Copy, PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem, PyDict_Size, PyDict_Update,
)
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.object cimport Py_EQ, PyObject, PyObject_Hash, PyObject_RichCompareBool
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_GET_LENGTH
from libc.math cimport ceil, frexp, isfinite, ldexp, log
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cdef extern from *:
    """
    static inline int add_overflows(int64_t a, int64_t b, int64_t* out) {
        *out = (int64_t)((uint64_t)a + (uint64_t)b);
        return ((a ^ *out) & (b ^ *out)) < 0;
    }
    static inline int same_text(PyObject* one, PyObject* other) {
        const Py_ssize_t size = PyUnicode_GET_LENGTH(one);
        const int kind = PyUnicode_KIND(one);
        return size == PyUnicode_GET_LENGTH(other) && kind == (int)PyUnicode_KIND(other)
            && memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)size * (size_t)kind) == 0;
    }
    """
    bint add_overflows(int64_t, int64_t, int64_t*) noexcept nogil
    bint same_text(PyObject*, PyObject*) noexcept  # both are exact

cdef extern from "Python.h":
    int var_reset "PyContextVar_Reset"(object var, object token) noexcept  # the caller looks at what it returns

cimport otlp
from blocks cimport Block, Blocks, body_of, free_blocks, new_block, recycle, reserve_in, seal
from carry cimport MORE, NOTHING, TRACEPARENT_SIZE, WHOLE, Carry
from objects cimport CR_new
from otlp cimport begin, bytes_field, data_field, finish, fixed64_field, put_attributes, put_fixed32, put_value, text_field, varint_field
from section cimport Section, lock, unlock
from system cimport monotonic_ns, wall_ns
from writer cimport Writer, put_u8, writer_bytes, writer_init, writer_release, writer_reserve, writer_rollback

import os
import sys
from contextvars import ContextVar

from cloud_runtimes._native.otlp_py import Limits
from cloud_runtimes._native.telemetry_points import OVERFLOW, Observable, Point, attributes_key, metric, metric_head, real_number
from cloud_runtimes._native.telemetry_text import (
    KINDS, SEVERITIES, STATUSES, attributes_of, entered_already, exception_attributes, frozen, frozen_attributes, id_bytes, not_bridged, refuse_parent,
    time_of, wrong,
)
from cloud_runtimes.errors import InvalidArgumentError

__all__ = [
    "CAUSES", "ApiScopeBase", "ApiSpanBase", "BoundCounter", "BoundGauge", "BoundHistogram", "Buffer", "Chunk",
    "Counter", "Gauge", "Histogram", "Limits", "Logger", "Observable", "Sampler", "Span", "SpanContext", "Tracer", "Traces", "UpDownCounter",
    "baggage", "bridge", "current", "current_span", "outgoing", "remote_context", "reseed",
]

CAUSES = ("buffer_full", "too_large", "closed", "failed", "rejected", "unreachable", "export_error", "invalid")
cdef dict kinds = dict(KINDS)
cdef dict statuses = dict(STATUSES)
cdef dict severities = dict(SEVERITIES)
cdef dict severity_names = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}

cdef enum:
    FULL = 0
    TOO_LARGE = 1
    CLOSED = 2
    FAILED = 3
    CAUSE_COUNT = 8
    SAMPLED = 1
    HAS_IS_REMOTE = 0x100
    IS_REMOTE = 0x200
    SCRATCH = 2048          # of a record, on the stack
    OFFSET_TIME = 1000000   # nanoseconds for which how far the clocks are apart is believed: reading both costs a traced call 3 %
    INLINE = 8              # attributes that stand in a span itself
    FIRST_BYTES = 4096      # of a new block


cdef int read_limits(limits, otlp.Limits* out) except -1:
    out.attributes, out.value_length, out.events, out.links = limits
    return 0


# ---- clock and ids: one state for the process, changed without running Python code ----

cdef object clock = None        # a function of nanoseconds, in tests
cdef object guard = object()    # what free-threaded builds lock
cdef uint64_t[4] words


cdef int64_t wall_now() except? -1:
    return wall_ns() if clock is None else <int64_t>clock()


cdef int64_t monotonic_now() except? -1:
    return monotonic_ns() if clock is None else <int64_t>clock()


def _set_clock(fn):
    """Replace both clocks by a function of nanoseconds; `None` gives them back. For tests."""
    global clock
    clock = fn


cdef inline uint64_t rotl(uint64_t x, int k) noexcept nogil:
    return x << k | x >> (64 - k)


cdef inline void put_id(uint8_t* out, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        out[i] = <uint8_t>(value >> (8 * i))


cdef inline uint64_t draw() noexcept nogil:
    # xoshiro256** (Blackman and Vigna), never zero; `guard` is locked
    cdef uint64_t result = 0
    cdef uint64_t t
    while result == 0:
        result = rotl(words[1] * 5, 7) * 9
        t = words[1] << 17
        words[2] ^= words[0]
        words[3] ^= words[1]
        words[1] ^= words[2]
        words[0] ^= words[3]
        words[2] ^= t
        words[3] = rotl(words[3], 45)
    return result


cdef inline void draw_ids(uint8_t* out, int count) noexcept:
    # `count` times 8 bytes
    cdef Section section
    cdef int i
    lock(&section, guard)
    for i in range(count):
        put_id(out + 8 * i, draw())
    unlock(&section)


def reseed():
    """Draw the generator's state from the system; a forked child must."""
    cdef bytes noise = os.urandom(32)
    with cython.critical_section(guard):
        memcpy(words, PyBytes_AS_STRING(noise), 32)
        words[0] |= 1


def _set_seed(uint64_t seed):
    """Set the generator's state from a number, so that ids repeat. For tests."""
    words[0] = seed | 1
    words[1] = seed * 3
    words[2] = seed * 5
    words[3] = seed * 7


reseed()


@cython.final
cdef class Chunk:
    """Records of one scope; see the twin."""

    cdef readonly int scope
    cdef readonly int64_t count
    cdef readonly bytes body


@cython.final
cdef class Buffer:
    """Records of one signal in bounded memory; see the twin for arguments and errors."""

    cdef object ready
    cdef Py_ssize_t limit, chunk
    cdef Block** open               # by scope
    cdef int scopes                 # room in `open`
    cdef Blocks blocks              # `tag`: the scope
    cdef int64_t recorded, exported, waiting, taken
    cdef int64_t[CAUSE_COUNT] dropped
    cdef Py_ssize_t bytes_, taken_bytes
    cdef bint closed

    def __cinit__(self, *, buffer_bytes, chunk_bytes, ready):
        if buffer_bytes < 1 or chunk_bytes < 1:
            raise InvalidArgumentError("buffer_bytes and chunk_bytes must be at least 1")
        self.limit = buffer_bytes
        self.chunk = chunk_bytes
        self.blocks.first, self.blocks.limit = FIRST_BYTES, self.chunk
        self.ready = ready

    def __dealloc__(self):
        self.clear()

    cdef void clear(self) noexcept:
        cdef int i
        for i in range(self.scopes):
            free(self.open[i])
        free(self.open)
        free_blocks(&self.blocks)
        self.open = NULL
        self.scopes = 0

    def reset(self):
        """Begin anew, in a forked child: empty, with counters of its own."""
        self.clear()
        self.recorded = self.exported = self.waiting = self.taken = 0
        memset(self.dropped, 0, sizeof(self.dropped))
        self.bytes_ = self.taken_bytes = 0
        self.closed = False

    # ---- sections: called with the buffer locked, touch no object ----

    cdef void seal_block(self, int scope) noexcept:
        seal(&self.blocks, self.open[scope])
        self.open[scope] = NULL

    cdef Block* room(self, int scope, Py_ssize_t size) noexcept:
        # The open block of a scope with room for `size` bytes more.
        cdef Block* block
        cdef Block** table
        cdef int wanted
        if scope >= self.scopes:
            wanted = max(2 * self.scopes, scope + 8)
            table = <Block**>realloc(self.open, wanted * sizeof(Block*))
            if table == NULL:
                return NULL
            memset(table + self.scopes, 0, (wanted - self.scopes) * sizeof(Block*))
            self.open = table
            self.scopes = wanted
        block = self.open[scope]
        if block == NULL:
            block = self.open[scope] = new_block(&self.blocks, size)
            if block != NULL:
                block.tag = scope
        elif not reserve_in(&self.blocks, &self.open[scope], block.size + size):
            return NULL
        return self.open[scope]

    cdef int append(self, int scope, const char* data, Py_ssize_t size, int64_t count, bint* wake) noexcept:
        # -1, or why it is dropped
        cdef Py_ssize_t entry = size + 2
        cdef Py_ssize_t rest = size >> 7
        cdef int cause
        cdef Block* block
        cdef uint8_t* at
        wake[0] = False
        while rest:
            entry += 1
            rest >>= 7
        self.recorded += count
        if self.closed or entry > self.chunk or self.bytes_ + entry > self.limit:
            cause = CLOSED if self.closed else TOO_LARGE if entry > self.chunk else FULL
            self.dropped[cause] += count
            return cause
        wake[0] = self.waiting == 0
        if scope < self.scopes and self.open[scope] != NULL and self.open[scope].size + entry > self.chunk:
            self.seal_block(scope)
            wake[0] = True
        block = self.room(scope, entry)
        if block == NULL:
            self.dropped[FULL] += count
            return FULL
        at = body_of(block) + block.size
        at[0] = 0x12
        at += 1
        rest = size
        while rest > 0x7F:
            at[0] = <uint8_t>(rest & 0x7F | 0x80)
            at += 1
            rest >>= 7
        at[0] = <uint8_t>rest
        memcpy(at + 1, data, size)
        block.size += entry
        block.count += count
        self.bytes_ += entry
        self.waiting += count
        return -1

    cdef bint put(self, int scope, Writer* w, int64_t count) except -1:
        # Appends what is in the writer, which is released in any case.
        cdef Section section
        cdef bint wake
        cdef int cause
        lock(&section, self)
        cause = self.append(scope, w.data, w.length, count, &wake)
        unlock(&section)
        writer_release(w)
        if wake:
            self.ready()
        return cause < 0

    def add(self, int scope, bytes record not None, int64_t count=1):
        """Append one encoded record; returns whether it was kept."""
        cdef Writer w
        if scope < 0:
            raise InvalidArgumentError(f"scope={scope}: give 0 or more")
        writer_init(&w, PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record))
        w.length = w.capacity
        return self.put(scope, &w, count)

    def seal(self):
        """Seal all open chunks."""
        cdef int i
        with cython.critical_section(self):
            for i in range(self.scopes):
                if self.open[i] != NULL:
                    self.seal_block(i)

    def take(self, Py_ssize_t max_bytes):
        """Remove sealed chunks in order: at least one if there is any, else as many as `max_bytes` hold."""
        cdef list result = []
        cdef Chunk chunk
        cdef Block* block
        cdef Py_ssize_t size
        cdef Py_ssize_t total = 0
        while True:
            with cython.critical_section(self):
                block = self.blocks.head
                size = block.size if block != NULL else -1
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
                # one thread at a time takes, so the head is the same
                block = self.blocks.head
                if block != NULL and block.size == size:
                    memcpy(PyBytes_AS_STRING(chunk.body), body_of(block), size)
                    chunk.scope = <int>block.tag
                    chunk.count = block.count
                    self.blocks.head = block.next
                    self.taken += block.count
                    self.taken_bytes += size
                    self.waiting -= block.count
                    recycle(&self.blocks, block)
            total += size

    def settle(self, int64_t count, Py_ssize_t size, int64_t dropped, int cause):
        """Account for taken records; see the twin."""
        cdef bint good
        with cython.critical_section(self):
            good = 0 <= dropped <= count <= self.taken and 0 <= size <= self.taken_bytes and 0 <= cause < CAUSE_COUNT
            if good:
                self.taken -= count
                self.taken_bytes -= size
                self.bytes_ -= size
                self.dropped[cause] += dropped
                self.exported += count - dropped
        if not good:
            raise InvalidArgumentError(f"settle({count}, {size}, {dropped}): more than was taken")

    cpdef drop(self, int64_t count, int cause):
        """Count what never came into a chunk."""
        if not 0 <= cause < CAUSE_COUNT:
            raise IndexError("no such cause")
        with cython.critical_section(self):
            self.recorded += count
            self.dropped[cause] += count

    def close(self):
        """Take nothing any more: what comes is dropped and counted."""
        self.closed = True

    def stats(self):
        """One snapshot: recorded, exported, dropped by cause, buffered, bytes buffered."""
        cdef int64_t recorded, exported, buffered
        cdef int64_t[CAUSE_COUNT] dropped
        cdef Py_ssize_t size
        cdef int i
        with cython.critical_section(self):
            recorded = self.recorded
            exported = self.exported
            buffered = self.waiting + self.taken
            memcpy(dropped, self.dropped, sizeof(dropped))
            size = self.bytes_
        return recorded, exported, tuple([dropped[i] for i in range(CAUSE_COUNT)]), buffered, size


include "telemetry_current.pxi"
include "telemetry_context.pxi"
include "telemetry_tracer.pxi"
include "telemetry_spans.pxi"
include "telemetry_api.pxi"
include "telemetry_with.pxi"
include "telemetry_logs.pxi"
include "telemetry_series.pxi"
include "telemetry_metrics.pxi"
include "telemetry_instruments.pxi"
