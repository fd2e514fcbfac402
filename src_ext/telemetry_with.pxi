# `with` on spans, without allocations. Up to Python 3.13 `with` looks `__enter__` and `__exit__` up in the type and binds both: two objects that the collector is told of, a tenth of what a span costs. So there descriptors stand for the two methods, whose bound forms come from a list. Only `with` and `span.__exit__` meet them: looked up in the class, the methods are themselves. Python 3.14 binds nothing.

ctypedef object (*Call)(object, PyObject* const*, size_t, PyObject*)

cdef extern from "Python.h":
    """
    #if PY_VERSION_HEX < 0x030E0000
    #define CR_WITH_BINDS 1
    static int CR_put_in_type(PyTypeObject *type, PyObject *name, PyObject *value) {
        const int result = PyDict_SetItem(type->tp_dict, name, value);
        PyType_Modified(type);
        return result;
    }
    #else
    #define CR_WITH_BINDS 0
    static int CR_put_in_type(PyTypeObject *type, PyObject *name, PyObject *value) { return 0; }
    #endif
    static void CR_vectorcall(PyTypeObject *type, Py_ssize_t offset) {
        type->tp_vectorcall_offset = offset;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
        type->tp_call = PyVectorcall_Call;
    }
    """
    bint CR_WITH_BINDS
    int CR_put_in_type(type, str, object) except -1
    void CR_vectorcall(type, Py_ssize_t)
    Py_ssize_t PyVectorcall_NARGS(size_t)


@cython.final
@cython.no_gc
@cython.freelist(32)
cdef class BoundMethod:
    """A method of a span, bound by `with`: it lives until it is called, so the collector need not know of it."""

    cdef Call call
    cdef Span span

    def __init__(self):
        raise TypeError("bound methods are made by `with`")


@cython.final
cdef class MethodBinder:
    """Stands for a method in its class; binds by `BoundMethod`."""

    cdef Call call
    cdef object method

    def __get__(self, span, owner):
        cdef BoundMethod bound
        if span is None:
            return self.method
        bound = BoundMethod.__new__(BoundMethod)
        bound.call = self.call
        bound.span = span
        return bound


cdef int check_arguments(size_t given, PyObject* names, Py_ssize_t wanted) except -1:
    if names != NULL or PyVectorcall_NARGS(given) != wanted:
        raise TypeError(f"expected {wanted} positional arguments")
    return 0


cdef object enter_span(object bound, PyObject* const* arguments, size_t given, PyObject* names):
    check_arguments(given, names, 0)
    return (<BoundMethod>bound).span.enter()


cdef object leave_span(object bound, PyObject* const* arguments, size_t given, PyObject* names):
    check_arguments(given, names, 3)
    (<BoundMethod>bound).span.leave(<object>arguments[1])


cdef int bind_in(type kind, str name, Call call) except -1:
    cdef MethodBinder binder = MethodBinder.__new__(MethodBinder)
    binder.call = call
    binder.method = kind.__dict__[name]
    return CR_put_in_type(kind, name, binder)


cdef int prepare_with() except -1:
    cdef BoundMethod one = BoundMethod.__new__(BoundMethod)
    CR_vectorcall(BoundMethod, <char*>&one.call - <char*><PyObject*>one)
    bind_in(Span, "__enter__", enter_span)
    bind_in(Span, "__exit__", leave_span)
    return 0


if CR_WITH_BINDS:
    prepare_with()
