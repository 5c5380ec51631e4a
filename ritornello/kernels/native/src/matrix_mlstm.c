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

static void body(void *context, int64_t index) {
    const struct mlstm_gates *g = context;
    const struct matrix *x = &g->x;
    const int64_t sequence = index / x->heads, head = index % x->heads, keys = x->keys, width = matrix_padded(x);
    const struct rit_span span = rit_span(x->starts, sequence, x->steps);
    real *n = rit_scratch(width), m = g->m[index];
    memset(n, 0, (size_t)width * sizeof(real));
    memcpy(n, g->n + index * keys, (size_t)keys * sizeof(real));
    for (int64_t time = span.start; time < span.end; time++) {
        const int64_t passed = time - span.start, at = (span.row * x->steps + time) * x->heads + head;
        if (x->checkpoints && passed % x->interval == 0)
            memcpy(matrix_checkpoint(x, sequence, passed, head) + x->values * keys, n, (size_t)keys * sizeof(real));
        const real i = *AT(g->i, span.row, time, head), kept = real_log_sigmoid(*AT(g->f, span.row, time, head)) + m;
        m = kept > i ? kept : i;
        const real gain = real_exp(i - m), decay = real_exp(kept - m), floor = real_exp(-m);
        const act *k = AT(x->k, span.row, time, head), *q = AT(x->q, span.row, time, head);
        vec sum = {0};
        for (int64_t j = 0; j < keys; j += RIT_LANES) {
            const vec y = vec_load(n + j) * decay + act_load_part(k + j, keys - j) * gain;
            vec_store(n + j, y);
            sum += y * act_load_part(q + j, keys - j);
        }
        const real nq = vec_sum(sum) * (real)x->scale, size = nq < 0 ? -nq : nq;
        g->log_decay[at] = kept - m;
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
