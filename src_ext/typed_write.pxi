# JSON written straight from objects of known fields; part of payload.pyx.
#
# A `Shape` says how a class is written, which `codec._plans` finds out once. No Python code runs while a value is written, so
# references are borrowed. Whatever is not known here goes the long way: the whole value, through `dumps` and `default`.

cdef extern from *:
    """
    #include <structmember.h>
    static inline Py_ssize_t CR_slot_of(PyObject* descriptor) {
        PyMemberDef* member;
        if (Py_TYPE(descriptor) != &PyMemberDescr_Type) return -1;
        member = ((PyMemberDescrObject*)descriptor)->d_member;
        return member->type == T_OBJECT_EX && !(member->flags & READONLY) ? member->offset : -1;
    }
    #define CR_is_ascii(o) PyUnicode_IS_COMPACT_ASCII(o)
    """
    Py_ssize_t CR_slot_of(object)
    bint CR_is_ascii(PyObject*)
    const uint8_t* CR_text_data "(const uint8_t*)PyUnicode_DATA"(PyObject*)
    Py_ssize_t CR_text_size "PyUnicode_GET_LENGTH"(PyObject*)
    const char* CR_utf8 "PyUnicode_AsUTF8AndSize"(PyObject*, Py_ssize_t*)
    PyObject* PyObject_GenericGetAttr_P "PyObject_GenericGetAttr"(PyObject*, PyObject*)
    PyObject* PyObject_Str_P "PyObject_Str"(PyObject*)
    PyObject* PyNumber_Rshift_P "PyNumber_Rshift"(PyObject*, PyObject*)
    unsigned long long PyLong_AsUnsignedLongLongMask_P "PyLong_AsUnsignedLongLongMask"(PyObject*)
    PyObject* PyDict_GetItem_P "PyDict_GetItemWithError"(PyObject*, PyObject*)

from cpython.datetime cimport (
    PyDateTime_DATE_GET_HOUR, PyDateTime_DATE_GET_MICROSECOND, PyDateTime_DATE_GET_MINUTE, PyDateTime_DATE_GET_SECOND,
    PyDateTime_GET_DAY, PyDateTime_GET_MONTH, PyDateTime_GET_YEAR, import_datetime,
)

from datetime import timezone

import_datetime()

# How objects of a class are written; `codec._plans` knows them by these names.
cdef enum:
    H_FIELDS    # all fields
    H_VALUE     # one attribute stands for it: a member of an enum
    H_DATETIME  # ISO 8601, without a time zone or in UTC
    H_DATE
    H_UUID
    H_TEXT      # its str, by code in C
    H_TUPLE     # an array
    H_CALL      # another library writes it

HOWS = {
    "fields": H_FIELDS, "value": H_VALUE, "datetime": H_DATETIME, "date": H_DATE, "uuid": H_UUID, "text": H_TEXT, "tuple": H_TUPLE,
    "call": H_CALL,
}

cdef enum:
    STACK_OUT = 1024
    DEEPEST_OUT = 254    # containers, as orjson has it
    SHAPES_MAX = 1024
    NEW_CLASSES = 64     # that one value may show before it goes the long way, this once


cdef class Shape:
    """How objects of a class are written.

    Args:
        how: one of `HOWS`.
        keys: of the fields, in JSON, each with its colon.
        names: of the attributes.
        slots: offset in the object; -1: it is an attribute.
        call: of H_CALL, returns JSON, which is looked through; raises for what it cannot write.
        plain: whether it holds builtins and objects of such shapes only, else it goes the long way.
    """

    cdef list keys
    cdef tuple names
    cdef Py_ssize_t[MANY_FIELDS] slots
    cdef object call
    cdef int how
    cdef bint plain

    def __init__(self, str how, keys=(), names=(), slots=(), *, call=None, bint plain=False):
        cdef Py_ssize_t i
        self.how = HOWS[how]
        if len(keys) > MANY_FIELDS:
            raise ValueError(f"{len(keys)} fields")
        self.keys = list(keys)
        self.names = tuple(names)
        for i in range(len(self.keys)):
            self.slots[i] = slots[i]
        self.call = call
        self.plain = plain


def slot_of(descriptor):
    """Return where the value of a slot lies in the object; -1: it is none."""
    return CR_slot_of(descriptor)


cdef object UTC = timezone.utc
cdef object SIXTY_FOUR = 64
cdef dict shapes = {}       # class → `Shape`, or None for what goes the long way

