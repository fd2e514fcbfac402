# Decoded values as what a plan says; part of payload.pyx. For MessagePack, and for unions of classes in JSON.
#
# As in typed_read.pxi only what is sure to fit is taken. Of the rest a union needs to know whether the long way may take it: then `unsure`
# is set. The values come from a decoder, builtins and datetimes that nobody else has. A constructor of the user's own gets what was made of
# them, never a container that is still looked through, so references are borrowed.


cdef extern from *:
    PyTypeObject PyBytes_Type
    PyObject* PyNumber_Float_P "PyNumber_Float"(PyObject*)

cdef object UNPARSED = (ValueError, ArithmeticError)
cdef object MISFIT = PayloadError


cdef inline PyObject* held(PyObject* value) noexcept:
    Py_INCREF_P(value)
    return value


cdef inline int leaf_of(PyObject* value) noexcept:
    cdef PyTypeObject* kind = Py_TYPE(value)
    if kind == &PyUnicode_Type:
        return L_STR
    if kind == &PyLong_Type:
        return L_INT
    if kind == &PyFloat_Type:
        return L_FLOAT
    if value == Py_None_P:
        return L_NONE
    if kind == &PyBool_Type:
        return L_BOOL
    return L_BYTES if kind == &PyBytes_Type else 0


cdef inline PyObject* as_leaf(int leaves, PyObject* value) noexcept:
    cdef int leaf = leaf_of(value)
    cdef PyObject* number
    if leaf & leaves:
        return held(value)
    if leaf != L_INT or not leaves & L_FLOAT:
        return NULL
    number = PyNumber_Float_P(value)
    return number if number != NULL else pass_on()


cdef PyObject* as_items(Node node, PyObject* value, bint* unsure) noexcept:
    cdef PyObject* nodes = CR_object(node.items)
    cdef PyObject* out
    cdef PyObject* item
    cdef Py_ssize_t i
    cdef bint fixed = node.kind == K_FIXED
    if Py_TYPE(value) != &PyList_Type or (fixed and not node.fewest <= Py_SIZE(value) <= Py_SIZE(nodes)):
        return NULL
    if node.kind == K_LIST and (<Node>PyList_GET_ITEM_P(nodes, 0)).kind == K_ANY and not (<Node>PyList_GET_ITEM_P(nodes, 0)).leaves:
        return held(value)
    out = PyList_New_P(0)
    if out == NULL:
        return pass_on()
    for i in range(Py_SIZE(value)):
        item = from_value(<Node>PyList_GET_ITEM_P(nodes, i if fixed else 0), PyList_GET_ITEM_P(value, i), unsure)
        if item == NULL or PyList_Append_P(out, item) < 0:
            Py_XDECREF_P(item)
            Py_DECREF_P(out)
            return pass_on()
        Py_DECREF_P(item)
    out = made_array(node, out)
    if out == NULL:
        unsure[0] = unsure[0] or fixed  # a class of the user's own has raised
    return out


cdef PyObject* as_dict(Node node, PyObject* value, bint* unsure) noexcept:
    cdef Node inner = <Node>PyList_GET_ITEM_P(CR_object(node.items), 0)
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef PyObject* out
    cdef Py_ssize_t position = 0
    cdef int failed
    if Py_TYPE(value) != &PyDict_Type:
        return NULL
    out = PyDict_New_P()
    while out != NULL and PyDict_Next(value, &position, &key, &item):
        if Py_TYPE(key) != &PyUnicode_Type:
            unsure[0] = True
            item = NULL
        else:
            item = from_value(inner, item, unsure)
        failed = item == NULL or PyDict_SetItem_P(out, key, item) < 0
        Py_XDECREF_P(item)
        if failed:
            Py_DECREF_P(out)
            out = NULL
    return out if out != NULL else pass_on()


