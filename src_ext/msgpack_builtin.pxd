# Encoding of MessagePack, header only.
#
# Exact builtins run no Python code, so references to them are borrowed. Anything else is converted by a call of Python, `CR_leaf`, which may change any container: so each is held while it is read, and its size is compared. Without a GIL each is also locked, and a wait for a lock is as such a call: it lets go of the locks outside of it. What cannot be written (a surrogate, the depth, a size that changed) gives NULL: the caller starts again with a copy that Python has made, or refuses.
# A step takes the place to write at and gives the place behind.

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from builtin cimport (
    CR_BORROW, CR_item, CR_small_int, Py_None_P, Py_SIZE, Py_TYPE, PyDict_Next, PyDict_Type, PyFloat_AS_DOUBLE, PyFloat_Type, PyList_Type, PyLong_Type,
    PyObject_CallOneArg, PyTuple_Type, PyUnicode_Type,
)
from section cimport Section, lock_at, unlock
from writer cimport Writer, copy_short, writer_grew


cdef extern from *:
    """
    #define CR_DATA(o) ((const uint8_t*)PyUnicode_DATA(o))
    static PyTypeObject* CR_packed;  /* of bytes that are written as they are */
    static PyObject* CR_leaf;        /* converts what is no builtin */
    static PyObject* CR_layouts;     /* how objects of a class are written: (packed keys, attributes, slots), or None */
    static PyObject* CR_layout;      /* finds it out */
    #define CR_FIELD(o, at) (*(PyObject**)((char*)(o) + (at)))
    /* A new reference; NULL without an error where there is none. */
    static inline PyObject* CR_get(PyObject* dict, PyObject* key) {
    #if PY_VERSION_HEX >= 0x030D0000
        PyObject* found;
        if (PyDict_GetItemRef(dict, key, &found) < 0) PyErr_Clear();
    #else
        PyObject* found = PyDict_GetItemWithError(dict, key);
        if (found == NULL) PyErr_Clear();
        else Py_INCREF(found);
    #endif
        return found;
    }
    static inline int CR_big_int(PyObject* value, unsigned long long* out) {
        *out = PyLong_AsUnsignedLongLong(value);
        if (*out == (unsigned long long)-1 && PyErr_Occurred()) {
            PyErr_Clear();
            return 0;
        }
        return 1;
    }
    #if defined(__GNUC__)
    #define CR_LIKELY(x) __builtin_expect(!!(x), 1)
    #else
    #define CR_LIKELY(x) (x)
    #endif
    #if defined(_MSC_VER)
    #define CR_BE16(x) _byteswap_ushort(x)
    #define CR_BE32(x) _byteswap_ulong(x)
    #define CR_BE64(x) _byteswap_uint64(x)
    #elif __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define CR_BE16(x) __builtin_bswap16(x)
    #define CR_BE32(x) __builtin_bswap32(x)
    #define CR_BE64(x) __builtin_bswap64(x)
    #else
    #define CR_BE16(x) (x)
    #define CR_BE32(x) (x)
    #define CR_BE64(x) (x)
    #endif
    """
    const uint8_t* CR_DATA(PyObject*) nogil
    PyTypeObject* CR_packed
    PyObject* CR_leaf
    PyObject* CR_layouts
    PyObject* CR_layout
    PyObject* CR_FIELD(PyObject*, Py_ssize_t)
    PyObject* CR_get(PyObject*, PyObject*)
    PyObject* PyObject_GenericGetAttr(PyObject*, PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PyLong_AsSsize_t(PyObject*)
    void Py_INCREF(PyObject*)
    void Py_DECREF(PyObject*)
    bint CR_big_int(PyObject*, unsigned long long*)
    bint CR_LIKELY(bint) nogil
    uint16_t CR_BE16(uint16_t) nogil
    uint32_t CR_BE32(uint32_t) nogil
    uint64_t CR_BE64(uint64_t) nogil
    bint PyUnicode_IS_COMPACT_ASCII(PyObject*)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*)
    const char* PyUnicode_AsUTF8AndSize(PyObject*, Py_ssize_t*)
    void PyErr_Clear()
    const char* PyBytes_AS_STRING(PyObject*)
    Py_ssize_t PyDict_GET_SIZE(PyObject*)
    PyObject* Py_True_P "Py_True"
    PyObject* Py_False_P "Py_False"
    PyTypeObject PyBytes_Type


