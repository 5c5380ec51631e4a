/* Matrix states, one segment of the backward pass. Time runs backwards through segments, one between two checkpoints; S and
 * its gradient G lie transposed, (V, K): then only the gradient of what was written, Gᵀ k, is summed across lanes; those of q, k, a, b
 * and d are sums of rows. A tile of rows of one segment is replayed twice: from its checkpoint, keeping every REPLAYed
 * state in the second cache; then, BLOCK by block and last block first, keeping every state in the first cache.
 *
 * With G the gradient of S_t, all that comes after step t included:
 *     ∂q = scale · S_t ∂o     ∂w = Gᵀ k     ∂k = G w     ∂b = G r     ∂r = Gᵀ b     ∂d = rows of G ⊙ S_{t−1}
 *     ∂a = S_{t−1} ∂r         G ← diag(d) G + a ∂rᵀ     and then, for the step before, G ← G + scale · q ∂oᵀ
 * DELTA has a = d ⊙ k, ∂r = −β ∂w, ∂v = β ∂w, ∂β = e · ∂w. */
#ifndef RIT_MATRIX_WALK_H
#define RIT_MATRIX_WALK_H

#include "matrix.h"

/* TILE: columns of S, the rows here. BLOCK: steps whose states are in the first cache at once. SPACE: a tile's rows in whole
 * vectors. REPLAYED: rows replayed at once, enough that no multiply-add waits for another. */
enum { TILE = 16, BLOCK = 4, SPACE = TILE, REPLAYED = 8 };

/* The rows of a segment: its inputs, the sums of one value head, and the totals over the value heads of a head. */
struct segment {
    int64_t start, steps, width; /* width: K, in whole vectors */
    real *q, *k, *d, *a, *b;
    real *dq, *dk, *dd, *da, *db;
    real *total_q, *total_k, *total_a, *total_b;
    real *beta, *dbeta, *vo;     /* one number a step; vo: v · ∂o, of BONUS */
    struct ahead rows, columns;  /* of the segment that comes next, the one before */
};

/* Some columns of the state, in a segment. */
struct tile {
    int64_t first, rows;
    real *gradient;                 /* (rows, width) */
    real *states, *kept;            /* (BLOCK + 1, rows, width); (steps / BLOCK, rows, width) */
    real *go, *w, *r;               /* (steps, SPACE): ∂o, w, and e of DELTA or r of DPLR */
    vec *across_k, *across_b;       /* (SPACE): sums not yet taken across lanes */
};

/* ------------------------------------------------------------------------------------------------------ the replay */

/* From the state before step `start`, `steps` steps onwards; every `every` steps the state goes to `to`, one after another. */
INLINE void replay_rows(const int count, const int dplr, const struct segment *s, const struct tile *x, const real *from,
                        int64_t row, int64_t start, int64_t steps, int64_t every, real *to) {
    const int64_t width = s->width, size = x->rows * width;
    const real *w = x->w + start * SPACE + row, *r = x->r + start * SPACE + row;
    from += row * width, to += row * width;
    for (int64_t i = 0; i < width; i += RIT_LANES) {
        const int64_t at = start * width + i;
        const real *d = s->d + at, *k = s->k + at, *b = s->b + at;
        vec state[REPLAYED];
#pragma GCC unroll 8
        for (int j = 0; j < count; j++) state[j] = vec_load(from + j * width + i);
        for (int64_t t = 0, n = 0; n < steps; n += every) {
            for (const int64_t end = t + every; t < end; t++) {
                const vec dt = vec_load(d + t * width), kt = vec_load(k + t * width);
#pragma GCC unroll 8
                for (int j = 0; j < count; j++) {
                    state[j] = state[j] * dt + w[t * SPACE + j] * kt;
                    if (dplr) state[j] += r[t * SPACE + j] * vec_load(b + t * width);
                }
            }
            real *next = to + n / every * size + i;
#pragma GCC unroll 8
            for (int j = 0; j < count; j++) vec_store(next + j * width, state[j]);
        }
    }
}

INLINE void replay(const int dplr, const struct segment *s, const struct tile *x, const real *from, int64_t start,
                   int64_t steps, int64_t every, real *to) {
    int64_t row = 0;
    for (; row + REPLAYED <= x->rows; row += REPLAYED) replay_rows(REPLAYED, dplr, s, x, from, row, start, steps, every, to);
    for (; row + 2 <= x->rows; row += 2) replay_rows(2, dplr, s, x, from, row, start, steps, every, to);
    for (; row < x->rows; row++) replay_rows(1, dplr, s, x, from, row, start, steps, every, to);
}

/* ------------------------------------------------------------------------------------------------- one step back */

