/* Planes of YUV to the scaled crop in RGB. The arithmetic is stated in planes.py, which computes the same bit for bit.
 * Here is Python's side; a picture is drawn in _planes_picture.c, by the loops of _planes_any.c or of _planes_avx2.c.
 *
 * Lines of pixels become RGB, two at a time and only as wide as the crop, when the next line of the scaled picture needs
 * them, and are forgotten when none needs them any more. The columns of a band of such lines are then scaled in the
 * same manner, on the transposed band. So the decoder's pictures are read once, and what else is touched fits into the
 * inner caches, most of which is left to the decoder.
 *
 * Colours are bytes, and two of them are weighed at once: those of two lines, then of two columns. Where most time goes
 * there are loops for AVX2, which has an instruction for that, and the same for all other processors.
 *
 * The GIL is kept: a call takes well below a tenth of a millisecond for a picture of 340 x 256, and a plan's working
 * memory serves one call at a time.
 */

#include "_planes.h"

static const char *const CAPSULE = "clipmux.workers._planes.Plan";

static void
free_plan(Plan *plan)
{
    void *all[] = {plan->rows.starts,       plan->rows.weights, plan->rows.used, plan->columns.starts,
                   plan->columns.weights, plan->columns.used, plan->pairs,     plan->memory};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        PyMem_Free(all[i]);
    PyMem_Free(plan);
}

static void
free_capsule(PyObject *capsule)
{
    free_plan(PyCapsule_GetPointer(capsule, CAPSULE));
}

/* A copy of an array's numbers. */
static void *
copied(PyObject *owner, const char *name, Py_ssize_t size, Py_ssize_t *count)
{
    PyObject *array = PyObject_GetAttrString(owner, name);
    if (array == NULL)
        return NULL;
    Py_buffer view;
    void *copy = NULL;
    if (PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS) == 0) {
        if (view.itemsize != size || view.len == 0)
            PyErr_Format(PyExc_ValueError, "%s have items of %zd bytes, %zd belong there", name, view.itemsize, size);
        else if ((copy = PyMem_Malloc(view.len)) == NULL)
            PyErr_NoMemory();
        else {
            memcpy(copy, view.buf, view.len);
            *count = view.len / size;
        }
        PyBuffer_Release(&view);
    }
    Py_DECREF(array);
    return copy;
}

/* Single taps, from Python; what they start at are inputs, and `used` is not known yet. */
static int
read_taps(PyObject *object, Taps *taps)
{
    Py_ssize_t outputs, weights;
    if ((taps->starts = copied(object, "starts", sizeof(int32_t), &outputs)) == NULL ||
        (taps->weights = copied(object, "weights", sizeof(uint8_t), &weights)) == NULL)
        return -1;
    if (outputs > MOST || weights % outputs || weights / outputs > MOST) {
        PyErr_Format(PyExc_ValueError, "%zd weights for %zd outputs", weights, outputs);
        return -1;
    }
    taps->outputs = (int)outputs;
    const int count = (int)(weights / outputs);
    taps->low = MOST;
    taps->high = 0;
    for (int i = 0; i < taps->outputs; i++) {
        const int start = taps->starts[i];
        if (start < 0 || start > MOST - count) {
            PyErr_Format(PyExc_ValueError, "an output starts at %d", start);
            return -1;
        }
        taps->low = start < taps->low ? start : taps->low;
        taps->high = start + count > taps->high ? start + count : taps->high;
        int total = 0;
        for (int tap = 0; tap < count; tap++)
            total += taps->weights[(size_t)i * count + tap];
        if (i > 0 && total != taps->total) {
            PyErr_Format(PyExc_ValueError, "weights of %d and of %d", taps->total, total);
            return -1;
        }
        taps->total = total;
    }
    taps->pairs = count; /* until they are paired */
    return 0;
}