cdef enum:
    SHORT_DEPTH = 128


cdef inline uint8_t* more(Writer* w, uint8_t* p, Py_ssize_t extra) noexcept:
    # Room for `extra` more bytes; NULL where there is no memory, which the long way tells.
    if CR_LIKELY(extra <= w.capacity - (p - <uint8_t*>w.data)):
        return p
    w.length = p - <uint8_t*>w.data
    return <uint8_t*>w.data + w.length if writer_grew(w, extra) else NULL


cdef inline uint8_t* tagged16(uint8_t* p, uint8_t tag, uint16_t number) noexcept nogil:
    p[0] = tag
    number = CR_BE16(number)
    memcpy(p + 1, &number, 2)
    return p + 3


cdef inline uint8_t* tagged32(uint8_t* p, uint8_t tag, uint32_t number) noexcept nogil:
    p[0] = tag
    number = CR_BE32(number)
    memcpy(p + 1, &number, 4)
    return p + 5


cdef inline uint8_t* tagged64(uint8_t* p, uint8_t tag, uint64_t number) noexcept nogil:
    p[0] = tag
    number = CR_BE64(number)
    memcpy(p + 1, &number, 8)
    return p + 9


cdef inline uint8_t* short_int(uint8_t* p, long long number) noexcept nogil:
    # 9 bytes of room are there.
    if -32 <= number < 128:
        p[0] = <uint8_t>number
        return p + 1
    if number > 0:
        if number <= 0xFF:
            p[0] = 0xCC
            p[1] = <uint8_t>number
            return p + 2
        if number <= 0xFFFF:
            return tagged16(p, 0xCD, <uint16_t>number)
        if number <= 0xFFFFFFFFLL:
            return tagged32(p, 0xCE, <uint32_t>number)
        return tagged64(p, 0xCF, <uint64_t>number)
    if number >= -0x80:
        p[0] = 0xD0
        p[1] = <uint8_t>number
        return p + 2
    if number >= -0x8000:
        return tagged16(p, 0xD1, <uint16_t>number)
    if number >= -0x80000000LL:
        return tagged32(p, 0xD2, <uint32_t>number)
    return tagged64(p, 0xD3, <uint64_t>number)


cdef inline uint8_t* short_str(Writer* w, uint8_t* p, PyObject* value) noexcept:
    cdef Py_ssize_t size = 0
    cdef const uint8_t* data
    if CR_LIKELY(PyUnicode_IS_COMPACT_ASCII(value)):
        size = PyUnicode_GET_LENGTH(value)
        data = CR_DATA(value)
    else:
        data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &size)
        if data == NULL:
            PyErr_Clear()
            return NULL
    # beside the text room for any scalar behind it, so that those need not ask
    p = more(w, p, size + 16)
    if not CR_LIKELY(p != NULL):
        return NULL
    if CR_LIKELY(size < 32):
        p[0] = 0xA0 | <uint8_t>size
        return copy_short(p + 1, data, size)
    if size <= 0xFF:
        p[0] = 0xD9
        p[1] = <uint8_t>size
        return copy_short(p + 2, data, size)
    if size <= 0xFFFF:
        return copy_short(tagged16(p, 0xDA, <uint16_t>size), data, size)
    if size <= 0xFFFFFFFFLL:
        return copy_short(tagged32(p, 0xDB, <uint32_t>size), data, size)
    return NULL


cdef inline uint8_t* held_str(Writer* w, uint8_t* p, PyObject* value) noexcept:
    # One whose UTF-8 is to be made first, which may wait for a lock.
    Py_INCREF(value)
    p = short_str(w, p, value)
    Py_DECREF(value)
    return p


