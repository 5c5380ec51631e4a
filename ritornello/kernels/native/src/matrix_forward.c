/* Matrix states, forward: step by step, with a tile of columns of S in the first cache. One pass over the tile does all of a
 * step: decay, update, output, and what the next step reads of the new state; three or four multiply-adds for each
 * load and store, which is what the processor's units can do. */
#include "matrix_gates.h"
#include "transpose.h"

struct matrix_forward {
    struct matrix x;
    struct acts o;
    const real *before;
    real *after; /* (N, Hv, K, V) */
};

/* A tile of `width` vectors of columns, and one chunk of its inputs and outputs. */
struct tile {
    int width;
    int64_t rows;               /* K, in whole vectors */
    vec *state;                 /* (rows, width) */
    real *q, *k, *d, *a, *b;    /* (CHUNK, rows) */
    real beta[CHUNK];           /* β of DELTA; Σ u k q of BONUS */
    vec *v, *o, *kept;          /* (CHUNK, width) */
    struct ahead ahead;         /* what is read for the next chunk, and written for this one */
    struct gates *gates;        /* mLSTM's; null for all others */
};

/* S ← diag(d) S + b oldᵀ + k writeᵀ; out = Sᵀ q, before the update for BONUS; next = Sᵀ a, after it. */
INLINE void step(const int width, const int mode, const int vector, const struct tile *x, int64_t t, const real *a,
                 const vec *write, const vec *old, vec *out, vec *next) {
    const int64_t rows = x->rows;
    const real *q = x->q + t * rows, *k = x->k + t * rows, *b = x->b + t * rows, *d = x->d + t * rows;
    const vec decay = vec_set(d[0]);
    enum { MOST = 4 };
    /* A narrow tile sums several rows apart: one chain of additions would wait for itself. */
    const int apart = width == 1 ? (RIT_LANES < 4 ? RIT_LANES : 4) : width == 2 ? 2 : 1;
    vec sum_o[MOST][MOST] = {0}, sum_n[MOST][MOST] = {0};
    for (int64_t i = 0; i < rows; i += apart) {
#pragma GCC unroll 4
        for (int j = 0; j < apart; j++) {
            const vec qi = matrix_spread(q[i + j]), ki = matrix_spread(k[i + j]), di = vector ? matrix_spread(d[i + j]) : decay;
            const vec ai = mode == DELTA || mode == DPLR ? matrix_spread(a[i + j]) : decay;
            const vec bi = mode == DPLR ? matrix_spread(b[i + j]) : decay;
#pragma GCC unroll 4
            for (int m = 0; m < width; m++) {
                vec *at = x->state + (i + j) * width + m;
                vec s = *at;
                if (mode == BONUS) sum_o[j][m] += qi * s;
                s *= di;
                if (mode == DPLR) s += bi * old[m];
                s += ki * write[m];
                *at = s;
                if (mode != BONUS) sum_o[j][m] += qi * s;
                if (mode == DELTA || mode == DPLR) sum_n[j][m] += ai * s;
            }
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < width; m++) {
        out[m] = sum_o[0][m];
        next[m] = sum_n[0][m];
#pragma GCC unroll 4
        for (int j = 1; j < apart; j++) {
            out[m] += sum_o[j][m];
            next[m] += sum_n[j][m];
        }
    }
}

INLINE void chunk(const int width, const int mode, const int vector, const struct tile *x, int64_t steps) {
    vec read[4] = {0}, old[4], write[4], out[4];
    if (mode == DELTA || mode == DPLR)
        for (int64_t i = 0; i < x->rows; i++)
            for (int m = 0; m < width; m++) read[m] += x->a[i] * x->state[i * width + m];
    for (int64_t t = 0; t < steps; t++) {
        const vec *v = x->v + t * width;
        ahead_fetch(&x->ahead, t, 0, INT64_MAX);
        for (int m = 0; m < width; m++) {
            old[m] = read[m];
            write[m] = v[m];
            if (mode == DELTA) {
                x->kept[t * width + m] = v[m] - read[m];
                write[m] = x->beta[t] * (v[m] - read[m]);
            }
            if (mode == DPLR) x->kept[t * width + m] = read[m];
        }
        /* After the chunk's last step the read is of no use: the next chunk begins with its own. */
        step(width, mode, vector, x, t, x->a + (t + 1 < steps ? t + 1 : t) * x->rows, write, old, out, read);
        for (int m = 0; m < width; m++) x->o[t * width + m] = mode == BONUS ? out[m] + x->beta[t] * v[m] : out[m];
    }
}

#define FOR_WIDTH(mode, vector)                                                \
    do {                                                                       \
        if (x->width == 4) chunk(4, mode, vector, x, steps);                   \
        else if (x->width == 2) chunk(2, mode, vector, x, steps);              \
        else chunk(1, mode, vector, x, steps);                                 \
    } while (0)

static void run_chunk(const struct tile *x, int64_t mode, int64_t vector, int64_t steps) {
    switch (mode * 2 + (vector != 0)) {
        case LINEAR * 2: FOR_WIDTH(LINEAR, 0); break;
        case LINEAR * 2 + 1: FOR_WIDTH(LINEAR, 1); break;
        case BONUS * 2: FOR_WIDTH(BONUS, 0); break;
        case BONUS * 2 + 1: FOR_WIDTH(BONUS, 1); break;
        case DELTA * 2: FOR_WIDTH(DELTA, 0); break;
        case DELTA * 2 + 1: FOR_WIDTH(DELTA, 1); break;
        case DPLR * 2: FOR_WIDTH(DPLR, 0); break;
        default: FOR_WIDTH(DPLR, 1);
    }
}

/* ------------------------------------------------------------------------------------------ into and out of a tile */

struct place {
    int64_t row, head, value_head, column, columns; /* which columns of which head of which row of the batch */
};

static void load_chunk(const struct matrix *x, struct tile *tile, const struct place *p, int64_t start, int64_t steps) {
    const int64_t keys = x->keys, rows = tile->rows, width = tile->width;
    for (int64_t t = 0; t < steps; t++) {
        const int64_t time = start + t;
        real *q = tile->q + t * rows, *k = tile->k + t * rows, *d = tile->d + t * rows, *a = tile->a + t * rows;
        matrix_row(q, AT(x->q, p->row, time, p->head), keys, (real)x->scale);
        matrix_row(k, AT(x->k, p->row, time, p->head), keys, tile->gates ? tile->gates->gain[t] : 1);
        if (tile->gates)
            *d = tile->gates->decay[t];
        else
            matrix_decay_row(x, d, p->row, time, p->value_head);
        if (x->mode == DPLR) {
            matrix_row(a, AT(x->a, p->row, time, p->head), keys, 1);
            matrix_row(tile->b + t * rows, AT(x->b, p->row, time, p->head), keys, 1);
        }
        if (x->mode == DELTA) {
            tile->beta[t] = *AT(x->beta, p->row, time, p->value_head);
            for (int64_t i = 0; i < rows; i += RIT_LANES) vec_store(a + i, vec_load(d + i) * vec_load(k + i));
        }
        if (x->mode == BONUS) tile->beta[t] = matrix_bonus(x->bonus + p->value_head * keys, k, q, keys);
        const act *v = AT(x->v, p->row, time, p->value_head) + p->column;
        for (int64_t m = 0; m < width; m++)
            tile->v[t * width + m] = m * RIT_LANES < p->columns ? act_load_part(v + m * RIT_LANES, p->columns - m * RIT_LANES)
                                                                : (vec){0};
    }
}

static void store_chunk(const struct matrix_forward *f, const struct tile *tile, const struct place *p, int64_t start,
                        int64_t steps) {
    const int64_t width = tile->width;
    for (int64_t t = 0; t < steps; t++) {
        const real norm = tile->gates ? tile->gates->norm[t] : 1;
        act *o = AT(f->o, p->row, start + t, p->value_head) + p->column;
        real *kept = f->x.kept ? matrix_kept(&f->x, p->row, start + t, p->value_head) + p->column : 0;
        for (int64_t m = 0; m * RIT_LANES < p->columns; m++) {
            const int64_t at = m * RIT_LANES, left = p->columns - at;
            const vec y = tile->o[t * width + m] * norm;
            act_store_part(o + at, y, left);
            if (kept) vec_store_part(kept + at, f->x.ones ? y : tile->kept[t * width + m], left);
        }
    }
}

static void load_state(const struct matrix *x, struct tile *tile, const real *from, int64_t columns) {
    memset(tile->state, 0, (size_t)(tile->rows * tile->width) * sizeof(vec));
    for (int64_t i = 0; i < x->keys; i++)
        memcpy(tile->state + i * tile->width, from + i * x->values, (size_t)columns * sizeof(real));
}

static void store_state(const struct matrix *x, const struct tile *tile, real *to, int64_t columns) {
    for (int64_t i = 0; i < x->keys; i++)
        memcpy(to + i * x->values, tile->state + i * tile->width, (size_t)columns * sizeof(real));
}

static void store_checkpoint(const struct matrix *x, const struct tile *tile, real *to, int64_t columns) {
    const int64_t keys = x->keys;
    real block[RIT_LANES * RIT_LANES];
    for (int64_t i = 0; i < keys; i += RIT_LANES)
        for (int64_t m = 0; m * RIT_LANES < columns; m++) {
            transpose((const real *)(tile->state + i * tile->width + m), tile->width * RIT_LANES, RIT_LANES, RIT_LANES, block, RIT_LANES);
            for (int64_t j = 0; j < rit_min(RIT_LANES, columns - m * RIT_LANES); j++)
                vec_store_part(to + (m * RIT_LANES + j) * keys + i, vec_load(block + j * RIT_LANES), keys - i);
        }
}

/* ----------------------------------------------------------------------------------------------------- the pass */

/* The widest tile that fits the first cache, or a narrower one that leaves fewer columns of its last vectors idle. */
static int tile_width(const struct matrix *x) {
    const int64_t vectors = rit_divide_up(x->values, RIT_LANES), most = 40960 / (x->keys * (int64_t)sizeof(vec));
    int best = 1;
    for (int width = 2; width <= 4; width *= 2)
        if (width <= most && rit_divide_up(vectors, width) * width * 5 <= rit_divide_up(vectors, best) * best * 6) best = width;
    return best;
}

struct job {
    const struct matrix_forward *f;
    const struct mlstm *mlstm; /* null for all others */
    int width;
    int64_t tiles, items, group;
};

/* Some columns of one head of one sequence, and how far they are. */
struct walk {
    struct place p;
    struct rit_span span;
    int64_t n, index, time; /* the sequence; it and its head; the next step */
    struct tile tile;       /* its state is its own, its rows are shared */
    struct gates gates;
};

INLINE int64_t state_size(const struct job *job) {
    return matrix_padded(&job->f->x) * (job->width * RIT_LANES + (job->mlstm != 0));
}

static void walk_begin(const struct job *job, int64_t item, const struct tile *shared, real *state, struct walk *w) {
    const struct matrix *x = &job->f->x;
    const int64_t columns = job->width * RIT_LANES, column = item % job->tiles * columns;
    w->index = item / job->tiles;
    w->n = w->index / x->value_heads;
    w->span = rit_span(x->starts, w->n, x->steps);
    w->time = w->span.start;
    const int64_t head = w->index % x->value_heads;
    w->p = (struct place){w->span.row, head / (x->value_heads / x->heads), head, column, rit_min(columns, x->values - column)};
    w->tile = *shared;
    w->tile.state = (vec *)state;
    load_state(x, &w->tile, job->f->before + w->index * x->keys * x->values + column, w->p.columns);
    if (!job->mlstm) return;
    w->tile.gates = &w->gates;
    w->gates = (struct gates){.n = state + shared->rows * columns, .m = job->mlstm->m[w->index]};
    memset(w->gates.n, 0, (size_t)shared->rows * sizeof(real));
    memcpy(w->gates.n, job->mlstm->n + w->index * x->keys, (size_t)x->keys * sizeof(real));
}

/* What the backward pass starts a segment with. */
static void walk_mark(const struct job *job, const struct walk *w) {
    const struct matrix *x = &job->f->x;
    const int64_t passed = w->time - w->span.start;
    if (!x->checkpoints || passed % x->interval) return;
    real *to = matrix_checkpoint(x, w->n, passed, w->p.value_head);
    store_checkpoint(x, &w->tile, to + w->p.column * x->keys, w->p.columns);
    if (job->mlstm && w->p.column == 0) memcpy(to + x->values * x->keys, w->gates.n, (size_t)x->keys * sizeof(real));
}

static void walk_chunk(const struct job *job, struct walk *w) {
    const struct matrix *x = &job->f->x;
    const struct place *p = &w->p;
    struct tile *tile = &w->tile;
    const int64_t time = w->time, steps = rit_min(CHUNK, w->span.end - time), next = time + CHUNK;
    walk_mark(job, w);
    if (job->mlstm) gates_read(job->mlstm, &w->gates, p->row, time, p->head, steps);
    load_chunk(x, tile, p, time, steps);
    if (job->mlstm) {
        gates_normalise(job->mlstm, &w->gates, steps, tile->rows, tile->q, tile->k);
        if (x->checkpoints && p->column == 0)
            gates_keep(job->mlstm, &w->gates, (p->row * x->heads + p->head) * x->steps + time, steps);
    }
    tile->ahead.count = 0;
    if (next + CHUNK <= w->span.end) {
        ahead_rows(x, &tile->ahead, p->row, next, p->head, p->value_head);
        ahead_add(&tile->ahead, AT(x->v, p->row, next, p->value_head) + p->column, x->v.t, p->columns, sizeof(act));
    }
    ahead_add(&tile->ahead, AT(job->f->o, p->row, time, p->value_head) + p->column, job->f->o.t, p->columns, sizeof(act));
    if (x->kept)
        ahead_add(&tile->ahead, matrix_kept(x, p->row, time, p->value_head) + p->column, x->value_heads * x->values, p->columns,
                  sizeof(real));
    run_chunk(tile, x->mode, x->vector, steps);
    store_chunk(job->f, tile, p, time, steps);
    w->time = next;
}

static void walk_end(const struct job *job, const struct walk *w) {
    const struct matrix *x = &job->f->x;
    store_state(x, &w->tile, job->f->after + w->index * x->keys * x->values + w->p.column, w->p.columns);
    if (!job->mlstm || w->p.column) return;
    memcpy(job->mlstm->last_n + w->index * x->keys, w->gates.n, (size_t)x->keys * sizeof(real));
    job->mlstm->last_m[w->index] = w->gates.m;
}

static void body(void *context, int64_t group) {
    const struct job *job = context;
    const int64_t first = group * job->group, count = rit_min(job->group, job->items - first);
    struct tile tile = {.width = job->width, .rows = matrix_padded(&job->f->x)};
    const int64_t row_space = CHUNK * tile.rows, column_space = CHUNK * job->width * RIT_LANES;
    real *scratch = rit_scratch(3 * column_space + 5 * row_space + count * state_size(job)), *at = scratch;
    vec **in_columns[] = {&tile.v, &tile.o, &tile.kept};
    for (int i = 0; i < 3; i++, at += column_space) *in_columns[i] = (vec *)at;
    real **in_rows[] = {&tile.q, &tile.k, &tile.d, &tile.a, &tile.b};
    for (int i = 0; i < 5; i++, at += row_space) *in_rows[i] = at;

    struct walk walks[GROUP];
    int64_t longest = 0;
    for (int64_t i = 0; i < count; i++, at += state_size(job)) {
        walk_begin(job, first + i, &tile, at, &walks[i]);
        longest = rit_max(longest, walks[i].span.end - walks[i].span.start);
    }
    for (int64_t passed = 0; passed < longest; passed += TURN)
        for (int64_t i = 0; i < count; i++) {
            struct walk *w = &walks[i];
            const int64_t until = rit_min(w->span.end, w->span.start + passed + TURN);
            while (w->time < until) walk_chunk(job, w);
        }
    for (int64_t i = 0; i < count; i++) walk_end(job, &walks[i]);
    free(scratch);
}

static void run(const struct matrix_forward *f, const struct mlstm *mlstm) {
    struct job job = {.f = f, .mlstm = mlstm, .width = tile_width(&f->x)};
    job.tiles = rit_max(1, rit_divide_up(f->x.values, job.width * RIT_LANES)); /* mLSTM has n even without values */
    job.items = f->x.sequences * f->x.value_heads * job.tiles;
    job.group = matrix_group(job.items);
    const int64_t times = f->x.starts ? f->x.steps : f->x.steps * f->x.sequences;
    rit_parallel_sized(rit_divide_up(job.items, job.group), times * f->x.value_heads * f->x.keys * f->x.values, body, &job);
}

RIT_ENTRY(matrix_forward)(const struct matrix_forward *f) { run(f, 0); }

struct mlstm_forward {
    struct matrix_forward f;
    struct mlstm mlstm;
};

RIT_ENTRY(mlstm_forward)(const struct mlstm_forward *a) { run(&a->f, &a->mlstm); }
