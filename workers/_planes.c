/* Planes of YUV to the scaled crop in RGB. The arithmetic is stated in planes.py, which computes the same bit for bit.
 *
 * Lines of pixels become RGB, only as wide as the crop, when the next line of the scaled picture needs them, and are
 * forgotten when none needs them any more. The columns of a band of such lines are then scaled in the same manner, on
 * the transposed band. So the decoder's pictures are read once, and what else is touched fits into the inner caches,
 * most of which is left to the decoder. All of it works on unsigned numbers of 16 bits, in loops that compilers turn
 * into vector code by themselves; on x86-64 with glibc they are compiled for three generations of processors, and the
 * loader picks.
 *
 * The GIL is kept: a call takes well below a tenth of a millisecond for a picture of 340 x 256, and a plan's working
 * memory serves one call at a time.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__)
#define INTO_CALLER static inline __attribute__((always_inline)) /* where it is compiled for each processor */
#else
#define INTO_CALLER static inline
#endif

enum { FRACTION_BITS = 6, CHROMA_SHIFT = 4, BASE = 320 << FRACTION_BITS, WHITE = 255 << FRACTION_BITS };
enum { BLACK_STEPS = BASE >> FRACTION_BITS, WHITE_STEPS = (BASE + WHITE) >> FRACTION_BITS };
enum { BLACK, GAIN, RED_V, GREEN_U, GREEN_V, BLUE_U, COLOURS };
enum { RED, GREEN, BLUE, CHANNELS };
enum { STEP = 32 };            /* lines of numbers are whole multiples of this, so that vectors fit */
enum { BAND = 16, TILE = 8 };  /* lines in a band: few, for the inner caches; in a tile, of which bands hold pairs */
enum { MOST = 1 << 15 };       /* rows, columns and taps at most: products of two fit easily */
enum { FEW = 8 };              /* taps that are added up at once */
enum { REMEMBERED = 2 };       /* lines of chroma, those above and below a line of pixels */

typedef struct {
    int outputs, taps, low, high; /* inputs low … high - 1 are needed */
    int32_t *starts;
    uint16_t *weights, *biases;
    int *used;                    /* taps of each output: many have fewer than others */
} Taps;

typedef struct {
    const uint8_t *bytes;
    Py_ssize_t line;
} Plane;

typedef struct {
    int bits, across, down;           /* of samples; pixels for one sample of chroma */
    int halved;                       /* four pixels that share a sample of chroma count as one */
    int chroma_height, chroma_width;
    Taps rows, columns;
    int falls;                        /* the starts of rows do, as in mirrored pictures */
    uint16_t colour[COLOURS];
    int low, count;                   /* samples of chroma in a line that are needed */
    int part, wide;                   /* numbers in a line of each part (even and odd pixels), and of all parts */
    int pitch;                        /* numbers in a line of the scaled picture, CHANNELS for each pixel */
    int padded;                       /* numbers in a line of samples: STEP, the last of which is before the first sample;
                                         samples; one more at least */
    uint16_t *samples;                /* [CHANNELS][padded]: what a line of chroma adds */
    uint16_t *chroma;                 /* [REMEMBERED][CHANNELS][wide]: the same, for each pixel across */
    int remembered[REMEMBERED];       /* which line of chroma is there */
    uint16_t *luma;                   /* [wide] */
    int kept, made;                   /* lines of RGB; the first that was not made yet */
    uint16_t *rgb;                    /* [kept][CHANNELS][wide], a ring */
    uint16_t *band;                   /* [BAND][CHANNELS][wide]: rows scaled */
    uint16_t *turned, *scaled;        /* of the band, transposed: [wide][CHANNELS][BAND], then [pitch][BAND] */
    uint16_t *upright;                /* [BAND][pitch] */
    void *memory;                     /* that all of these are in, in whole steps: vectors that cross cache lines take
                                         twice the time */
} Plan;

