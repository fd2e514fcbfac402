# JSON read straight into a type; part of payload.pyx.
#
# A `Node` is the plan of an annotation, which `codec._plans` makes once. Reading takes only what is sure to fit: whatever it does
# not, the whole document goes the long way, through `loads` and `convert`, which has the rules and names the error and its place.
# What code of the user's own has raised is raised again there; an interrupt passes through.

cdef extern from *:
    """
    #define CR_SLOT(o, at) (*(PyObject**)((char*)(o) + (at)))
    #define CR_fill(o, at, value) (CR_SLOT(o, at) = (value))
    #define CR_ALLOC(cls) (((PyTypeObject*)(cls))->tp_alloc((PyTypeObject*)(cls), 0))
    static const double CR_TENS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                     1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static inline int CR_all_ascii(const uint8_t* p, Py_ssize_t size) {
        uint64_t word, seen = 0;
        Py_ssize_t i = 0;
        for (; i + 8 <= size; i += 8) {
            memcpy(&word, p + i, 8);
            seen |= word;
        }
        for (; i < size; i++) seen |= (uint64_t)p[i] << 56 | p[i];
        return !(seen & 0x8080808080808080ULL);
    }
    static PyObject* CR_text(const uint8_t* p, Py_ssize_t size) {
        PyObject* text;
        if (size < 2 || !CR_all_ascii(p, size)) return PyUnicode_DecodeUTF8((const char*)p, size, NULL);
        text = PyUnicode_New(size, 127);
        if (text != NULL) memcpy(PyUnicode_DATA(text), p, (size_t)size);
        return text;
    }
    """
    PyObject* CR_SLOT(PyObject*, Py_ssize_t)
    PyObject* CR_ALLOC(PyObject*)
    const double* CR_TENS
    PyObject* CR_text(const uint8_t*, Py_ssize_t)
    PyObject* PyErr_Occurred()
    bint PyErr_ExceptionMatches(object)
    void PyErr_Clear()
    void Py_INCREF_P "Py_INCREF"(PyObject*)
    void Py_DECREF_P "Py_DECREF"(PyObject*)
    void Py_XDECREF_P "Py_XDECREF"(PyObject*)
    PyObject* PyLong_FromLongLong_P "PyLong_FromLongLong"(long long)
    PyObject* PyFloat_FromDouble_P "PyFloat_FromDouble"(double)
    PyObject* Py_True_P "Py_True"
    PyObject* Py_False_P "Py_False"
    PyObject* PyList_New_P "PyList_New"(Py_ssize_t)
    int PyList_Append_P "PyList_Append"(PyObject*, PyObject*)
    PyObject* PyList_AsTuple_P "PyList_AsTuple"(PyObject*)
    PyObject* PySet_New_P "PySet_New"(PyObject*)
    PyObject* PyFrozenSet_New_P "PyFrozenSet_New"(PyObject*)
    PyObject* PyDict_New_P "PyDict_New"()
    int PyDict_SetItem_P "PyDict_SetItem"(PyObject*, PyObject*, PyObject*)
    PyObject* PyDict_GetItemWithError_P "PyDict_GetItemWithError"(PyObject*, PyObject*)
    PyObject* PyTuple_New_P "PyTuple_New"(Py_ssize_t)
    void PyTuple_SET_ITEM_P "PyTuple_SET_ITEM"(PyObject*, Py_ssize_t, PyObject*)
    PyObject* PyTuple_GET_ITEM_P "PyTuple_GET_ITEM"(PyObject*, Py_ssize_t)
    PyObject* PyList_GET_ITEM_P "PyList_GET_ITEM"(PyObject*, Py_ssize_t)
    int PyObject_GenericSetAttr_P "PyObject_GenericSetAttr"(PyObject*, PyObject*, PyObject*)
    PyObject* PyObject_CallNoArgs_P "PyObject_CallNoArgs"(PyObject*)
    PyObject* PyObject_CallObject_P "PyObject_CallObject"(PyObject*, PyObject*)
    PyObject* PyBytes_FromStringAndSize_P "PyBytes_FromStringAndSize"(const char*, Py_ssize_t)
    double PyOS_string_to_double(const char*, char**, PyObject*)
    void CR_fill(PyObject*, Py_ssize_t, PyObject*)