cdef inline uint8_t* short_head(Writer* w, uint8_t* p, Py_ssize_t count, uint8_t fix, uint8_t wide) noexcept:
    p = more(w, p, 16)
    if p == NULL or count > 0xFFFFFFFFLL:
        return NULL
    if CR_LIKELY(count < 16):
        p[0] = fix | <uint8_t>count
        return p + 1
    if count <= 0xFFFF:
        return tagged16(p, wide, <uint16_t>count)
    return tagged32(p, wide + 1, <uint32_t>count)


cdef inline uint8_t* short_bin(Writer* w, uint8_t* p, PyObject* value) noexcept:
    cdef Py_ssize_t size = Py_SIZE(value)
    p = more(w, p, size + 16)
    if p == NULL or size > 0xFFFFFFFFLL:
        return NULL
    if size <= 0xFF:
        p[0] = 0xC4
        p[1] = <uint8_t>size
        p += 2
    elif size <= 0xFFFF:
        p = tagged16(p, 0xC5, <uint16_t>size)
    else:
        p = tagged32(p, 0xC6, <uint32_t>size)
    return copy_short(p, <const uint8_t*>PyBytes_AS_STRING(value), size)


cdef inline uint8_t* short_item(Writer* w, uint8_t* p, PyObject* value, int depth) noexcept:
    # One value; for a scalar other than a str 9 bytes of room are there already.
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef long long number
    cdef double real
    cdef uint64_t bits
    if kind == &PyUnicode_Type:
        if not CR_BORROW and not PyUnicode_IS_COMPACT_ASCII(value):
            return held_str(w, p, value)
        return short_str(w, p, value)
    if kind == &PyLong_Type:
        return short_int(p, number) if CR_small_int(value, &number) else odd_item(w, p, value, depth)
    if value == Py_None_P:
        p[0] = 0xC0
        return p + 1
    if value == Py_True_P:
        p[0] = 0xC3
        return p + 1
    if value == Py_False_P:
        p[0] = 0xC2
        return p + 1
    if kind == &PyFloat_Type:
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        return tagged64(p, 0xCB, bits)
    if kind == &PyBytes_Type:
        return short_bin(w, p, value)
    return short_items(w, p, value, depth, False)


cdef inline PyObject* layout_of(PyObject* kind) noexcept:
    # How objects of a class are written, or None.
    cdef PyObject* layout = CR_get(CR_layouts, kind)
    if layout != NULL:
        return layout
    layout = PyObject_CallOneArg(CR_layout, kind)
    if layout == NULL:
        PyErr_Clear()
    return layout


cdef inline uint8_t* laid_out(Writer* w, uint8_t* p, PyObject* layout, PyObject* value, int depth) noexcept:
    # An object of known fields, or what stands for it.
    cdef PyObject* keys = PyTuple_GET_ITEM(layout, 0)
    cdef PyObject* names = PyTuple_GET_ITEM(layout, 1)
    cdef PyObject* slots = PyTuple_GET_ITEM(layout, 2)
    cdef PyObject* key
    cdef PyObject* item
    cdef Py_ssize_t count = Py_SIZE(names)
    cdef Py_ssize_t i, slot
    if keys != Py_None_P:
        if depth >= SHORT_DEPTH:
            return NULL
        depth += 1
        p = short_head(w, p, count, 0x80, 0xDE)
    for i in range(count):
        if p != NULL and keys != Py_None_P:
            key = PyTuple_GET_ITEM(keys, i)
            p = more(w, p, Py_SIZE(key) + 16)
            if p != NULL:
                p = copy_short(p, <const uint8_t*>PyBytes_AS_STRING(key), Py_SIZE(key))
        if p == NULL:
            break
        slot = PyLong_AsSsize_t(PyTuple_GET_ITEM(slots, i))
        if not CR_BORROW:
            slot = 0  # another thread may set it meanwhile
        item = CR_FIELD(value, slot) if slot > 0 else PyObject_GenericGetAttr(value, PyTuple_GET_ITEM(names, i))
        if item == NULL:
            PyErr_Clear()
            p = NULL
            break
        if slot > 0:
            Py_INCREF(item)
        p = short_items(w, p, item, depth - 1, True)
        Py_DECREF(item)
    return p


