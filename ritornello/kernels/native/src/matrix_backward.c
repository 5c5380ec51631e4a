/* Matrix states, backward: segments from the last to the first, each between two checkpoints. A unit of work is some columns
 * of one head of one sequence, with all the value heads that read it; it owns its sums, so that no two threads add to one
 * number. What a segment computes is in matrix_walk.h. */
#include "matrix_walk.h"

struct matrix_backward {
    struct matrix x;
    struct acts go;
    struct reals slope;    /* of mLSTM's normaliser with respect to nᵀ q: −1, 0 or 1 */
    int64_t parts;         /* into how many ranges of columns a head is divided; each writes its own sums over columns */
    const real *after;     /* gradient of the last state, (N, Hv, K, V), or null */
    const real *after_n;   /* of mLSTM's n, (N, H, K) */
    real *q, *k, *a, *b;   /* (parts, B, T, H, K) */
    real *v;               /* (B, T, Hv, V) */
    real *beta, *gain;     /* (parts, B, T, Hv); of log gain */
    real *decay, *bonus;   /* (parts, B, T, Hv[, K]); (parts, N, Hv, K) */
    real *before, *before_n;
};

/* ---------------------------------------------------------------------------------- into and out of a segment */

struct place {
    int64_t row, n, part, head, value_head;
};

static void load_rows(const struct matrix *x, struct segment *s, const struct place *p) {
    const int64_t keys = x->keys;
    for (int64_t t = 0; t < s->steps; t++) {
        const int64_t time = s->start + t, at = t * s->width;
        matrix_row(s->q + at, AT(x->q, p->row, time, p->head), keys, (real)x->scale);
        matrix_row(s->k + at, AT(x->k, p->row, time, p->head), keys, x->gain.at ? *AT(x->gain, p->row, time, p->head) : 1);
        if (x->mode == DPLR) {
            matrix_row(s->a + at, AT(x->a, p->row, time, p->head), keys, 1);
            matrix_row(s->b + at, AT(x->b, p->row, time, p->head), keys, 1);
        }
    }
}

static void load_gates(const struct matrix *x, struct segment *s, const struct place *p) {
    for (int64_t t = 0; t < s->steps; t++) {
        const int64_t time = s->start + t, at = t * s->width;
        matrix_decay_row(x, s->d + at, p->row, time, p->value_head);
        if (x->mode == DELTA) {
            s->beta[t] = *AT(x->beta, p->row, time, p->value_head);
            for (int64_t i = at; i < at + s->width; i += RIT_LANES) vec_store(s->a + i, vec_load(s->d + i) * vec_load(s->k + i));
        }
        if (x->mode == BONUS) s->beta[t] = matrix_bonus(x->bonus + p->value_head * x->keys, s->k + at, s->q + at, x->keys);
        s->dbeta[t] = s->vo[t] = 0;
    }
    real *sums[] = {s->dq, s->dk, s->dd, s->da, s->db};
    for (int i = 0; i < 5; i++) memset(sums[i], 0, (size_t)(s->steps * s->width) * sizeof(real));
}

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

static void load_columns(const struct matrix_backward *f, const struct segment *s, struct tile *tile, const struct place *p) {
    const struct matrix *x = &f->x;
    const int64_t columns = rit_min(tile->rows, x->values - tile->first);
    for (int64_t t = 0; t < s->steps; t++) {
        const int64_t time = s->start + t;
        const real norm = x->norm.at ? *AT(x->norm, p->row, time, p->head) : 1;
        const act *v = AT(x->v, p->row, time, p->value_head) + tile->first;
        const act *go = f->go.at ? AT(f->go, p->row, time, p->value_head) + tile->first : 0;
        const real *kept = x->kept ? matrix_kept(x, p->row, time, p->value_head) + tile->first : 0;
        real *to_go = tile->go + t * SPACE, *to_w = tile->w + t * SPACE, *to_r = tile->r + t * SPACE;
        for (int64_t i = 0; i < SPACE; i += RIT_LANES) {
            const int64_t left = rit_max(columns - i, 0);
            vec_store(to_go + i, go && left ? act_load_part(go + i, left) * norm : (vec){0});
            const vec r = kept && left ? vec_load_part(kept + i, left) : (vec){0};
            vec_store(to_w + i, !left ? (vec){0} : x->mode == DELTA ? s->beta[t] * r : act_load_part(v + i, left));
            vec_store(to_r + i, r);
        }
        if (x->ones && columns < tile->rows) {
            to_w[columns] = 1;
            to_go[columns] = go || f->go.at ? normaliser(f, p, time) : 0;
        }
    }
}