cdef enum:
    MANY_FIELDS = 64
    STACK_TEXT = 512

# Kinds of nodes; `codec._plans` knows them by these names.
cdef enum Kind:
    K_ANY = 1
    K_LEAVES    # a union of None, bool, int, float and str; `leaves` has a bit for each
    K_OPTIONAL
    K_LIST
    K_TUPLE
    K_SET
    K_FROZENSET
    K_FIXED     # a tuple of so many items
    K_DICT
    K_LOOKED_UP # a str or int that stands for a member of an enum or Literal
    K_PARSED    # a str that is given to a function
    K_RECORD    # an object of known keys
    K_PYTHON    # left to a converter
    K_UNION     # the first that fits; of JSON decoded first

cdef enum:
    L_NONE = 1
    L_BOOL = 2
    L_INT = 4
    L_FLOAT = 8
    L_STR = 16
    L_BYTES = 32    # MessagePack has them

# How a record is made.
cdef enum:
    M_FIELDS    # by setting its fields, which is all that its constructor does
    M_CALL      # by its constructor
    M_DICT

KINDS = {
    "any": K_ANY, "leaves": K_LEAVES, "optional": K_OPTIONAL, "list": K_LIST, "tuple": K_TUPLE, "set": K_SET,
    "frozenset": K_FROZENSET, "fixed": K_FIXED, "dict": K_DICT, "lookup": K_LOOKED_UP, "parsed": K_PARSED,
    "record": K_RECORD, "python": K_PYTHON, "union": K_UNION,
}
LEAVES = {type(None): L_NONE, bool: L_BOOL, int: L_INT, float: L_FLOAT, str: L_STR, bytes: L_BYTES}
MAKES = {"fields": M_FIELDS, "call": M_CALL, "dict": M_DICT}


cdef class Node:
    """The plan of one annotation.

    Attributes:
        kind: one of `KINDS`.
        leaves: which of `LEAVES`; of K_ANY the bracket that must open it, if one must.
        items: the nodes of what is in it.
        call: what is called: a parser, a converter, or the class of a record or of a fixed tuple.
        cls: what a value that is no text may be already.
        fewest: items of a fixed tuple; all of them, if negative.
        loose: whether the class takes more than the plan.
        annotation: the only one that the plan is for, where others are equal to it.
    """

    cdef int kind, leaves, make
    cdef Py_ssize_t fewest
    cdef bint loose
    cdef list items
    cdef object call, cls
    cdef public object annotation
    cdef dict members       # of K_LOOKED_UP
    cdef bint by_int        # its keys are int
    # of records
    cdef tuple names        # of the fields or arguments
    cdef list keys          # bytes, that hold what `texts` points to
    cdef list defaults      # a default, or what makes one
    cdef Slice[MANY_FIELDS] texts
    cdef Py_ssize_t[MANY_FIELDS] slots
    cdef uint64_t required, makers, ignored

    def __init__(
        self, str kind, *, int leaves=0, items=(), call=None, cls=None, members=None, bint by_int=False, Py_ssize_t fewest=-1
    ):
        self.kind = KINDS[kind]
        self.leaves = leaves
        self.items = list(items)
        self.call = call
        self.cls = cls
        self.fewest = len(self.items) if fewest < 0 else fewest
        self.members = members
        self.by_int = by_int

    def fill(self, items):
        """Set the nodes of what is in it, which may be itself."""
        self.items = list(items)

    def record(self, str make, cls, keys, names, slots, required, defaults, makers, ignored=(), bint loose=False):
        """Say how a record is made; all but ``make`` and ``cls`` are one for each field.

        Args:
            make: one of `MAKES`.
            keys: in the document.
            names: of the attributes or arguments.
            slots: offset in the object; -1: it is an attribute.
            required: indexes of fields that must be there.
            defaults: values for `M_FIELDS`.
            makers: indexes of defaults that are called.
            ignored: indexes of fields that are read and not given to the constructor.
            loose: whether the class takes more than the plan.
        """
        cdef Py_ssize_t i
        if len(keys) > MANY_FIELDS:
            raise ValueError(f"{len(keys)} fields")
        self.make = MAKES[make]
        self.loose = loose
        self.call = cls
        self.keys = [key.encode() for key in keys]
        self.names = tuple(names)
        self.defaults = list(defaults)
        for i in range(len(self.keys)):
            self.texts[i] = slice_of(<bytes>self.keys[i])
            self.slots[i] = slots[i]
        self.required = self.bits(required)
        self.makers = self.bits(makers)
        self.ignored = self.bits(ignored)

    cdef uint64_t bits(self, indexes) except? 0:
        cdef uint64_t result = 0
        for index in indexes:
            result |= <uint64_t>1 << <int>index
        return result


