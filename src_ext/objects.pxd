# Making Python objects, of slices too, header only; the class of the error is an argument, because a header imports nothing.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from record cimport Fault, Slice, check_record


cdef extern from *:
    """
    static CYTHON_INLINE PyObject* CR_new(PyObject* cls, PyObject* empty) {
        return ((PyTypeObject*)cls)->tp_new((PyTypeObject*)cls, empty, NULL);
    }
    """
    object CR_new(object cls, tuple empty)  # what `cls.__new__(cls)` does, without looking it up

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    bint PyGC_Disable()
    bint PyGC_Enable()
    bint PyObject_GC_IsTracked(object)
    void PyObject_GC_Track(object)
    void PyObject_GC_UnTrack(object)


cdef inline object refused(object error, str where, const Fault* fault):
    position = f" at byte {fault.at}" if fault.at >= 0 else ""
    return error(f"{where}: {fault.what.decode()}{position}")


cdef inline int check_single(object error, bytes record) except -1:
    cdef Fault fault
    cdef Py_ssize_t size = PyBytes_GET_SIZE(record)
    cdef Py_ssize_t stop = check_record(<const uint8_t*>PyBytes_AS_STRING(record), 0, size, &fault)
    if stop < 0:
        raise refused(error, "record", &fault)
    if stop != size:
        raise error("record: bytes behind its end")
    return 0


cdef inline str text_of(object error, Slice text, str name):
    try:
        return PyUnicode_DecodeUTF8(<const char*>text.data, text.size, NULL)
    except UnicodeDecodeError:
        raise error(f"record: {name} is not UTF-8") from None
