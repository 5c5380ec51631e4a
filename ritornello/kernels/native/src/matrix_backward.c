/* Matrix states, backward. Time runs backwards through segments, one between two checkpoints: the states before its chunks
 * are computed again, forwards, then the chunks are walked back. S and its gradient G lie transposed, (V, K), as products
 * want them. A unit of work is some columns of one head of one sequence, with all the value heads that read it; it owns its
 * sums, so that no two threads add to one number.
 *
 * With G the gradient of the state after a chunk, S the state before it (names as in matrix_chunk.h):
 *     ∂ke = w G   ∂be = r G   ∂w = ke Gᵀ + qkᵀ ∂o + akᵀ ∂r   ∂r = be Gᵀ + qbᵀ ∂o + abᵀ ∂r   ∂qs = ∂o S   ∂as = ∂r S
 *     ∂qk = ∂o wᵀ   ∂ak = ∂r wᵀ   ∂qb = ∂o rᵀ   ∂ab = ∂r rᵀ   ∂de = Σ G ⊙ S   G ← de ⊙ G + ∂oᵀ qs + ∂rᵀ as
 * DELTA has ∂v = β ∂w, ∂r = −β ∂w, ∂β = e · ∂w. */
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
    real *gradients;        /* G of every value head, (columns, K) each */
    real *totals[4];        /* of q, k, a, b over the value heads, (interval, K) */
};

/* ------------------------------------------------------------------------------------------- into and out of a chunk */

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