cdef struct Reader:
    const uint8_t* p
    Py_ssize_t at
    Py_ssize_t size


cdef PyObject* pass_on() noexcept:
    # Something raised. An error goes the long way, which raises it again; anything else is on its way out, and lack of memory.
    if PyErr_Occurred() != NULL and PyErr_ExceptionMatches(Exception) and not PyErr_ExceptionMatches(MemoryError):
        PyErr_Clear()
    return NULL


cdef inline bint ends_number(uint8_t c) noexcept nogil:
    return c == 0x2C or c == 0x7D or c == 0x5D or c == 0x20 or c == 0x0A or c == 0x0D or c == 0x09


cdef PyObject* read_number(Reader* r, int leaves) noexcept:
    cdef const uint8_t* p = r.p
    cdef Py_ssize_t at = r.at
    cdef Py_ssize_t begin = at
    cdef Py_ssize_t stop
    cdef bint negative = p[at] == 0x2D
    cdef uint64_t mantissa = 0
    cdef int digits = 0
    cdef int exponent = 0
    cdef int power = 0
    cdef bint whole = True
    cdef bint less = False
    cdef double value
    cdef char[64] text
    cdef char* end
    if negative:
        at += 1
    stop = skip_digits(p, at, r.size)
    if stop == at or (p[at] == 0x30 and stop - at > 1) or stop - at > 18:
        return NULL
    digits = <int>(stop - at)
    while at < stop:
        mantissa = mantissa * 10 + p[at] - 0x30
        at += 1
    if at < r.size and p[at] == 0x2E:
        whole = False
        stop = skip_digits(p, at + 1, r.size)
        if stop == at + 1:
            return NULL
        at += 1
        while at < stop:
            if digits < 18:
                mantissa = mantissa * 10 + p[at] - 0x30
                if mantissa:
                    digits += 1
                exponent -= 1
            else:
                digits = 19
            at += 1
    if at < r.size and p[at] | 0x20 == 0x65:
        whole = False
        at += 1
        if at < r.size and (p[at] == 0x2B or p[at] == 0x2D):
            less = p[at] == 0x2D
            at += 1
        stop = skip_digits(p, at, r.size)
        if stop == at or stop - at > 4:
            return NULL
        while at < stop:
            power = power * 10 + p[at] - 0x30
            at += 1
        exponent += -power if less else power
    if at < r.size and not ends_number(p[at]):
        return NULL
    r.at = at
    if whole and leaves & L_INT:
        if negative and mantissa == 0:
            return NULL
        return PyLong_FromLongLong_P(-<int64_t>mantissa if negative else <int64_t>mantissa)
    if not leaves & L_FLOAT or (whole and negative and mantissa == 0):
        return NULL
    if whole:
        value = <double><int64_t>mantissa
    elif digits <= 18 and mantissa < <uint64_t>1 << 53 and -22 <= exponent <= 22:
        # both are exact, so the result is rounded once (Clinger, "How to Read Floating Point Numbers Accurately")
        value = <double><int64_t>mantissa
        value = value * CR_TENS[exponent] if exponent >= 0 else value / CR_TENS[-exponent]
    else:
        if at - begin > 63:
            return NULL
        memcpy(text, p + begin, at - begin)
        text[at - begin] = 0
        value = PyOS_string_to_double(text, &end, NULL)
        if PyErr_Occurred() != NULL:
            return pass_on()
        if not isfinite(value):
            return NULL
        return PyFloat_FromDouble_P(value)
    return PyFloat_FromDouble_P(-value if negative else value)