INTO_CALLER int
up(int number, int step)
{
    return (number + step - 1) / step * step;
}

/* value · weight / 65536, rounded down: one instruction, for many values */
INTO_CALLER uint16_t
share(uint16_t value, uint16_t weight)
{
    return (uint16_t)((uint32_t)value * weight >> 16);
}

/* ¾ · near + ¼ · far, in a quarter of their unit */
INTO_CALLER uint16_t
blend(uint16_t near, uint16_t far)
{
    return (uint16_t)(3 * near + far);
}

/* --- a line of RGB ----------------------------------------------------------------------------------------------- */

INTO_CALLER uint16_t
sample(const uint8_t *line, int column, int size)
{
    return size == 1 ? line[column] : ((const uint16_t *)line)[column];
}

/* What chroma adds to the luma of red, green and blue, and BASE; in units of which blending across and down makes the
 * final ones. */
INTO_CALLER void
read_chroma(const Plan *plan, const uint8_t *u, const uint8_t *v, int size, int count, uint16_t *restrict red,
            uint16_t *restrict green, uint16_t *restrict blue)
{
    const int lift = size == 1 ? 8 : 16 - plan->bits;
    const uint16_t red_v = plan->colour[RED_V], green_u = plan->colour[GREEN_U], green_v = plan->colour[GREEN_V],
                   blue_u = plan->colour[BLUE_U], base = BASE - plan->colour[BLACK] + (1 << (CHROMA_SHIFT - 1));
    const uint16_t to_red = base - red_v / 2, to_green = base + green_u / 2 + green_v / 2, to_blue = base - blue_u / 2;
    for (int i = 0; i < count; i++) {
        const uint16_t first = (uint16_t)(sample(u, i, size) << lift), second = (uint16_t)(sample(v, i, size) << lift);
        red[i] = (uint16_t)(share(second, red_v) + to_red) >> CHROMA_SHIFT;
        green[i] = (uint16_t)(to_green - share(first, green_u) - share(second, green_v)) >> CHROMA_SHIFT;
        blue[i] = (uint16_t)(share(first, blue_u) + to_blue) >> CHROMA_SHIFT;
    }
}

/* Samples, with one more on either side, for each pixel across: for even pixels before those for odd ones. */
INTO_CALLER void
spread(const uint16_t *restrict samples, int part, int across, uint16_t *restrict out)
{
    if (across == 1) {
        for (int i = 0; i < part; i++)
            out[i] = blend(samples[i], samples[i]);
        return;
    }
    for (int i = 0; i < part; i++) {
        out[i] = blend(samples[i], samples[i - 1]);
        out[part + i] = blend(samples[i], samples[i + 1]);
    }
}

/* What line `row` of chroma adds, for each pixel across: [CHANNELS][wide]. */
INTO_CALLER const uint16_t *
chroma_line(Plan *plan, const Plane planes[], int row, int across, int size)
{
    const int place = row % REMEMBERED, pitch = plan->padded;
    uint16_t *line = plan->chroma + (size_t)place * CHANNELS * plan->wide;
    if (plan->remembered[place] == row)
        return line;
    plan->remembered[place] = row;
    const int left = plan->low > 0, right = plan->low + plan->count < plan->chroma_width;
    const Py_ssize_t at = (Py_ssize_t)(plan->low - left) * size;
    uint16_t *first = plan->samples + STEP, *out = first - left;
    read_chroma(plan, planes[1].bytes + row * planes[1].line + at, planes[2].bytes + row * planes[2].line + at, size,
                left + plan->count + right, out, out + pitch, out + 2 * pitch);
    for (int channel = 0; channel < CHANNELS; channel++, first += pitch) {
        if (!left) /* at the edges of the picture, the outermost again */
            first[-1] = first[0];
        if (!right)
            first[plan->count] = first[plan->count - 1];
        spread(first, plan->part, across, line + (size_t)channel * plan->wide);
    }
    return line;
}

