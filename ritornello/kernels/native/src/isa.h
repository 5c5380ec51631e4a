/* One source, many compilations. Every kernel file is compiled for each instruction set (RIT_ISA) and each type of
 * activations (RIT_F32, RIT_F64 or RIT_BF16), and names its entries after both:
 *
 *     RIT_ENTRY(name)(const struct arguments *a) { ... }     ->  rit_name_f32_avx512, ...
 *
 * real  what sums, states and decays are: float, or double for double activations
 * act   what activations are: float, double, or bfloat16 as uint16_t
 * vec   RIT_LANES reals in one register; GCC's and Clang's vector extension, so + - * / and == < work lane by lane
 *
 * An entry is given one struct of 64-bit fields, packed in Python. All sizes and places in it, and all products of them
 * here, are int64_t; strides count elements. Tensors need no alignment: loads and stores are memcpys, which compilers
 * make one instruction each. A function whose flag (a mode, a number of taps, is_complex) is a constant where it is called
 * is INLINE, so that every value of the flag gets a loop without branches.
 */
#ifndef RIT_ISA_H
#define RIT_ISA_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "parallel.h"

#if defined(__AVX512F__)
#define RIT_BYTES 64
#elif defined(__AVX2__)
#define RIT_BYTES 32
#else
#define RIT_BYTES 16
#endif

#if defined(RIT_F64)
typedef double real;
typedef int64_t whole;
typedef double act;
#define RIT_LANES (RIT_BYTES / 8)
#define RIT_TYPE f64
#define REAL(x) x
#else
typedef float real;
typedef int32_t whole;
#define RIT_LANES (RIT_BYTES / 4)
#define REAL(x) x##f
#if defined(RIT_BF16)
typedef uint16_t act;
#define RIT_TYPE bf16
#else
typedef float act;
#define RIT_TYPE f32
#endif
#endif

typedef real vec __attribute__((vector_size(RIT_BYTES)));
typedef whole ivec __attribute__((vector_size(RIT_BYTES)));

#define RIT_PASTE3(a, b, c) rit_##a##_##b##_##c
#define RIT_PASTE(a, b, c) RIT_PASTE3(a, b, c)
#define RIT_NAME(name) RIT_PASTE(name, RIT_TYPE, RIT_ISA)
#define RIT_ENTRY(name) __attribute__((visibility("default"))) void RIT_NAME(name)
#define INLINE static inline __attribute__((always_inline, unused))

/* ---------------------------------------------------------------------------------------------- loads and stores */

INLINE vec vec_set(real x) { return x - (vec){0}; } /* x in every lane */

INLINE vec vec_load(const real *p) {
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void vec_store(real *p, vec x) { memcpy(p, &x, sizeof x); }

/* The first `count` lanes; the others are zero, and memory beyond them is not touched. */
INLINE vec vec_load_part(const real *p, int64_t count) {
    if (count >= RIT_LANES) return vec_load(p);
#if defined(__AVX512F__) && !defined(RIT_F64)
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif defined(__AVX512F__)
    return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), p);
#else
    vec x = {0};
    memcpy(&x, p, (size_t)count * sizeof *p);
    return x;
#endif
}

INLINE void vec_store_part(real *p, vec x, int64_t count) {
    if (count >= RIT_LANES) {
        vec_store(p, x);
        return;
    }
#if defined(__AVX512F__) && !defined(RIT_F64)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#elif defined(__AVX512F__)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1), (__m512d)x);
#else
    memcpy(p, &x, (size_t)count * sizeof *p);
#endif
}

#if defined(RIT_BF16)
typedef uint16_t half_vec __attribute__((vector_size(RIT_BYTES / 2)));
typedef uint32_t word_vec __attribute__((vector_size(RIT_BYTES)));

/* By intrinsics where compilers would widen and narrow the halves of a register one by one. */
INLINE vec vec_from_half(half_vec h) {
#if defined(__AVX512BW__)
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#else
    return (vec)(__builtin_convertvector(h, word_vec) << 16);
#endif
}

/* To the nearest, ties to even; a NaN keeps a bit of its payload, or it would become an infinity. */
INLINE half_vec vec_to_half(vec x) {
    const word_vec bits = (word_vec)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
#if defined(__AVX512BW__)
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    return (half_vec)_mm512_cvtepi32_epi16(
        _mm512_mask_or_epi32((__m512i)rounded, nan, (__m512i)(bits >> 16), _mm512_set1_epi32(0x40)));
#else
    const word_vec nan = (word_vec)(x != x);
    return __builtin_convertvector((rounded & ~nan) | (((bits >> 16) | 0x40) & nan), half_vec);
#endif
}

INLINE vec act_load(const act *p) {
    half_vec h;
    memcpy(&h, p, sizeof h);
    return vec_from_half(h);
}

INLINE void act_store(act *p, vec x) {
    const half_vec h = vec_to_half(x);
    memcpy(p, &h, sizeof h);
}