cdef PyObject* read_text(Reader* r) noexcept:
    cdef const uint8_t* p = r.p
    cdef Py_ssize_t begin = r.at + 1
    cdef Py_ssize_t stop = begin
    cdef Py_ssize_t size
    cdef unsigned int mask
    cdef Fault fault
    cdef uint8_t[STACK_TEXT] room
    cdef uint8_t* out = room
    cdef PyObject* text
    if CR_WIDE:
        while r.size - stop >= 16:
            mask = CR_stops(p + stop)
            if mask:
                stop += CR_ctz(mask)
                break
            stop += 16
    stop = skip_plain(p, stop, r.size)
    if stop >= r.size or p[stop] < 0x20:
        return NULL
    if p[stop] == 0x22:
        r.at = stop + 1
        text = CR_text(p + begin, stop - begin)
        return text if text != NULL else pass_on()
    stop = skip_escaped(p, r.at, r.size, &fault)
    if stop < 0:
        return NULL
    size = stop - 1 - begin
    if size > STACK_TEXT:
        out = <uint8_t*>PyMem_RawMalloc(size)
        if out == NULL:
            return NULL
    size = unescape(p + begin, size, out)
    text = CR_text(out, size) if size >= 0 else NULL
    if out != room:
        PyMem_RawFree(out)
    if text == NULL:
        return pass_on()
    r.at = stop
    return text


cdef inline PyObject* constant(PyObject* value, Reader* r, int length) noexcept:
    r.at += length
    Py_INCREF_P(value)
    return value


cdef PyObject* read_leaf(Reader* r, int leaves) noexcept:
    cdef uint8_t c = r.p[r.at]
    if c == 0x22:
        return read_text(r) if leaves & L_STR else NULL
    if c == 0x2D or 0x30 <= c <= 0x39:
        return read_number(r, leaves) if leaves & (L_INT | L_FLOAT) else NULL
    if c == 0x6E:
        if leaves & L_NONE and word_at(r.p, r.at, r.size, "null", 4):
            return constant(Py_None_P, r, 4)
    elif leaves & L_BOOL:
        if word_at(r.p, r.at, r.size, "true", 4):
            return constant(Py_True_P, r, 4)
        if word_at(r.p, r.at, r.size, "false", 5):
            return constant(Py_False_P, r, 5)
    return NULL


cdef PyObject* read_any(Reader* r, int opening) noexcept:
    # Any value; with an opening bracket given only what it opens.
    cdef Fault fault
    cdef Py_ssize_t stop
    cdef PyObject* text
    cdef PyObject* value
    if opening and r.p[r.at] != opening:
        return NULL
    if r.p[r.at] == 0x22:
        return read_text(r)
    stop = skip_value(r.p, r.at, r.size, &fault)
    if stop < 0:
        return NULL
    text = PyBytes_FromStringAndSize_P(<const char*>r.p + r.at, stop - r.at)
    if text == NULL:
        return pass_on()
    value = PyObject_CallOneArg(CR_object(loads), text)
    Py_DECREF_P(text)
    if value == NULL:
        return pass_on()
    r.at = stop
    return value


