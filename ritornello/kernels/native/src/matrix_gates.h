/* mLSTM's gates and normaliser, a chunk of steps at a time. What is left of it, once they are known, is linear attention
 * with a scalar decay:
 *
 *     m' = max(log σ(f) + m, i),  log d = log σ(f) + m − m',  gain = e^{i − m'},  n' = d n + gain k,
 *     norm = 1 / (max(|n'ᵀ q|, e^{−m'}) + eps),  slope = ∂ max(|n'ᵀ q|, e^{−m'}) / ∂ n'ᵀ q */
#ifndef RIT_MATRIX_GATES_H
#define RIT_MATRIX_GATES_H

#include "matrix.h"

struct mlstm {
    double eps;
    struct reals i, f;
    const real *n, *m;                     /* (N, H, K), (N, H) */
    real *last_n, *last_m;
    real *log_decay, *gain, *norm, *slope; /* (B, H, T); null where no backward pass will need them */
};

/* The gates of one chunk, and n and m after it. */
struct gates {
    real log_decay[CHUNK], decay[CHUNK], gain[CHUNK], floor[CHUNK], norm[CHUNK], slope[CHUNK];
    real *n, m;
};

/* All but norm and slope. What only m links goes step by step, the functions by lanes. */
static void gates_read(const struct mlstm *x, struct gates *to, int64_t row, int64_t time, int64_t head, int64_t steps) {
    real i[CHUNK] = {0}, log_f[CHUNK] = {0}, m_after[CHUNK] = {0};
    for (int64_t t = 0; t < steps; t++) i[t] = *AT(x->i, row, time + t, head), log_f[t] = *AT(x->f, row, time + t, head);
    for (int64_t t = 0; t < steps; t += RIT_LANES) vec_store(log_f + t, vec_log_sigmoid(vec_load(log_f + t)));
    for (int64_t t = 0; t < steps; t++) {
        const real kept = log_f[t] + to->m;
        to->m = m_after[t] = kept > i[t] ? kept : i[t];
        to->log_decay[t] = kept - to->m;
    }
    for (int64_t t = 0; t < steps; t += RIT_LANES) {
        const vec after = vec_load(m_after + t);
        vec_store(to->decay + t, vec_exp(vec_load(to->log_decay + t)));
        vec_store(to->gain + t, vec_exp(vec_load(i + t) - after));
        vec_store(to->floor + t, vec_exp(-after));
    }
}

/* From scale · q and gain · k, (steps, rows) each. */
static void gates_normalise(const struct mlstm *x, struct gates *to, int64_t steps, int64_t rows, const real *q, const real *k) {
    real nq[CHUNK] = {0};
    for (int64_t t = 0; t < steps; t++, q += rows, k += rows) {
        vec sum = {0};
        for (int64_t j = 0; j < rows; j += RIT_LANES) {
            const vec n = vec_load(to->n + j) * to->decay[t] + vec_load(k + j);
            vec_store(to->n + j, n);
            sum += n * vec_load(q + j);
        }
        nq[t] = vec_sum(sum);
    }
    for (int64_t t = 0; t < steps; t += RIT_LANES) {
        const vec y = vec_load(nq + t), floor = vec_load(to->floor + t), one = vec_set(1);
        const ivec above = vec_abs(y) > floor;
        vec_store(to->norm + t, 1 / (vec_select(above, vec_abs(y), floor) + (real)x->eps));
        vec_store(to->slope + t, vec_select(above, vec_select(y < 0, -one, one), (vec){0}));
    }
}

/* For the backward pass. */
static void gates_keep(const struct mlstm *x, const struct gates *from, int64_t at, int64_t steps) {
    const size_t bytes = (size_t)steps * sizeof(real);
    memcpy(x->log_decay + at, from->log_decay, bytes);
    memcpy(x->gain + at, from->gain, bytes);
    memcpy(x->norm + at, from->norm, bytes);
    memcpy(x->slope + at, from->slope, bytes);
}

#endif
