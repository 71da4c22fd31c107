/* Arrays one after another into one place in memory, past the processor's caches.
 *
 * A clip is written once and read much later, by another process or by a device: through the caches it would first be
 * read from memory to be written, and push out what a codec or a network is at work on. On x86-64 the stores go straight
 * to memory; elsewhere this is a plain copy. The GIL is released: a batch is forty megabytes.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum { WIDE = 16 }; /* bytes of one store, which must be aligned to as many */

static void copy(char *to, const char *from, size_t count)
{
#if defined(__x86_64__)
    size_t head = -(uintptr_t)to % WIDE;
    if (head > count)
        head = count;
    memcpy(to, from, head);
    to += head, from += head, count -= head;
    for (; count >= 4 * WIDE; to += 4 * WIDE, from += 4 * WIDE, count -= 4 * WIDE)
        for (int part = 0; part < 4; part++)
            _mm_stream_si128((__m128i *)to + part, _mm_loadu_si128((const __m128i *)from + part));
#endif
    memcpy(to, from, count);
}

static PyObject *gather(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer out;
    PyObject *given;
    if (!PyArg_ParseTuple(args, "w*O", &out, &given))
        return NULL;
    PyObject *parts = PySequence_Fast(given, "parts is no sequence");
    if (parts == NULL) {
        PyBuffer_Release(&out);
        return NULL;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(parts), got = 0, total = 0;
    Py_buffer *views = PyMem_New(Py_buffer, count ? count : 1);
    if (views == NULL)
        PyErr_NoMemory();
    else
        while (got < count) {
            if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(parts, got), &views[got], PyBUF_SIMPLE) < 0)
                break;
            total += views[got++].len;
        }
    int fits = views != NULL && got == count && total <= out.len;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        char *to = out.buf;
        for (Py_ssize_t part = 0; part < count; to += views[part++].len)
            copy(to, views[part].buf, views[part].len);
#if defined(__x86_64__)
        _mm_sfence(); /* whoever is told of it next finds all of it */
#endif
        Py_END_ALLOW_THREADS
    } else if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%zd bytes do not fit into %zd", total, out.len);
    while (got > 0)
        PyBuffer_Release(&views[--got]);
    PyMem_Free(views);
    Py_DECREF(parts);
    PyBuffer_Release(&out);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, "gather(out, parts): see gather.py."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_gather",
    .m_doc = "Arrays one after another into one place in memory.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__gather(void) { return PyModuleDef_Init(&module); }