cdef PyObject* read_items(Node node, Reader* r) noexcept:
    # An array as a list; of K_FIXED the length must fit.
    cdef PyObject* nodes = CR_object(node.items)
    cdef PyObject* out = PyList_New_P(0)
    cdef PyObject* value
    cdef Py_ssize_t count = 0
    cdef bint fixed = node.kind == K_FIXED
    cdef Py_ssize_t wanted = Py_SIZE(nodes)
    if out == NULL:
        return pass_on()
    r.at = skip_space(r.p, r.at + 1, r.size)
    if r.at < r.size and r.p[r.at] == 0x5D:
        r.at += 1
    else:
        while True:
            if fixed and count >= wanted:
                value = NULL
            else:
                value = read_node(<Node>PyList_GET_ITEM_P(nodes, count if fixed else 0), r)
            if value == NULL or PyList_Append_P(out, value) < 0:
                Py_XDECREF_P(value)
                Py_DECREF_P(out)
                return pass_on()
            Py_DECREF_P(value)
            count += 1
            r.at = skip_space(r.p, r.at, r.size)
            if r.at >= r.size or (r.p[r.at] != 0x2C and r.p[r.at] != 0x5D):
                Py_DECREF_P(out)
                return NULL
            r.at += 1
            if r.p[r.at - 1] == 0x5D:
                break
            r.at = skip_space(r.p, r.at, r.size)
    if fixed and count < node.fewest:
        Py_DECREF_P(out)
        return NULL
    return out


cdef PyObject* read_array(Node node, Reader* r) noexcept:
    cdef PyObject* out = read_items(node, r) if r.p[r.at] == 0x5B else NULL
    return made_array(node, out) if out != NULL else NULL


cdef PyObject* made_array(Node node, PyObject* out) noexcept:
    # What a plan makes of a list, which it takes over.
    cdef PyObject* items
    cdef PyObject* result
    if node.kind == K_LIST:
        return out
    if node.kind == K_SET:
        result = PySet_New_P(out)
    elif node.kind == K_FROZENSET:
        result = PyFrozenSet_New_P(out)
    else:
        result = PyList_AsTuple_P(out)
        if result != NULL and node.call is not None:
            items = result
            result = PyObject_CallObject_P(CR_object(node.call), items)
            Py_DECREF_P(items)
    Py_DECREF_P(out)
    return result if result != NULL else pass_on()


cdef PyObject* read_dict(Node node, Reader* r) noexcept:
    cdef PyObject* item = PyList_GET_ITEM_P(CR_object(node.items), 0)
    cdef PyObject* out
    cdef PyObject* key
    cdef PyObject* value
    cdef Fault fault
    cdef int failed
    if r.p[r.at] != 0x7B:
        return NULL
    out = PyDict_New_P()
    if out == NULL:
        return pass_on()
    r.at = skip_space(r.p, r.at + 1, r.size)
    if r.at < r.size and r.p[r.at] == 0x7D:
        r.at += 1
        return out
    while r.at < r.size and r.p[r.at] == 0x22:
        key = read_text(r)
        if key == NULL:
            break
        r.at = skip_colon(r.p, r.at, r.size, &fault)
        value = read_node(<Node>item, r) if r.at >= 0 else NULL
        failed = value == NULL or PyDict_SetItem_P(out, key, value) < 0
        Py_DECREF_P(key)
        Py_XDECREF_P(value)
        if failed:
            break
        r.at = skip_space(r.p, r.at, r.size)
        if r.at >= r.size:
            break
        if r.p[r.at] == 0x7D:
            r.at += 1
            return out
        if r.p[r.at] != 0x2C:
            break
        r.at = skip_space(r.p, r.at + 1, r.size)
    Py_DECREF_P(out)
    return pass_on()


cdef PyObject* read_member(Node node, Reader* r) noexcept:
    cdef PyObject* value = read_leaf(r, L_INT if node.by_int else L_STR)
    cdef PyObject* member
    if value == NULL:
        return NULL
    member = PyDict_GetItemWithError_P(CR_object(node.members), value)
    Py_DECREF_P(value)
    if member == NULL:
        return pass_on()
    Py_INCREF_P(member)
    return member


