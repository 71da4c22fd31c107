/* Loops for AVX2. It weighs two bytes at once: the bytes of two lines of RGB are in turn for that. */

#include "_planes.h"

#if WITH_AVX2
#include <immintrin.h>
#define FOR_AVX2 __attribute__((target("avx2")))

INTO_CALLER FOR_AVX2 __m256i
load(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

INTO_CALLER FOR_AVX2 void
store(void *to, __m256i vector)
{
    _mm256_storeu_si256((__m256i *)to, vector);
}

/* Half a block of bytes, as numbers. */
INTO_CALLER FOR_AVX2 __m256i
widen(const uint8_t *bytes)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)bytes));
}

FOR_AVX2 static void
read_chroma(const Plan *plan, const uint8_t *u, const uint8_t *v, const int16_t bases[], int count, int16_t *out)
{
    const uint16_t *colour = plan->colour;
    const __m256i red_v = _mm256_set1_epi16((short)colour[RED_V]), green_u = _mm256_set1_epi16((short)colour[GREEN_U]),
                  green_v = _mm256_set1_epi16((short)colour[GREEN_V]), blue_u = _mm256_set1_epi16((short)colour[BLUE_U]),
                  to_red = _mm256_set1_epi16(bases[RED]), to_green = _mm256_set1_epi16(bases[GREEN]),
                  to_blue = _mm256_set1_epi16(bases[BLUE]), lift = _mm256_set1_epi16(LIFT);
    int16_t *green_out = out + plan->padded, *blue_out = green_out + plan->padded;
    for (int i = 0; i < count; i += HALF) {
        const __m256i first = _mm256_slli_epi16(widen(u + i), 8), second = _mm256_slli_epi16(widen(v + i), 8);
        const __m256i red = _mm256_add_epi16(to_red, _mm256_mulhi_epu16(second, red_v));
        const __m256i green = _mm256_sub_epi16(_mm256_sub_epi16(to_green, _mm256_mulhi_epu16(first, green_u)),
                                               _mm256_mulhi_epu16(second, green_v));
        const __m256i blue = _mm256_add_epi16(to_blue, _mm256_mulhi_epu16(first, blue_u));
        store(out + i, _mm256_add_epi16(lift, _mm256_srai_epi16(red, CHROMA_SHIFT)));
        store(green_out + i, _mm256_add_epi16(lift, _mm256_srai_epi16(green, CHROMA_SHIFT)));
        store(blue_out + i, _mm256_add_epi16(lift, _mm256_srai_epi16(blue, CHROMA_SHIFT)));
    }
}

FOR_AVX2 static void
spread(const int16_t *samples, int part, int16_t *out)
{
    const __m256i three = _mm256_set1_epi16(3);
    for (int i = 0; i < part; i += HALF) {
        const __m256i thrice = _mm256_mullo_epi16(load(samples + i), three);
        store(out + i, _mm256_add_epi16(thrice, load(samples + i - 1)));
        store(out + part + i, _mm256_add_epi16(thrice, load(samples + i + 1)));
    }
}

/* The two halves of a block, less their fractions; clipped. Their quarters alternate. */
INTO_CALLER FOR_AVX2 __m256i
clipped(__m256i first, __m256i second, __m256i most)
{
    const __m256i shift = _mm256_set1_epi16(1 << (16 - FRACTION_BITS)); /* products leave the shuffles' units free */
    return _mm256_min_epi8(_mm256_packs_epi16(_mm256_mulhi_epi16(first, shift), _mm256_mulhi_epi16(second, shift)), most);
}

/* [CHANNELS][wide][2], of each block its first half before the second one; where two pixels share a sample of chroma, even
 * pixels are one half, odd ones the other. Lumas are bytes, or numbers. */
INTO_CALLER FOR_AVX2 void
colour_blocks(const Plan *plan, const void *const lumas[], const int bytes, const int16_t *upper, const int16_t *lower,
              const int down, int8_t *out)
{
    const size_t wide = (size_t)plan->wide, second = plan->across == 2 ? wide / 2 : HALF,
                 step = plan->across == 2 ? HALF : BLOCK;
    const __m256i most = _mm256_set1_epi8((char)(plan->colour[WHITE] - MIDDLE));
    const uint8_t *upper_luma = lumas[0], *lower_luma = lumas[1];
    const size_t of_luma = bytes ? (size_t)BLOCK : step * sizeof(int16_t);
    for (size_t left = wide / BLOCK; left; left--) {
        __m256i luma[2][2];
        if (bytes) {
            const __m256i even = _mm256_set1_epi16(1 << FRACTION_BITS), odd = _mm256_set1_epi16(1 << (8 + FRACTION_BITS));
            const __m256i one = load(upper_luma), other = load(lower_luma);
            luma[0][0] = _mm256_maddubs_epi16(one, even);
            luma[0][1] = _mm256_maddubs_epi16(one, odd);
            luma[1][0] = _mm256_maddubs_epi16(other, even);
            luma[1][1] = _mm256_maddubs_epi16(other, odd);
        } else {
            luma[0][0] = load(upper_luma);
            luma[0][1] = load((const int16_t *)upper_luma + second);
            luma[1][0] = load(lower_luma);
            luma[1][1] = load((const int16_t *)lower_luma + second);
        }
#pragma GCC unroll 3
        for (int channel = 0; channel < CHANNELS; channel++) {
            __m256i one[2], other[2];
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const size_t at = channel * wide + half * second;
                const __m256i above = load(upper + at), below = load(lower + at);
                const __m256i mean = _mm256_avg_epu16(above, below);
                one[half] = _mm256_add_epi16(_mm256_add_epi16(above, down == 2 ? mean : above), luma[0][half]);
                other[half] = _mm256_add_epi16(_mm256_add_epi16(below, down == 2 ? mean : below), luma[1][half]);
            }
            const __m256i first = clipped(one[0], one[1], most), next = clipped(other[0], other[1], most);
            store(out + 2 * channel * wide, _mm256_unpacklo_epi8(first, next));
            store(out + 2 * channel * wide + BLOCK, _mm256_unpackhi_epi8(first, next));
        }
        upper_luma += of_luma, lower_luma += of_luma, upper += step, lower += step, out += 2 * BLOCK;
    }
}

