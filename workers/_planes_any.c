/* Loops for all processors: compilers turn them into vector code by themselves; on x86-64 with glibc they are compiled for
 * two generations of processors, and the loader picks. */

#include "_planes.h"

FOR_EACH_PROCESSOR static void
read_chroma(const Plan *plan, const uint8_t *u, const uint8_t *v, const int16_t bases[], int count, int16_t *out)
{
    read_samples(plan, u, v, bases, 1, count, out);
}

FOR_EACH_PROCESSOR static void
spread(const int16_t *restrict samples, int part, int16_t *restrict out)
{
    for (int i = 0; i < part; i++) {
        const int16_t near = (int16_t)(3 * samples[i]);
        out[i] = (int16_t)(near + samples[i - 1]);
        out[part + i] = (int16_t)(near + samples[i + 1]);
    }
}

INTO_CALLER int8_t
coloured(int16_t luma, uint16_t near, uint16_t far, int down, int16_t most)
{
    const uint16_t mean = (near | far) - (uint16_t)((near ^ far) >> 1), other = down == 2 ? mean : near; /* rounded up */
    int16_t value = (int16_t)(luma + near + other);
    value >>= FRACTION_BITS;
    value = value > -MIDDLE ? value : -MIDDLE;
    return (int8_t)(value < most ? value : most);
}

/* [CHANNELS][2][wide] */
INTO_CALLER void
colour_lines(const Plan *plan, const int16_t *restrict upper, const int16_t *restrict lower, const int down,
             int8_t *restrict out)
{
    const size_t wide = (size_t)plan->wide;
    const int16_t most = (int16_t)(plan->colour[WHITE] - MIDDLE), *restrict luma = plan->luma;
    for (int channel = 0; channel < CHANNELS; channel++, upper += wide, lower += wide, out += 2 * wide) {
        for (size_t i = 0; i < wide; i++)
            out[i] = coloured(luma[i], (uint16_t)upper[i], (uint16_t)lower[i], down, most);
        for (size_t i = 0; i < wide; i++)
            out[wide + i] = coloured(luma[wide + i], (uint16_t)lower[i], (uint16_t)upper[i], down, most);
    }
}

FOR_EACH_PROCESSOR static void
colour(const Plan *plan, const void *const lumas[], const int16_t *upper, const int16_t *lower, int8_t *out)
{
    (void)lumas; /* they are the plan's own */
    if (plan->down == 2)
        colour_lines(plan, upper, lower, 2, out);
    else
        colour_lines(plan, upper, lower, 1, out);
}

FOR_EACH_PROCESSOR static void
weigh_rows(const Plan *plan, const int8_t *const pairs[], const uint8_t *weights, int used, int8_t *out)
{
    const int wide = plan->wide, part = wide / 2, bias = row_bias(plan);
    int16_t *restrict sums = plan->sums;
    for (int channel = 0; channel < CHANNELS; channel++, out += wide) {
        for (int i = 0; i < wide; i++)
            sums[i] = (int16_t)bias;
        for (int pair = 0; pair < used; pair++) {
            const int8_t *restrict upper = pairs[pair] + 2 * channel * wide, *restrict lower = upper + wide;
            const int16_t first = weights[2 * pair], second = weights[2 * pair + 1];
            for (int i = 0; i < wide; i++)
                sums[i] += (int16_t)(upper[i] * first + lower[i] * second);
        }
        uint16_t *restrict both = (uint16_t *)out;
        if (plan->across == 1)
            for (int i = 0; i < wide; i++)
                out[i] = (int8_t)(sums[i] >> WEIGHT_BITS);
        else /* even and odd pixels come together again */
            for (int i = 0; i < part; i++)
                both[i] = (uint16_t)((sums[i] >> WEIGHT_BITS & 0xff) | (sums[part + i] >> WEIGHT_BITS) * 0x100);
    }
}

FOR_EACH_PROCESSOR static void
scale_columns(const Plan *plan)
{
    const Taps *columns = &plan->columns;
    uint16_t *out = plan->scaled;
    for (int column = 0; column < columns->outputs; column++, out += CHANNELS * BAND) {
        const uint8_t *weights = columns->weights + (size_t)column * 2 * columns->pairs;
        const uint16_t *from = plan->turned + (size_t)columns->starts[column] * CHANNELS * BAND;
        uint16_t sums[CHANNELS * BAND];
        for (int i = 0; i < CHANNELS * BAND; i++)
            sums[i] = COLUMN_BIAS;
        for (int pair = 0; pair < columns->used[column]; pair++, from += CHANNELS * BAND) {
            const int16_t first = weights[2 * pair], other = weights[2 * pair + 1];
            for (int i = 0; i < CHANNELS * BAND; i++) {
                const int16_t even = (int16_t)((int16_t)(from[i] << 8) >> 8), odd = (int16_t)((int16_t)from[i] >> 8);
                sums[i] += (uint16_t)(even * first + odd * other);
            }
        }
        for (int i = 0; i < CHANNELS * BAND; i++)
            out[i] = sums[i] >> WEIGHT_BITS;
    }
}

const Loops *
loops_for_all(void)
{
    static const Loops loops = {0, read_chroma, spread, colour, weigh_rows, scale_columns};
    return &loops;
}
