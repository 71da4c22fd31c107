/* What the files of _planes share: see _planes.c. */

#ifndef CLIPMUX_PLANES_H
#define CLIPMUX_PLANES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define WITH_AVX2 1
#else
#define WITH_AVX2 0
#endif
#if WITH_AVX2 && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__)
#define INTO_CALLER static inline __attribute__((always_inline)) /* where it is compiled for each processor */
#define OURS __attribute__((visibility("hidden")))
#else
#define INTO_CALLER static inline
#define OURS
#endif

enum { FRACTION_BITS = 6, LUMA_BITS = 8 + FRACTION_BITS, CHROMA_SHIFT = 3 };
enum { WEIGHT_BITS = 7, ONE = 1 << WEIGHT_BITS, HALF_ONE = ONE / 2 };
enum { WHITEST = 255, MIDDLE = 128 }; /* bytes are signed: what counts from 0 loses this */
enum { MOST_GAIN = 190 };      /* weights of a row that sums of 16 bits hold */
enum { WHITE, RED_V, GREEN_U, GREEN_V, BLUE_U, COLOURS };
enum { RED, GREEN, BLUE, CHANNELS };
enum { BLOCK = 32, HALF = BLOCK / 2 }; /* bytes in a vector: lines are whole multiples of so many pixels */
enum { BAND = 16, TILE = 8 };  /* lines in a band: few, for the inner caches; in a tile, of which bands hold pairs */
enum { MOST = 1 << 15 };       /* rows, columns and taps at most */
enum { FEW = 4 };              /* pairs of taps whose weights stay in registers */
enum { DITHER = 1 << 4 };      /* as planes.py has it */
enum { LIFT = 1 << 13 };       /* of samples of chroma: so that means of four of them are of unsigned numbers; eight are 0 */
enum { CACHE_LINE = 64 };      /* bytes */
enum { AHEAD = 8 };            /* lines that are fetched before it is their turn */
enum { REMEMBERED = 2 };       /* lines of chroma, those above and below a line of pixels */

typedef struct {
    int outputs, low, high; /* inputs low … high - 1 are needed */
    int pairs;              /* of taps, at most */
    int32_t *starts;        /* the first pair of inputs, for each output */
    uint8_t *weights;       /* [outputs][pairs][2] */
    int *used;              /* pairs of each output: many have fewer than others */
    int total;              /* of an output's weights */
} Taps;

typedef struct {
    const uint8_t *bytes, *end;
    Py_ssize_t line;
} Plane;

typedef struct {
    int bits, across, down;           /* of samples; pixels for one sample of chroma */
    int halved;                       /* four pixels that share a sample of chroma count as one */
    int chroma_height, chroma_width;
    Taps rows, columns;               /* inputs of rows are paired from the first odd one on: such pairs share their
                                         chroma; of columns, from the crop's first one on */
    int falls;                        /* the starts of rows do, as in mirrored pictures */
    int black;
    uint16_t colour[COLOURS];
    int low, count;                   /* samples of chroma in a line that are needed */
    int wide;                         /* pixels in a line; with `across` 2, all even ones before all odd ones */
    int pitch;                        /* bytes in a line of the scaled picture, CHANNELS for each pixel */
    int padded;                       /* numbers in a line of samples: BLOCK, the last of which is before the first sample;
                                         samples; one more at least */
    int longest;                      /* bytes of a line of a plane, at most */
    const struct Loops *loops;
    uint8_t *last;                    /* [4][longest]: lines at the end of a plane */
    int16_t *samples;                 /* [CHANNELS][padded]: what a line of chroma adds */
    int16_t *chroma;                  /* [REMEMBERED][CHANNELS][wide]: the same, for each pixel across */
    int remembered[REMEMBERED];       /* which line of chroma is there */
    int16_t *luma;                    /* [2][wide] */
    int kept, made;                   /* pairs of lines of RGB; the first that was not made yet */
    int8_t *rgb;                      /* [kept][CHANNELS][2 · wide], a ring */
    const int8_t **pairs;             /* [kept]: those that are weighed */
    int8_t *band;                     /* [BAND][CHANNELS][wide]: rows scaled, in order */
    int16_t *sums;                    /* [wide]: where there is no loop that keeps them in registers */
    uint16_t *turned;                 /* of the band, pairs of bytes transposed: [wide / 2][CHANNELS][BAND] */
    uint16_t *scaled;                 /* [pitch][BAND] */
    uint16_t *joined, *upright;       /* pairs of bytes: [pitch / 2][BAND], [BAND][pitch / 2] */
    void *memory;                     /* that all of these are in, in whole blocks: vectors that cross cache lines take
                                         twice the time */
} Plan;

