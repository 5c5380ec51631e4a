/* Matrix states, backward. Time runs backwards through segments, one between two checkpoints: the states before its chunks
 * are computed again, forwards, then the chunks are walked back. S and its gradient G lie transposed, (V, K), as products
 * want them. A unit of work is some columns of one head of one sequence, with all the value heads that read it, or a few
 * such in turn; it owns its sums, so that no two threads add to one number.
 *
 * With G the gradient of the state after a chunk, S the state before it (names as in matrix_chunk.h):
 *     ∂ke = w G   ∂be = r G   ∂w = ke Gᵀ + qkᵀ ∂o + akᵀ ∂r   ∂r = be Gᵀ + qbᵀ ∂o + abᵀ ∂r   ∂qs = ∂o S   ∂as = ∂r S
 *     ∂qk = ∂o wᵀ   ∂ak = ∂r wᵀ   ∂qb = ∂o rᵀ   ∂ab = ∂r rᵀ   ∂de = Σ G ⊙ S   G ← de ⊙ G + ∂oᵀ qs + ∂rᵀ as
 * DELTA has ∂v = β ∂w, ∂r = −β ∂w, ∂β = e · ∂w. */
#include "matrix_gradients.h"

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
    product(c->count, CHUNK, keys, (struct factor){gradient, keys, 1}, scratch, CHUNK, SET, c->dt, CHUNK);
    transpose(c->dt, CHUNK, c->count, CHUNK, to, c->width);
    product_triangle(0, k->steps, c->width, (struct factor){pairs, 1, CHUNK}, c->go, c->width, to, c->width);
}

/* Σ over the rows of x ⊙ y, in one vector of columns: several sums, as each addition waits for the one before it. */
INLINE vec dot_columns(const real *x, const real *y, int64_t rows, int64_t row) {
    vec sum[4] = {0};
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int n = 0; n < 4; n++) sum[n] += vec_load(x + (r + n) * row) * vec_load(y + (r + n) * row);
    for (; r < rows; r++) sum[0] += vec_load(x + r * row) * vec_load(y + r * row);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void columns_back(int64_t mode, struct chunk *k, struct rows_back *g, const struct columns *c, const real *state,
                         real *gradient) {
    const int64_t keys = k->width, steps = k->steps, count = c->count, width = c->width;
    const struct factor go = {c->go, width, 1}, w = {c->w, width, 1}, r = {c->r, width, 1}, dr = {c->dr, width, 1};
    chunk_fetch(k, 2);
    product(steps, keys, count, w, gradient, keys, SET, g->ke, keys);
    chunk_fetch(k, 2);
    if (mode == DPLR) product(steps, keys, count, r, gradient, keys, SET, g->be, keys);
    for (int64_t i = 0; i < keys; i += RIT_LANES) vec_store(g->de + i, dot_columns(gradient + i, state + i, count, keys));
    written_back(k, c, k->ke, k->qk, k->kt, gradient, c->dw);
    if (mode == DPLR) written_back(k, c, k->be, k->qb, k->bt, gradient, c->dr);
    chunk_fetch(k, 3);
    if (chunk_erases(mode)) solve_back(mode, k, c);
    chunk_fetch(k, 3);

    transpose(c->w, width, steps, width, c->wt, CHUNK);
    product(steps, keys, count, go, state, keys, SET, g->qs, keys);
    chunk_fetch(k, 3);
    product(steps, CHUNK, count, go, c->wt, CHUNK, SET, g->qk, CHUNK);
    chunk_fetch(k, CHUNK);
    product_scaled(count, keys, steps, (struct factor){c->go, 1, width}, k->qs, keys, k->de, gradient, gradient, keys);
    if (!chunk_erases(mode)) return;
    product(steps, keys, count, dr, state, keys, SET, g->as, keys);
    product(steps, CHUNK, count, dr, c->wt, CHUNK, SET, g->ak, CHUNK);
    product(count, keys, steps, (struct factor){c->dr, 1, width}, k->as, keys, ADD, gradient, keys);
    if (mode != DPLR) return;
    transpose(c->r, width, steps, width, c->rt, CHUNK);
    product(steps, CHUNK, count, go, c->rt, CHUNK, SET, g->qb, CHUNK);
    product(steps, CHUNK, count, dr, c->rt, CHUNK, SET, g->ab, CHUNK);
}

/* --------------------------------------------------------------------------------------------------- the pass */

static void load(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t chunk, int reads) {
    const int64_t start = w->start + chunk * CHUNK;
    w->chunk.steps = rit_min(CHUNK, w->steps - chunk * CHUNK);
    w->chunk.d = w->decays + chunk * CHUNK * w->chunk.width;
    chunk_load(&f->x, &w->chunk, &(struct chunk_place){p->row, p->head, p->value_head, start}, reads);
    load_columns(f, w, p, start, reads);
}