cdef PyObject* read_called(Node node, Reader* r) noexcept:
    # The result of a parser of text, of a converter of a value and its path, or of one of several plans.
    cdef bint unsure = False
    cdef PyObject* value
    cdef PyObject* result
    if node.kind == K_PARSED:
        value = read_text(r) if r.p[r.at] == 0x22 else NULL
    else:
        value = read_any(r, 0)
    if value == NULL:
        return NULL
    if node.kind == K_UNION:
        result = as_union(node, value, &unsure)
    else:
        result = PyObject_CallOneArg(CR_object(node.call), value)
    Py_DECREF_P(value)
    return result if result != NULL else pass_on()


cdef inline Py_ssize_t field_at(Node node, const uint8_t* p, Py_ssize_t size, Py_ssize_t likely, Py_ssize_t count) noexcept:
    # The index of a key; most documents have them in the order of the class.
    cdef Py_ssize_t i
    if likely < count and node.texts[likely].size == size and memcmp(node.texts[likely].data, p, size) == 0:
        return likely
    for i in range(count):
        if node.texts[i].size == size and memcmp(node.texts[i].data, p, size) == 0:
            return i
    return -1


cdef PyObject* read_record(Node node, Reader* r) noexcept:
    cdef PyObject* values[MANY_FIELDS]
    cdef const uint8_t* p = r.p
    cdef Py_ssize_t count = Py_SIZE(CR_object(node.items))
    cdef Py_ssize_t begin, stop, i
    cdef Py_ssize_t likely = 0
    cdef uint64_t seen = 0
    cdef uint64_t bit
    cdef Fault fault
    cdef bint closed = False
    cdef PyObject* out = NULL
    cdef PyObject* value
    if p[r.at] != 0x7B or node.names is None:
        return NULL
    if node.make == M_DICT:
        out = PyDict_New_P()
        if out == NULL:
            return pass_on()
    r.at = skip_space(p, r.at + 1, r.size)
    if r.at < r.size and p[r.at] == 0x7D:
        r.at += 1
        closed = True
    while not closed and r.at < r.size and p[r.at] == 0x22:
        begin = r.at + 1
        stop = skip_plain(p, begin, r.size)
        if stop >= r.size or p[stop] != 0x22:
            break
        i = field_at(node, p + begin, stop - begin, likely, count)
        if i < 0:
            break
        likely = i + 1
        r.at = skip_colon(p, stop + 1, r.size, &fault)
        if r.at < 0:
            break
        value = read_node(<Node>PyList_GET_ITEM_P(CR_object(node.items), i), r)
        if value == NULL:
            break
        bit = <uint64_t>1 << i
        if node.make == M_DICT:
            stop = PyDict_SetItem_P(out, PyTuple_GET_ITEM_P(CR_object(node.names), i), value)
            Py_DECREF_P(value)
            if stop < 0:
                break
        else:
            if seen & bit:
                Py_DECREF_P(values[i])
            values[i] = value
        seen |= bit
        r.at = skip_space(p, r.at, r.size)
        if r.at >= r.size:
            break
        if p[r.at] == 0x7D:
            closed = True
        elif p[r.at] != 0x2C:
            break
        else:
            r.at = skip_space(p, r.at + 1, r.size)
            continue
        r.at += 1
    if closed and node.required & ~seen == 0:
        if node.make == M_DICT:
            return out
        out = made_record(node, values, seen, count)
    elif node.make == M_DICT:
        Py_DECREF_P(out)
        out = NULL
    if node.make != M_DICT:
        for i in range(count):
            if seen & <uint64_t>1 << i:
                Py_DECREF_P(values[i])
    return out if out != NULL else pass_on()


cdef inline PyObject* made_record(Node node, PyObject** values, uint64_t seen, Py_ssize_t count) noexcept:
    return made_of_fields(node, values, seen, count) if node.make == M_FIELDS else made_by_call(node, values, seen, count)