/* Those of a kind of processor. `out` has whole blocks, and more samples than are needed are read. */
typedef struct Loops {
    int take_bytes; /* of luma, where two pixels share a sample of chroma; the others take the plan's numbers */
    /* What `count` samples of a line of 8 bits add: [CHANNELS][padded]. */
    void (*read_chroma)(const Plan *, const uint8_t *u, const uint8_t *v, const int16_t bases[], int count, int16_t *out);
    /* Of one channel, for pixels of which two share a sample: ¾ of its own and ¼ of the neighbour's, times four; `part`
     * even ones, then as many odd ones. There is a sample more on either side. */
    void (*spread)(const int16_t *samples, int part, int16_t *out);
    /* Two lines of RGB: luma and what chroma adds, blended from the lines above and below, clipped. The upper one is nearer
     * to the upper line of chroma, and where each line has chroma of its own that is it. In any order that weigh_rows
     * knows. */
    void (*colour)(const Plan *, const void *const lumas[], const int16_t *upper, const int16_t *lower, int8_t *out);
    /* One line of the band from `used` pairs of lines. */
    void (*weigh_rows)(const Plan *, const int8_t *const pairs[], const uint8_t *weights, int used, int8_t *out);
    /* The band's columns, one a line. */
    void (*scale_columns)(const Plan *);
} Loops;

INTO_CALLER int
up(int number, int step)
{
    return (number + step - 1) / step * step;
}

INTO_CALLER int
within(int number, int low, int high)
{
    return number < low ? low : number < high ? number : high;
}

/* value · weight / 65536, rounded down: one instruction, for many values */
INTO_CALLER int16_t
share(uint16_t value, uint16_t weight)
{
    return (int16_t)((uint32_t)value * weight >> 16);
}

/* Whether `colour` takes a plane's bytes. */
INTO_CALLER int
luma_in_bytes(const Plan *plan)
{
    return plan->loops->take_bytes && plan->across == 2 && plan->bits == 8;
}

/* What is added to a row's sum, so that its upper bits are the value, less MIDDLE. That weights add up to more than ONE
 * stretches colours from black … white to 0 … 255. */
INTO_CALLER int
row_bias(const Plan *plan)
{
    return MIDDLE * plan->rows.total + HALF_ONE - MIDDLE * ONE;
}

enum { COLUMN_BIAS = MIDDLE * ONE + HALF_ONE }; /* the same for a column's, from 0 on */

/* A sample of more than 8 bits, or two of 8. They are where the container has them, at odd addresses, too. */
INTO_CALLER uint16_t
word(const uint8_t *line, int place)
{
    uint16_t value;
    memcpy(&value, line + (size_t)place * sizeof value, sizeof value);
    return value;
}

/* As Loops.read_chroma, of any `size` in bytes. */
INTO_CALLER void
read_samples(const Plan *plan, const uint8_t *u, const uint8_t *v, const int16_t bases[], int size, int count, int16_t *out)
{
    const int lift = 16 - plan->bits; /* and what does not belong to a sample is gone */
    const uint16_t red_v = plan->colour[RED_V], green_u = plan->colour[GREEN_U], green_v = plan->colour[GREEN_V],
                   blue_u = plan->colour[BLUE_U];
    const int16_t to_red = bases[RED], to_green = bases[GREEN], to_blue = bases[BLUE];
    int16_t *restrict red = out, *restrict green = red + plan->padded, *restrict blue = green + plan->padded;
    for (int i = 0; i < count; i++) {
        const uint16_t first = (uint16_t)((size == 1 ? u[i] : word(u, i)) << lift),
                       second = (uint16_t)((size == 1 ? v[i] : word(v, i)) << lift);
        const int16_t green_in_full = (int16_t)(to_green - share(first, green_u) - share(second, green_v));
        red[i] = (int16_t)(LIFT + ((int16_t)(to_red + share(second, red_v)) >> CHROMA_SHIFT));
        green[i] = (int16_t)(LIFT + (green_in_full >> CHROMA_SHIFT));
        blue[i] = (int16_t)(LIFT + ((int16_t)(to_blue + share(first, blue_u)) >> CHROMA_SHIFT));
    }
}

OURS const Loops *loops_for_all(void);
OURS const Loops *loops_for_avx2(void); /* NULL: this processor does not have it */

/* RGB, uint8 [rows' outputs][columns' outputs][CHANNELS], of a picture's planes. */
OURS void draw(Plan *plan, const Plane planes[], uint8_t *out);

#endif