/* The luma of a line, even pixels before odd ones where two share a sample of chroma. */
INTO_CALLER void
find_luma(const Plan *plan, const uint8_t *line, int across, int size)
{
    const int lift = size == 1 ? 8 : 16 - plan->bits, count = plan->count;
    const uint16_t gain = plan->colour[GAIN];
    uint16_t *restrict even = plan->luma, *restrict odd = plan->luma + plan->part;
    line += (Py_ssize_t)plan->low * across * size;
    if (across == 1) {
        for (int i = 0; i < count; i++)
            even[i] = share((uint16_t)(sample(line, i, size) << lift), gain);
    } else if (size == 1) { /* two bytes are a word, whose halves need no shuffling */
        for (int i = 0; i < count; i++) {
            const uint16_t both = ((const uint16_t *)line)[i];
            even[i] = share((uint16_t)(both << 8), gain);
            odd[i] = share((uint16_t)(both & 0xff00), gain);
        }
    } else {
        for (int i = 0; i < count; i++) {
            const uint32_t both = ((const uint32_t *)line)[i];
            even[i] = share((uint16_t)(both << lift), gain);
            odd[i] = share((uint16_t)(both >> 16 << lift), gain);
        }
    }
}

/* The luma of a line of the halved picture: means of four. */
INTO_CALLER void
find_mean_luma(const Plan *plan, const uint8_t *upper, const uint8_t *lower, int size)
{
    const int lift = size == 1 ? 6 : 14 - plan->bits, count = plan->count;
    const uint16_t gain = plan->colour[GAIN];
    uint16_t *restrict luma = plan->luma;
    upper += (Py_ssize_t)plan->low * 2 * size;
    lower += (Py_ssize_t)plan->low * 2 * size;
    if (size == 1) {
        for (int i = 0; i < count; i++) {
            const uint16_t above = ((const uint16_t *)upper)[i], below = ((const uint16_t *)lower)[i];
            const uint16_t sum = (above & 0xff) + (above >> 8) + (below & 0xff) + (below >> 8);
            luma[i] = share((uint16_t)(sum << lift), gain);
        }
    } else {
        for (int i = 0; i < count; i++) {
            const uint32_t above = ((const uint32_t *)upper)[i], below = ((const uint32_t *)lower)[i];
            const uint32_t sum = (above & 0xffff) + (above >> 16) + (below & 0xffff) + (below >> 16);
            luma[i] = share((uint16_t)(sum << lift), gain);
        }
    }
}

INTO_CALLER uint16_t
coloured(uint16_t luma, uint16_t near, uint16_t far)
{
    uint16_t value = luma + blend(near, far);
    value = value > BASE ? value : BASE;
    return value < BASE + WHITE ? value : BASE + WHITE;
}

/* A line: luma and what chroma adds, blended from the lines above and below; clipped. `count` numbers, whole steps. */
INTO_CALLER void
colour_line(const uint16_t *restrict luma, const uint16_t *restrict near, const uint16_t *restrict far, size_t count,
            uint16_t *restrict out)
{
    count -= count % STEP;
    const uint16_t *near_green = near + count, *near_blue = near_green + count;
    const uint16_t *far_green = far + count, *far_blue = far_green + count;
    uint16_t *restrict green = out + count, *restrict blue = green + count;
#pragma GCC ivdep
    for (size_t i = 0; i < count; i++) {
        out[i] = coloured(luma[i], near[i], far[i]);
        green[i] = coloured(luma[i], near_green[i], far_green[i]);
        blue[i] = coloured(luma[i], near_blue[i], far_blue[i]);
    }
}

