# The value of an exact `int` without a call where it has one digit, header only.

from cpython.object cimport PyObject


cdef extern from *:
    """
    static inline int CR_small_int(PyObject* value, long long* out) {
    #if PY_VERSION_HEX >= 0x030C0000
        if (PyUnstable_Long_IsCompact((PyLongObject*)value)) {
            *out = PyUnstable_Long_CompactValue((PyLongObject*)value);
            return 1;
        }
    #else
        Py_ssize_t size = Py_SIZE(value);
        if (size >= -1 && size <= 1) {
            *out = size == 0 ? 0 : (long long)size * ((PyLongObject*)value)->ob_digit[0];
            return 1;
        }
    #endif
        int overflow = 0;
        *out = PyLong_AsLongLongAndOverflow(value, &overflow);
        return !overflow;
    }
    """
    # false where it has more than 64 bits
    bint CR_small_int(PyObject*, long long*)
