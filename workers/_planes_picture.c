/* A picture, band by band: see _planes.c. */

#include "_planes.h"

/* --- two lines of RGB -------------------------------------------------------------------------------------------- */

/* `count` bytes of a line, from `from` on. A loop reads whole vectors; at a plane's end there may be fewer, which are
 * copied. */
INTO_CALLER const uint8_t *
whole(const Plan *plan, const Plane *plane, int row, int from, int count, int place)
{
    const uint8_t *bytes = plane->bytes + row * plane->line + from;
    if (plane->end - bytes >= count)
        return bytes;
    uint8_t *copy = plan->last + (size_t)place * plan->longest;
    memcpy(copy, bytes, plane->end - bytes);
    return copy;
}

/* What samples of chroma add to the luma of red, green and blue, besides their shares: less black and MIDDLE, in units of
 * which blending across and down makes the final ones. What is needed for rounding is in it, too, and differs from line to
 * line, so that it is not rounded the same way all over a plain area. */
INTO_CALLER void
find_bases(const Plan *plan, int row, int16_t bases[])
{
    const uint16_t *colour = plan->colour;
    const int base = (1 << (CHROMA_SHIFT - 1)) + (row % 2 ? DITHER : -DITHER) - plan->black - (MIDDLE << FRACTION_BITS);
    bases[RED] = (int16_t)(base - colour[RED_V] / 2);
    bases[GREEN] = (int16_t)(base + colour[GREEN_U] / 2 + colour[GREEN_V] / 2);
    bases[BLUE] = (int16_t)(base - colour[BLUE_U] / 2);
}

FOR_EACH_PROCESSOR static void
read_long_chroma(const Plan *plan, const uint8_t *u, const uint8_t *v, const int16_t bases[], int count, int16_t *out)
{
    read_samples(plan, u, v, bases, 2, count, out);
}

/* As Loops.spread, where each pixel has its own sample. */
FOR_EACH_PROCESSOR static void
spread_to_same(const int16_t *restrict samples, int count, int16_t *restrict out)
{
    for (int i = 0; i < count; i++)
        out[i] = (int16_t)(4 * samples[i]);
}

/* What line `row` of chroma adds, for each pixel across: [CHANNELS][wide]. */
static const int16_t *
chroma_line(Plan *plan, const Plane planes[], int row)
{
    const int place = row % REMEMBERED, size = plan->bits > 8 ? 2 : 1;
    int16_t *line = plan->chroma + (size_t)place * CHANNELS * plan->wide;
    if (plan->remembered[place] == row)
        return line;
    plan->remembered[place] = row;
    const int left = plan->low > 0, right = plan->low + plan->count < plan->chroma_width;
    const int from = plan->low - left, count = left + plan->count + right;
    const uint8_t *u = whole(plan, &planes[1], row, from * size, up(count, HALF) * size, 0);
    const uint8_t *v = whole(plan, &planes[2], row, from * size, up(count, HALF) * size, 1);
    int16_t *first = plan->samples + BLOCK, bases[CHANNELS];
    find_bases(plan, row, bases);
    (size == 1 ? plan->loops->read_chroma : read_long_chroma)(plan, u, v, bases, count, first - left);
    for (int channel = 0; channel < CHANNELS; channel++, first += plan->padded) {
        if (!left) /* at the edges of the picture, the outermost again */
            first[-1] = first[0];
        if (!right)
            first[plan->count] = first[plan->count - 1];
        if (plan->across == 2)
            plan->loops->spread(first, plan->wide / 2, line + (size_t)channel * plan->wide);
        else
            spread_to_same(first, plan->wide, line + (size_t)channel * plan->wide);
    }
    return line;
}

/* The luma of a line, even pixels before odd ones where two share a sample of chroma. */
FOR_EACH_PROCESSOR static void
find_luma(const Plan *plan, const uint8_t *line, int16_t *luma)
{
    const int lift = LUMA_BITS - plan->bits, most = (1 << plan->bits) - 1;
    const int size = plan->bits > 8 ? 2 : 1, count = plan->wide / plan->across;
    int16_t *restrict even = luma, *restrict odd = luma + plan->wide / 2;
    if (plan->across == 1 && size == 1) {
        for (int i = 0; i < count; i++)
            luma[i] = (int16_t)(line[i] << FRACTION_BITS);
    } else if (plan->across == 1) {
        for (int i = 0; i < count; i++)
            luma[i] = (int16_t)((word(line, i) & most) << lift);
    } else if (size == 1) { /* two bytes are a word, whose halves need no shuffling */
        for (int i = 0; i < count; i++) {
            const uint16_t both = word(line, i);
            even[i] = (int16_t)((uint16_t)(both << 8) >> (8 - FRACTION_BITS));
            odd[i] = (int16_t)(both >> 8 << FRACTION_BITS);
        }
    } else {
        for (int i = 0; i < count; i++) {
            even[i] = (int16_t)((word(line, 2 * i) & most) << lift);
            odd[i] = (int16_t)((word(line, 2 * i + 1) & most) << lift);
        }
    }
}

/* The luma of a line of the halved picture: means of four. */
FOR_EACH_PROCESSOR static void
find_mean_luma(const Plan *plan, const uint8_t *upper, const uint8_t *lower, int16_t *restrict luma)
{
    const int lift = LUMA_BITS - plan->bits, most = (1 << plan->bits) - 1, count = plan->wide;
    if (plan->bits == 8) {
        for (int i = 0; i < count; i++) {
            const uint16_t above = word(upper, i), below = word(lower, i);
            const uint16_t sum = (above & 0xff) + (above >> 8) + (below & 0xff) + (below >> 8);
            luma[i] = (int16_t)((uint16_t)(sum << FRACTION_BITS) >> 2);
        }
    } else {
        for (int i = 0; i < count; i++) {
            const int above = (word(upper, 2 * i) & most) + (word(upper, 2 * i + 1) & most);
            const int below = (word(lower, 2 * i) & most) + (word(lower, 2 * i + 1) & most);
            luma[i] = (int16_t)((uint16_t)((above + below) << lift) >> 2);
        }
    }
}

