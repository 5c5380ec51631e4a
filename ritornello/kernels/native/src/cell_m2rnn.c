/* M²RNN: S ← f S + (1 − f) tanh(S W + k vᵀ), o = Sᵀ q. An item is one sequence and one value head. The trace keeps S
 * before every SEGMENT-th step; the backward pass runs a segment forward again from there. */
#include "cell_product.h"

enum { SEGMENT = 16 };

/* Every field is 8 bytes. Tensors without strides are contiguous; absent ones are null. */
struct m2rnn {
    int64_t rows, steps, heads, group, K, V; /* value heads; value heads per head of q and k */
    const int64_t *starts;
    const act *q, *k, *v;
    int64_t q_stride[3], k_stride[3], v_stride[3]; /* of row, time and head */
    const real *f;                                 /* (B, T, heads) */
    const act *weight;                             /* (heads, V, V) [head, in, out] */
    const real *state;                             /* (rows, heads, K, V) */
    act *o;                                        /* (B, T, heads, V) */
    real *last, *trace;                            /* trace: (slots, heads, K, V) */
    const act *grad;                               /* of o */
    const real *dlast;
    act *dq, *dk, *dv; /* (B, T, heads, K or V) */
    real *df, *dweight, *dstate;
};

/* One item, with its scratch. Matrices over V have `padded` columns, zero beyond V. */
struct m2rnn_item {
    const struct m2rnn *a;
    struct rit_span span;
    int64_t index, head, padded, matrix, slot;
    const real *w;
    real *v, *gradient; /* one time's v and gradient of o, padded */
};

INLINE struct m2rnn_item m2rnn_item(const struct m2rnn *a, int64_t item) {
    struct m2rnn_item it = {.a = a, .index = item / a->heads, .head = item % a->heads};
    it.span = rit_span(a->starts, it.index, a->steps);
    it.padded = rit_divide_up(a->V, CELL_PANEL) * CELL_PANEL;
    it.matrix = a->K * it.padded;
    it.slot = a->starts ? it.span.start / SEGMENT + it.index : it.index * rit_divide_up(a->steps, SEGMENT);
    return it;
}

/* Place of this head at time t in a tensor (B, T, heads). */
INLINE int64_t m2rnn_place(const struct m2rnn_item *it, int64_t t) {
    return (it->span.row * it->a->steps + t) * it->a->heads + it->head;
}

INLINE const act *m2rnn_at(const struct m2rnn_item *it, const act *x, const int64_t *stride, int64_t head, int64_t t) {
    return x + it->span.row * stride[0] + t * stride[1] + head * stride[2];
}

INLINE void m2rnn_widen(real *to, const act *from, int64_t count) {
    for (int64_t j = 0; j < count; j += RIT_LANES) vec_store(to + j, cell_load(from + j, count - j));
}

/* Rows of V numbers to rows of `padded`, and back. Nothing where there is no `from`: zeros. */
INLINE void m2rnn_pad(const struct m2rnn_item *it, real *to, const real *from) {
    memset(to, 0, (size_t)it->matrix * sizeof *to);
    for (int64_t r = 0; from && r < it->a->K; r++)
        memcpy(to + r * it->padded, from + r * it->a->V, (size_t)it->a->V * sizeof *to);
}

INLINE void m2rnn_trim(const struct m2rnn_item *it, real *to, const real *from, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * it->a->V, from + r * it->padded, (size_t)it->a->V * sizeof *to);
}

/* out = rows · w for all rows of a matrix over V. */
INLINE void m2rnn_product(const struct m2rnn_item *it, const real *rows, const real *w, real *out) {
    cell_product_packed(it->a->K, it->a->V, it->padded / CELL_PANEL, rows, it->padded, w, out, it->padded);
}

