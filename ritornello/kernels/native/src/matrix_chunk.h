/* A chunk of CHUNK steps of a matrix state as a few matrix products. With D(t, j) = d_{j+1} ⊙ … ⊙ d_t, in every key,
 *
 *     S_end = diag(D(end, 0)) S_0 + keᵀ w + beᵀ r      ke_j = D(end, j) ⊙ k_j, be_j likewise
 *     o_t   = S_0ᵀ qs_t + Σ_{j ≤ t} qk_tj w_j + qb_tj r_j      qs_t = D(t, 0) ⊙ q_t,  qk_tj = Σ_keys q_t ⊙ D(t, j) ⊙ k_j
 *     r_t   = S_0ᵀ as_t + Σ_{j < t} ak_tj w_j + ab_tj r_j      as_t = D(t−1, 0) ⊙ a_t, ak_tj = Σ_keys a_t ⊙ D(t−1, j) ⊙ k_j
 *
 * r_t, and with it the w_t = β_t (v_t − r_t) of DELTA, follow one after another. DELTA has a = d ⊙ k. BONUS reads before
 * the decay, as a does, and u stands in the diagonal of qk. D is a product always and never a quotient: of decays that vanish,
 * or are negative, it is as exact as the steps are. */
#ifndef RIT_MATRIX_CHUNK_H
#define RIT_MATRIX_CHUNK_H

#include "matrix_product.h"
#include "transpose.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

enum { PAIRS = CHUNK * CHUNK };

/* Many arrays in one piece of memory. Without `base` they are counted and not laid out: so the same lines say how much
 * memory it takes and what lies where in it. */
struct arena {
    real *base;
    int64_t used;
};

/* Numbers between two arrays. Their sizes are powers of two, and their rows would compete for the same places of the first
 * cache: three of its lines apart (of floats) they do not. */
enum { APART = 48 };

static void arena_take(struct arena *arena, int64_t size, int count, real **arrays[]) {
    for (int i = 0; i < count; i++, arena->used += size + APART) {
        *arrays[i] = arena->base ? arena->base + arena->used : 0;
#if defined(__SANITIZE_ADDRESS__) /* what is written beyond an array is seen as well as what is written beyond them all */
        if (arena->base) ASAN_POISON_MEMORY_REGION(*arrays[i] + size, APART * sizeof(real));
#endif
    }
}

/* The rows of a chunk, (CHUNK, width), and what follows from them for all columns. */
struct chunk {
    int64_t steps, width; /* width: K, in whole vectors */
    int scalar;           /* one decay for all keys: d is one number a step, and pairs of steps are plain products of rows */
    real *q, *k, *a, *b;
    const real *d;        /* among those of its segment: it may be asked for again */
    real *qs, *as, *ke, *be;
    real *de;             /* D(end, 0) */
    real *kt, *bt;        /* k and b transposed, (width, CHUNK) */
    real *qk, *qb, *ak, *ab;    /* (CHUNK, CHUNK) */
    real *between, *start;      /* of a scalar decay: D(t, j), 0 for j > t; D(t, 0) */
    real *bare_qk, *bare_ak;    /* qk and ak without the decay */
    real *beta;           /* β of DELTA; Σ u k q of BONUS */
    struct ahead ahead;   /* the rows of the chunk that comes next */
    int64_t fetched, fetchable;
};

/* Fetch rows of some more steps. All at once they would wait for each other, so they are spread over the work. */
INLINE void chunk_fetch(struct chunk *c, int64_t steps) {
    for (const int64_t end = rit_min(c->fetched + steps, c->fetchable); c->fetched < end; c->fetched++)
        ahead_fetch(&c->ahead, c->fetched, 0, INT64_MAX);
}

INLINE int chunk_erases(int64_t mode) { return mode == DELTA || mode == DPLR; }

static void chunk_lay_out(struct chunk *x, int64_t width, struct arena *arena) {
    x->width = width;
    real **rows[] = {&x->q, &x->k, &x->a, &x->b, &x->qs, &x->as, &x->ke, &x->be, &x->kt, &x->bt};
    real **pairs[] = {&x->qk, &x->qb, &x->ak, &x->ab, &x->between, &x->bare_qk, &x->bare_ak};
    real **ends[] = {&x->de}, **numbers[] = {&x->beta, &x->start};
    arena_take(arena, CHUNK * width, 10, rows);
    arena_take(arena, PAIRS, 7, pairs);
    arena_take(arena, width, 1, ends);
    arena_take(arena, CHUNK, 2, numbers);
}

struct chunk_place {
    int64_t row, head, value_head, time;
};

INLINE int chunk_is_scalar(const struct matrix *x) { return !x->vector && (x->mode == LINEAR || x->mode == DELTA); }

