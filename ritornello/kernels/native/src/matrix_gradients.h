/* What the backward pass of matrix states is given and works with; and the way of a chunk's rows into it, and of their
 * gradients out of it. */
#ifndef RIT_MATRIX_GRADIENTS_H
#define RIT_MATRIX_GRADIENTS_H

#include "matrix_readers.h"

struct matrix_backward {
    struct matrix x;
    struct acts go;
    struct reals slope;    /* of mLSTM's normaliser with respect to nᵀ q: −1, 0 or 1 */
    int64_t share;         /* columns of a part of a head, a multiple of 16; each part writes its own sums over columns */
    const real *after;     /* gradient of the last state, (N, Hv, K, V), or null */
    const real *after_n;   /* of mLSTM's n, (N, H, K) */
    real *q, *k, *a, *b;   /* (parts, B, T, H, K) */
    real *v;               /* (B, T, Hv, V) */
    real *beta, *gain;     /* (parts, B, Hv, T); of log gain */
    real *decay, *bonus;   /* (parts, B, Hv, T), or (parts, B, T, Hv, K) of vectors; (parts, N, Hv, K) */
    real *before, *before_n;
};

/* Which columns of which head of which sequence. */
struct place {
    int64_t row, n, part, head, value_head, first, end;
};

/* The columns of a chunk, (CHUNK, width), width in whole vectors: ∂o, w, and e of DELTA or r of DPLR; the gradients of w and r;
 * and transposed, (width, CHUNK). */
struct columns {
    int64_t count, width;
    real *go, *w, *r, *dw, *dr;
    real *wt, *rt, *dt;
};

struct work {
    struct chunk chunk;
    struct rows_back rows;
    struct columns columns;
    int64_t start, steps;   /* the segment */
    real *decays;           /* of the segment, (interval, K) */
    real *states;           /* before each of its chunks, (interval / CHUNK, columns, K) */
    real *gradients;        /* G of every value head of every walk, (columns, K) each */
    real *totals[4];        /* of q, k, a, b over the value heads so far, (interval, K) */
};

/* −(∂o · o) · norm · slope: the gradient of nᵀ q, through the normaliser of mLSTM. */
static real normaliser(const struct matrix_backward *f, const struct place *p, int64_t time) {
    const struct matrix *x = &f->x;
    const act *go = AT(f->go, p->row, time, p->value_head);
    const real *o = matrix_kept(x, p->row, time, p->value_head);
    vec sum = {0};
    for (int64_t i = 0; i < x->values; i += RIT_LANES)
        sum += act_load_part(go + i, x->values - i) * vec_load_part(o + i, x->values - i);
    return -vec_sum(sum) * *AT(x->norm, p->row, time, p->head) * *AT(f->slope, p->row, time, p->head);
}

/* The columns of a chunk; without the gradients of what is read, which its end does not ask for. */
static void load_columns(const struct matrix_backward *f, const struct work *w, const struct place *p, int64_t start, int reads) {
    const struct matrix *x = &f->x;
    const struct columns *c = &w->columns;
    const int64_t own = rit_min(p->end, x->values) - p->first; /* the others are mLSTM's n, if it is among these columns */
    for (int64_t t = 0; t < w->chunk.steps; t++) {
        const int64_t time = start + t;
        const real norm = x->norm.at ? *AT(x->norm, p->row, time, p->head) : 1;
        const act *v = AT(x->v, p->row, time, p->value_head) + p->first;
        const act *go = reads && f->go.at ? AT(f->go, p->row, time, p->value_head) + p->first : 0;
        const real *kept = x->kept ? matrix_kept(x, p->row, time, p->value_head) + p->first : 0;
        real *to_go = c->go + t * c->width, *to_w = c->w + t * c->width, *to_r = c->r + t * c->width;
        for (int64_t i = 0; i < c->width; i += RIT_LANES) {
            const int64_t left = rit_max(own - i, 0);
            const vec r = kept && left ? vec_load_part(kept + i, left) : (vec){0};
            if (reads) vec_store(to_go + i, go && left ? act_load_part(go + i, left) * norm : (vec){0});
            vec_store(to_w + i, !left ? (vec){0} : x->mode == DELTA ? w->chunk.beta[t] * r : act_load_part(v + i, left));
            vec_store(to_r + i, r);
        }
        if (own < c->count) {
            to_w[own] = 1;
            to_go[own] = go ? normaliser(f, p, time) : 0;
        }
    }
}

/* The row in (parts, B) of what a part adds to. */
INLINE int64_t part_row(const struct matrix *x, const struct place *p) {
    return p->part * (x->starts ? 1 : x->sequences) + p->row;
}

/* The place in (parts, B, Hv, T) of one number per part, step and value head: head by head, as threads that write to one
 * line of the cache take it from each other at every step. */
INLINE int64_t gate_index(const struct matrix *x, const struct place *p, int64_t time) {
    return (part_row(x, p) * x->value_heads + p->value_head) * x->steps + time;
}

/* Where the gradients of one step lie: of q, k, a and b, of v, and of a decay in every key. */
struct gradient_rows {
    real *keys[4], *v, *decay;
};

INLINE struct gradient_rows gradient_rows(const struct matrix_backward *f, const struct place *p, int64_t time) {
    const struct matrix *x = &f->x;
    const int64_t summed = part_row(x, p) * x->steps + time, own = (p->row * x->steps + time) * x->value_heads + p->value_head;
    real *const of[] = {f->q, f->k, f->a, f->b};
    struct gradient_rows rows = {0};
    for (int i = 0; i < 4; i++) rows.keys[i] = of[i] ? of[i] + (summed * x->heads + p->head) * x->keys : 0;
    if (f->v) rows.v = f->v + own * x->values + p->first;
    if (f->decay) rows.decay = f->decay + (summed * x->value_heads + p->value_head) * x->keys;
    return rows;
}