cdef struct Out:
    uint8_t* p
    Py_ssize_t at
    Py_ssize_t room
    uint8_t* stack
    PyObject* unknown   # a class whose shape was not looked up yet


cdef bint grow(Out* o, Py_ssize_t size) noexcept:
    # Room for so many bytes more.
    cdef Py_ssize_t room = 2 * o.room
    cdef uint8_t* p
    if room < o.at + size:
        room = o.at + size
    if o.p == o.stack:
        p = <uint8_t*>PyMem_RawMalloc(room)
        if p != NULL:
            memcpy(p, o.p, o.at)
    else:
        p = <uint8_t*>PyMem_RawRealloc(o.p, room)
    if p == NULL:
        return False
    o.p = p
    o.room = room
    return True


cdef inline bint has_room(Out* o, Py_ssize_t size) noexcept:
    return o.room - o.at >= size or grow(o, size)


cdef bint put_text(Out* o, PyObject* text) noexcept:
    cdef const uint8_t* p
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t most
    if CR_is_ascii(text):
        p = CR_text_data(text)
        size = CR_text_size(text)
    else:
        p = <const uint8_t*>CR_utf8(text, &size)
        if p == NULL:
            PyErr_Clear()
            return False
    most = 6 * size if size <= 256 else escaped_size(p, size)
    if not has_room(o, most + 2):
        return False
    o.p[o.at] = 0x22
    o.at = put_escaped(o.p + o.at + 1, p, size) - o.p
    o.p[o.at] = 0x22
    o.at += 1
    return True


cdef inline uint8_t* put_digits(uint8_t* out, uint64_t number, int least) noexcept nogil:
    cdef uint8_t[20] digits
    cdef int count = 0
    while number or count < least:
        digits[count] = <uint8_t>(0x30 + number % 10)
        number //= 10
        count += 1
    while count:
        count -= 1
        out[0] = digits[count]
        out += 1
    return out