cdef PyObject* made_of_fields(Node node, PyObject** values, uint64_t seen, Py_ssize_t count) noexcept:
    cdef PyObject* out = CR_ALLOC(CR_object(node.call))
    cdef PyObject* value
    cdef Py_ssize_t i
    cdef int failed = 0
    if out == NULL:
        return NULL
    for i in range(count):
        if seen & <uint64_t>1 << i:
            value = values[i]
            Py_INCREF_P(value)
        else:
            value = PyList_GET_ITEM_P(CR_object(node.defaults), i)
            if node.makers & <uint64_t>1 << i:
                value = PyObject_CallNoArgs_P(value)
                if value == NULL:
                    Py_DECREF_P(out)
                    return NULL
            else:
                Py_INCREF_P(value)
        if node.slots[i] > 0:
            CR_fill(out, node.slots[i], value)
        else:
            failed = PyObject_GenericSetAttr_P(out, PyTuple_GET_ITEM_P(CR_object(node.names), i), value)
            Py_DECREF_P(value)
            if failed:
                Py_DECREF_P(out)
                return NULL
    return out


cdef PyObject* made_by_call(Node node, PyObject** values, uint64_t seen, Py_ssize_t count) noexcept:
    cdef PyObject* arguments[MANY_FIELDS + 1]
    cdef Py_ssize_t given = 0
    cdef Py_ssize_t i
    cdef PyObject* names
    cdef PyObject* name
    cdef PyObject* out
    for i in range(count):
        if seen & ~node.ignored & <uint64_t>1 << i:
            given += 1
    if given == count:
        memcpy(&arguments[1], values, count * sizeof(PyObject*))
        return PyObject_Vectorcall(CR_object(node.call), &arguments[1], VECTORCALL_0, CR_object(node.names))
    names = PyTuple_New_P(given)
    if names == NULL:
        return NULL
    given = 0
    for i in range(count):
        if seen & ~node.ignored & <uint64_t>1 << i:
            name = PyTuple_GET_ITEM_P(CR_object(node.names), i)
            Py_INCREF_P(name)
            PyTuple_SET_ITEM_P(names, given, name)
            given += 1
            arguments[given] = values[i]
    out = PyObject_Vectorcall(CR_object(node.call), &arguments[1], VECTORCALL_0, names)
    Py_DECREF_P(names)
    return out


cdef PyObject* read_node(Node node, Reader* r) noexcept:
    # A value that fits, or NULL; with an error set only where it must pass through.
    cdef int kind = node.kind
    if r.at >= r.size:
        return NULL
    if kind == K_LEAVES:
        return read_leaf(r, node.leaves)
    if kind == K_RECORD:
        return read_record(node, r)
    if kind == K_OPTIONAL:
        if r.p[r.at] == 0x6E:
            return read_leaf(r, L_NONE)
        return read_node(<Node>PyList_GET_ITEM_P(CR_object(node.items), 0), r)
    if kind == K_DICT:
        return read_dict(node, r)
    if kind == K_ANY:
        return read_any(r, node.leaves)
    if kind == K_LOOKED_UP:
        return read_member(node, r)
    if kind == K_PARSED or kind == K_PYTHON or kind == K_UNION:
        return read_called(node, r)
    return read_array(node, r)


cdef object read_into(Node node, bytes data):
    # A document as what its plan says; `MISS` where it must go the long way.
    cdef Reader r
    cdef PyObject* value
    r.p = <const uint8_t*>PyBytes_AS_STRING(data)
    r.size = PyBytes_GET_SIZE(data)
    r.at = skip_space(r.p, 0, r.size)
    value = read_node(node, &r)
    if value == NULL:
        if PyErr_Occurred() != NULL:
            return CR_owned(NULL)
        return MISS
    if skip_space(r.p, r.at, r.size) != r.size:
        Py_DECREF_P(value)
        return MISS
    return CR_owned(value)
