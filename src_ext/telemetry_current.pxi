# Where the current span of `telemetry.pyx` lives; see the twin `telemetry_context_py.py`.

cdef object own_var = ContextVar("cloud_runtimes_telemetry_span", default=None)
cdef bint any_context = False   # ever set, in this process: else an event that leaves need not look
cdef bint bridged = False
cdef object api = None          # what `bridge` was given, and parts of it
cdef object api_var = None
cdef object api_key = None
cdef object api_context = None
cdef object api_span = None


cdef inline object get_in(var):
    cdef PyObject* stored = NULL
    PyContextVar_Get(var, NULL, &stored)
    if stored == NULL:
        return None
    result = <object>stored
    Py_XDECREF(stored)
    return result


cdef inline object get_current():
    return current_in_api() if bridged else get_in(own_var)


cdef object current_in_api():
    cdef PyObject* stored
    context = get_in(api_var)
    if isinstance(context, dict):
        stored = PyDict_GetItemWithError(context, api_key)
        if stored != NULL and <object>stored is not None:
            span = <object>stored
            return (<ApiSpanBase>span).native if type(span) is api_span else api.inward(span)
    return get_in(own_var)


cdef object attach(span):
    # makes a span of the API the current one
    context = get_in(api_var)
    updated = api_context()
    if isinstance(context, dict) and PyDict_Size(context):
        PyDict_Update(updated, context)
    PyDict_SetItem(updated, api_key, span)
    return PyContextVar_Set(api_var, updated)


cdef object set_current(span):
    global any_context
    any_context = True
    if not bridged:
        return PyContextVar_Set(own_var, span)
    return attach(new_api_span(<Span>span, True, True) if type(span) is Span else api.outward(span))


cdef int reset_current(token) except -1:
    # ValueError: a token of another context. One from before the bridge is not of its variable
    PyContextVar_Reset(token.var if bridged else own_var, token)
    return 0


cdef int give_back(token) except -1:
    # `reset_current`, but a token of another context, as a generator may leave one, changes nothing: there is nothing to give back there.
    # Without a `try`, for which the interpreter's state would be looked up.
    if var_reset(token.var if bridged else own_var, token) < 0:
        if not PyErr_ExceptionMatches(ValueError):
            return -1
        PyErr_Clear()
    return 0


@cython.final
cdef class Current:
    """The current span; see the twin."""

    def get(self):
        """Return the `Span` or remote `SpanContext` that is the parent of what starts next, or `None`."""
        return get_current()

    def set(self, span):
        """Make a `Span`, a `SpanContext` or `None` the current one; `reset` takes what it returns."""
        return set_current(span)

    def attach(self, span):
        """Make a span of OpenTelemetry's API the current one; there must be a bridge."""
        if not bridged:
            raise not_bridged()
        return attach(span)

    def reset(self, token):
        """Give back what was current before."""
        reset_current(token)


current = Current()


def current_span():
    """Return the `Span` or remote `SpanContext` that new spans have as parent here, or `None`."""
    return get_current()


def bridge(given):
    """Keep the current span where OpenTelemetry's API does from now on; see the twin."""
    global any_context, bridged, api, api_var, api_key, api_context, api_span
    if given is None:
        bridged = False
        return
    if not isinstance(given.variable, ContextVar) or not issubclass(given.context_class, dict) or not issubclass(given.span_class, ApiSpanBase):
        raise InvalidArgumentError("bridge wants a ContextVar, a class of dictionaries and one of spans")
    # a second one, of another client, is equal: nobody sees a difference on the way
    api_var, api_key, api_context, api_span = given.variable, given.key, given.context_class, given.span_class
    api = given
    any_context = bridged = True  # others set it as well from now on
