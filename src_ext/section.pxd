# A critical section over an object, header only: what `cython.critical_section` is, without the reference that it takes where there is a GIL. Nothing may be raised inside, nor returned from.

from cpython.object cimport PyObject


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    typedef PyCriticalSection CR_section;
    #define CR_lock(section, object) PyCriticalSection_Begin(section, (PyObject *)(object))
    #define CR_unlock(section) PyCriticalSection_End(section)
    #else
    typedef char CR_section;
    #define CR_lock(section, object) ((void)(section))
    #define CR_unlock(section) ((void)(section))
    #endif
    """
    ctypedef struct Section "CR_section":
        pass
    void lock "CR_lock"(Section*, object) noexcept
    void lock_at "CR_lock"(Section*, PyObject*) noexcept
    void unlock "CR_unlock"(Section*) noexcept
