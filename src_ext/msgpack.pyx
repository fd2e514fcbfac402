# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, embedsignature=True, embedsignature.format=clinic
"""MessagePack, compiled: the same bytes, values and errors as its twin `cloud_runtimes/_native/msgpack_py.py`, which is the contract.

Encoding writes into a buffer on the stack and copies the result once: first the short way (`msgpack_builtin.pxd`), which takes exact builtins only, and where that gives up the long way below. Python decides what a value that is no builtin becomes (`codec/_plain.py`, shared with the twin). Decoding reads every head in one place (`read_head`), which has checked that what the head promises is there; nothing is allocated from a declared length.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from json_text cimport utf8_valid
from msgpack_builtin cimport CR_BORROW, CR_object, short_container
from msgpack_wire cimport (
    ARRAY, BIN, EXTENSION, FALSE, FLOAT, MAP, NIL, SIGNED, STR, TRUE, UNSIGNED, Head, Reader, big_endian, malformed,
    put_bin_head, put_container_head, put_double, put_negative, put_str_head, put_timestamp, put_unsigned, read_head,
)
from writer cimport Writer, put_bytes, put_u8, write_u8, writer_bytes, writer_init, writer_release, writer_reserve

import datetime

from cloud_runtimes.codec import _limits
from cloud_runtimes.codec._plain import Refused, located, payload_error, plain, plain_key
from cloud_runtimes.errors import PayloadError

__all__ = ["decode", "encode", "set_limits"]

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define CR_KEY_CACHE 0
    #else
    #define CR_KEY_CACHE 1
    #endif
    #define CR_ASCII_DATA(o) ((const char*)PyUnicode_DATA(o))
    /* A str of ASCII, made without the decoder's search for its kind; NULL without an error where it is none. */
    static inline PyObject* CR_ascii(const char* at, Py_ssize_t size) {
        uint64_t word, seen = 0;
        Py_ssize_t i = 0;
        PyObject* text;
        if (size < 2) return NULL;
        if (size >= 8) {
            for (; i < size - 8; i += 8) {
                memcpy(&word, at + i, 8);
                seen |= word;
            }
            memcpy(&word, at + size - 8, 8);
            seen |= word;
        } else {
            for (; i < size; i++) seen |= (uint64_t)(unsigned char)at[i];
        }
        if (seen & 0x8080808080808080ULL) return NULL;
        text = PyUnicode_New(size, 127);
        if (text == NULL) {
            PyErr_Clear();
            return NULL;
        }
        memcpy(PyUnicode_DATA(text), at, (size_t)size);
        return text;
    }
    """
    PyObject* CR_ascii(const char*, Py_ssize_t)
    const bint CR_KEY_CACHE
    const char* CR_ASCII_DATA(object)
    const char* CR_ASCII_DATA_P "CR_ASCII_DATA"(PyObject*)
    bint PyUnicode_IS_COMPACT_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    Py_ssize_t PyUnicode_GET_LENGTH_P "PyUnicode_GET_LENGTH"(PyObject*)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    Py_hash_t PyObject_Hash(object) except -1
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    double PyFloat_AS_DOUBLE(object)
    PyTypeObject* Py_TYPE(object)
    void Py_XDECREF(PyObject*)
    bint PyErr_ExceptionMatches(object)
    void PyErr_Clear()
    void Py_INCREF_P "Py_INCREF"(PyObject*)
    PyTypeObject PyUnicode_Type, PyLong_Type, PyFloat_Type, PyDict_Type, PyList_Type, PyTuple_Type, PyBytes_Type

cdef enum:
    MAX_DEPTH = 128        # nested containers that are encoded; also what ends a cycle
    DEEPEST = 512          # what the limit of decoding can be (`codec.limits`)
    MAX_COUNT = 0xFFFFFFFF
    STACK_BYTES = 1024
    FIRST_ITEMS = 256      # what a decoded list is sized for before its items have been seen
    VERIFY_BYTES = 8192    # longer input is checked whole before the first object is made
    CACHED_KEYS = 1024     # slots, a power of two
    CACHED_KEY_BYTES = 40

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_timedelta = datetime.timedelta
_datetime = datetime.datetime


include "msgpack_encode.pxi"
include "msgpack_decode.pxi"