/* Lines of RGB up to `end`. */
INTO_CALLER void
make_lines(Plan *plan, const Plane planes[], int end, int across, int size)
{
    const int wide = plan->wide;
    for (; plan->made < end; plan->made++) {
        const int row = plan->made, near = plan->down == 2 ? row / 2 : row;
        int far = plan->down == 1 ? near : row % 2 ? near + 1 : near - 1;
        if (far < 0 || far >= plan->chroma_height)
            far = near;
        const uint16_t *close = chroma_line(plan, planes, near, across, size);
        const uint16_t *away = chroma_line(plan, planes, far, across, size);
        const uint8_t *pixels = planes[0].bytes + (row << plan->halved) * planes[0].line;
        if (plan->halved)
            find_mean_luma(plan, pixels, pixels + planes[0].line, size);
        else
            find_luma(plan, pixels, across, size);
        uint16_t *line = plan->rgb + (size_t)(row % plan->kept) * CHANNELS * wide;
        colour_line(plan->luma, close, away, wide, line);
    }
}

FOR_EACH_PROCESSOR static void
make_rgb(Plan *plan, const Plane planes[], int end)
{
    if (plan->bits > 8) /* rarer: not worth loops of their own */
        make_lines(plan, planes, end, plan->across, 2);
    else if (plan->across == 2)
        make_lines(plan, planes, end, 2, 1);
    else
        make_lines(plan, planes, end, 1, 1);
}

/* --- scaling ----------------------------------------------------------------------------------------------------- */

/* The weighted sum of lines; `count` numbers, whole steps. `taps` is a constant where it is compiled, so that weights
 * stay in registers. */
INTO_CALLER void
weigh(const uint16_t *const lines[], const uint16_t *weights, const int taps, uint16_t bias, size_t count, uint16_t *out)
{
    const uint16_t *line[FEW];
    uint16_t weight[FEW];
#pragma GCC unroll 8
    for (int tap = 0; tap < taps; tap++) {
        line[tap] = lines[tap];
        weight[tap] = weights[tap];
    }
    count -= count % STEP;
#pragma GCC ivdep
    for (size_t i = 0; i < count; i++) {
        uint16_t sum = bias;
#pragma GCC unroll 8
        for (int tap = 0; tap < taps; tap++)
            sum += share(line[tap][i], weight[tap]);
        out[i] = sum;
    }
}

/* One line of the band, from lines of RGB in their ring. */
FOR_EACH_PROCESSOR static void
scale_rows(const Plan *plan, int output, uint16_t *out)
{
    const Taps *rows = &plan->rows;
    const uint16_t *weights = rows->weights + (size_t)output * rows->taps, *lines[FEW];
    const uint16_t bias = rows->biases[output];
    const int used = rows->used[output];
    size_t count = (size_t)CHANNELS * plan->wide;
    int from = rows->starts[output] % plan->kept, tap = 0;
    for (; tap < FEW && tap < used; tap++) {
        lines[tap] = plan->rgb + from * count;
        from = from + 1 < plan->kept ? from + 1 : 0;
    }
    switch (tap) {
    case 1: weigh(lines, weights, 1, bias, count, out); break;
    case 2: weigh(lines, weights, 2, bias, count, out); break;
    case 3: weigh(lines, weights, 3, bias, count, out); break;
    case 4: weigh(lines, weights, 4, bias, count, out); break;
    case 5: weigh(lines, weights, 5, bias, count, out); break;
    case 6: weigh(lines, weights, 6, bias, count, out); break;
    case 7: weigh(lines, weights, 7, bias, count, out); break;
    default: weigh(lines, weights, FEW, bias, count, out);
    }
    for (; tap < used; tap++) { /* where one pixel comes from many */
        const uint16_t *line = plan->rgb + from * count, weight = weights[tap];
        count -= count % STEP;
#pragma GCC ivdep
        for (size_t i = 0; i < count; i++)
            out[i] += share(line[i], weight);
        from = from + 1 < plan->kept ? from + 1 : 0;
    }
}

