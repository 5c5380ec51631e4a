/* Loads and stores of the cells' activations, and the functions of their gates. */
#ifndef RIT_CELL_ACT_H
#define RIT_CELL_ACT_H

#include "functions.h"

/* Activations, the first `count` lanes: whole registers, which is nearly always, without a detour. */
INLINE vec cell_load(const act *p, int64_t count) { return count >= RIT_LANES ? act_load(p) : act_load_part(p, count); }

INLINE void cell_store(act *p, vec x, int64_t count) {
    if (count >= RIT_LANES)
        act_store(p, x);
    else
        act_store_part(p, x, count);
}

/* Between products in bfloat16 the gates take a third of a step. Their functions err there by less than 2⁻¹², relative to
 * the result, an eighth of what bfloat16 itself rounds away; elsewhere they are those of functions.h. */
#if defined(RIT_BF16)

/* 2ˣ for x ≤ 126; a cubic on [0, 1), fitted to the least relative error, 2⁻¹³·⁷. */
INLINE vec cell_exp2(vec x) {
#if defined(__AVX512F__)
    enum { FLOOR = 0x09 };
    const vec r = (vec)_mm512_reduce_ps((__m512)x, FLOOR); /* x − ⌊x⌋, and 0 at −∞ */
#else
    x = vec_max(vec_set(-126), x);
    const vec shifted = (x - 0.5f) + RIT_MAGIC, r = x - (shifted - RIT_MAGIC);
#endif
    vec p = vec_set(0.07802454f);
    p = p * r + 0.2260672f;
    p = p * r + 0.69583349f;
    p = p * r + 0.99992523f;
#if defined(__AVX512F__)
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
    return p * (vec)(((ivec)shifted - (ivec)vec_set(RIT_MAGIC) + RIT_BIAS) << RIT_MANTISSA);
#endif
}

/* 1 / (1 + e⁻ˣ), and below −87 what it is there. What it lacks to 1 has that precision too: long memories are made of it. */
INLINE vec cell_sigmoid(vec x) { return vec_reciprocal(1 + cell_exp2(vec_min(vec_set(126), x * -1.44269504f))); }

/* 1 / x to 2⁻¹⁴. */
INLINE vec cell_estimate(vec x) {
#if defined(__AVX512F__)
    return (vec)_mm512_rcp14_ps((__m512)x);
#else
    return 1 / x;
#endif
}

/* x P(x²) / Q(x²), fitted to the least relative error on [0, 5], 2⁻¹⁴·². It stays below 1, or its slope would turn. */
INLINE vec cell_tanh(vec x) {
    const real end = 4.75f;
    x = vec_max(vec_set(-end), vec_min(vec_set(end), x));
    const vec z = x * x;
    const vec p = (z * 6.70563988e-4f + 0.10241765f) * z + 0.99994805f;
    const vec q = (z * 1.28198739e-2f + 0.43543245f) * z + 1;
    return x * p * cell_estimate(q);
}

#else
INLINE vec cell_sigmoid(vec x) { return vec_sigmoid(x); }
INLINE vec cell_tanh(vec x) { return vec_tanh(x); }
#endif

#endif
