/* Reference counts as CPython 3.12 and 3.13 keep them, without a stall. Included before all else in each kernel (CMakeLists.txt).

   There `Py_INCREF` writes the lower half of the count and `Py_DECREF` reads the whole: a load that is wider than the store before it waits until that store has left the processor's store buffer, a dozen cycles for each pair on one object, and Cython makes many. CPython 3.14 counts in 32 bits throughout. Here `Py_DECREF` does as well. The upper half is not zero only where code for the limited API of 3.11 and before holds an immortal object; such an object is left alone, as it is by CPython's own. */
#ifndef CLOUD_RUNTIMES_REFCOUNT_H
#define CLOUD_RUNTIMES_REFCOUNT_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && SIZEOF_VOID_P > 4 \
    && !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG) && !defined(Py_LIMITED_API)

static inline Py_ALWAYS_INLINE void CR_DECREF(PyObject *op) {
    const PY_UINT32_T count = op->ob_refcnt_split[PY_BIG_ENDIAN];
    if ((PY_INT32_T)count < 0) {
        return; /* immortal */
    }
    op->ob_refcnt_split[PY_BIG_ENDIAN] = count - 1;
    if (count == 1 && op->ob_refcnt_split[!PY_BIG_ENDIAN] == 0) {
        _Py_Dealloc(op);
    }
}

static inline Py_ALWAYS_INLINE void CR_XDECREF(PyObject *op) {
    if (op != NULL) {
        CR_DECREF(op);
    }
}

#undef Py_DECREF
#undef Py_XDECREF
#define Py_DECREF(op) CR_DECREF(_PyObject_CAST(op))
#define Py_XDECREF(op) CR_XDECREF(_PyObject_CAST(op))

#endif
#endif