cdef inline uint8_t* odd_item(Writer* w, uint8_t* p, PyObject* value, int depth) noexcept:
    # What is no exact builtin, or an int of more than 63 bits.
    cdef unsigned long long number
    cdef PyObject* layout
    cdef PyObject* converted
    if Py_TYPE(value) == &PyLong_Type:
        return tagged64(p, 0xCF, number) if CR_big_int(value, &number) else NULL
    if Py_TYPE(value) == CR_packed:
        p = more(w, p, Py_SIZE(value) + 16)
        return copy_short(p, <const uint8_t*>PyBytes_AS_STRING(value), Py_SIZE(value)) if p != NULL else NULL
    Py_INCREF(value)
    layout = layout_of(<PyObject*>Py_TYPE(value))
    if layout == NULL:
        p = NULL
    elif layout != Py_None_P:
        p = laid_out(w, p, layout, value, depth)
    else:
        converted = PyObject_CallOneArg(CR_leaf, value)
        if converted == NULL:
            PyErr_Clear()
            p = NULL
        else:
            p = short_items(w, p, converted, depth - 1, True)
            Py_DECREF(converted)
    if layout != NULL:
        Py_DECREF(layout)
    Py_DECREF(value)
    return p


cdef inline uint8_t* odd_key(Writer* w, uint8_t* p, PyObject* key) noexcept:
    # A scalar; what needs a conversion is left to Python.
    cdef PyTypeObject* kind = Py_TYPE(key)
    if kind == &PyLong_Type or kind == &PyFloat_Type or kind == &PyBytes_Type or kind == CR_packed or key == Py_None_P or key == Py_True_P or key == Py_False_P:
        return short_items(w, p, key, SHORT_DEPTH - 1, True)
    return NULL


cdef inline uint8_t* changed(Writer* w) noexcept:
    # The size of a container, by a conversion inside of it.
    w.length = -1
    return NULL


cdef inline uint8_t* short_items(Writer* w, uint8_t* p, PyObject* value, int depth, bint alone) noexcept:
    # A container or what is no builtin; or, if `alone`, the value itself, as if it stood in a list.
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t count, i
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef PyTypeObject* kind = Py_TYPE(value)
    cdef Section section
    cdef bint locked
    if kind == &PyDict_Type and not alone:
        if depth >= SHORT_DEPTH:
            return NULL
        Py_INCREF(value)
        lock_at(&section, value)
        count = i = PyDict_GET_SIZE(value)
        p = short_head(w, p, count, 0x80, 0xDE)
        while p != NULL and PyDict_Next(value, &position, &key, &item):
            i -= 1
            if not CR_BORROW:
                Py_INCREF(item)  # to write the key may wait for a lock
            if CR_LIKELY(Py_TYPE(key) == &PyUnicode_Type):
                p = short_str(w, p, key) if CR_BORROW else held_str(w, p, key)
            else:
                p = odd_key(w, p, key)
            if p != NULL:
                p = short_item(w, p, item, depth + 1)
            if not CR_BORROW:
                Py_DECREF(item)
        if p != NULL and (i != 0 or PyDict_GET_SIZE(value) != count):
            p = changed(w)
        unlock(&section)
        Py_DECREF(value)
        return p
    if not alone and kind != &PyList_Type and kind != &PyTuple_Type:
        return odd_item(w, p, value, depth)
    if depth >= SHORT_DEPTH:
        return NULL
    Py_INCREF(value)
    locked = not CR_BORROW and not alone and kind == &PyList_Type
    if not CR_BORROW and locked:
        lock_at(&section, value)
    count = 1
    if not alone:
        count = Py_SIZE(value)
        p = short_head(w, p, count, 0x90, 0xDC)
    for i in range(count):
        if p != NULL:
            p = more(w, p, 16)
        if p == NULL:
            break
        p = short_item(w, p, value if alone else CR_item(value, i), depth + 1)
        if p != NULL and not alone and Py_SIZE(value) != count:
            p = changed(w)
    if not CR_BORROW and locked:
        unlock(&section)
    Py_DECREF(value)
    return p