/* So that a line is near when it is its turn. Where there is none that does no harm. */
INTO_CALLER void
fetch(const Plane *plane, int row, int from, int count)
{
#if defined(__GNUC__)
    const uintptr_t first = (uintptr_t)plane->bytes + (uintptr_t)(row * plane->line + from);
    for (uintptr_t at = first / CACHE_LINE * CACHE_LINE; at < first + count; at += CACHE_LINE)
        __builtin_prefetch((const void *)at);
#endif
}

/* Lines of RGB up to the pair `end`. */
static void
make_rgb(Plan *plan, const Plane planes[], int end)
{
    const int last = plan->rows.high - 1, lowest = plan->chroma_height - 1, bytes = luma_in_bytes(plan);
    const int of_sample = plan->bits > 8 ? 2 : 1, size = of_sample << plan->halved; /* bytes; for a pixel */
    const int from = plan->low * plan->across * size, count = plan->wide * size;
    for (int pair = plan->made; pair < end; pair++) {
        const int16_t *chroma[2];
        const void *lumas[2];
        for (int i = 0; i < 2; i++) {
            const int row = within(2 * pair - 1 + i, plan->rows.low, last); /* others than needed have no weight */
            const int of_chroma = plan->down == 2 ? within(pair - 1 + i, 0, lowest) : row;
            int16_t *luma = plan->luma + (size_t)i * plan->wide;
            lumas[i] = luma;
            if (bytes)
                lumas[i] = whole(plan, &planes[0], row, from, count, 2 + i);
            else if (plan->halved) /* two lines are one */
                find_mean_luma(plan, whole(plan, &planes[0], 2 * row, from, count, 0),
                               whole(plan, &planes[0], 2 * row + 1, from, count, 1), luma);
            else
                find_luma(plan, whole(plan, &planes[0], row, from, count, 0), luma);
            chroma[i] = chroma_line(plan, planes, of_chroma);
            fetch(&planes[0], (row << plan->halved) + AHEAD, from, count);
            for (int plane = 1; plane < 3; plane++)
                if (plan->down == 1 || plane == 1 + i) /* where lines share chroma, each time one of them */
                    fetch(&planes[plane], of_chroma + AHEAD / plan->down, plan->low * of_sample, plan->count * of_sample);
        }
        int8_t *out = plan->rgb + (size_t)(pair % plan->kept) * CHANNELS * 2 * plan->wide;
        plan->loops->colour(plan, lumas, chroma[0], chroma[1], out);
    }
    plan->made = end > plan->made ? end : plan->made;
}

/* --- scaling ----------------------------------------------------------------------------------------------------- */

/* One line of the band, from lines of RGB in their ring. */
static void
scale_rows(Plan *plan, int output, int8_t *out)
{
    const Taps *rows = &plan->rows;
    const uint8_t *weights = rows->weights + (size_t)output * 2 * rows->pairs;
    const int used = rows->used[output];
    int from = rows->starts[output] % plan->kept;
    for (int pair = 0; pair < used; pair++) {
        plan->pairs[pair] = plan->rgb + (size_t)from * CHANNELS * 2 * plan->wide;
        from = from + 1 < plan->kept ? from + 1 : 0;
    }
    plan->loops->weigh_rows(plan, plan->pairs, weights, used, out);
}

/* Two lines of numbers below 256 as one of pairs of bytes. */
FOR_EACH_PROCESSOR static void
join(const uint16_t *restrict lines, int pairs, uint16_t *restrict out)
{
    for (int pair = 0; pair < pairs; pair++, lines += 2 * BAND, out += BAND)
        for (int i = 0; i < BAND; i++)
            out[i] = (uint16_t)(lines[i] | lines[BAND + i] << 8);
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

/* Outputs `first` … `first + count - 1`. */
static void
draw_band(Plan *plan, const Plane planes[], int first, int count, uint8_t *out)
{
    const int width = CHANNELS * plan->columns.outputs, words = plan->wide / 2, pitch = plan->pitch / 2;
    for (int i = 0; i < count; i++) {
        const int line = plan->falls ? count - 1 - i : i, output = first + line;
        make_rgb(plan, planes, plan->rows.starts[output] + plan->rows.used[output]);
        scale_rows(plan, output, plan->band + (size_t)line * CHANNELS * plan->wide);
    }
    for (int channel = 0; channel < CHANNELS; channel++)
        transpose((const uint16_t *)plan->band + (size_t)channel * words, BAND, words, CHANNELS * words,
                  plan->turned + channel * BAND, CHANNELS * BAND);
    plan->loops->scale_columns(plan);
    join(plan->scaled, pitch, plan->joined);
    transpose(plan->joined, pitch, BAND, BAND, plan->upright, pitch); /* a line of pixels is a line of channels, too */
    for (int line = 0; line < count; line++)
        memcpy(out + (size_t)(first + line) * width, plan->upright + (size_t)line * pitch, width);
}

void
draw(Plan *plan, const Plane planes[], uint8_t *out)
{
    const int height = plan->rows.outputs;
    for (int i = 0; i < REMEMBERED; i++)
        plan->remembered[i] = -1;
    plan->made = (plan->rows.low + 1) / 2;
    for (int done = 0; done < height; done += BAND) {
        const int count = height - done < BAND ? height - done : BAND;
        draw_band(plan, planes, plan->falls ? height - done - count : done, count, out);
    }
}