FOR_AVX2 static void
colour(const Plan *plan, const void *const lumas[], const int16_t *upper, const int16_t *lower, int8_t *out)
{
    const int bytes = luma_in_bytes(plan);
    if (bytes && plan->down == 2)
        colour_blocks(plan, lumas, 1, upper, lower, 2, out);
    else if (bytes)
        colour_blocks(plan, lumas, 1, upper, lower, 1, out);
    else if (plan->down == 2)
        colour_blocks(plan, lumas, 0, upper, lower, 2, out);
    else
        colour_blocks(plan, lumas, 0, upper, lower, 1, out);
}

/* `used` is a constant where there are few. */
INTO_CALLER FOR_AVX2 void
weigh_blocks(const Plan *plan, const int8_t *const pairs[], const uint8_t *weights, const int used, int8_t *out)
{
    const __m256i bias = _mm256_set1_epi16((int16_t)row_bias(plan));
    const __m256i even_odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    const int end = CHANNELS * plan->wide, in_turn = plan->across == 2;
    __m256i weight[FEW];
    const int8_t *line[FEW]; /* copies: bytes that are stored could be anything, for the compiler */
#pragma GCC unroll 4
    for (int pair = 0; pair < FEW; pair++) {
        weight[pair] = _mm256_set1_epi16(pair < used ? ((const int16_t *)weights)[pair] : 0);
        line[pair] = pair < used ? pairs[pair] : NULL;
    }
    for (int at = 0; at < end; at += BLOCK) {
        __m256i first = bias, second = bias;
#pragma GCC unroll 4
        for (int pair = 0; pair < FEW && pair < used; pair++) {
            const int8_t *bytes = line[pair] + 2 * at;
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(weight[pair], load(bytes)));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(weight[pair], load(bytes + BLOCK)));
        }
        for (int pair = FEW; pair < used; pair++) { /* where one pixel comes from many */
            const __m256i more = _mm256_set1_epi16(((const int16_t *)weights)[pair]);
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(more, load(pairs[pair] + 2 * at)));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(more, load(pairs[pair] + 2 * at + BLOCK)));
        }
        const __m256i quarters =
            _mm256_packs_epi16(_mm256_srai_epi16(first, WEIGHT_BITS), _mm256_srai_epi16(second, WEIGHT_BITS));
        store(out + at, in_turn ? _mm256_shuffle_epi8(quarters, even_odd) : _mm256_permute4x64_epi64(quarters, 0xd8));
    }
}

FOR_AVX2 static void
weigh_rows(const Plan *plan, const int8_t *const pairs[], const uint8_t *weights, int used, int8_t *out)
{
    switch (used) {
    case 1: weigh_blocks(plan, pairs, weights, 1, out); break;
    case 2: weigh_blocks(plan, pairs, weights, 2, out); break;
    case 3: weigh_blocks(plan, pairs, weights, 3, out); break;
    case 4: weigh_blocks(plan, pairs, weights, 4, out); break;
    default: weigh_blocks(plan, pairs, weights, used, out);
    }
}

/* One column; `used` is a constant where there are few. */
INTO_CALLER FOR_AVX2 void
weigh_column(const uint16_t *from, const int16_t *weights, const int used, uint16_t *out)
{
    __m256i sum[CHANNELS];
#pragma GCC unroll 3
    for (int channel = 0; channel < CHANNELS; channel++)
        sum[channel] = _mm256_set1_epi16(COLUMN_BIAS);
#pragma GCC unroll 4
    for (int pair = 0; pair < used; pair++) {
        const __m256i weight = _mm256_set1_epi16(weights[pair]);
#pragma GCC unroll 3
        for (int channel = 0; channel < CHANNELS; channel++)
            sum[channel] = _mm256_add_epi16(
                sum[channel], _mm256_maddubs_epi16(weight, load(from + (pair * CHANNELS + channel) * BAND)));
    }
#pragma GCC unroll 3
    for (int channel = 0; channel < CHANNELS; channel++)
        store(out + channel * BAND, _mm256_srli_epi16(sum[channel], WEIGHT_BITS));
}

FOR_AVX2 static void
scale_columns(const Plan *plan)
{
    const Taps *columns = &plan->columns;
    const int16_t *weights = (const int16_t *)columns->weights;
    uint16_t *out = plan->scaled;
    for (int column = 0; column < columns->outputs; column++, weights += columns->pairs, out += CHANNELS * BAND) {
        const uint16_t *from = plan->turned + (size_t)columns->starts[column] * CHANNELS * BAND;
        switch (columns->used[column]) {
        case 1: weigh_column(from, weights, 1, out); break;
        case 2: weigh_column(from, weights, 2, out); break;
        case 3: weigh_column(from, weights, 3, out); break;
        case 4: weigh_column(from, weights, 4, out); break;
        default: weigh_column(from, weights, columns->used[column], out);
        }
    }
}

const Loops *
loops_for_avx2(void)
{
    static const Loops loops = {1, read_chroma, spread, colour, weigh_rows, scale_columns};
    return __builtin_cpu_supports("avx2") ? &loops : NULL;
}
#else
const Loops *
loops_for_avx2(void)
{
    return NULL;
}
#endif