/* Taps for pairs of inputs, the first of which begins with input `origin`. */
static int
pair_up(Taps *taps, int origin)
{
    const int count = taps->pairs, pairs = count / 2 + 1;
    const uint8_t *single = taps->weights;
    uint8_t *weights = PyMem_Calloc((size_t)taps->outputs * pairs, 2);
    if (weights == NULL || (taps->used = PyMem_Malloc(taps->outputs * sizeof *taps->used)) == NULL) {
        PyMem_Free(weights);
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < taps->outputs; i++) {
        const int start = taps->starts[i] - origin;
        uint8_t *paired = weights + (size_t)i * 2 * pairs;
        memcpy(paired + start % 2, single + (size_t)i * count, count);
        taps->starts[i] = start / 2;
        taps->used[i] = pairs;
        while (taps->used[i] > 1 && paired[2 * taps->used[i] - 2] == 0 && paired[2 * taps->used[i] - 1] == 0)
            taps->used[i]--;
    }
    PyMem_Free(taps->weights);
    taps->weights = weights;
    taps->pairs = pairs;
    return 0;
}

static int
take_memory(Plan *plan)
{
    const Taps *columns = &plan->columns;
    plan->low = columns->low / plan->across;
    plan->count = (columns->high + plan->across - 1) / plan->across - plan->low;
    plan->wide = up(plan->across * plan->count, BLOCK);
    plan->padded = 2 * BLOCK + up(plan->count + 2, BLOCK);
    plan->longest = 4 * (plan->wide + BLOCK);
    plan->pitch = up(CHANNELS * columns->outputs, 2 * BLOCK);
    if (pair_up(&plan->rows, -1) || pair_up(&plan->columns, plan->low * plan->across))
        return -1;
    plan->kept = plan->rows.pairs;
    if ((plan->pairs = PyMem_Calloc(plan->kept, sizeof *plan->pairs)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    const size_t wide = plan->wide, line = CACHE_LINE;
    const struct {
        void *start;
        size_t size;
    } parts[] = {
        {&plan->last, 4 * (size_t)plan->longest},
        {&plan->samples, sizeof(int16_t) * ((size_t)CHANNELS * plan->padded + BLOCK)}, /* one is read beyond the end */
        {&plan->chroma, sizeof(int16_t) * REMEMBERED * CHANNELS * wide},
        {&plan->luma, sizeof(int16_t) * 2 * wide},
        {&plan->rgb, (size_t)plan->kept * CHANNELS * 2 * wide},
        {&plan->band, BAND * CHANNELS * wide},
        {&plan->sums, sizeof(int16_t) * wide},
        {&plan->turned, BAND * CHANNELS * wide},
        {&plan->scaled, sizeof(uint16_t) * plan->pitch * BAND},
        {&plan->joined, (size_t)plan->pitch * BAND},
        {&plan->upright, (size_t)plan->pitch * BAND},
    };
    size_t total = line;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        total += parts[i].size + line;
    if ((plan->memory = PyMem_Calloc(total, 1)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    uintptr_t at = (uintptr_t)plan->memory;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        at = (at + line - 1) / line * line;
        *(void **)parts[i].start = (void *)at;
        at += parts[i].size;
    }
    return 0;
}

/* Whether everything that the loops rely on holds. */
static int
is_sound(Plan *plan)
{
    const Taps *rows = &plan->rows;
    int rises = 0;
    for (int i = 1; i < rows->outputs; i++) {
        rises |= rows->starts[i] > rows->starts[i - 1];
        plan->falls |= rows->starts[i] < rows->starts[i - 1];
    }
    const int most = WHITEST << FRACTION_BITS, white = plan->colour[WHITE];
    return plan->bits >= 8 && plan->bits <= 14 && plan->black >= -most && plan->black <= most && white <= WHITEST &&
           rows->total <= MOST_GAIN && white * rows->total + HALF_ONE < (WHITEST + 1) * ONE &&
           plan->columns.total == ONE && (plan->across == 1 || plan->across == 2) && (plan->down == 1 || plan->down == 2) &&
           (plan->halved == 0 || (plan->halved == 1 && plan->across == 1 && plan->down == 1)) &&
           !(rises && plan->falls) && plan->chroma_height > 0 && plan->chroma_height <= MOST && plan->chroma_width > 0 &&
           plan->chroma_width <= MOST &&
           (rows->high + plan->down - 1) / plan->down <= plan->chroma_height &&
           (plan->columns.high + plan->across - 1) / plan->across <= plan->chroma_width;
}

static PyObject *
make_plan(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *rows, *columns;
    Plan *plan = PyMem_Calloc(1, sizeof *plan);
    if (plan == NULL)
        return PyErr_NoMemory();
    uint16_t *colour = plan->colour;
    int for_all = 0;
    if (!PyArg_ParseTuple(args, "iiiiiiOO(iHHHHH)|p", &plan->bits, &plan->across, &plan->down, &plan->halved,
                          &plan->chroma_height, &plan->chroma_width, &rows, &columns, &plan->black, &colour[WHITE],
                          &colour[RED_V], &colour[GREEN_U], &colour[GREEN_V], &colour[BLUE_U], &for_all) ||
        read_taps(rows, &plan->rows) || read_taps(columns, &plan->columns))
        goto failed;
    plan->loops = for_all || loops_for_avx2() == NULL ? loops_for_all() : loops_for_avx2();
    if (!is_sound(plan)) {
        PyErr_SetString(PyExc_ValueError, "the taps do not fit the planes, or the samples cannot be so");
        goto failed;
    }
    if (take_memory(plan))
        goto failed;
    PyObject *capsule = PyCapsule_New(plan, CAPSULE, free_capsule);
    if (capsule != NULL)
        return capsule;
failed:
    free_plan(plan);
    return NULL;
}

/* Whether a plane, the luma if `luma`, holds everything that is read of it. */
static int
fits(const Plan *plan, int luma, const Py_buffer *view, Py_ssize_t line)
{
    const Py_ssize_t size = plan->bits == 8 ? 1 : 2;
    const Py_ssize_t rows = luma ? plan->rows.high << plan->halved : plan->chroma_height;
    const Py_ssize_t pixels = (Py_ssize_t)(plan->low + plan->count) * plan->across << plan->halved;
    const Py_ssize_t width = (luma ? pixels : plan->chroma_width) * size;
    if (line >= width && width <= view->len && (rows == 1 || line <= (view->len - width) / (rows - 1)))
        return 1;
    PyErr_Format(PyExc_ValueError, "a plane of %zd bytes, %zd a line, is too small for %zd lines of %zd", view->len,
                 line, rows, width);
    return 0;
}

static PyObject *
fill_pixels(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 8) {
        PyErr_Format(PyExc_TypeError, "pixels() takes 8 arguments, %zd were given", count);
        return NULL;
    }
    Plan *plan = PyCapsule_GetPointer(args[0], CAPSULE);
    if (plan == NULL)
        return NULL;
    Py_buffer views[4];
    Plane planes[3];
    int open = 0, drawn = 0;
    if (PyObject_GetBuffer(args[1], &views[0], PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE))
        return NULL;
    open = 1;
    if (views[0].len != (Py_ssize_t)plan->rows.outputs * plan->columns.outputs * CHANNELS) {
        PyErr_Format(PyExc_ValueError, "the pixels have %zd bytes, which is not what was planned", views[0].len);
        goto done;
    }
    for (int i = 0; i < 3; i++) {
        planes[i].line = PyLong_AsSsize_t(args[3 + 2 * i]);
        if (planes[i].line == -1 && PyErr_Occurred())
            goto done;
        if (PyObject_GetBuffer(args[2 + 2 * i], &views[open], PyBUF_SIMPLE))
            goto done;
        planes[i].bytes = views[open].buf;
        planes[i].end = planes[i].bytes + views[open].len;
        open++;
        if (!fits(plan, i == 0, &views[open - 1], planes[i].line))
            goto done;
    }
    draw(plan, planes, views[0].buf);
    drawn = 1;
done:
    while (open)
        PyBuffer_Release(&views[--open]);
    if (!drawn)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"plan", make_plan, METH_VARARGS, "As planes.plan; with a last argument that is true, by what all processors can do."},
    {"pixels", (PyCFunction)(void (*)(void))fill_pixels, METH_FASTCALL, "As planes.pixels."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "clipmux.workers._planes",
    .m_doc = "Planes of YUV to the scaled crop in RGB: planes.py, fast.",
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__planes(void)
{
    return PyModule_Create(&definition);
}