/* From S to `next` (which may be S), with z = tanh(S W + k vᵀ) on the way; o where it is asked for. */
static void m2rnn_step(const struct m2rnn_item *it, int64_t t, const real *S, real *z, real *next, act *o) {
    const struct m2rnn *a = it->a;
    const act *q = m2rnn_at(it, a->q, a->q_stride, it->head / a->group, t);
    const act *k = m2rnn_at(it, a->k, a->k_stride, it->head / a->group, t);
    m2rnn_widen(it->v, m2rnn_at(it, a->v, a->v_stride, it->head, t), a->V);
    m2rnn_product(it, S, it->w, z);
    const real f = a->f[m2rnn_place(it, t)];
    for (int64_t j = 0; j < a->V; j += RIT_LANES) {
        const vec v = vec_load(it->v + j);
        vec read = {0};
        for (int64_t r = 0; r < a->K; r++) {
            const int64_t at = r * it->padded + j;
            const vec candidate = cell_tanh(vec_load(z + at) + act_get(k + r) * v);
            const vec S_new = f * vec_load(S + at) + (1 - f) * candidate;
            vec_store(z + at, candidate);
            vec_store(next + at, S_new);
            read += act_get(q + r) * S_new;
        }
        if (o) cell_store(o + j, read, a->V - j);
    }
}

INLINE void m2rnn_pack(const struct m2rnn_item *it, int transposed, real *to) {
    const int64_t V = it->a->V;
    for (int64_t tile = 0; tile < it->padded / CELL_PANEL; tile++)
        cell_pack(it->a->weight + it->head * V * V, transposed ? 1 : V, transposed ? V : 1, V, V, tile,
                  to + tile * V * CELL_PANEL);
}

static void m2rnn_forward_item(void *context, int64_t item) {
    struct m2rnn_item it = m2rnn_item(context, item);
    const struct m2rnn *a = it.a;
    real *scratch = rit_scratch(2 * it.matrix + (a->V + 1) * it.padded);
    real *S = scratch, *z = S + it.matrix, *w = z + it.matrix;
    it.v = w + a->V * it.padded;
    it.w = w;
    memset(it.v, 0, (size_t)it.padded * sizeof(real));
    m2rnn_pack(&it, 0, w);
    m2rnn_pad(&it, S, a->state + item * a->K * a->V);
    memset(z, 0, (size_t)it.matrix * sizeof(real));
    for (int64_t t = it.span.start; t < it.span.end; t++) {
        const int64_t done = t - it.span.start;
        if (a->trace && done % SEGMENT == 0)
            m2rnn_trim(&it, a->trace + ((it.slot + done / SEGMENT) * a->heads + it.head) * a->K * a->V, S, a->K);
        m2rnn_step(&it, t, S, z, S, a->o + m2rnn_place(&it, t) * a->V);
    }
    m2rnn_trim(&it, a->last + item * a->K * a->V, S, a->K);
    free(scratch);
}

/* One time backward. dS comes as the gradient of S and leaves as that of `before` without the product's share; z leaves
 * as the gradient of S W + k vᵀ. */
static void m2rnn_reverse(const struct m2rnn_item *it, int64_t t, const real *before, const real *after, real *z,
                          real *dS) {
    const struct m2rnn *a = it->a;
    const int64_t place = m2rnn_place(it, t);
    const act *q = m2rnn_at(it, a->q, a->q_stride, it->head / a->group, t);
    const act *k = m2rnn_at(it, a->k, a->k_stride, it->head / a->group, t);
    const real f = a->f[place];
    m2rnn_widen(it->v, m2rnn_at(it, a->v, a->v_stride, it->head, t), a->V);
    if (a->grad) m2rnn_widen(it->gradient, a->grad + place * a->V, a->V);
    vec df = {0};
    for (int64_t r = 0; r < a->K; r++) {
        vec dq = {0}, dk = {0};
        for (int64_t j = 0; j < a->V; j += RIT_LANES) {
            const int64_t at = r * it->padded + j;
            const vec candidate = vec_load(z + at), gradient = vec_load(it->gradient + j);
            const vec d = vec_load(dS + at) + act_get(q + r) * gradient;
            const vec inner = (1 - f) * d * (1 - candidate * candidate);
            dq += vec_load(after + at) * gradient;
            dk += inner * vec_load(it->v + j);
            df += d * (vec_load(before + at) - candidate);
            vec_store(z + at, inner);
            vec_store(dS + at, f * d);
        }
        act_put(a->dq + place * a->K + r, vec_sum(dq));
        act_put(a->dk + place * a->K + r, vec_sum(dk));
    }
    a->df[place] = vec_sum(df);
    for (int64_t j = 0; j < a->V; j += RIT_LANES) {
        vec dv = {0};
        for (int64_t r = 0; r < a->K; r++) dv += act_get(k + r) * vec_load(z + r * it->padded + j);
        cell_store(a->dv + place * a->V + j, dv, a->V - j);
    }
}