/* The sums over the columns of a tile, `n` vectors of keys from key i on. old and new are S before and after the step. */
INLINE void meet(const int n, const int mode, const struct segment *s, const struct tile *x, int64_t t, int64_t i,
                 const real *old, const real *new) {
    const int64_t width = s->width, at = t * width + i;
    const real *go = x->go + t * SPACE, *w = x->w + t * SPACE, *r = x->r + t * SPACE;
    /* Their own names: a store to them cannot change what the loops below read, which the compiler does not know of x. */
    real *restrict gradient = x->gradient + i;
    vec *restrict sums_k = x->across_k, *restrict sums_b = x->across_b;
    const int64_t rows = x->rows;
    old += i, new += i;
    vec q[4], k[4], d[4], b[4], dq[4], dk[4], dd[4], db[4];
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
        const int64_t here = at + j * RIT_LANES;
        q[j] = vec_load(s->q + here), k[j] = vec_load(s->k + here), d[j] = vec_load(s->d + here);
        dq[j] = vec_load(s->dq + here), dk[j] = vec_load(s->dk + here), dd[j] = vec_load(s->dd + here);
        if (mode == DPLR) b[j] = vec_load(s->b + here), db[j] = vec_load(s->db + here);
    }
    for (int64_t row = 0; row < rows; row++, gradient += width, old += width, new += width) {
        const vec gi = matrix_spread(go[row]), wi = matrix_spread(w[row]), ri = mode == DPLR ? matrix_spread(r[row]) : wi;
        vec across_k = {0}, across_b = {0};
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            real *place = gradient + j * RIT_LANES;
            const vec before = vec_load(old + j * RIT_LANES);
            vec g = vec_load(place);
            if (mode != BONUS) g += gi * q[j];
            dq[j] += gi * (mode == BONUS ? before : vec_load(new + j * RIT_LANES));
            dk[j] += wi * g;
            dd[j] += g * before;
            across_k += g * k[j];
            if (mode == DPLR) {
                db[j] += ri * g;
                across_b += g * b[j];
            }
            if (mode == LINEAR || mode == BONUS) g *= d[j];
            if (mode == BONUS) g += gi * q[j];
            vec_store(place, g);
        }
        sums_k[row] = i ? sums_k[row] + across_k : across_k;
        if (mode == DPLR) sums_b[row] = i ? sums_b[row] + across_b : across_b;
    }
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
        const int64_t here = at + j * RIT_LANES;
        vec_store(s->dq + here, dq[j]), vec_store(s->dk + here, dk[j]), vec_store(s->dd + here, dd[j]);
        if (mode == DPLR) vec_store(s->db + here, db[j]);
    }
}

/* Through the read of the old state: ∂a += S ∂r, G ← diag(d) G + a ∂rᵀ. */
INLINE void erase(const int n, const struct segment *s, const struct tile *x, int64_t t, int64_t i, const real *old,
                  const real *dr) {
    const int64_t at = t * s->width + i;
    vec a[4], d[4], da[4];
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
        const int64_t here = at + j * RIT_LANES;
        a[j] = vec_load(s->a + here), d[j] = vec_load(s->d + here), da[j] = vec_load(s->da + here);
    }
    real *restrict gradient = x->gradient + i;
    const int64_t rows = x->rows, width = s->width;
    old += i;
    for (int64_t row = 0; row < rows; row++, gradient += width, old += width) {
        const vec dri = matrix_spread(dr[row]);
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            real *place = gradient + j * RIT_LANES;
            da[j] += dri * vec_load(old + j * RIT_LANES);
            vec_store(place, d[j] * vec_load(place) + dri * a[j]);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) vec_store(s->da + at + j * RIT_LANES, da[j]);
}

/* As many keys at a time as the sums have registers for. */
#if RIT_BYTES == 64
#define FOR_KEYS(call)                                                \
    for (int64_t i = 0, left; (left = s->width - i) > 0;) {           \
        if (left >= 4 * RIT_LANES) { enum { N = 4 }; call; i += N * RIT_LANES; } \
        else if (left >= 2 * RIT_LANES) { enum { N = 2 }; call; i += N * RIT_LANES; } \
        else { enum { N = 1 }; call; i += N * RIT_LANES; }            \
    }
#else
#define FOR_KEYS(call)                                                \
    for (int64_t i = 0, left; (left = s->width - i) > 0;) {           \
        if (left >= 2 * RIT_LANES) { enum { N = 2 }; call; i += N * RIT_LANES; } \
        else { enum { N = 1 }; call; i += N * RIT_LANES; }            \
    }
#endif