static void load_columns(const struct matrix_backward *f, const struct work *w, const struct place *p, int64_t start) {
    const struct matrix *x = &f->x;
    const struct columns *c = &w->columns;
    const int64_t own = rit_min(p->end, x->values) - p->first; /* the others are mLSTM's n, if it is among these columns */
    for (int64_t t = 0; t < w->chunk.steps; t++) {
        const int64_t time = start + t;
        const real norm = x->norm.at ? *AT(x->norm, p->row, time, p->head) : 1;
        const act *v = AT(x->v, p->row, time, p->value_head) + p->first;
        const act *go = f->go.at ? AT(f->go, p->row, time, p->value_head) + p->first : 0;
        const real *kept = x->kept ? matrix_kept(x, p->row, time, p->value_head) + p->first : 0;
        real *to_go = c->go + t * c->width, *to_w = c->w + t * c->width, *to_r = c->r + t * c->width;
        for (int64_t i = 0; i < c->width; i += RIT_LANES) {
            const int64_t left = rit_max(own - i, 0);
            const vec r = kept && left ? vec_load_part(kept + i, left) : (vec){0};
            vec_store(to_go + i, go && left ? act_load_part(go + i, left) * norm : (vec){0});
            vec_store(to_w + i, !left ? (vec){0} : x->mode == DELTA ? w->chunk.beta[t] * r : act_load_part(v + i, left));
            vec_store(to_r + i, r);
        }
        if (own < c->count) {
            to_w[own] = 1;
            to_go[own] = f->go.at ? normaliser(f, p, time) : 0;
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

/* What one value head adds to the sums of its head, and the gradients that are its own. */
static void store_head(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t start) {
    const struct matrix *x = &f->x;
    const struct chunk *c = &w->chunk;
    const struct rows_back *g = &w->rows;
    const int64_t keys = x->keys, width = c->width;
    const real *u = x->bonus ? x->bonus + p->value_head * keys : 0;
    for (int64_t t = 0; t < c->steps; t++) {
        const int64_t at = t * width, total = (start - w->start + t) * width;
        const int64_t gate = gate_index(x, p, start + t);
        const int64_t decays = ((part_row(x, p) * x->steps + start + t) * x->value_heads + p->value_head) * keys;
        const real vo = g->qk[t * CHUNK + t]; /* v · ∂o, of BONUS */
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
                    real *to = f->bonus + ((p->part * x->sequences + p->n) * x->value_heads + p->value_head) * keys + i;
                    vec_store_part(to, vec_load_part(to, keys - i) + vo * k * q, keys - i);
                }
            }
            if (f->decay && !c->scalar) {
                const vec dd = vec_load(g->d + here) * (x->logged ? vec_load(c->d + here) : vec_set(1));
                if (x->vector) vec_store_part(f->decay + decays + i, dd, keys - i);
                sum_d += dd;
            }
            sum_k += k * dk;
            vec_store(w->totals[0] + total + i, vec_load(w->totals[0] + total + i) + dq);
            vec_store(w->totals[1] + total + i, vec_load(w->totals[1] + total + i) + dk);
            if (x->mode == DPLR) {
                vec_store(w->totals[2] + total + i, vec_load(w->totals[2] + total + i) + vec_load(g->a + here));
                vec_store(w->totals[3] + total + i, vec_load(w->totals[3] + total + i) + vec_load(g->b + here));
            }
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
        real *to = f->v + ((p->row * x->steps + time) * x->value_heads + p->value_head) * x->values + p->first;
        for (int64_t i = 0; i < own; i += RIT_LANES) vec_store_part(to + i, beta * vec_load(dw + i), own - i);
    }
}

static void store_rows(const struct matrix_backward *f, const struct work *w, const struct place *p) {
    const struct matrix *x = &f->x;
    const int64_t keys = x->keys, width = w->chunk.width;
    real *to[] = {f->q, f->k, f->a, f->b};
    for (int64_t t = 0; t < w->steps; t++) {
        const int64_t time = w->start + t;
        const int64_t row = ((part_row(x, p) * x->steps + time) * x->heads + p->head) * keys;
        const real gain = x->gain.at ? *AT(x->gain, p->row, time, p->head) : 1;
        const real factor[] = {(real)x->scale, gain, 1, 1};
        for (int j = 0; j < 4; j++)
            for (int64_t i = 0; to[j] && i < keys; i += RIT_LANES)
                vec_store_part(to[j] + row + i, factor[j] * vec_load(w->totals[j] + t * width + i), keys - i);
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
        if (v == values) memcpy(f->before_n + index * keys, row, (size_t)keys * sizeof(real));
        else
            for (int64_t i = 0; i < keys; i++) f->before[(index * keys + i) * values + v] = row[i];
    }
}

/* --------------------------------------------------------------------------------------------------- one chunk back */

/* ∂w and ∂r, last step first: what a step has read and written goes back to what was written before it. */
static void solve_back(int64_t mode, const struct chunk *k, const struct columns *c) {
    const int64_t width = c->width;
    for (int64_t m = 0; m < width; m += RIT_LANES)
        for (int64_t t = k->steps - 1; t >= 0; t--) {
            vec dw = vec_load(c->dw + t * width + m), dr = mode == DPLR ? vec_load(c->dr + t * width + m) : dw;
            for (int64_t j = t + 1; j < k->steps; j++) {
                const vec y = vec_load(c->dr + j * width + m);
                dw += k->ak[j * CHUNK + t] * y;
                if (mode == DPLR) dr += k->ab[j * CHUNK + t] * y;
            }
            vec_store(c->dw + t * width + m, dw);
            vec_store(c->dr + t * width + m, mode == DPLR ? dr : -k->beta[t] * dw);
        }
}

/* to (steps, columns) ← written Gᵀ + pairsᵀ ∂o: the gradient of what was written, but for what the erasing adds. */
static void written_back(const struct chunk *k, const struct columns *c, const real *written, const real *pairs, real *scratch,
                         const real *gradient, real *to) {
    const int64_t keys = k->width;
    transpose(written, keys, k->steps, keys, scratch, CHUNK);
    product(c->count, CHUNK, keys, (struct factor){gradient, keys, 1}, scratch, CHUNK, SET, 0, c->dt, CHUNK);
    transpose(c->dt, CHUNK, c->count, CHUNK, to, c->width);
    product_triangle(0, k->steps, c->width, (struct factor){pairs, 1, CHUNK}, c->go, c->width, to, c->width);
}

static void columns_back(int64_t mode, struct chunk *k, struct rows_back *g, const struct columns *c, const real *state,
                         real *gradient) {
    const int64_t keys = k->width, steps = k->steps, count = c->count, width = c->width;
    const struct factor go = {c->go, width, 1}, w = {c->w, width, 1}, r = {c->r, width, 1}, dr = {c->dr, width, 1};
    chunk_fetch(k, 2);
    product(steps, keys, count, w, gradient, keys, SET, 0, g->ke, keys);
    chunk_fetch(k, 2);
    if (mode == DPLR) product(steps, keys, count, r, gradient, keys, SET, 0, g->be, keys);
    for (int64_t i = 0; i < keys; i += RIT_LANES) {
        vec sum = {0};
        for (int64_t v = 0; v < count; v++) sum += vec_load(gradient + v * keys + i) * vec_load(state + v * keys + i);
        vec_store(g->de + i, sum);
    }
    written_back(k, c, k->ke, k->qk, k->kt, gradient, c->dw);
    if (mode == DPLR) written_back(k, c, k->be, k->qb, k->bt, gradient, c->dr);
    chunk_fetch(k, 3);
    if (chunk_erases(mode)) solve_back(mode, k, c);
    chunk_fetch(k, 3);

    transpose(c->w, width, steps, width, c->wt, CHUNK);
    product(steps, keys, count, go, state, keys, SET, 0, g->qs, keys);
    chunk_fetch(k, 3);
    product(steps, CHUNK, count, go, c->wt, CHUNK, SET, 0, g->qk, CHUNK);
    chunk_fetch(k, CHUNK);
    product(count, keys, steps, (struct factor){c->go, 1, width}, k->qs, keys, SCALE_COLUMNS, k->de, gradient, keys);
    if (!chunk_erases(mode)) return;
    product(steps, keys, count, dr, state, keys, SET, 0, g->as, keys);
    product(steps, CHUNK, count, dr, c->wt, CHUNK, SET, 0, g->ak, CHUNK);
    product(count, keys, steps, (struct factor){c->dr, 1, width}, k->as, keys, ADD, 0, gradient, keys);
    if (mode != DPLR) return;
    transpose(c->r, width, steps, width, c->rt, CHUNK);
    product(steps, CHUNK, count, go, c->rt, CHUNK, SET, 0, g->qb, CHUNK);
    product(steps, CHUNK, count, dr, c->rt, CHUNK, SET, 0, g->ab, CHUNK);
}

/* --------------------------------------------------------------------------------------------------- the pass */

static void load(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t chunk) {
    const int64_t start = w->start + chunk * CHUNK;
    w->chunk.steps = rit_min(CHUNK, w->steps - chunk * CHUNK);
    w->chunk.d = w->decays + chunk * CHUNK * w->chunk.width;
    chunk_load(&f->x, &w->chunk, &(struct chunk_place){p->row, p->head, p->value_head, start});
    load_columns(f, w, p, start);
}

/* The rows of the segment before, which is next. */
static void look_ahead(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t chunk, int64_t passed) {
    const struct matrix *x = &f->x;
    struct ahead *to = &w->chunk.ahead;
    const int64_t time = w->start - x->interval + chunk * CHUNK, columns = rit_min(p->end, x->values) - p->first;
    w->chunk.fetched = 0, w->chunk.fetchable = passed ? CHUNK : 0;
    if (!passed) return;
    ahead_rows(x, to, p->row, time, p->head, p->value_head);
    if (x->mode != DELTA) ahead_add(to, AT(x->v, p->row, time, p->value_head) + p->first, x->v.t, columns, sizeof(act));
    if (f->go.at) ahead_add(to, AT(f->go, p->row, time, p->value_head) + p->first, f->go.t, columns, sizeof(act));
    if (x->kept)
        ahead_add(to, matrix_kept(x, p->row, time, p->value_head) + p->first, x->value_heads * x->values, columns, sizeof(real));
}

/* One value head through one segment, `passed` steps into its sequence. */
static void run_segment(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t passed, real *gradient) {
    const struct matrix *x = &f->x;
    const struct columns *c = &w->columns;
    const int64_t keys = w->chunk.width, chunks = rit_divide_up(w->steps, CHUNK), size = c->count * keys;
    const real *checkpoint = matrix_checkpoint(x, p->n, passed, p->value_head) + p->first * x->keys;
    for (int64_t v = 0; v < c->count; v++)
        for (int64_t i = 0; i < keys; i += RIT_LANES)
            vec_store(w->states + v * keys + i, vec_load_part(checkpoint + v * x->keys + i, x->keys - i));
    w->chunk.fetchable = w->chunk.fetched = 0;
    for (int64_t j = 0; j < chunks; j++) {
        const struct chunk_place at = {p->row, p->head, p->value_head, w->start + j * CHUNK};
        chunk_decays(x, &at, rit_min(CHUNK, w->steps - j * CHUNK), keys, w->decays + j * CHUNK * keys);
        if (j + 1 == chunks) break;
        real *next = w->states + (j + 1) * size;
        load(f, w, p, j);
        chunk_to_end(x, &w->chunk);
        memcpy(next, next - size, (size_t)size * sizeof(real));
        product(c->count, keys, CHUNK, (struct factor){c->w, 1, c->width}, w->chunk.ke, keys, SCALE_COLUMNS, w->chunk.de, next, keys);
        if (x->mode == DPLR)
            product(c->count, keys, CHUNK, (struct factor){c->r, 1, c->width}, w->chunk.be, keys, ADD, 0, next, keys);
    }
    for (int64_t j = chunks - 1; j >= 0; j--) {
        const int64_t start = w->start + j * CHUNK;
        load(f, w, p, j);
        look_ahead(f, w, p, j, passed);
        chunk_prepare(x, &w->chunk);
        columns_back(x->mode, &w->chunk, &w->rows, c, w->states + j * size, gradient);
        store_columns(f, w, p, start);
        rows_back(x->mode, &w->chunk, &w->rows);
        store_head(f, w, p, start);
    }
}

static void lay_out(const struct matrix *x, struct work *w, int64_t count, int64_t group, struct arena *arena) {
    const int64_t keys = matrix_padded(x), width = rit_divide_up(count, RIT_LANES) * RIT_LANES;
    struct columns *c = &w->columns;
    c->count = count, c->width = width;
    w->chunk.scalar = chunk_is_scalar(x);
    real **columns[] = {&c->go, &c->w, &c->r, &c->dw, &c->dr, &c->wt, &c->rt, &c->dt};
    real **segment[] = {&w->totals[0], &w->totals[1], &w->totals[2], &w->totals[3], &w->decays};
    real **gradients[] = {&w->gradients}, **states[] = {&w->states};
    chunk_lay_out(&w->chunk, keys, arena);
    rows_back_lay_out(&w->rows, keys, arena);
    arena_take(arena, CHUNK * width, 8, columns);
    arena_take(arena, x->interval * keys, 5, segment);
    arena_take(arena, group * count * keys, 1, gradients);
    arena_take(arena, x->interval / CHUNK * count * keys, 1, states);
}

/* Memory for the work, to be freed. */
static real *allocate(const struct matrix *x, struct work *w, int64_t count, int64_t group) {
    struct arena arena = {0};
    lay_out(x, w, count, group, &arena);
    arena.base = rit_scratch(arena.used);
    /* A short chunk leaves the rows behind it as they were: what comes of them is not used, but they are to be numbers. */
    memset(arena.base, 0, (size_t)arena.used * sizeof(real));
    arena.used = 0;
    lay_out(x, w, count, group, &arena);
    return arena.base;
}

static int64_t parts_of(const struct matrix_backward *f) { return rit_divide_up(f->x.values, f->share); }

/* One part of the columns of one head, with all its value heads, of one sequence. */
static void body(void *context, int64_t index) {
    const struct matrix_backward *f = context;
    const struct matrix *x = &f->x;
    const int64_t group = x->value_heads / x->heads, parts = parts_of(f);
    struct place p = {.part = index % parts, .head = index / parts % x->heads, .n = index / parts / x->heads};
    const struct rit_span span = rit_span(x->starts, p.n, x->steps);
    p.row = span.row, p.first = p.part * f->share;
    p.end = p.part == parts - 1 ? x->values + x->ones : p.first + f->share;

    struct work w;
    real *scratch = allocate(x, &w, p.end - p.first, group);
    const int64_t states = p.n * x->value_heads + p.head * group, keys = w.chunk.width, size = (p.end - p.first) * keys;
    for (int64_t j = 0; j < group; j++) load_gradient(f, states + j, p.first, p.end, keys, w.gradients + j * size);
    const int64_t length = span.end - span.start;
    for (int64_t passed = (length - 1) / x->interval * x->interval; passed >= 0 && length; passed -= x->interval) {
        w.start = span.start + passed;
        w.steps = rit_min(x->interval, length - passed);
        for (int i = 0; i < 4; i++) memset(w.totals[i], 0, (size_t)(w.steps * keys) * sizeof(real));
        for (int64_t j = 0; j < group; j++) {
            p.value_head = p.head * group + j;
            run_segment(f, &w, &p, passed, w.gradients + j * size);
        }
        store_rows(f, &w, &p);
    }
    for (int64_t j = 0; j < group; j++) store_gradient(f, states + j, p.first, p.end, keys, w.gradients + j * size);
    free(scratch);
}

RIT_ENTRY(matrix_backward)(struct matrix_backward *f) {
    const int64_t items = f->x.sequences * f->x.heads * parts_of(f);
    const int64_t times = f->x.starts ? f->x.steps : f->x.steps * f->x.sequences;
    rit_parallel_sized(items, times * f->x.value_heads * f->x.keys * f->x.values * 10, body, f);
}