cdef PyObject* as_record(Node node, PyObject* value, bint* unsure) noexcept:
    cdef PyObject* values[MANY_FIELDS]
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef PyObject* out = NULL
    cdef const uint8_t* text
    cdef Py_ssize_t count = Py_SIZE(CR_object(node.items))
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t likely = 0
    cdef Py_ssize_t i
    cdef uint64_t seen = 0
    cdef bint fits = Py_TYPE(value) == &PyDict_Type and node.names is not None
    if node.make == M_DICT:
        out = PyDict_New_P()
        fits = fits and out != NULL
    while fits and PyDict_Next(value, &position, &key, &item):
        i = -1
        if Py_TYPE(key) == &PyUnicode_Type:
            if CR_is_ascii(key):
                text = CR_text_data(key)
                size = CR_text_size(key)
            else:
                text = <const uint8_t*>CR_utf8(key, &size)
            i = field_at(node, text, size, likely, count) if text != NULL else -1
        item = from_value(<Node>PyList_GET_ITEM_P(CR_object(node.items), i), item, unsure) if i >= 0 else NULL
        if item == NULL:
            fits = False
            break
        values[i] = item
        seen |= <uint64_t>1 << i
        likely = i + 1
        if node.make == M_DICT:
            fits = PyDict_SetItem_P(out, key, item) == 0
    fits = fits and node.required & ~seen == 0
    if fits and node.make != M_DICT:
        out = made_record(node, values, seen, count)
    elif not fits:
        Py_XDECREF_P(out)
        out = NULL
    for i in range(count):
        if seen & <uint64_t>1 << i:
            Py_DECREF_P(values[i])
    if out == NULL:
        unsure[0] = unsure[0] or node.loose
        return pass_on()
    return out


cdef PyObject* as_called(Node node, PyObject* value, bint* unsure) noexcept:
    cdef PyObject* result
    if node.kind == K_PARSED and Py_TYPE(value) != &PyUnicode_Type:
        return held(value) if <PyObject*>Py_TYPE(value) == CR_object(node.cls) else NULL
    result = PyObject_CallOneArg(CR_object(node.call), value)
    if result == NULL:
        if not PyErr_ExceptionMatches(UNPARSED if node.kind == K_PARSED else MISFIT):
            unsure[0] = True
        return pass_on()
    return result


cdef PyObject* as_union(Node node, PyObject* value, bint* unsure) noexcept:
    # One that takes the value as it is goes before one that would parse or convert it.
    cdef PyObject* nodes = CR_object(node.items)
    cdef PyObject* first = NULL
    cdef PyObject* result
    cdef Py_ssize_t i
    if leaf_of(value) & node.leaves:
        return held(value)
    for i in range(Py_SIZE(nodes)):
        result = from_value(<Node>PyList_GET_ITEM_P(nodes, i), value, unsure)
        if result == NULL and (unsure[0] or PyErr_Occurred() != NULL):
            Py_XDECREF_P(first)
            return NULL
        if result == value:
            Py_XDECREF_P(first)
            return result
        if first == NULL:
            first = result
        else:
            Py_XDECREF_P(result)
    return first


cdef PyObject* from_value(Node node, PyObject* value, bint* unsure) noexcept:
    # As `read_node`.
    cdef int kind = node.kind
    cdef PyObject* member
    if kind == K_LEAVES:
        return as_leaf(node.leaves, value)
    if kind == K_RECORD:
        return as_record(node, value, unsure)
    if kind == K_OPTIONAL:
        return held(value) if value == Py_None_P else from_value(<Node>PyList_GET_ITEM_P(CR_object(node.items), 0), value, unsure)
    if kind == K_DICT:
        return as_dict(node, value, unsure)
    if kind == K_ANY:
        if node.leaves and Py_TYPE(value) != (&PyList_Type if node.leaves == 0x5B else &PyDict_Type):
            return NULL
        return held(value)
    if kind == K_LOOKED_UP:
        if leaf_of(value) != (L_INT if node.by_int else L_STR):
            return NULL
        member = PyDict_GetItemWithError_P(CR_object(node.members), value)
        return held(member) if member != NULL else pass_on()
    if kind == K_PARSED or kind == K_PYTHON:
        return as_called(node, value, unsure)
    if kind == K_UNION:
        return as_union(node, value, unsure)
    return as_items(node, value, unsure)


cdef object converted_as(object value, object type):
    # What a decoder gave, as a value of a type.
    cdef bint unsure = False
    cdef PyObject* out
    cdef object plan = plan_of(type)
    if plan is not None:
        out = from_value(<Node>plan, CR_object(value), &unsure)
        if out != NULL or PyErr_Occurred() != NULL:
            return CR_owned(out)
    return hooks.convert(value, type)


ctypedef object (*ConvertedAs)(object, object)

cdef ConvertedAs lent_converter = converted_as
# what this kernel lends to the kernel of MessagePack
_convert = PyCapsule_New(<void*>lent_converter, "cloud_runtimes._native._payload._convert", NULL)