static void m2rnn_backward_item(void *context, int64_t item) {
    struct m2rnn_item it = m2rnn_item(context, item);
    const struct m2rnn *a = it.a;
    const int64_t weight = a->V * it.padded, total = (2 * SEGMENT + 3) * it.matrix + 3 * weight + 2 * it.padded;
    real *scratch = rit_scratch(total);
    memset(scratch, 0, (size_t)total * sizeof(real));
    real *S = scratch, *z = S + (SEGMENT + 1) * it.matrix, *dS = z + SEGMENT * it.matrix, *through = dS + it.matrix;
    real *w = through + it.matrix, *turned = w + weight, *dW = turned + weight;
    it.v = dW + weight;
    it.gradient = it.v + it.padded;
    it.w = w;
    m2rnn_pack(&it, 0, w);
    m2rnn_pack(&it, 1, turned);
    m2rnn_pad(&it, dS, a->dlast ? a->dlast + item * a->K * a->V : 0);
    const int64_t length = it.span.end - it.span.start;
    for (int64_t segment = rit_divide_up(length, SEGMENT) - 1; segment >= 0; segment--) {
        const int64_t first = it.span.start + segment * SEGMENT, count = rit_min(SEGMENT, it.span.end - first);
        m2rnn_pad(&it, S, a->trace + ((it.slot + segment) * a->heads + it.head) * a->K * a->V);
        for (int64_t t = 0; t < count; t++)
            m2rnn_step(&it, first + t, S + t * it.matrix, z + t * it.matrix, S + (t + 1) * it.matrix, 0);
        for (int64_t t = count - 1; t >= 0; t--) {
            m2rnn_reverse(&it, first + t, S + t * it.matrix, S + (t + 1) * it.matrix, z + t * it.matrix, dS);
            m2rnn_product(&it, z + t * it.matrix, turned, through);
            for (int64_t j = 0; j < it.matrix; j += RIT_LANES) vec_store(dS + j, vec_load(dS + j) + vec_load(through + j));
        }
        /* The weight's gradient: Σ Sᵀ dz over the rows of all the segment's times. */
        for (int64_t r = 0; r < a->V; r += CELL_ROWS)
            cell_product(rit_min(CELL_ROWS, a->V - r), count * a->K, it.padded / CELL_PANEL, 1,
                         (struct cell_rows){S + r, 1, it.padded}, (struct cell_panels){z, CELL_PANEL, it.padded},
                         dW + r * it.padded, it.padded);
    }
    m2rnn_trim(&it, a->dstate + item * a->K * a->V, dS, a->K);
    m2rnn_trim(&it, a->dweight + item * a->V * a->V, dW, a->V);
    free(scratch);
}

INLINE int64_t m2rnn_work(const struct m2rnn *a) {
    return (a->starts ? a->steps : a->rows * a->steps) * a->heads * a->K * a->V * a->V;
}

RIT_ENTRY(m2rnn)(const struct m2rnn *a) {
    rit_parallel_sized(a->rows * a->heads, m2rnn_work(a), m2rnn_forward_item, (void *)a);
}

RIT_ENTRY(m2rnn_backward)(const struct m2rnn *a) {
    rit_parallel_sized(a->rows * a->heads, 3 * m2rnn_work(a), m2rnn_backward_item, (void *)a);
}