/* The decays of the chunk, in every key, or one number a step; where there are none, 1. */
static void chunk_decays(const struct matrix *x, const struct chunk_place *p, int64_t steps, int64_t width, real *to) {
    if (!chunk_is_scalar(x)) {
        for (int64_t t = 0; t < steps; t++) matrix_decay_row(x, to + t * width, p->row, p->time + t, p->value_head);
        return;
    }
    for (int64_t t = 0; t < CHUNK; t++)
        to[t] = x->decay.at && t < steps ? *AT(x->decay, p->row, p->time + t, p->value_head) : !x->logged;
    for (int64_t t = 0; t < CHUNK && x->logged; t += RIT_LANES) vec_store(to + t, vec_exp(vec_load(to + t)));
}

/* The rows of a chunk; without those that read, which its end does not ask for. */
static void chunk_load(const struct matrix *x, struct chunk *c, const struct chunk_place *p, int reads) {
    const int64_t keys = x->keys, width = c->width;
    for (int64_t t = 0; t < c->steps; t++) {
        const int64_t time = p->time + t, at = t * width;
        if (reads) matrix_row(c->q + at, AT(x->q, p->row, time, p->head), keys, (real)x->scale);
        matrix_row(c->k + at, AT(x->k, p->row, time, p->head), keys, x->gain.at ? *AT(x->gain, p->row, time, p->head) : 1);
        if (x->mode == DPLR) {
            if (reads) matrix_row(c->a + at, AT(x->a, p->row, time, p->head), keys, 1);
            matrix_row(c->b + at, AT(x->b, p->row, time, p->head), keys, 1);
        }
        if (x->mode == DELTA) c->beta[t] = *AT(x->beta, p->row, time, p->value_head);
        if (x->mode == BONUS && reads) c->beta[t] = matrix_bonus(x->bonus + p->value_head * keys, c->k + at, c->q + at, keys);
    }
}

/* 1 in lane t of the vectors from lane `first` on, what `row` has elsewhere. */
INLINE vec put_one(vec row, int64_t first, int64_t t) {
    ivec lane;
#pragma GCC unroll 16
    for (int l = 0; l < RIT_LANES; l++) lane[l] = l;
    return vec_select(lane == (whole)(t - first), vec_set(1), row);
}

/* D of a scalar decay, for every pair of steps. */
static void chunk_between(struct chunk *c) {
    enum { VECTORS = CHUNK / RIT_LANES };
    vec row[VECTORS] = {0};
    real product = 1;
    for (int64_t t = 0; t < CHUNK; t++) {
        c->start[t] = product *= c->d[t];
        for (int m = 0; m < VECTORS; m++) {
            row[m] = put_one(row[m] * c->d[t], m * RIT_LANES, t);
            vec_store(c->between + t * CHUNK + m * RIT_LANES, row[m]);
        }
    }
}

/* to (steps, width) = the rows times one number each. */
INLINE void scale_rows(const struct chunk *c, const real *rows, const real *factor, real *to) {
    for (int64_t t = 0; t < c->steps; t++)
        for (int64_t i = t * c->width; i < (t + 1) * c->width; i += RIT_LANES) vec_store(to + i, vec_load(rows + i) * factor[t]);
}

/* qs, as: what the rows that read see of the state before the chunk. */
static void chunk_from_start(const struct matrix *x, struct chunk *c) {
    const int64_t mode = x->mode, width = c->width;
    if (c->scalar) {
        scale_rows(c, c->q, c->start, c->qs);
        if (mode == DELTA) scale_rows(c, c->k, c->start, c->as);
        return;
    }
    for (int64_t i = 0; i < width; i += RIT_LANES) {
        chunk_fetch(c, 1);
        vec product = vec_set(1);
        for (int64_t at = i; at < c->steps * width; at += width) {
            const vec early = product;
            product *= vec_load(c->d + at);
            vec_store(c->qs + at, vec_load(c->q + at) * (mode == BONUS ? early : product));
            if (mode == DELTA) vec_store(c->as + at, vec_load(c->k + at) * product);
            if (mode == DPLR) vec_store(c->as + at, vec_load(c->a + at) * early);
        }
    }
}

/* ke, be, de: what the end of the chunk sees of what was written in it, and before it. */
static void chunk_to_end(const struct matrix *x, struct chunk *c) {
    const int64_t width = c->width;
    if (c->scalar) {
        chunk_between(c);
        scale_rows(c, c->k, c->between + (c->steps - 1) * CHUNK, c->ke);
        for (int64_t i = 0; i < width; i += RIT_LANES) vec_store(c->de + i, vec_set(c->start[c->steps - 1]));
        return;
    }
    for (int64_t i = 0; i < width; i += RIT_LANES) {
        vec product = vec_set(1);
        for (int64_t at = (c->steps - 1) * width + i; at >= 0; at -= width) {
            vec_store(c->ke + at, vec_load(c->k + at) * product);
            if (x->mode == DPLR) vec_store(c->be + at, vec_load(c->b + at) * product);
            product *= vec_load(c->d + at);
        }
        vec_store(c->de + i, product);
    }
}