/* The rows that this chunk's gradients are written to, and those of the same chunk in the segment before, which is next. */
static void look_ahead(const struct matrix_backward *f, struct work *w, const struct place *p, int64_t chunk, int64_t passed) {
    const struct matrix *x = &f->x;
    struct ahead *to = &w->chunk.ahead;
    const int64_t here = w->start + chunk * CHUNK, time = here - x->interval, columns = rit_min(p->end, x->values) - p->first;
    const struct gradient_rows rows = gradient_rows(f, p, here);
    w->chunk.fetched = 0, w->chunk.fetchable = CHUNK, to->count = 0;
    if (passed) {
        ahead_rows(x, to, p->row, time, p->head, p->value_head);
        if (x->mode != DELTA) ahead_add(to, AT(x->v, p->row, time, p->value_head) + p->first, x->v.t, columns, sizeof(act));
        if (f->go.at) ahead_add(to, AT(f->go, p->row, time, p->value_head) + p->first, f->go.t, columns, sizeof(act));
        if (x->kept)
            ahead_add(to, matrix_kept(x, p->row, time, p->value_head) + p->first, x->value_heads * x->values, columns, sizeof(real));
    }
    for (int i = 0; i < 4; i++) ahead_add(to, rows.keys[i], x->heads * x->keys, x->keys, sizeof(real));
    ahead_add(to, rows.v, x->value_heads * x->values, columns, sizeof(real));
    if (x->vector) ahead_add(to, rows.decay, x->value_heads * x->keys, x->keys, sizeof(real));
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
        load(f, w, p, j, 0);
        chunk_to_end(x, &w->chunk);
        product_scaled(c->count, keys, CHUNK, (struct factor){c->w, 1, c->width}, w->chunk.ke, keys, w->chunk.de, next - size, next, keys);
        if (x->mode == DPLR)
            product(c->count, keys, CHUNK, (struct factor){c->r, 1, c->width}, w->chunk.be, keys, ADD, next, keys);
    }
    for (int64_t j = chunks - 1; j >= 0; j--) {
        const int64_t start = w->start + j * CHUNK;
        load(f, w, p, j, 1);
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

/* A call: `parts` of the columns, each of `items` heads of sequences, `group` of them in turn. */
struct job {
    const struct matrix_backward *f;
    int64_t parts, items, group, groups;
};

/* One part of the columns of one head, with all its value heads, of one sequence, and how far back it is. */
struct walk {
    struct place p;
    struct rit_span span;
    int64_t states;   /* its first value head's place in (N, Hv) */
    int64_t passed;   /* steps before the segment that is next; negative at the end */
    real *gradients;
};

static struct walk walk_begin(const struct job *job, int64_t part, int64_t item, real *gradients, int64_t width) {
    const struct matrix *x = &job->f->x;
    const int64_t first = part * job->f->share, n = item / x->heads, head = item % x->heads;
    const int64_t value_heads = x->value_heads / x->heads;
    struct walk w = {.span = rit_span(x->starts, n, x->steps), .gradients = gradients};
    w.p = (struct place){w.span.row, n, part, head, 0, first, part == job->parts - 1 ? x->values + x->ones : first + job->f->share};
    w.states = n * x->value_heads + head * value_heads;
    const int64_t length = w.span.end - w.span.start, size = (w.p.end - first) * width;
    w.passed = length ? (length - 1) / x->interval * x->interval : -1;
    for (int64_t j = 0; j < value_heads; j++)
        load_gradient(job->f, w.states + j, first, w.p.end, width, gradients + j * size);
    return w;
}

/* Through the segment that is next. */
static void walk_back(const struct job *job, struct work *w, struct walk *walk) {
    const struct matrix *x = &job->f->x;
    const int64_t value_heads = x->value_heads / x->heads, size = w->columns.count * w->chunk.width;
    w->start = walk->span.start + walk->passed;
    w->steps = rit_min(x->interval, walk->span.end - w->start);
    for (int64_t j = 0; j < value_heads; j++) {
        walk->p.value_head = walk->p.head * value_heads + j;
        run_segment(job->f, w, &walk->p, walk->passed, walk->gradients + j * size);
    }
    walk->passed -= x->interval;
}

static void body(void *context, int64_t index) {
    const struct job *job = context;
    const struct matrix *x = &job->f->x;
    const int64_t part = index / job->groups, first = index % job->groups * job->group;
    const int64_t count = rit_min(job->group, job->items - first), value_heads = x->value_heads / x->heads;
    const int64_t columns = part == job->parts - 1 ? x->values + x->ones - part * job->f->share : job->f->share;
    struct work w;
    real *scratch = allocate(x, &w, columns, count * value_heads);
    const int64_t width = w.chunk.width, size = columns * width;
    struct walk walks[GROUP];
    for (int64_t i = 0; i < count; i++)
        walks[i] = walk_begin(job, part, first + i, w.gradients + i * value_heads * size, width);
    for (int64_t left = count; left;) {
        left = 0;
        for (int64_t i = 0; i < count; i++)
            if (walks[i].passed >= 0) walk_back(job, &w, &walks[i]), left++;
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < value_heads; j++)
            store_gradient(job->f, walks[i].states + j, walks[i].p.first, walks[i].p.end, width, walks[i].gradients + j * size);
    free(scratch);
}

RIT_ENTRY(matrix_backward)(struct matrix_backward *f) {
    struct job job = {.f = f, .items = f->x.sequences * f->x.heads};
    job.parts = rit_max(1, rit_divide_up(f->x.values, f->share));
    job.group = rit_min(job.items, matrix_group(job.items * job.parts));
    job.groups = rit_divide_up(job.items, job.group);
    const int64_t times = f->x.starts ? f->x.steps : f->x.steps * f->x.sequences;
    rit_parallel_sized(job.parts * job.groups, times * f->x.value_heads * f->x.keys * f->x.values * 10, body, &job);
}
