/* mLSTM: what is left of it is linear attention with a scalar decay, once its gates are known:
 *
 *     m' = max(log σ(f) + m, i),  log d = log σ(f) + m − m',  gain = e^{i − m'},  n' = d n + gain k,
 *     norm = 1 / (max(|n'ᵀ q|, e^{−m'}) + eps),  slope = ∂ max(|n'ᵀ q|, e^{−m'}) / ∂ n'ᵀ q */
#include "matrix.h"

struct mlstm_gates {
    struct matrix x;
    double eps;
    struct reals i, f;
    const real *n, *m;                   /* (N, H, K), (N, H) */
    real *last_n, *last_m;
    real *log_decay, *gain, *norm, *slope; /* (B, T, H) */
};

enum { CHUNK = 16 };

/* The gates of some steps: what only m links goes step by step, the functions by lanes. */
struct gates {
    real log_decay[CHUNK], decay[CHUNK], gain[CHUNK], floor[CHUNK];
};

static real read_gates(const struct mlstm_gates *g, struct gates *to, int64_t row, int64_t time, int64_t steps, int64_t head, real m) {
    real i[CHUNK] = {0}, log_f[CHUNK] = {0}, m_after[CHUNK] = {0};
    for (int64_t t = 0; t < steps; t++) i[t] = *AT(g->i, row, time + t, head), log_f[t] = *AT(g->f, row, time + t, head);
    for (int64_t t = 0; t < steps; t += RIT_LANES) vec_store(log_f + t, vec_log_sigmoid(vec_load(log_f + t)));
    for (int64_t t = 0; t < steps; t++) {
        const real kept = log_f[t] + m;
        m = kept > i[t] ? kept : i[t];
        to->log_decay[t] = kept - m;
        m_after[t] = m;
    }
    for (int64_t t = 0; t < steps; t += RIT_LANES) {
        const vec after = vec_load(m_after + t);
        vec_store(to->decay + t, vec_exp(vec_load(to->log_decay + t)));
        vec_store(to->gain + t, vec_exp(vec_load(i + t) - after));
        vec_store(to->floor + t, vec_exp(-after));
    }
    return m;
}

static void body(void *context, int64_t index) {
    const struct mlstm_gates *g = context;
    const struct matrix *x = &g->x;
    const int64_t sequence = index / x->heads, head = index % x->heads, keys = x->keys, width = matrix_padded(x);
    const struct rit_span span = rit_span(x->starts, sequence, x->steps);
    real *n = rit_scratch(width), m = g->m[index];
    struct gates gates = {0};
    struct ahead ahead = {0};
    memset(n, 0, (size_t)width * sizeof(real));
    memcpy(n, g->n + index * keys, (size_t)keys * sizeof(real));
    for (int64_t time = span.start; time < span.end; time++) {
        const int64_t passed = time - span.start, at = (span.row * x->steps + time) * x->heads + head, t = passed % CHUNK;
        if (t == 0) {
            m = read_gates(g, &gates, span.row, time, rit_min(CHUNK, span.end - time), head, m);
            ahead.count = 0;
            if (time + 2 * CHUNK <= span.end) ahead_rows(x, &ahead, span.row, time + CHUNK, head, head);
        }
        ahead_fetch(&ahead, t, 0, INT64_MAX);
        if (x->checkpoints && passed % x->interval == 0)
            memcpy(matrix_checkpoint(x, sequence, passed, head) + x->values * keys, n, (size_t)keys * sizeof(real));
        const act *k = AT(x->k, span.row, time, head), *q = AT(x->q, span.row, time, head);
        const real decay = gates.decay[t], gain = gates.gain[t], floor = gates.floor[t];
        vec sum = {0};
        for (int64_t j = 0; j < keys; j += RIT_LANES) {
            const vec y = vec_load(n + j) * decay + act_load_part(k + j, keys - j) * gain;
            vec_store(n + j, y);
            sum += y * act_load_part(q + j, keys - j);
        }
        const real nq = vec_sum(sum) * (real)x->scale, size = nq < 0 ? -nq : nq;
        g->log_decay[at] = gates.log_decay[t];
        g->gain[at] = gain;
        g->norm[at] = 1 / ((size > floor ? size : floor) + (real)g->eps);
        g->slope[at] = size > floor ? (nq < 0 ? -1 : 1) : 0;
    }
    memcpy(g->last_n + index * keys, n, (size_t)keys * sizeof(real));
    g->last_m[index] = m;
    free(n);
}

RIT_ENTRY(mlstm_gates)(struct mlstm_gates *g) {
    const int64_t times = g->x.starts ? g->x.steps : g->x.steps * g->x.sequences;
    rit_parallel_sized(g->x.sequences * g->x.heads, times * g->x.heads * (g->x.keys + 100) * 2, body, g);
}