/* ------------------------------------------------------------------------------------------- what pairs of steps share */

/* The first `count` lanes times s. */
INLINE vec scale_first(const int count, vec x, vec s) {
#if defined(__AVX512F__) && !defined(RIT_F64)
    return (vec)_mm512_mask_mul_ps((__m512)x, (__mmask16)((1u << count) - 1), (__m512)x, (__m512)s);
#elif defined(__AVX512F__)
    return (vec)_mm512_mask_mul_pd((__m512d)x, (__mmask8)((1u << count) - 1), (__m512d)x, (__m512d)s);
#else
    ivec lane;
#pragma GCC unroll 16
    for (int l = 0; l < RIT_LANES; l++) lane[l] = l;
    return vec_select(lane < count, x * s, x);
#endif
}

/* Pairs (t, j), j in the lanes from `first` on. Over time, lane j holds D(t, j) ⊙ y_j of one key, from step j on. */
INLINE void pairs_from(const int first, const int early, struct chunk *c, const real *x, const real *yt, real *to) {
    vec sum[CHUNK];
#pragma GCC unroll 16
    for (int t = first; t < CHUNK; t++) sum[t] = (vec){0};
    const real *d = c->d;
    const int64_t width = c->width;
    for (int64_t i = 0; i < width; i++) {
        if (i % 16 == 0) chunk_fetch(c, 1);
        vec y = vec_load(yt + i * CHUNK + first);
#pragma GCC unroll 16
        for (int t = first; t < CHUNK; t++) {
            const int count = t - first < RIT_LANES ? t - first : RIT_LANES;
            if (early) sum[t] += x[t * width + i] * y;
            y = scale_first(count, y, vec_set(d[t * width + i]));
            if (!early) sum[t] += x[t * width + i] * y;
        }
    }
#pragma GCC unroll 16
    for (int t = first; t < CHUNK; t++) vec_store(to + t * CHUNK + first, sum[t]);
}

/* to[t, j] = Σ_keys x_t ⊙ D(t, j) ⊙ y_j, or D(t − 1, j) for rows x that read `early`; 0 for j > t, and for j = t if `strict`. */
static void pairs(int early, int strict, struct chunk *c, const real *x, const real *yt, real *to) {
#define FROM(n)                                                              \
    if (n < CHUNK) {                                                         \
        enum { FIRST = n < CHUNK ? n : 0 };                                  \
        if (early) pairs_from(FIRST, 1, c, x, yt, to);                       \
        else pairs_from(FIRST, 0, c, x, yt, to);                             \
    }
    FROM(0) FROM(RIT_LANES) FROM(2 * RIT_LANES) FROM(3 * RIT_LANES)
    FROM(4 * RIT_LANES) FROM(5 * RIT_LANES) FROM(6 * RIT_LANES) FROM(7 * RIT_LANES)
#undef FROM
    for (int t = 0; t < CHUNK; t++)
        for (int j = t + !strict; j < CHUNK; j++) to[t * CHUNK + j] = 0;
}

/* The same for a scalar decay; `bare` without it. */
static void scalar_pairs(int strict, const struct chunk *c, const real *x, const real *yt, real *bare, real *to) {
    product(c->steps, CHUNK, c->width, (struct factor){x, c->width, 1}, yt, CHUNK, SET, bare, CHUNK);
    for (int64_t t = 0; t < c->steps; t++) {
        for (int64_t at = t * CHUNK; at < (t + 1) * CHUNK; at += RIT_LANES)
            vec_store(to + at, vec_load(bare + at) * vec_load(c->between + at));
        if (strict) to[t * CHUNK + t] = 0;
    }
}

/* All that the columns need: the rows have been loaded, and their decays. */
static void chunk_prepare(const struct matrix *x, struct chunk *c) {
    const int64_t mode = x->mode, width = c->width;
    chunk_to_end(x, c);
    chunk_from_start(x, c);
    transpose(c->k, width, c->steps, width, c->kt, CHUNK);
    if (c->scalar) {
        scalar_pairs(0, c, c->q, c->kt, c->bare_qk, c->qk);
        if (mode == DELTA) scalar_pairs(1, c, c->k, c->kt, c->bare_ak, c->ak);
        return;
    }
    pairs(mode == BONUS, mode == BONUS, c, c->q, c->kt, c->qk);
    if (mode == BONUS)
        for (int64_t t = 0; t < c->steps; t++) c->qk[t * CHUNK + t] = c->beta[t];
    if (mode == DELTA) pairs(0, 1, c, c->k, c->kt, c->ak);
    if (mode == DPLR) {
        transpose(c->b, width, c->steps, width, c->bt, CHUNK);
        pairs(0, 0, c, c->q, c->bt, c->qb);
        pairs(1, 1, c, c->a, c->kt, c->ak);
        pairs(1, 1, c, c->a, c->bt, c->ab);
    }
}

#endif