/* One column of the band, in whole steps from 0 to 255; `taps` as in weigh. */
INTO_CALLER void
weigh_column(const uint16_t *restrict from, const uint16_t *restrict weights, const int taps, uint16_t bias,
             uint16_t *restrict out)
{
    for (int i = 0; i < CHANNELS * BAND; i++) {
        uint16_t sum = bias;
#pragma GCC unroll 8
        for (int tap = 0; tap < taps; tap++)
            sum += share(from[tap * CHANNELS * BAND + i], weights[tap]);
        sum = (sum > BASE ? sum : BASE) >> FRACTION_BITS;
        out[i] = (uint16_t)((sum < WHITE_STEPS ? sum : WHITE_STEPS) - BLACK_STEPS);
    }
}

/* The band's columns, one a line. */
FOR_EACH_PROCESSOR static void
scale_columns(const Plan *plan)
{
    const Taps *columns = &plan->columns;
    const uint16_t *weights = columns->weights;
    uint16_t *out = plan->scaled;
    for (int column = 0; column < columns->outputs; column++, weights += columns->taps, out += CHANNELS * BAND) {
        const int first = columns->starts[column] - plan->low * plan->across;
        const uint16_t *from = plan->turned + (size_t)first * CHANNELS * BAND;
        const uint16_t bias = columns->biases[column] + (1 << (FRACTION_BITS - 1));
        switch (columns->used[column]) {
        case 1: weigh_column(from, weights, 1, bias, out); break;
        case 2: weigh_column(from, weights, 2, bias, out); break;
        case 3: weigh_column(from, weights, 3, bias, out); break;
        case 4: weigh_column(from, weights, 4, bias, out); break;
        case 5: weigh_column(from, weights, 5, bias, out); break;
        case 6: weigh_column(from, weights, 6, bias, out); break;
        case 7: weigh_column(from, weights, 7, bias, out); break;
        case 8: weigh_column(from, weights, 8, bias, out); break;
        default: weigh_column(from, weights, columns->used[column], bias, out);
        }
    }
}

/* --- transposing ------------------------------------------------------------------------------------------------- */

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
typedef uint16_t Half __attribute__((vector_size(16)));
typedef uint16_t Words __attribute__((vector_size(32)));
typedef uint32_t Pairs __attribute__((vector_size(32)));
typedef uint64_t Quads __attribute__((vector_size(32)));

/* Two tiles at once, 16 lines of 8 words, one tile in each half of a vector: neighbouring lines are interleaved by words,
 * then by pairs of words, then by quads. */
