/* Functions of one variable, lane by lane. */
#ifndef RIT_FUNCTIONS_H
#define RIT_FUNCTIONS_H

#include "isa.h"

#define RIT_EACH(function, x)                                                \
    ({                                                                       \
        vec result_ = (x);                                                   \
        for (int i_ = 0; i_ < RIT_LANES; i_++) result_[i_] = function(result_[i_]); \
        result_;                                                             \
    })

#if defined(RIT_F64)

/* Taylor to degree 13 on |r| ≤ ln2 / 2: the rest is below 1e-17. */
INLINE vec rit_exp_polynomial(vec r) {
    vec p = vec_set(1.0 / 6227020800.0);
    static const double inverse[] = {479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1};
    for (int i = 0; i < 13; i++) p = p * r + 1.0 / inverse[i];
    return p;
}
#define RIT_MAGIC 0x1.8p52
#define RIT_LN2_HIGH 6.93147180369123816490e-01
#define RIT_LN2_LOW 1.90821492927058770002e-10
#define RIT_EXP_LIMIT 760.0
#define RIT_SIGMOID_LIMIT 700.0
#define RIT_MANTISSA 52
#define RIT_BIAS 1023

INLINE vec vec_log(vec x) { return RIT_EACH(log, x); }
INLINE vec vec_log1p(vec x) { return RIT_EACH(log1p, x); }
INLINE vec vec_tanh(vec x) { return RIT_EACH(tanh, x); }

#else

/* Minimax on |r| ≤ ln2 / 2, Moshier's Cephes expf. */
INLINE vec rit_exp_polynomial(vec r) {
    vec p = vec_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r + 1.0f;
}
#define RIT_MAGIC 0x1.8p23f
#define RIT_LN2_HIGH 0.693359375f
#define RIT_LN2_LOW -2.12194440e-4f
#define RIT_EXP_LIMIT 110.0f
#define RIT_SIGMOID_LIMIT 87.0f
#define RIT_MANTISSA 23
#define RIT_BIAS 127

#endif

/* eˣ for −RIT_EXP_LIMIT ≤ x ≤ RIT_EXP_LIMIT, or NaN. */
INLINE vec rit_exp_within(vec x) {
    const vec shifted = x * REAL(1.44269504088896341) + RIT_MAGIC;
    const vec n = shifted - RIT_MAGIC;
    const vec r = (x - n * RIT_LN2_HIGH) - n * RIT_LN2_LOW;
    const vec p = rit_exp_polynomial(r);
#if defined(__AVX512F__) && !defined(RIT_F64)
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#elif defined(__AVX512F__)
    return (vec)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
    /* 2ⁿ in two factors, each within the range of the exponent. */
    const ivec whole_n = (ivec)shifted - (ivec)vec_set(RIT_MAGIC), half = whole_n >> 1;
    return p * (vec)((half + RIT_BIAS) << RIT_MANTISSA) * (vec)((whole_n - half + RIT_BIAS) << RIT_MANTISSA);
#endif
}

/* eˣ, with infinities, NaN and subnormal results as the C library has them. */
INLINE vec vec_exp(vec x) { return rit_exp_within(vec_max(vec_set(-RIT_EXP_LIMIT), vec_min(vec_set(RIT_EXP_LIMIT), x))); }

/* 1 / x for normal x whose reciprocal is normal. A division of 16 lanes takes longer than an exponential; an estimate to
 * 14 bits and a step of Newton's method err by hardly more than half an ulp. */
INLINE vec vec_reciprocal(vec x) {
#if defined(__AVX512F__) && !defined(RIT_F64)
    const vec y = (vec)_mm512_rcp14_ps((__m512)x);
    return y + y * (1 - x * y); /* not y (2 − x y), which is rounded twice as coarsely */
#else
    return 1 / x;
#endif
}

#if !defined(RIT_F64)

/* log x for normal x > 0; −∞ for 0, NaN below. Cephes logf. */
INLINE vec vec_log(vec x) {
    const ivec bits = (ivec)vec_max(vec_set(0x1p-126f), x);
    ivec exponent = (bits >> 23) - 126;
    vec m = (vec)((bits & 0x7fffff) | 0x3f000000); /* in [1/2, 1) */
    const ivec small = m < 0.70710678f;
    exponent += small; /* a true lane is −1 */
    m = m - 1.0f + (vec)((ivec)m & small);
    const vec z = m * m, e = __builtin_convertvector(exponent, vec);
    vec p = vec_set(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    vec y = p * m * z + e * RIT_LN2_LOW - 0.5f * z;
    y = m + y + e * RIT_LN2_HIGH;
    y = vec_select(x == INFINITY, x, y);
    y = vec_select(x == 0.0f, vec_set(-INFINITY), y);
    return vec_select((x < 0.0f) | (x != x), vec_set(NAN), y);
}

/* log(1 + x) for x ≥ 0: what 1 + x rounds away is put back to first order. */
INLINE vec vec_log1p(vec x) {
    const vec u = 1.0f + x;
    return vec_log(u) + vec_select(u < 0x1p60f, (x - (u - 1.0f)) / u, vec_set(0.0f));
}

/* tanh x: a polynomial near 0, where 1 − 2 / (e²ˣ + 1) cancels. Cephes tanhf. */
INLINE vec vec_tanh(vec x) {
    const ivec sign = (ivec)x & (ivec)vec_set(-0.0f);
    const vec size = (vec)((ivec)x & 0x7fffffff), z = x * x;
    vec p = vec_set(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const vec near = p * z * x + x, far = 1.0f - 2.0f * vec_reciprocal(rit_exp_within(vec_min(vec_set(40.0f), size + size)) + 1.0f);
    return vec_select(size < 0.625f, near, (vec)((ivec)far | sign));
}

#endif

/* 1 / (1 + e⁻ˣ), and below −87 what it is there (double: −700): less than any sum can tell from 0. */
INLINE vec vec_sigmoid(vec x) {
    return vec_reciprocal(1 + rit_exp_within(vec_max(vec_set(-RIT_SIGMOID_LIMIT), vec_min(vec_set(RIT_SIGMOID_LIMIT), -x))));
}

/* The x of x·σ(x) and of its slope: where the sigmoid stops falling x stops too, or −1e38 would give −1.6 for 0. */
INLINE vec rit_silu_within(vec x) { return vec_max(vec_set(-RIT_SIGMOID_LIMIT), x); }

/* x σ(x) */
INLINE vec vec_silu(vec x) {
    x = rit_silu_within(x);
    return x * vec_sigmoid(x);
}

/* σ(x) (1 + x (1 − σ(x))) */
INLINE vec vec_silu_slope(vec x) {
    x = rit_silu_within(x);
    const vec s = vec_sigmoid(x);
    return s * (1 + x * (1 - s));
}

/* log σ(x) = min(x, 0) − log(1 + e^{−|x|}) */
INLINE vec vec_log_sigmoid(vec x) { return vec_min(vec_set(0), x) - vec_log1p(vec_exp(vec_min(x, -x))); }

/* One value, through the same code: so that a step alone and a step in a loop give the same bits. */
INLINE real real_exp(real x) { return vec_exp(vec_set(x))[0]; }
INLINE real real_log_sigmoid(real x) { return vec_log_sigmoid(vec_set(x))[0]; }

#endif
