/* y = x / √(mean(x²) + eps) ⊙ weight ⊙ silu(gate), and silu(gate) ⊙ up: row by row, the lanes along the row.
 *
 * A tensor's rows are `outer` groups of `inner`, each level with its stride: heads, or the halves of a projection, are
 * read where they lie. The backward pass recomputes the root: it costs less than its memory. The gradient of the weight
 * is summed over blocks of rows, then over the blocks in their order. */
#include "functions.h"

enum { BLOCK = 64 }; /* rows */

struct place {
    int64_t outer, inner; /* strides */
};

struct arguments {
    const act *x, *gate; /* of swiglu: up, gate */
    const real *weight;  /* gate and weight are null where absent */
    act *out;            /* contiguous, as are dx and dgate */
    int64_t outer, inner, size;
    struct place at_x, at_gate;
    double eps;
    const act *grad; /* backward only, from here */
    act *dx, *dgate; /* null where not wanted */
    real *dweight;
    struct place at_grad;
};

struct job {
    const struct arguments *a;
    int64_t rows, blocks;
    real *partials; /* (blocks, size): the weight's gradient by each block */
};

/* The pieces of a row: whole vectors, whose count is a constant to the compiler, then what is left. */
#define EACH_PIECE(size, c, count, ...)             \
    do {                                            \
        int64_t c = 0;                              \
        for (; c + RIT_LANES <= (size); c += RIT_LANES) { \
            enum { count = RIT_LANES };             \
            __VA_ARGS__                             \
        }                                           \
        if (c < (size)) {                           \
            const int64_t count = (size) - c;       \
            __VA_ARGS__                             \
        }                                           \
    } while (0)

INLINE const act *row_of(const act *p, struct place at, int64_t row, int64_t inner) {
    return p ? p + row / inner * at.outer + row % inner * at.inner : 0;
}

/* 1 / √(mean(x²) + eps) */
INLINE real root(const struct arguments *a, const act *x) {
    vec squares = vec_set(0);
    EACH_PIECE(a->size, c, count, {
        const vec v = act_load_part(x + c, count);
        squares += v * v;
    });
    const real mean = vec_sum(squares) / (real)a->size + (real)a->eps;
#if defined(RIT_F64)
    return 1 / sqrt(mean);
#else
    return 1 / sqrtf(mean);
#endif
}

/* ------------------------------------------------------------------------------------------------------- rms_norm */

INLINE void norm_row(const struct arguments *a, int64_t row, int has_weight, int has_gate) {
    const act *x = row_of(a->x, a->at_x, row, a->inner), *gate = row_of(a->gate, a->at_gate, row, a->inner);
    act *out = a->out + row * a->size;
    const real r = root(a, x);
    EACH_PIECE(a->size, c, count, {
        vec y = act_load_part(x + c, count) * r;
        if (has_weight) y *= vec_load_part(a->weight + c, count);
        if (has_gate) y *= vec_silu(act_load_part(gate + c, count));
        act_store_part(out + c, y, count);
    });
}

/* With n = x·r and s = silu(gate): dn = grad ⊙ weight ⊙ s, dx = r (dn − n · mean(dn ⊙ n)), and the weight's gradient is
 * grad ⊙ s ⊙ n. `dn` has room for a row. */
INLINE void norm_row_back(const struct arguments *a, int64_t row, real *dn, real *dweight, int has_weight,
                          int has_gate) {
    const act *x = row_of(a->x, a->at_x, row, a->inner), *gate = row_of(a->gate, a->at_gate, row, a->inner);
    const act *grad = row_of(a->grad, a->at_grad, row, a->inner);
    const real r = root(a, x);
    vec dots = vec_set(0);
    EACH_PIECE(a->size, c, count, {
        const vec n = act_load_part(x + c, count) * r;
        const vec w = has_weight ? vec_load_part(a->weight + c, count) : vec_set(1);
        vec d = act_load_part(grad + c, count);
        if (has_gate) {
            const vec g = act_load_part(gate + c, count);
            if (a->dgate) act_store_part(a->dgate + row * a->size + c, d * n * w * vec_silu_slope(g), count);
            d *= vec_silu(g);
        }
        if (dweight) vec_store_part(dweight + c, vec_load_part(dweight + c, count) + d * n, count);
        d *= w;
        dots += d * n;
        vec_store_part(dn + c, d, count);
    });
    if (!a->dx) return;
    const real mean = vec_sum(dots) / (real)a->size;
    EACH_PIECE(a->size, c, count, {
        const vec n = act_load_part(x + c, count) * r;
        act_store_part(a->dx + row * a->size + c, r * (vec_load_part(dn + c, count) - n * mean), count);
    });
}