/* What one value head adds to the sums of its head, and the gradients that are its own. */
static void finish_value_head(const struct matrix_backward *f, struct segment *s, const struct place *p) {
    const struct matrix *x = &f->x;
    const int64_t rows = x->starts ? 1 : x->sequences, keys = x->keys;
    const real *u = x->bonus ? x->bonus + p->value_head * keys : 0;
    for (int64_t t = 0; t < s->steps; t++) {
        const int64_t at = t * s->width;
        const int64_t gate = ((p->part * rows + p->row) * x->steps + s->start + t) * x->value_heads + p->value_head;
        vec sum_d = {0}, sum_k = {0};
        for (int64_t i = 0; i < keys; i += RIT_LANES) {
            const int64_t here = at + i;
            const vec q = vec_load(s->q + here), k = vec_load(s->k + here), d = vec_load(s->d + here);
            vec dq = vec_load(s->dq + here), dk = vec_load(s->dk + here), dd = vec_load(s->dd + here);
            const vec da = vec_load(s->da + here);
            if (x->mode == DELTA) {
                dk += d * da;
                dd += k * da;
            }
            if (x->mode == BONUS) {
                const vec uv = vec_load_part(u + i, keys - i) * s->vo[t];
                dq += uv * k;
                dk += uv * q;
                if (f->bonus) {
                    real *to = f->bonus + ((p->part * x->sequences + p->n) * x->value_heads + p->value_head) * keys + i;
                    vec_store_part(to, vec_load_part(to, keys - i) + s->vo[t] * k * q, keys - i);
                }
            }
            if (x->logged) dd *= d;
            if (f->decay && x->vector) vec_store_part(f->decay + gate * keys + i, dd, keys - i);
            sum_d += dd;
            sum_k += k * dk;
            vec_store(s->total_q + here, vec_load(s->total_q + here) + dq);
            vec_store(s->total_k + here, vec_load(s->total_k + here) + dk);
            if (x->mode == DPLR) {
                vec_store(s->total_a + here, vec_load(s->total_a + here) + da);
                vec_store(s->total_b + here, vec_load(s->total_b + here) + vec_load(s->db + here));
            }
        }
        if (f->decay && !x->vector) f->decay[gate] = vec_sum(sum_d);
        if (f->beta) f->beta[gate] = s->dbeta[t];
        if (f->gain) f->gain[gate] = vec_sum(sum_k);
    }
}

static void finish_head(const struct matrix_backward *f, const struct segment *s, const struct place *p) {
    const struct matrix *x = &f->x;
    const int64_t rows = x->starts ? 1 : x->sequences, keys = x->keys;
    for (int64_t t = 0; t < s->steps; t++) {
        const int64_t time = s->start + t, at = t * s->width;
        const int64_t to = (((p->part * rows + p->row) * x->steps + time) * x->heads + p->head) * keys;
        const real gain = x->gain.at ? *AT(x->gain, p->row, time, p->head) : 1;
        for (int64_t i = 0; i < keys; i += RIT_LANES) {
            const int64_t left = keys - i;
            if (f->q) vec_store_part(f->q + to + i, (real)x->scale * vec_load(s->total_q + at + i), left);
            if (f->k) vec_store_part(f->k + to + i, gain * vec_load(s->total_k + at + i), left);
            if (f->a) vec_store_part(f->a + to + i, vec_load(s->total_a + at + i), left);
            if (f->b) vec_store_part(f->b + to + i, vec_load(s->total_b + at + i), left);
        }
    }
}

/* --------------------------------------------------------------------------------------------------- the pass */

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

struct range {
    int64_t first, end;
};

/* One value head, one segment: its tiles one after another, then what they sum up to. */
static void run_value_head(const struct matrix_backward *f, struct segment *s, struct tile *tile, const struct place *p,
                           struct range r, int64_t passed, real *gradient, real *dv) {
    const struct matrix *x = &f->x;
    const real *checkpoint = matrix_checkpoint(x, p->n, passed, p->value_head);
    load_gates(x, s, p);
    s->columns.count = 0;
    if (passed) {
        const int64_t time = s->start - x->interval;
        if (x->mode != DELTA) ahead_add(&s->columns, AT(x->v, p->row, time, p->value_head), x->v.t, x->values, sizeof(act));
        if (f->go.at) ahead_add(&s->columns, AT(f->go, p->row, time, p->value_head), f->go.t, x->values, sizeof(act));
        if (x->kept)
            ahead_add(&s->columns, matrix_kept(x, p->row, time, p->value_head), x->value_heads * x->values, x->values, sizeof(real));
    }
    for (tile->first = r.first; tile->first < r.end; tile->first += TILE) {
        tile->rows = rit_min(TILE, r.end - tile->first);
        tile->gradient = gradient + (tile->first - r.first) * s->width;
        memset(tile->across_k, 0, SPACE * sizeof(vec));
        memset(tile->across_b, 0, SPACE * sizeof(vec));
        load_columns(f, s, tile, p);
        run_tile(x->mode, s, tile, checkpoint + tile->first * x->keys, x->keys, dv);
        const int64_t columns = rit_min(tile->rows, x->values - tile->first);
        if (!f->v || columns <= 0) continue;
        for (int64_t t = 0; t < s->steps; t++) {
            real *to = f->v + ((p->row * x->steps + s->start + t) * x->value_heads + p->value_head) * x->values + tile->first;
            memcpy(to, dv + t * SPACE, (size_t)columns * sizeof(real));
        }
    }
    finish_value_head(f, s, p);
}

