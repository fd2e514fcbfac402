# Exact builtins by borrowed references, header only: reading them runs no Python code.

from cpython.object cimport PyObject, PyTypeObject


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define CR_BORROW 0
    #else
    #define CR_BORROW 1
    #endif
    #define CR_item(o, i) (PyTuple_CheckExact(o) ? PyTuple_GET_ITEM(o, i) : PyList_GET_ITEM(o, i))
    #define CR_object(o) ((PyObject*)(o))
    /* The value of an `int`, without a call where it has one digit. */
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
    const bint CR_BORROW
    PyObject* CR_item(PyObject*, Py_ssize_t)
    PyObject* CR_object(object)
    bint CR_small_int(PyObject*, long long*)  # false where it has more than 64 bits
    PyObject* PyObject_CallOneArg(PyObject*, PyObject*)
    Py_ssize_t Py_SIZE(PyObject*)
    PyTypeObject* Py_TYPE(PyObject*)
    double PyFloat_AS_DOUBLE(PyObject*)
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**)
    PyObject* Py_None_P "Py_None"
    PyTypeObject PyUnicode_Type, PyLong_Type, PyBool_Type, PyFloat_Type, PyDict_Type, PyList_Type, PyTuple_Type