INLINE void norm_block(const struct job *job, int64_t index, int has_weight, int has_gate) {
    for (int64_t row = index * BLOCK; row < rit_min(job->rows, (index + 1) * BLOCK); row++)
        norm_row(job->a, row, has_weight, has_gate);
}

static void norm_body(void *context, int64_t index) {
    const struct job *job = context;
    if (job->a->gate)
        norm_block(job, index, job->a->weight != 0, 1);
    else
        norm_block(job, index, job->a->weight != 0, 0);
}

INLINE void norm_block_back(const struct job *job, int64_t index, int has_weight, int has_gate) {
    const int64_t D = job->a->size;
    real *dn = rit_scratch(D), *dweight = job->partials ? job->partials + index * D : 0;
    if (dweight) memset(dweight, 0, (size_t)D * sizeof *dweight);
    for (int64_t row = index * BLOCK; row < rit_min(job->rows, (index + 1) * BLOCK); row++)
        norm_row_back(job->a, row, dn, dweight, has_weight, has_gate);
    free(dn);
}

static void norm_body_back(void *context, int64_t index) {
    const struct job *job = context;
    if (job->a->gate)
        norm_block_back(job, index, job->a->weight != 0, 1);
    else
        norm_block_back(job, index, job->a->weight != 0, 0);
}

static struct job plan(const struct arguments *a) {
    const int64_t rows = a->outer * a->inner;
    return (struct job){.a = a, .rows = rows, .blocks = rit_divide_up(rows, BLOCK)};
}

static int64_t work(const struct job *job) { return job->rows * job->a->size * (job->a->gate ? 14 : 3); }

RIT_ENTRY(rms_norm_forward)(const struct arguments *a) {
    struct job job = plan(a);
    rit_parallel_sized(job.blocks, work(&job), norm_body, &job);
}

RIT_ENTRY(rms_norm_backward)(const struct arguments *a) {
    struct job job = plan(a);
    const int64_t D = a->size;
    if (a->dweight) job.partials = rit_scratch(job.blocks * D);
    rit_parallel_sized(job.blocks, 3 * work(&job), norm_body_back, &job);
    if (!a->dweight) return;
    memcpy(a->dweight, job.partials, (size_t)D * sizeof(real));
    for (int64_t i = 1; i < job.blocks; i++)
        for (int64_t d = 0; d < D; d++) a->dweight[d] += job.partials[i * D + d];
    free(job.partials);
}

/* --------------------------------------------------------------------------------------------------------- swiglu */

static void swiglu_body(void *context, int64_t index) {
    const struct job *job = context;
    const struct arguments *a = job->a;
    for (int64_t row = index * BLOCK; row < rit_min(job->rows, (index + 1) * BLOCK); row++) {
        const act *up = row_of(a->x, a->at_x, row, a->inner), *gate = row_of(a->gate, a->at_gate, row, a->inner);
        EACH_PIECE(a->size, c, count, {
            const vec y = vec_silu(act_load_part(gate + c, count)) * act_load_part(up + c, count);
            act_store_part(a->out + row * a->size + c, y, count);
        });
    }
}

static void swiglu_body_back(void *context, int64_t index) {
    const struct job *job = context;
    const struct arguments *a = job->a;
    for (int64_t row = index * BLOCK; row < rit_min(job->rows, (index + 1) * BLOCK); row++) {
        const act *up = row_of(a->x, a->at_x, row, a->inner), *gate = row_of(a->gate, a->at_gate, row, a->inner);
        const act *grad = row_of(a->grad, a->at_grad, row, a->inner);
        EACH_PIECE(a->size, c, count, {
            const vec g = act_load_part(gate + c, count), d = act_load_part(grad + c, count);
            if (a->dgate) {
                const vec u = act_load_part(up + c, count);
                act_store_part(a->dgate + row * a->size + c, d * u * vec_silu_slope(g), count);
            }
            if (a->dx) act_store_part(a->dx + row * a->size + c, d * vec_silu(g), count);
        });
    }
}

RIT_ENTRY(swiglu_forward)(const struct arguments *a) {
    struct job job = plan(a);
    rit_parallel_sized(job.blocks, work(&job), swiglu_body, &job);
}

RIT_ENTRY(swiglu_backward)(const struct arguments *a) {
    struct job job = plan(a);
    rit_parallel_sized(job.blocks, 2 * work(&job), swiglu_body_back, &job);
}