/* Lane l of the result is the sum of the lanes of x[l]; x is used up. */
INLINE vec sum_lanes(vec *x) {
#if defined(__clang__)
    vec y;
    for (int l = 0; l < RIT_LANES; l++) y[l] = vec_sum(x[l]);
    return y;
#else
    ivec lane;
#pragma GCC unroll 16
    for (int l = 0; l < RIT_LANES; l++) lane[l] = l;
#pragma GCC unroll 4
    for (int width = 1; width < RIT_LANES; width *= 2) {
        const ivec upper = (lane & width) != 0;
        const ivec first = (lane & ~width) + (upper & RIT_LANES), second = (lane | width) + (upper & RIT_LANES);
#pragma GCC unroll 8
        for (int i = 0; i < RIT_LANES / width / 2; i++)
            x[i] = __builtin_shuffle(x[2 * i], x[2 * i + 1], first) + __builtin_shuffle(x[2 * i], x[2 * i + 1], second);
    }
    return x[0];
#endif
}

static void sums_across(const vec *from, int64_t rows, real *to) {
    for (int64_t row = 0; row < rows; row += RIT_LANES) {
        vec x[RIT_LANES];
#pragma GCC unroll 16
        for (int l = 0; l < RIT_LANES; l++) x[l] = from[row + l];
        vec_store(to + row, sum_lanes(x));
    }
}

INLINE void step_back(const int mode, const struct segment *s, const struct tile *x, int64_t t, const real *old,
                      const real *new, real *dv) {
    real dw[SPACE], dr[SPACE];
    FOR_KEYS(meet(N, mode, s, x, t, i, old, new));
    sums_across(x->across_k, x->rows, dw);
    if (mode == DPLR) sums_across(x->across_b, x->rows, dr);
    if (mode == DELTA) {
        vec dbeta = {0};
        for (int64_t j = 0; j < x->rows; j += RIT_LANES) {
            const vec y = vec_load(dw + j), weighted = s->beta[t] * y;
            dbeta += y * vec_load(x->r + t * SPACE + j);
            vec_store(dw + j, weighted);
            vec_store(dr + j, -weighted);
        }
        s->dbeta[t] += vec_sum(dbeta);
    }
    if (mode == BONUS) {
        vec vo = {0};
        for (int64_t j = 0; j < x->rows; j += RIT_LANES) {
            const vec go = vec_load(x->go + t * SPACE + j);
            vec_store(dw + j, vec_load(dw + j) + s->beta[t] * go);
            vo += go * vec_load(x->w + t * SPACE + j);
        }
        s->vo[t] += vec_sum(vo);
    }
    memcpy(dv, dw, (size_t)x->rows * sizeof(real));
    if (mode == DELTA || mode == DPLR) FOR_KEYS(erase(N, s, x, t, i, old, dr));
}

/* A tile through a segment: its states are replayed, then it is walked back. dv: (steps, SPACE). */
INLINE void walk_back(const int mode, const struct segment *s, const struct tile *x, const real *checkpoint, int64_t stride,
                      real *dv) {
    const int64_t size = x->rows * s->width, last = (s->steps - 1) / BLOCK * BLOCK;
    for (int64_t row = 0; row < x->rows; row++) {
        real *to = x->kept + row * s->width;
        for (int64_t i = 0; i < s->width; i += RIT_LANES)
            vec_store(to + i, vec_load_part(checkpoint + row * stride + i, stride - i));
    }
    replay(mode == DPLR, s, x, x->kept, 0, last, BLOCK, x->kept + size);
    for (int64_t start = last; start >= 0; start -= BLOCK) {
        const int64_t steps = rit_min(BLOCK, s->steps - start);
        const real *first = x->kept + start / BLOCK * size;
        replay(mode == DPLR, s, x, first, start, steps, 1, x->states + size);
        for (int64_t t = start + steps - 1; t >= start; t--) {
            const real *old = t == start ? first : x->states + (t - start) * size;
            ahead_fetch(&s->rows, t, x->first * sizeof(real), (x->first + TILE) * sizeof(real));
            ahead_fetch(&s->columns, t, x->first * sizeof(real), (x->first + TILE) * sizeof(real));
            step_back(mode, s, x, t, old, x->states + (t - start + 1) * size, dv + t * SPACE);
        }
    }
}

static void run_tile(int64_t mode, const struct segment *s, const struct tile *x, const real *checkpoint, int64_t stride,
                     real *dv) {
    switch (mode) {
        case LINEAR: walk_back(LINEAR, s, x, checkpoint, stride, dv); break;
        case BONUS: walk_back(BONUS, s, x, checkpoint, stride, dv); break;
        case DELTA: walk_back(DELTA, s, x, checkpoint, stride, dv); break;
        default: walk_back(DPLR, s, x, checkpoint, stride, dv);
    }
}

#endif