static real *lay_out(const struct matrix *x, struct segment *s, struct tile *tile, int64_t gradients, real **gradient, real **dv) {
    const int64_t rows = x->interval * s->width, columns = x->interval * SPACE, across = SPACE * RIT_LANES;
    const int64_t states = (BLOCK + 1) * TILE * s->width, kept = rit_divide_up(x->interval, BLOCK) * TILE * s->width;
    real *scratch = rit_scratch(14 * rows + 4 * columns + 2 * across + states + kept + gradients + 3 * x->interval);
    real *at = scratch;
    real **in_rows[] = {&s->q,  &s->k,  &s->d,  &s->a,       &s->b,       &s->dq,      &s->dk,
                        &s->dd, &s->da, &s->db, &s->total_q, &s->total_k, &s->total_a, &s->total_b};
    for (int i = 0; i < 14; i++, at += rows) *in_rows[i] = at;
    tile->across_k = (vec *)at, at += across;
    tile->across_b = (vec *)at, at += across;
    tile->states = at, at += states;
    tile->kept = at, at += kept;
    *gradient = at, at += gradients;
    real **in_columns[] = {&tile->go, &tile->w, &tile->r, dv};
    for (int i = 0; i < 4; i++, at += columns) *in_columns[i] = at;
    s->beta = at, s->dbeta = at + x->interval, s->vo = at + 2 * x->interval;
    return scratch;
}

/* One part of the columns of one head, with all its value heads, of one sequence. */
static void body(void *context, int64_t index) {
    const struct matrix_backward *f = context;
    const struct matrix *x = &f->x;
    const int64_t group = x->value_heads / x->heads, all = x->values + x->ones;
    const int64_t share = rit_divide_up(rit_divide_up(x->values, f->parts), TILE) * TILE;
    struct place p = {.part = index % f->parts, .head = index / f->parts % x->heads, .n = index / f->parts / x->heads};
    const struct rit_span span = rit_span(x->starts, p.n, x->steps);
    p.row = span.row;
    const int64_t first = rit_min(p.part * share, all);
    const struct range r = {first, p.part == f->parts - 1 ? all : rit_min(first + share, all)};
    const int64_t columns = r.end - r.first;

    struct segment s = {.width = matrix_padded(x)};
    struct tile tile;
    real *gradients, *dv, *scratch = lay_out(x, &s, &tile, group * columns * s.width, &gradients, &dv);
    const int64_t states = p.n * x->value_heads + p.head * group;
    for (int64_t j = 0; j < group; j++)
        load_gradient(f, states + j, r.first, r.end, s.width, gradients + j * columns * s.width);
    const int64_t length = span.end - span.start;
    for (int64_t passed = (length - 1) / x->interval * x->interval; passed >= 0 && length; passed -= x->interval) {
        s.start = span.start + passed;
        s.steps = rit_min(x->interval, length - passed);
        load_rows(x, &s, &p);
        s.rows.count = s.columns.count = 0;
        if (passed) ahead_rows(x, &s.rows, p.row, s.start - x->interval, p.head, p.head * group);
        real *totals[] = {s.total_q, s.total_k, s.total_a, s.total_b};
        for (int i = 0; i < 4; i++) memset(totals[i], 0, (size_t)(s.steps * s.width) * sizeof(real));
        for (int64_t j = 0; j < group; j++) {
            p.value_head = p.head * group + j;
            run_value_head(f, &s, &tile, &p, r, passed, gradients + j * columns * s.width, dv);
        }
        finish_head(f, &s, &p);
    }
    for (int64_t j = 0; j < group; j++)
        store_gradient(f, states + j, r.first, r.end, s.width, gradients + j * columns * s.width);
    free(scratch);
}

RIT_ENTRY(matrix_backward)(struct matrix_backward *f) {
    const int64_t items = f->x.sequences * f->x.heads * f->parts;
    const int64_t times = f->x.starts ? f->x.steps : f->x.steps * f->x.sequences;
    rit_parallel_sized(items, times * f->x.value_heads * f->x.keys * f->x.values * 10, body, f);
}
