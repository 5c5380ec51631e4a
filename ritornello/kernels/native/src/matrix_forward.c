/* Matrix states, forward: step by step, with a tile of columns of S in the first cache. One pass over the tile does all of a
 * step: decay, update, output, and what the next step reads of the new state; three or four multiply-adds for each
 * load and store, which is what the processor's units can do. */
#include "matrix_gates.h"
#include "matrix_transpose.h"

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
    struct ahead ahead;         /* of the next chunk */
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
    int64_t tiles;
};

static void body(void *context, int64_t index) {
    const struct job *job = context;
    const struct matrix_forward *f = job->f;
    const struct matrix *x = &f->x;
    const int64_t columns = job->width * RIT_LANES, tile_index = index % job->tiles, sequence_head = index / job->tiles;
    const int64_t n = sequence_head / x->value_heads, head = sequence_head % x->value_heads;
    const struct rit_span span = rit_span(x->starts, n, x->steps);
    const int64_t column = tile_index * columns;
    const struct place p = {span.row, head / (x->value_heads / x->heads), head, column, rit_min(columns, x->values - column)};

    struct tile tile = {.width = job->width, .rows = matrix_padded(x)};
    struct gates gates = {0};
    const int64_t row_space = CHUNK * tile.rows, column_space = CHUNK * columns;
    real *scratch = rit_scratch(tile.rows * (columns + 1) + 3 * column_space + 5 * row_space), *at = scratch;
    tile.state = (vec *)at, at += tile.rows * columns;
    vec **in_columns[] = {&tile.v, &tile.o, &tile.kept};
    for (int i = 0; i < 3; i++, at += column_space) *in_columns[i] = (vec *)at;
    real **in_rows[] = {&tile.q, &tile.k, &tile.d, &tile.a, &tile.b};
    for (int i = 0; i < 5; i++, at += row_space) *in_rows[i] = at;
    if (job->mlstm) {
        gates.n = at;
        gates.m = job->mlstm->m[sequence_head];
        memset(gates.n, 0, (size_t)tile.rows * sizeof(real));
        memcpy(gates.n, job->mlstm->n + sequence_head * x->keys, (size_t)x->keys * sizeof(real));
        tile.gates = &gates;
    }

    const int64_t offset = (n * x->value_heads + head) * x->keys * x->values + column;
    load_state(x, &tile, f->before + offset, p.columns);
    for (int64_t time = span.start; time < span.end; time += CHUNK) {
        const int64_t steps = rit_min(CHUNK, span.end - time), passed = time - span.start;
        if (x->checkpoints && passed % x->interval == 0)
            store_checkpoint(x, &tile, matrix_checkpoint(x, n, passed, head) + column * x->keys, p.columns);
        if (job->mlstm) {
            if (x->checkpoints && passed % x->interval == 0 && column == 0)
                memcpy(matrix_checkpoint(x, n, passed, head) + x->values * x->keys, gates.n, (size_t)x->keys * sizeof(real));
            gates_read(job->mlstm, &gates, p.row, time, head, steps);
        }
        load_chunk(x, &tile, &p, time, steps);
        if (job->mlstm) {
            gates_normalise(job->mlstm, &gates, steps, tile.rows, tile.q, tile.k);
            if (x->checkpoints && column == 0)
                gates_keep(job->mlstm, &gates, (p.row * x->heads + head) * x->steps + time, steps);
        }
        tile.ahead.count = 0;
        if (time + 2 * CHUNK <= span.end) {
            ahead_rows(x, &tile.ahead, p.row, time + CHUNK, p.head, head);
            ahead_add(&tile.ahead, AT(x->v, p.row, time + CHUNK, head) + column, x->v.t, p.columns, sizeof(act));
        }
        run_chunk(&tile, x->mode, x->vector, steps);
        store_chunk(f, &tile, &p, time, steps);
    }
    store_state(x, &tile, f->after + offset, p.columns);
    if (job->mlstm && column == 0) {
        memcpy(job->mlstm->last_n + sequence_head * x->keys, gates.n, (size_t)x->keys * sizeof(real));
        job->mlstm->last_m[sequence_head] = gates.m;
    }
    free(scratch);
}

static void run(const struct matrix_forward *f, const struct mlstm *mlstm) {
    struct job job = {f, mlstm, tile_width(&f->x), 0};
    job.tiles = rit_divide_up(f->x.values, job.width * RIT_LANES);
    const int64_t items = f->x.sequences * f->x.value_heads * job.tiles;
    const int64_t times = f->x.starts ? f->x.steps : f->x.steps * f->x.sequences;
    rit_parallel_sized(items, times * f->x.value_heads * f->x.keys * f->x.values, body, &job);
}

RIT_ENTRY(matrix_forward)(const struct matrix_forward *f) { run(f, 0); }

struct mlstm_forward {
    struct matrix_forward f;
    struct mlstm mlstm;
};

RIT_ENTRY(mlstm_forward)(const struct mlstm_forward *a) { run(&a->f, &a->mlstm); }
