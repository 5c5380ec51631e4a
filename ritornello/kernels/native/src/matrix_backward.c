/* Matrix states, backward. Time runs backwards through segments, one between two checkpoints; S and its gradient G lie
 * transposed, (V, K), because then only the gradient of what was written, Gᵀ k, is summed across lanes, and those of q, k, a, b
 * and d are sums of rows. A tile of rows of one segment is replayed twice: from its checkpoint, keeping every REPLAYed
 * state in the second cache; then, BLOCK by block and last block first, keeping every state in the first cache.
 *
 * With G the gradient of S_t, all that comes after step t included:
 *     ∂q = scale · S_t ∂o     ∂w = Gᵀ k     ∂k = G w     ∂b = G r     ∂r = Gᵀ b     ∂d = rows of G ⊙ S_{t−1}
 *     ∂a = S_{t−1} ∂r         G ← diag(d) G + a ∂rᵀ     and then, for the step before, G ← G + scale · q ∂oᵀ
 * DELTA has a = d ⊙ k, ∂r = −β ∂w, ∂v = β ∂w, ∂β = e · ∂w. */
#include "matrix.h"

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

enum { TILE = 16, BLOCK = 4, SPACE = TILE + 2 * RIT_LANES };

/* The rows of a segment: its inputs, the sums of one value head, and the totals over the value heads of a head. */
struct segment {
    int64_t start, steps, width; /* width: K, in whole vectors */
    real *q, *k, *d, *a, *b;
    real *dq, *dk, *dd, *da, *db;
    real *total_q, *total_k, *total_a, *total_b;
    real *beta, *dbeta, *vo;     /* one number a step; vo: v · ∂o, of BONUS */
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
    const int64_t size = x->rows * s->width;
    for (int64_t i = 0; i < s->width; i += RIT_LANES) {
        vec state[4];
#pragma GCC unroll 4
        for (int j = 0; j < count; j++) state[j] = vec_load(from + (row + j) * s->width + i);
        real *next = to + row * s->width + i;
        int64_t left = every;
        for (int64_t t = start; t < start + steps; t++) {
            const vec d = vec_load(s->d + t * s->width + i), k = vec_load(s->k + t * s->width + i);
            const vec b = dplr ? vec_load(s->b + t * s->width + i) : (vec){0};
#pragma GCC unroll 4
            for (int j = 0; j < count; j++) {
                state[j] = state[j] * d + x->w[t * SPACE + row + j] * k;
                if (dplr) state[j] += x->r[t * SPACE + row + j] * b;
            }
            if (--left) continue;
#pragma GCC unroll 4
            for (int j = 0; j < count; j++) vec_store(next + j * s->width, state[j]);
            next += size;
            left = every;
        }
    }
}

static void replay(int dplr, const struct segment *s, const struct tile *x, const real *from, int64_t start, int64_t steps,
                   int64_t every, real *to) {
    int64_t row = 0;
    for (; row + 4 <= x->rows; row += 4) {
        if (dplr) replay_rows(4, 1, s, x, from, row, start, steps, every, to);
        else replay_rows(4, 0, s, x, from, row, start, steps, every, to);
    }
    for (; row < x->rows; row++) {
        if (dplr) replay_rows(1, 1, s, x, from, row, start, steps, every, to);
        else replay_rows(1, 0, s, x, from, row, start, steps, every, to);
    }
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
        vec across_k = {0}, across_b = {0};
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            real *place = gradient + j * RIT_LANES;
            const vec before = vec_load(old + j * RIT_LANES);
            vec g = vec_load(place);
            if (mode != BONUS) g += go[row] * q[j];
            dq[j] += go[row] * (mode == BONUS ? before : vec_load(new + j * RIT_LANES));
            dk[j] += w[row] * g;
            dd[j] += g * before;
            across_k += g * k[j];
            if (mode == DPLR) {
                db[j] += r[row] * g;
                across_b += g * b[j];
            }
            if (mode == LINEAR || mode == BONUS) g *= d[j];
            if (mode == BONUS) g += go[row] * q[j];
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
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            real *place = gradient + j * RIT_LANES;
            da[j] += dr[row] * vec_load(old + j * RIT_LANES);
            vec_store(place, d[j] * vec_load(place) + dr[row] * a[j]);
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