/* One row of the gradient of q, k, a or b. The value heads of a head are summed: all but the last leave their sum in `total`. */
struct row_sum {
    real *total, *to;
    real factor;
    int first, last;
};

INLINE void row_add(const struct row_sum *s, int64_t i, int64_t keys, vec x) {
    if (!s->first) x += vec_load(s->total + i);
    if (!s->last) vec_store(s->total + i, x);
    else if (s->to) vec_store_part(s->to + i, s->factor * x, keys - i);
}

/* What one value head adds to the sums of its head, and the gradients that are its own. */
static void store_head(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t start) {
    const struct matrix *x = &f->x;
    const struct chunk *c = &w->chunk;
    const struct rows_back *g = &w->rows;
    const int64_t keys = x->keys, width = c->width, sharing = x->value_heads / x->heads, which = p->value_head % sharing;
    const real *u = x->bonus ? x->bonus + p->value_head * keys : 0;
    for (int64_t t = 0; t < c->steps; t++) {
        const int64_t at = t * width, time = start + t, total = (time - w->start) * width, gate = gate_index(x, p, time);
        const struct gradient_rows to = gradient_rows(f, p, time);
        const real vo = g->qk[t * CHUNK + t]; /* v · ∂o, of BONUS */
        const real factor[] = {(real)x->scale, x->gain.at ? *AT(x->gain, p->row, time, p->head) : 1, 1, 1};
        struct row_sum sum[4];
        for (int j = 0; j < 4; j++)
            sum[j] = (struct row_sum){w->totals[j] + total, to.keys[j], factor[j], !which, which + 1 == sharing};
        vec sum_d = {0}, sum_k = {0};
        for (int64_t i = 0; i < keys; i += RIT_LANES) {
            const int64_t here = at + i;
            const vec q = vec_load(c->q + here), k = vec_load(c->k + here);
            vec dq = vec_load(g->q + here), dk = vec_load(g->k + here);
            if (x->mode == BONUS) {
                const vec uv = vec_load_part(u + i, keys - i) * vo;
                dq += uv * k;
                dk += uv * q;
                if (f->bonus) {
                    real *of_u = f->bonus + ((p->part * x->sequences + p->n) * x->value_heads + p->value_head) * keys + i;
                    vec_store_part(of_u, vec_load_part(of_u, keys - i) + vo * k * q, keys - i);
                }
            }
            if (f->decay && !c->scalar) {
                const vec dd = vec_load(g->d + here) * (x->logged ? vec_load(c->d + here) : vec_set(1));
                if (x->vector) vec_store_part(to.decay + i, dd, keys - i);
                sum_d += dd;
            }
            sum_k += k * dk;
            row_add(&sum[0], i, keys, dq);
            row_add(&sum[1], i, keys, dk);
            if (x->mode != DPLR) continue;
            row_add(&sum[2], i, keys, vec_load(g->a + here));
            row_add(&sum[3], i, keys, vec_load(g->b + here));
        }
        if (f->decay && c->scalar) f->decay[gate] = g->d[t] * (x->logged ? c->d[t] : 1);
        else if (f->decay && !x->vector) f->decay[gate] = vec_sum(sum_d);
        if (f->gain) f->gain[gate] = vec_sum(sum_k);
    }
}

static void store_columns(const struct matrix_backward *f, const struct work *w, const struct place *p, int64_t start) {
    const struct matrix *x = &f->x;
    const struct columns *c = &w->columns;
    const int64_t own = rit_min(p->end, x->values) - p->first;
    for (int64_t t = 0; t < w->chunk.steps; t++) {
        const int64_t time = start + t;
        const real *dw = c->dw + t * c->width, *e = c->r + t * c->width;
        const real beta = x->mode == DELTA ? w->chunk.beta[t] : 1;
        if (f->beta) {
            vec sum = {0};
            for (int64_t i = 0; i < c->width; i += RIT_LANES) sum += vec_load(dw + i) * vec_load(e + i);
            f->beta[gate_index(x, p, time)] = vec_sum(sum);
        }
        if (!f->v) continue;
        real *to = gradient_rows(f, p, time).v;
        for (int64_t i = 0; i < own; i += RIT_LANES) vec_store_part(to + i, beta * vec_load(dw + i), own - i);
    }
}

/* The gradient of a state of one value head, columns [first, end): (K, V) outside, (V, K) here; mLSTM's n is the last row. */
static void load_gradient(const struct matrix_backward *f, int64_t index, int64_t first, int64_t end, int64_t width, real *to) {
    const int64_t keys = f->x.keys, values = f->x.values;
    memset(to, 0, (size_t)((end - first) * width) * sizeof(real));
    for (int64_t v = first; v < end; v++) {
        real *row = to + (v - first) * width;
        if (v == values && f->after_n) memcpy(row, f->after_n + index * keys, (size_t)keys * sizeof(real));
        if (v < values && f->after)
            for (int64_t i = 0; i < keys; i++) row[i] = f->after[(index * keys + i) * values + v];
    }
}

static void store_gradient(const struct matrix_backward *f, int64_t index, int64_t first, int64_t end, int64_t width,
                           const real *from) {
    const int64_t keys = f->x.keys, values = f->x.values;
    for (int64_t v = first; v < end; v++) {
        const real *row = from + (v - first) * width;
        if (v == values && f->before_n) memcpy(f->before_n + index * keys, row, (size_t)keys * sizeof(real));
        if (v < values && f->before)
            for (int64_t i = 0; i < keys; i++) f->before[(index * keys + i) * values + v] = row[i];
    }
}

#endif
