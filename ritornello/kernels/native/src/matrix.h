/* Recurrences with a matrix state S (K × V), all of the form
 *
 *     S_t = diag(d_t) S_{t−1} + b_t r_tᵀ + k_t w_tᵀ,   o_t = scale · S_tᵀ q_t
 *
 * LINEAR  w = v, no r                                            linear attention, mLSTM
 * BONUS   the same, read before the update: o = scale · (S_{t−1} + diag(u) k vᵀ)ᵀ q
 * DELTA   w = β e with the error e = v − S_{t−1}ᵀ (d ⊙ k), no r   the delta rule
 * DPLR    w = v, r = S_{t−1}ᵀ a
 *
 * Every column of S evolves by itself, so a tile of columns is a unit of work and stays in the first cache. */
#ifndef RIT_MATRIX_H
#define RIT_MATRIX_H

#include "functions.h"

enum matrix_mode { LINEAR, BONUS, DELTA, DPLR };
enum { CHUNK = 16 }; /* steps whose rows are prepared at once */

/* (B, T, heads, ·) with the last dimension contiguous; strides in elements. `at` is null for an absent tensor. */
struct acts {
    act *at;
    int64_t b, t, h;
};
struct reals {
    real *at;
    int64_t b, t, h;
};

#define AT(x, row, time, head) ((x).at + (row) * (x).b + (time) * (x).t + (head) * (x).h)

/* What the forward and the backward pass are both given. */
struct matrix {
    int64_t mode, sequences, steps, heads, value_heads, keys, values;
    int64_t vector, logged; /* the decay: one per key, or per head; log d, or d */
    int64_t ones;           /* the checkpoints have one more column, of v = 1: mLSTM's normaliser */
    int64_t interval;       /* of the checkpoints, in steps */
    const int64_t *starts;
    double scale;
    struct acts q, k, v, a, b;
    struct reals beta, decay;
    struct reals gain, norm; /* factors of k and of o, one per head: mLSTM's, for its backward pass */
    const real *bonus;       /* u, (Hv, K) */
    real *checkpoints;       /* S before every `interval` steps, (slot, Hv, V, K): transposed, as the backward has it */
    real *kept;              /* (B, T, Hv, V): e of DELTA, r of DPLR, o of mLSTM */
};

/* A thread goes TURN steps with each of up to GROUP heads (or tiles of columns) in turn. The rows of one head lie pages apart;
 * the heads beside it find the pages known and the rows near. */
enum { GROUP = 4, TURN = 64 };

/* How many in turn, of so many: as many as leave every thread its own. */
INLINE int64_t matrix_group(int64_t items) { return rit_max(1, rit_min(GROUP, items / rit_threads())); }

/* x in every lane of a register. Without the empty instruction the compiler reads x from memory again at each use, and the
 * loops are then bound by their loads. */
INLINE vec matrix_spread(real x) {
    vec y = vec_set(x);
#if defined(__AVX512F__)
    __asm__("" : "+v"(y));
#elif defined(__AVX2__)
    __asm__("" : "+x"(y));
#endif
    return y;
}

INLINE int64_t matrix_padded(const struct matrix *x) { return rit_divide_up(x->keys, RIT_LANES) * RIT_LANES; }

/* The checkpoint of sequence n before step `time` of it, a multiple of the interval. */
INLINE real *matrix_checkpoint(const struct matrix *x, int64_t n, int64_t time, int64_t head) {
    const int64_t slot = rit_first_slot(x->starts, n, x->steps, x->interval) + time / x->interval;
    return x->checkpoints + (slot * x->value_heads + head) * (x->values + x->ones) * x->keys;
}

INLINE real *matrix_kept(const struct matrix *x, int64_t row, int64_t time, int64_t head) {
    return x->kept + ((row * x->steps + time) * x->value_heads + head) * x->values;
}

/* factor · from, followed by zeros up to whole vectors. */
INLINE void matrix_row(real *to, const act *from, int64_t count, real factor) {
    for (int64_t i = 0; i < count; i += RIT_LANES) vec_store(to + i, act_load_part(from + i, count - i) * factor);
}

/* The decays of one step, in every key; where there is none, 1. */
INLINE void matrix_decay_row(const struct matrix *x, real *to, int64_t row, int64_t time, int64_t head) {
    const real *d = x->decay.at ? AT(x->decay, row, time, head) : 0;
    if (x->vector) {
        for (int64_t i = 0; i < x->keys; i += RIT_LANES) {
            const vec y = vec_load_part(d + i, x->keys - i);
            vec_store(to + i, x->logged ? vec_exp(y) : y);
        }
    } else {
        const vec y = vec_set(d ? (x->logged ? real_exp(*d) : *d) : 1);
        for (int64_t i = 0; i < x->keys; i += RIT_LANES) vec_store(to + i, y);
    }
}

/* Rows that will be read or written soon. Those of one head lie too far apart in memory for the processor to foresee them, and
 * waiting for them cost as much time as the recurrence itself; a write waits as a read does, as its line is brought first. */
struct ahead {
    const char *at[16];
    int64_t stride[16], bytes[16];
    int count;
};

INLINE void ahead_add(struct ahead *x, const void *at, int64_t stride, int64_t count, int64_t size) {
    if (at) x->at[x->count] = at, x->stride[x->count] = stride * size, x->bytes[x->count++] = count * size;
}

/* Fetch the rows of step t, the bytes from `first` to `end`. */
INLINE void ahead_fetch(const struct ahead *x, int64_t t, int64_t first, int64_t end) {
    for (int i = 0; i < x->count; i++)
        for (int64_t j = first; j < rit_min(end, x->bytes[i]); j += 64) __builtin_prefetch(x->at[i] + t * x->stride[i] + j);
}

/* The rows of a head from `time` on that both passes read. */
INLINE void ahead_rows(const struct matrix *x, struct ahead *to, int64_t row, int64_t time, int64_t head, int64_t value_head) {
    to->count = 0;
    ahead_add(to, AT(x->q, row, time, head), x->q.t, x->keys, sizeof(act));
    ahead_add(to, AT(x->k, row, time, head), x->k.t, x->keys, sizeof(act));
    if (x->mode == DPLR) {
        ahead_add(to, AT(x->a, row, time, head), x->a.t, x->keys, sizeof(act));
        ahead_add(to, AT(x->b, row, time, head), x->b.t, x->keys, sizeof(act));
    }
    if (x->vector) ahead_add(to, AT(x->decay, row, time, value_head), x->decay.t, x->keys, sizeof(real));
}

/* Σ u k q of one step: how much of v the bonus adds to o. */
INLINE real matrix_bonus(const real *u, const real *k, const real *q, int64_t keys) {
    vec sum = {0};
    for (int64_t i = 0; i < keys; i += RIT_LANES) sum += vec_load_part(u + i, keys - i) * vec_load(k + i) * vec_load(q + i);
    return vec_sum(sum);
}

#endif