INLINE vec act_load_part(const act *p, int64_t count) {
    half_vec h = {0};
    memcpy(&h, p, (size_t)(count < RIT_LANES ? count : RIT_LANES) * sizeof *p);
    return vec_from_half(h);
}

INLINE void act_store_part(act *p, vec x, int64_t count) {
    const half_vec h = vec_to_half(x);
    memcpy(p, &h, (size_t)(count < RIT_LANES ? count : RIT_LANES) * sizeof *p);
}

INLINE real act_get(const act *p) {
    const uint32_t bits = (uint32_t)*p << 16;
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE void act_put(act *p, real x) { act_store_part(p, vec_set(x), 1); }
#else
INLINE vec act_load(const act *p) { return vec_load(p); }
INLINE void act_store(act *p, vec x) { vec_store(p, x); }
INLINE vec act_load_part(const act *p, int64_t count) { return vec_load_part(p, count); }
INLINE void act_store_part(act *p, vec x, int64_t count) { vec_store_part(p, x, count); }
INLINE real act_get(const act *p) { return *p; }
INLINE void act_put(act *p, real x) { *p = x; }
#endif

/* --------------------------------------------------------------------------------------------- lanes and selection */

/* mask ? a : b, where the lanes of `mask` (of a comparison) are all ones or all zeros. */
INLINE vec vec_select(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* The larger and the smaller; the second where either is NaN. */
INLINE vec vec_max(vec a, vec b) {
#if defined(__AVX512F__) && !defined(RIT_F64)
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX512F__)
    return (vec)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__) && !defined(RIT_F64)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__AVX2__)
    return (vec)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return vec_select(a > b, a, b);
#endif
}

INLINE vec vec_min(vec a, vec b) {
#if defined(__AVX512F__) && !defined(RIT_F64)
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX512F__)
    return (vec)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__) && !defined(RIT_F64)
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__AVX2__)
    return (vec)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return vec_select(a < b, a, b);
#endif
}

INLINE vec vec_abs(vec x) { return (vec)((ivec)x & ~(ivec)vec_set(REAL(-0.0))); }

/* The sum of the lanes, in a fixed order. */
INLINE real vec_sum(vec x) {
#if defined(__AVX512F__) && !defined(RIT_F64)
    return _mm512_reduce_add_ps((__m512)x);
#elif defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)x);
#elif defined(__AVX2__) && !defined(RIT_F64)
    __m128 y = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
#else
    real sum = 0;
    for (int i = 0; i < RIT_LANES; i++) sum += x[i];
    return sum;
#endif
}

/* --------------------------------------------------------------------------------------------------- sequences */

/* Where sequence i lies: row and times. `starts` (N + 1) packs N sequences along time in row 0; without it they are rows. */
struct rit_span {
    int64_t row, start, end;
};

INLINE struct rit_span rit_span(const int64_t *starts, int64_t i, int64_t steps) {
    return starts ? (struct rit_span){0, starts[i], starts[i + 1]} : (struct rit_span){i, 0, steps};
}

INLINE int64_t rit_min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t rit_max(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t rit_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Where the checkpoints of sequence n begin, one for every `interval` of its steps. A packed sequence finds its place from
 * its start alone, without counting those before it: with ⌈length / interval⌉ of them from start / interval + n on, no
 * two sequences meet, and all end within steps / interval + sequences. */
INLINE int64_t rit_first_slot(const int64_t *starts, int64_t n, int64_t steps, int64_t interval) {
    return starts ? starts[n] / interval + n : n * rit_divide_up(steps, interval);
}

/* The channels of a sequence, cut into blocks: an item of work is one block of one sequence. */
struct rit_blocks {
    int64_t width, count;
};

/* Wide blocks, for long runs of memory, and as many as keep the threads busy; a width is a multiple of `unit`, at most
 * `most`. Where no channel's numbers depend on its block, the split may follow the number of threads. It is made once for
 * a call: another Python thread may change that number while the call runs. */
INLINE struct rit_blocks rit_blocks(int64_t sequences, int64_t channels, int64_t unit, int64_t most) {
    const int64_t n = rit_max(sequences, 1), threads = rit_threads();
    const int64_t wanted = n % threads == 0 ? 1 : n == 1 ? threads : rit_divide_up(2 * threads, n);
    const int64_t width = rit_min(rit_divide_up(rit_divide_up(channels, wanted), unit) * unit, most);
    return (struct rit_blocks){width, rit_divide_up(channels, width)};
}

/* Memory for `count` reals, on a cache line. Freed by free. A thread of a pool has nobody to raise an error to, so where
 * there is none the process ends, with a word. */
INLINE real *rit_scratch(int64_t count) {
    const size_t bytes = ((size_t)count * sizeof(real) + 63) & ~(size_t)63;
    real *p = aligned_alloc(64, bytes ? bytes : 64);
    if (!p) {
        fprintf(stderr, "ritornello: a native kernel found no memory for its %zu bytes of scratch\n", bytes);
        abort();
    }
    return p;
}

#endif