INTO_CALLER void
transpose_tiles(const uint16_t *from, int from_pitch, uint16_t *to, int to_pitch)
{
    Words line[TILE], word[TILE];
    Pairs pair[TILE];
    for (int i = 0; i < TILE; i++) {
        Half upper, lower;
        memcpy(&upper, from + (size_t)i * from_pitch, sizeof upper);
        memcpy(&lower, from + (size_t)(i + TILE) * from_pitch, sizeof lower);
        line[i] = __builtin_shufflevector(upper, lower, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    for (int i = 0; i < TILE; i += 2) {
        word[i] = __builtin_shufflevector(line[i], line[i + 1], 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
        word[i + 1] = __builtin_shufflevector(line[i], line[i + 1], 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int i = 0; i < TILE; i += 4) {
        for (int half = 0; half < 2; half++) {
            Pairs upper = (Pairs)word[i + half], lower = (Pairs)word[i + 2 + half];
            pair[i + 2 * half] = __builtin_shufflevector(upper, lower, 0, 8, 1, 9, 4, 12, 5, 13);
            pair[i + 2 * half + 1] = __builtin_shufflevector(upper, lower, 2, 10, 3, 11, 6, 14, 7, 15);
        }
    }
    for (int i = 0; i < TILE / 2; i++) {
        Quads upper = (Quads)pair[i], lower = (Quads)pair[i + TILE / 2];
        Quads even = __builtin_shufflevector(upper, lower, 0, 4, 2, 6);
        Quads odd = __builtin_shufflevector(upper, lower, 1, 5, 3, 7);
        memcpy(to + (size_t)(2 * i) * to_pitch, &even, sizeof even);
        memcpy(to + (size_t)(2 * i + 1) * to_pitch, &odd, sizeof odd);
    }
}
#else
INTO_CALLER void
transpose_tiles(const uint16_t *from, int from_pitch, uint16_t *to, int to_pitch)
{
    for (int i = 0; i < 2 * TILE; i++)
        for (int j = 0; j < TILE; j++)
            to[(size_t)j * to_pitch + i] = from[(size_t)i * from_pitch + j];
}
#endif

/* Lines in pairs of whole tiles, columns in whole tiles. */
FOR_EACH_PROCESSOR static void
transpose(const uint16_t *from, int lines, int columns, int from_pitch, uint16_t *to, int to_pitch)
{
    for (int line = 0; line < lines; line += 2 * TILE)
        for (int column = 0; column < columns; column += TILE)
            transpose_tiles(from + (size_t)line * from_pitch + column, from_pitch, to + (size_t)column * to_pitch + line,
                           to_pitch);
}

/* --- a picture --------------------------------------------------------------------------------------------------- */

FOR_EACH_PROCESSOR static void
to_bytes(const uint16_t *restrict numbers, int count, uint8_t *restrict out)
{
    for (int i = 0; i < count; i++)
        out[i] = (uint8_t)numbers[i];
}

/* Outputs `first` … `first + count - 1`. */
static void
draw_band(Plan *plan, const Plane planes[], int first, int count, uint8_t *out)
{
    const int width = CHANNELS * plan->columns.outputs, pitch = plan->pitch, wide = plan->wide;
    for (int i = 0; i < count; i++) {
        const int line = plan->falls ? count - 1 - i : i, output = first + line;
        make_rgb(plan, planes, plan->rows.starts[output] + plan->rows.taps);
        scale_rows(plan, output, plan->band + (size_t)line * CHANNELS * wide);
    }
    for (int channel = 0; channel < CHANNELS; channel++)
        for (int part = 0; part < plan->across; part++) /* even and odd pixels come together again */
            transpose(plan->band + (size_t)channel * wide + part * plan->part, BAND, plan->part, CHANNELS * wide,
                      plan->turned + (part * CHANNELS + channel) * BAND, plan->across * CHANNELS * BAND);
    scale_columns(plan);
    transpose(plan->scaled, pitch, BAND, BAND, plan->upright, pitch); /* a line of pixels is a line of channels, too */
    for (int line = 0; line < count; line++)
        to_bytes(plan->upright + (size_t)line * pitch, width, out + (size_t)(first + line) * width);
}

static void
draw(Plan *plan, const Plane planes[], uint8_t *out)
{
    const int height = plan->rows.outputs;
    for (int i = 0; i < REMEMBERED; i++)
        plan->remembered[i] = -1;
    plan->made = plan->rows.low;
    for (int done = 0; done < height; done += BAND) {
        const int count = height - done < BAND ? height - done : BAND;
        draw_band(plan, planes, plan->falls ? height - done - count : done, count, out);
    }
}

/* --- Python's side ----------------------------------------------------------------------------------------------- */

static const char *const CAPSULE = "clipmux.workers._planes.Plan";

static void
free_plan(Plan *plan)
{
    void *all[] = {plan->rows.starts,     plan->rows.weights,    plan->rows.biases, plan->columns.starts,
                   plan->columns.weights, plan->columns.biases, plan->rows.used,   plan->columns.used, plan->memory};
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

static int
read_taps(PyObject *object, Taps *taps)
{
    Py_ssize_t outputs, weights, biases;
    if ((taps->starts = copied(object, "starts", sizeof(int32_t), &outputs)) == NULL ||
        (taps->weights = copied(object, "weights", sizeof(uint16_t), &weights)) == NULL ||
        (taps->biases = copied(object, "biases", sizeof(uint16_t), &biases)) == NULL)
        return -1;
    if (outputs > MOST || biases != outputs || weights % outputs || weights / outputs > MOST) {
        PyErr_Format(PyExc_ValueError, "%zd weights and %zd biases for %zd outputs", weights, biases, outputs);
        return -1;
    }
    if ((taps->used = PyMem_Malloc(outputs * sizeof *taps->used)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    taps->outputs = (int)outputs;
    taps->taps = (int)(weights / outputs);
    taps->low = MOST;
    taps->high = 0;
    for (int i = 0; i < taps->outputs; i++) {
        if (taps->starts[i] < 0 || taps->starts[i] > MOST - taps->taps) {
            PyErr_Format(PyExc_ValueError, "an output starts at %d", (int)taps->starts[i]);
            return -1;
        }
        if (taps->starts[i] < taps->low)
            taps->low = taps->starts[i];
        if (taps->starts[i] + taps->taps > taps->high)
            taps->high = taps->starts[i] + taps->taps;
        taps->used[i] = taps->taps;
        while (taps->used[i] > 1 && taps->weights[(size_t)i * taps->taps + taps->used[i] - 1] == 0)
            taps->used[i]--;
    }
    return 0;
}

static int
take_memory(Plan *plan)
{
    const Taps *columns = &plan->columns;
    plan->low = columns->low / plan->across;
    plan->count = (columns->high + plan->across - 1) / plan->across - plan->low;
    plan->part = up(plan->count, STEP / plan->across);
    plan->wide = plan->across * plan->part;
    plan->padded = STEP + up(plan->count + 1, STEP);
    plan->pitch = up(CHANNELS * columns->outputs, STEP);
    plan->kept = plan->rows.taps;
    const struct {
        uint16_t **start;
        size_t count;
    } parts[] = {
        {&plan->samples, (size_t)CHANNELS * plan->padded + STEP}, /* a part reads a sample beyond its end */
        {&plan->chroma, (size_t)REMEMBERED * CHANNELS * plan->wide},
        {&plan->luma, plan->wide},
        {&plan->rgb, (size_t)plan->kept * CHANNELS * plan->wide},
        {&plan->band, (size_t)BAND * CHANNELS * plan->wide},
        {&plan->turned, (size_t)plan->wide * CHANNELS * BAND},
        {&plan->scaled, (size_t)plan->pitch * BAND},
        {&plan->upright, (size_t)BAND * plan->pitch},
    };
    size_t total = STEP;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        total += parts[i].count;
    if ((plan->memory = PyMem_Calloc(total, sizeof(uint16_t))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    const size_t line = STEP * sizeof(uint16_t);
    uint16_t *at = (uint16_t *)(((uintptr_t)plan->memory + line - 1) / line * line);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; at += parts[i++].count)
        *parts[i].start = at;
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
    return plan->bits >= 8 && plan->bits <= 14 && (plan->across == 1 || plan->across == 2) &&
           (plan->down == 1 || plan->down == 2) &&
           (plan->halved == 0 || (plan->halved == 1 && plan->across == 1 && plan->down == 1)) &&
           !(rises && plan->falls) && plan->chroma_height > 0 && plan->chroma_width > 0 &&
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
    if (!PyArg_ParseTuple(args, "iiiiiiOO(HHHHHH)", &plan->bits, &plan->across, &plan->down, &plan->halved,
                          &plan->chroma_height, &plan->chroma_width, &rows, &columns, &colour[BLACK], &colour[GAIN],
                          &colour[RED_V], &colour[GREEN_U], &colour[GREEN_V], &colour[BLUE_U]) ||
        read_taps(rows, &plan->rows) || read_taps(columns, &plan->columns))
        goto failed;
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
    if (line >= width && line <= PY_SSIZE_T_MAX / MOST && (rows - 1) * line + width <= view->len)
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
    {"plan", make_plan, METH_VARARGS, "As planes.plan."},
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
