# Entries of a span in the place of Cython's, which are a tenth of what it costs. One does the usual case, and leaves all else to the one that Cython made.

ctypedef object (*Method)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*)
ctypedef void (*Destructor)(PyObject*) noexcept

cdef extern from "Python.h":
    """
    typedef PyObject *(*CR_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    /* Puts `made` in the place of a method and gives what was there; NULL, and nothing is changed, where it is not called by vectors. */
    static CR_method CR_replace_method(PyTypeObject *type, const char *name, CR_method made) {
        PyObject *found = PyDict_GetItemString(type->tp_dict, name);
        if (found == NULL || !Py_IS_TYPE(found, &PyMethodDescr_Type)) {
            return NULL;
        }
        PyMethodDef *method = ((PyMethodDescrObject *)found)->d_method;
        if (method->ml_flags != (METH_FASTCALL | METH_KEYWORDS)) {
            return NULL;
        }
        CR_method before = (CR_method)(void (*)(void))method->ml_meth;
        method->ml_meth = (PyCFunction)(void (*)(void))made;
        return before;
    }
    static destructor CR_replace_dealloc(PyTypeObject *type, destructor made) {
        destructor before = type->tp_dealloc;
        type->tp_dealloc = made;
        return before;
    }
    """
    Method CR_replace_method(type, const char*, Method)
    Destructor CR_replace_dealloc(type, Destructor)


cdef Method set_attribute_before
cdef Destructor dealloc_before


cdef object set_attribute_of(PyObject* span, PyObject* const* arguments, Py_ssize_t given, PyObject* names):
    # by position; Cython's own takes references of both
    cdef PyObject* key
    cdef PyObject* value
    if given != 2 or names != NULL:
        return set_attribute_before(span, arguments, given, names)
    key = arguments[0]
    value = arguments[1]
    (<Span>span).put_attribute(<object>key, <object>value)


cdef void dealloc_span(PyObject* span) noexcept:
    # in the place of `__dealloc__`, around which Cython saves the exception that is set
    (<Span>span).let_go()
    dealloc_before(span)


set_attribute_before = CR_replace_method(Span, "set_attribute", set_attribute_of)
dealloc_before = CR_replace_dealloc(Span, dealloc_span)