cdef bint put_float(Out* o, double value) noexcept:
    # The shortest digits that read back. Up to 15 digits are only ever those of one double, and are found by trying: the quotient
    # of two exact numbers is rounded once. Others are left to `dumps`.
    cdef double size = -value if value < 0 else value
    cdef double scaled
    cdef uint64_t digits, tens
    cdef int places
    cdef PyObject* number
    cdef PyObject* text
    if not isfinite(value) or not has_room(o, 40):
        return False
    if 1e-3 <= size < 1e15:
        tens = 1
        for places in range(16):
            scaled = size * CR_TENS[places]
            if scaled >= 1e15:
                break
            digits = <uint64_t>(scaled + 0.5)
            if <double>digits / CR_TENS[places] == size:
                if value < 0:
                    o.p[o.at] = 0x2D
                    o.at += 1
                o.at = put_digits(o.p + o.at, digits // tens, 1) - o.p
                o.p[o.at] = 0x2E
                o.at = put_digits(o.p + o.at + 1, digits % tens, places if places else 1) - o.p
                return True
            tens *= 10
    number = PyFloat_FromDouble_P(value)
    text = NULL if number == NULL else PyObject_CallOneArg(CR_object(dumps), number)
    Py_XDECREF_P(number)
    if text == NULL:
        PyErr_Clear()
        return False
    memcpy(o.p + o.at, PyBytes_AS_STRING(<object>text), Py_SIZE(text))
    o.at += Py_SIZE(text)
    Py_DECREF_P(text)
    return True


cdef bint put_integer(Out* o, PyObject* value) noexcept:
    cdef long long number = 0
    if not CR_small_int(value, &number) or not has_room(o, 24):
        return False
    if number < 0:
        o.p[o.at] = 0x2D
        o.at += 1
    o.at = put_digits(o.p + o.at, <uint64_t>0 - <uint64_t>number if number < 0 else <uint64_t>number, 1) - o.p
    return True


cdef inline bint put_word(Out* o, const char* word, Py_ssize_t size) noexcept:
    if not has_room(o, size):
        return False
    memcpy(o.p + o.at, word, size)
    o.at += size
    return True


cdef inline bint put_byte(Out* o, uint8_t c) noexcept:
    if not has_room(o, 1):
        return False
    o.p[o.at] = c
    o.at += 1
    return True


cdef bint put_object(Out* o, Shape shape, PyObject* value, int depth) noexcept:
    cdef PyObject* keys = CR_object(shape.keys)
    cdef PyObject* names = CR_object(shape.names)
    cdef PyObject* key
    cdef PyObject* item
    cdef Py_ssize_t count = Py_SIZE(keys)
    cdef Py_ssize_t i
    cdef bint written_
    for i in range(count):
        key = PyList_GET_ITEM_P(keys, i)
        if not put_word(o, "{" if i == 0 else ",", 1) or not put_word(o, PyBytes_AS_STRING(<object>key), Py_SIZE(key)):
            return False
        if shape.slots[i] > 0:
            item = CR_SLOT(value, shape.slots[i])
            if item == NULL or not put_value(o, item, depth, shape.plain):
                return False
        else:
            item = PyObject_GenericGetAttr_P(value, PyTuple_GET_ITEM_P(names, i))
            if item == NULL:
                PyErr_Clear()
                return False
            written_ = put_value(o, item, depth, shape.plain)
            Py_DECREF_P(item)
            if not written_:
                return False
    return put_word(o, "}" if count else "{}", 1 if count else 2)


cdef bint put_items(Out* o, PyObject* value, int depth, bint plain) noexcept:
    cdef bint listed = Py_TYPE(value) == &PyList_Type
    cdef uint8_t mark = 0x5B
    cdef Py_ssize_t i
    for i in range(Py_SIZE(value)):
        if not put_byte(o, mark):
            return False
        if not put_value(o, PyList_GET_ITEM_P(value, i) if listed else PyTuple_GET_ITEM_P(value, i), depth + 1, plain):
            return False
        mark = 0x2C
    return put_word(o, "[]", 2) if mark == 0x5B else put_byte(o, 0x5D)


cdef bint put_value(Out* o, PyObject* value, int depth, bint plain) noexcept:
    # False for what goes the long way; no error is set.
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef PyObject* shape
    cdef Py_ssize_t position = 0
    cdef uint8_t mark
    if kind == &PyUnicode_Type:
        return put_text(o, value)
    if kind == &PyLong_Type:
        return put_integer(o, value)
    if kind == &PyFloat_Type:
        return put_float(o, PyFloat_AS_DOUBLE(value))
    if value == Py_None_P:
        return put_word(o, "null", 4)
    if kind == &PyBool_Type:
        return put_word(o, "true", 4) if value == Py_True_P else put_word(o, "false", 5)
    if depth >= DEEPEST_OUT:
        return False
    if kind == &PyDict_Type:
        mark = 0x7B
        while PyDict_Next(value, &position, &key, &item):
            if Py_TYPE(key) != &PyUnicode_Type or not put_byte(o, mark) or not put_text(o, key):
                return False
            if not put_byte(o, 0x3A) or not put_value(o, item, depth + 1, plain):
                return False
            mark = 0x2C
        return put_word(o, "{}", 2) if mark == 0x7B else put_byte(o, 0x7D)
    if kind == &PyList_Type or kind == &PyTuple_Type:
        return put_items(o, value, depth, plain)
    shape = PyDict_GetItem_P(CR_object(shapes), <PyObject*>kind)
    if shape == NULL:
        PyErr_Clear()
        o.unknown = <PyObject*>kind
    if shape == NULL or shape == Py_None_P or (plain and not (<Shape>shape).plain):
        return False
    return put_shaped(o, <Shape>shape, value, depth)


cdef bint put_moment(Out* o, Shape shape, PyObject* value) noexcept:
    cdef object moment = <object>value
    cdef uint8_t* p
    if not has_room(o, 40):
        return False
    p = o.p + o.at
    p[0] = 0x22
    p = put_digits(p + 1, PyDateTime_GET_YEAR(moment), 4)
    p[0] = 0x2D
    p = put_digits(p + 1, PyDateTime_GET_MONTH(moment), 2)
    p[0] = 0x2D
    p = put_digits(p + 1, PyDateTime_GET_DAY(moment), 2)
    if shape.how == H_DATETIME:
        if moment.tzinfo is not None and moment.tzinfo is not UTC:
            return False
        p[0] = 0x54
        p = put_digits(p + 1, PyDateTime_DATE_GET_HOUR(moment), 2)
        p[0] = 0x3A
        p = put_digits(p + 1, PyDateTime_DATE_GET_MINUTE(moment), 2)
        p[0] = 0x3A
        p = put_digits(p + 1, PyDateTime_DATE_GET_SECOND(moment), 2)
        if PyDateTime_DATE_GET_MICROSECOND(moment):
            p[0] = 0x2E
            p = put_digits(p + 1, PyDateTime_DATE_GET_MICROSECOND(moment), 6)
        if moment.tzinfo is not None:
            memcpy(p, "+00:00", 6)
            p += 6
    p[0] = 0x22
    o.at = p + 1 - o.p
    return True


cdef bint put_id(Out* o, Shape shape, PyObject* value) noexcept:
    cdef const char* digits = "0123456789abcdef"
    cdef PyObject* number = CR_SLOT(value, shape.slots[0])
    cdef PyObject* high
    cdef uint64_t[2] halves
    cdef uint8_t* p
    cdef int i
    if number == NULL or Py_TYPE(number) != &PyLong_Type or not has_room(o, 40):
        return False
    high = PyNumber_Rshift_P(number, CR_object(SIXTY_FOUR))
    if high == NULL:
        PyErr_Clear()
        return False
    halves[0] = PyLong_AsUnsignedLongLongMask_P(high)
    halves[1] = PyLong_AsUnsignedLongLongMask_P(number)
    Py_DECREF_P(high)
    p = o.p + o.at
    p[0] = 0x22
    p += 1
    for i in range(32):
        if i == 8 or i == 12 or i == 16 or i == 20:
            p[0] = 0x2D
            p += 1
        p[0] = digits[halves[i >> 4] >> (60 - 4 * (i & 15)) & 15]
        p += 1
    p[0] = 0x22
    o.at = p + 1 - o.p
    return True


cdef bint put_shaped(Out* o, Shape shape, PyObject* value, int depth) noexcept:
    cdef PyObject* item
    cdef bint done
    if shape.how == H_FIELDS:
        return put_object(o, shape, value, depth + 1)
    if shape.how == H_DATETIME or shape.how == H_DATE:
        return put_moment(o, shape, value)
    if shape.how == H_TUPLE:
        return put_items(o, value, depth, False)
    if shape.how == H_UUID:
        return put_id(o, shape, value)
    if shape.how == H_VALUE:
        item = PyObject_GenericGetAttr_P(value, PyTuple_GET_ITEM_P(CR_object(shape.names), 0))
    elif shape.how == H_TEXT:
        item = PyObject_Str_P(value)
    else:
        return False
    if item == NULL:
        PyErr_Clear()
        return False
    done = put_value(o, item, depth, shape.plain)
    Py_DECREF_P(item)
    return done


cdef object find_shape(object kind):
    # Called once a class; before the classes of its fields are met, those of the annotations are looked up too.
    if len(shapes) >= SHAPES_MAX:
        shapes.clear()
    shapes[kind] = None
    hooks.shapes(kind, shapes)
    return shapes.get(kind)


cdef object by_call(Shape shape, object value, Slice* text):
    # What another library writes, unless something in it may break a rule of ours: a null may stand for NaN, a number have more than 64 bits.
    cdef const uint8_t* p
    cdef Py_ssize_t size
    cdef Py_ssize_t at = 9
    cdef Py_ssize_t stop
    try:
        out = shape.call(value)
    except Exception:
        return None
    if type(out) is not bytes:
        return None
    p = <const uint8_t*>PyBytes_AS_STRING(out)
    size = PyBytes_GET_SIZE(out)
    if CR_nulls(p, size):
        return None
    # of twenty digits in a row one is at a multiple of nine, with the next such one
    while at < size:
        if 0x30 <= p[at] <= 0x39:
            stop = skip_digits(p, at, size)
            while at and 0x30 <= p[at - 1] <= 0x39:
                at -= 1
            if stop - at > 18:
                return None
            at = stop
        at += 9
    text.data = p
    text.size = size
    return out


cdef object short_way(object value, Slice* text):
    # The JSON of an object whose class is known, with `text` in it; `None`: it goes the long way.
    cdef uint8_t[STACK_OUT] stack
    cdef Out o
    cdef object shape = shapes.get(type(value), MISS)
    cdef object out
    if shape is MISS:
        shape = find_shape(type(value))
    if shape is None:
        return None
    if (<Shape>shape).how == H_CALL:
        return by_call(<Shape>shape, value, text)
    for _ in range(NEW_CLASSES):
        o.p = o.stack = stack
        o.at = 0
        o.room = STACK_OUT
        o.unknown = NULL
        out = PyBytes_FromStringAndSize(<const char*>o.p, o.at) if put_shaped(&o, <Shape>shape, CR_object(value), 0) else None
        if o.p != o.stack:
            PyMem_RawFree(o.p)
        if out is not None:
            text.data = <const uint8_t*>PyBytes_AS_STRING(out)
            text.size = PyBytes_GET_SIZE(out)
        elif o.unknown != NULL:
            find_shape(<object>o.unknown)
            continue
        return out
    return None
