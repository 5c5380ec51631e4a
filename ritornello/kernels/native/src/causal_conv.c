/* y_t = act(bias + Σ_{j<W} weight_j ⊙ x_{t−W+1+j}): tiles of time and channels, each for itself; the lanes are channels.
 *
 * What stands before a tile is in x, or at the start of a sequence in its window. The backward pass of a tile computes the
 * gradient before the activation for W − 1 steps more than its own, which its last inputs feed; the gradients of weight
 * and bias are summed tile by tile, then over the tiles in their order. */
#include "functions.h"

enum { TILE = 128, BLOCK = 256, TAPS = 32 };

struct arguments {
    const act *x, *weight, *bias, *window; /* weight (D, W), window (N, D, W − 1): contiguous */
    act *out, *last;
    const int64_t *starts;
    int64_t sequences, steps, channels, taps, silu;
    int64_t x_row, x_step;
    const act *grad, *grad_last; /* backward only, from here; null where absent or not wanted */
    act *dx, *dwindow;
    real *dweight, *dbias; /* (D, W) and (D) */
    int64_t grad_row, grad_step;
};

struct tile {
    struct rit_span span;
    int64_t n, from, to;
};

struct job {
    const struct arguments *a;
    struct tile *tiles;
    int64_t tile_count, blocks;
    real *taps;     /* (W + 1, D): the weights, tap by tap, then the bias */
    real *partials; /* (tiles, W + 1, D): their gradients */
};

static void plan(struct job *job, const struct arguments *a) {
    const int64_t W = a->taps, D = a->channels;
    *job = (struct job){.a = a, .blocks = rit_divide_up(D, BLOCK)};
    const int64_t most = a->sequences + rit_divide_up((a->starts ? 1 : a->sequences) * a->steps, TILE) + a->sequences;
    job->tiles = (struct tile *)rit_scratch(rit_divide_up((most + 1) * (int64_t)sizeof(struct tile), sizeof(real)));
    for (int64_t n = 0; n < a->sequences; n++) {
        const struct rit_span span = rit_span(a->starts, n, a->steps);
        int64_t from = span.start;
        do { /* an empty sequence has one tile of no steps, for its window */
            job->tiles[job->tile_count++] = (struct tile){span, n, from, rit_min(from + TILE, span.end)};
        } while ((from += TILE) < span.end);
    }
    job->taps = rit_scratch((W + 1) * D);
    for (int64_t d = 0; d < D; d++) {
        for (int64_t j = 0; j < W; j++) job->taps[j * D + d] = act_get(a->weight + d * W + j);
        job->taps[W * D + d] = a->bias ? act_get(a->bias + d) : 0;
    }
}

static void finish(struct job *job) {
    free(job->tiles);
    free(job->taps);
    free(job->partials);
}

/* The W − 1 inputs before time `from`, (W − 1, BLOCK), from x or the window. */
INLINE void inputs_before(const struct arguments *a, const struct tile *tile, int64_t c0, int64_t width, act *before) {
    const int64_t kept = a->taps - 1;
    for (int64_t i = 0; i < kept; i++) {
        const int64_t t = tile->from - kept + i, place = t - tile->span.start + kept;
        if (t >= tile->span.start) {
            memcpy(before + i * BLOCK, a->x + tile->span.row * a->x_row + t * a->x_step + c0, (size_t)width * sizeof *before);
        } else {
            const act *window = a->window + (tile->n * a->channels + c0) * kept + place;
            for (int64_t c = 0; c < width; c++) before[i * BLOCK + c] = window[c * kept];
        }
    }
}

/* The W rows that time t reads, oldest first. */
INLINE void rows_of(const struct arguments *a, const struct tile *tile, int64_t c0, const act *before, int64_t t,
                    const act **rows, int W) {
    const act *x = a->x + tile->span.row * a->x_row + c0;
    for (int j = 0; j < W; j++) {
        const int64_t s = t - W + 1 + j;
        rows[j] = s < tile->from ? before + (s - tile->from + W - 1) * BLOCK : x + s * a->x_step;
    }
}

INLINE vec convolve(const real *taps, int64_t D, const act **rows, int64_t c, int64_t count, int W) {
    vec z = vec_load_part(taps + W * D + c, count);
    for (int j = 0; j < W; j++) z += vec_load_part(taps + j * D + c, count) * act_load_part(rows[j] + c, count);
    return z;
}

INLINE void forward_tile(const struct job *job, const struct tile *tile, int64_t c0, int64_t width, int W) {
    const struct arguments *a = job->a;
    act before[TAPS * BLOCK];
    const act *rows[TAPS];
    inputs_before(a, tile, c0, width, before);
    for (int64_t t = tile->from; t < tile->to; t++) {
        act *out = a->out + (tile->span.row * a->steps + t) * a->channels + c0;
        rows_of(a, tile, c0, before, t, rows, W);
        for (int64_t c = 0; c < width; c += RIT_LANES) {
            const int64_t count = rit_min(width - c, RIT_LANES);
            const vec z = convolve(job->taps + c0, a->channels, rows, c, count, W);
            act_store_part(out + c, a->silu ? vec_silu(z) : z, count);
        }
    }
}

/* The last W − 1 of (window, x) of a sequence, written by its last tile. */
INLINE void new_window(const struct arguments *a, const struct tile *tile, int64_t c0, int64_t width) {
    const int64_t kept = a->taps - 1, length = tile->span.end - tile->span.start;
    const act *window = a->window + (tile->n * a->channels + c0) * kept;
    act *last = a->last + (tile->n * a->channels + c0) * kept;
    const act *x = a->x + tile->span.row * a->x_row + c0;
    for (int64_t i = 0; i < kept; i++) {
        const int64_t place = length + i;
        for (int64_t c = 0; c < width; c++)
            last[c * kept + i] =
                place < kept ? window[c * kept + place] : x[(tile->span.start + place - kept) * a->x_step + c];
    }
}

static void forward_body(void *context, int64_t index) {
    const struct job *job = context;
    const struct tile *tile = job->tiles + index / job->blocks;
    const int64_t c0 = index % job->blocks * BLOCK, width = rit_min(BLOCK, job->a->channels - c0);
    if (job->a->taps == 4)
        forward_tile(job, tile, c0, width, 4);
    else
        forward_tile(job, tile, c0, width, (int)job->a->taps);
    if (tile->to >= tile->span.end) new_window(job->a, tile, c0, width);
}

/* The gradient before the activation at t, and what it adds to those of the taps, where t is the tile's own. */
INLINE void back_activation(const struct job *job, const struct tile *tile, int64_t c0, int64_t width, const act *before,
                            int64_t t, real *dz, real *partial, int W) {
    const struct arguments *a = job->a;
    const act *rows[TAPS], *grad = a->grad ? a->grad + tile->span.row * a->grad_row + t * a->grad_step + c0 : 0;
    rows_of(a, tile, c0, before, t, rows, W);
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t count = rit_min(width - c, RIT_LANES);
        vec d = grad ? act_load_part(grad + c, count) : vec_set(0);
        if (a->silu) d *= vec_silu_slope(convolve(job->taps + c0, a->channels, rows, c, count, W));
        vec_store_part(dz + c, d, count);
        if (t >= tile->to) continue;
        for (int j = 0; j < W; j++) {
            real *sum = partial + j * BLOCK + c;
            vec_store(sum, vec_load(sum) + d * act_load_part(rows[j] + c, count));
        }
        vec_store(partial + W * BLOCK + c, vec_load(partial + W * BLOCK + c) + d);
    }
}

/* Σ_j weight_j dz at `place` + W − 1 − j, places counted from the tile's first step; and the gradient of the new window. */
INLINE void back_input(const struct job *job, const struct tile *tile, int64_t c0, int64_t width, const real *dz,
                       int64_t place, int64_t steps, act *dx, int64_t stride, int W) {
    const struct arguments *a = job->a;
    const int64_t D = a->channels, kept = W - 1, t = tile->from + place;
    const int64_t in_window = t - (tile->span.end - kept);
    const act *last = a->grad_last ? a->grad_last + (tile->n * D + c0) * kept + in_window : 0;
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t count = rit_min(width - c, RIT_LANES);
        vec d = vec_set(0);
        for (int j = 0; j < W; j++) {
            const int64_t from = place + kept - j;
            if (from >= 0 && from < steps) d += vec_load_part(job->taps + j * D + c0 + c, count) * vec_load(dz + from * BLOCK + c);
        }
        if (last && in_window >= 0)
            for (int64_t i = 0; i < count; i++) d[i] += act_get(last + (c + i) * kept);
        if (stride == 1)
            act_store_part(dx + c, d, count);
        else
            for (int64_t i = 0; i < count; i++) act_put(dx + (c + i) * stride, d[i]);
    }
}

INLINE void backward_tile(const struct job *job, int64_t index, int64_t c0, int64_t width, int W) {
    const struct arguments *a = job->a;
    const struct tile *tile = job->tiles + index;
    const int64_t D = a->channels, steps = rit_min(tile->to + W - 1, tile->span.end) - tile->from;
    act before[TAPS * BLOCK];
    inputs_before(a, tile, c0, width, before);
    real *dz = rit_scratch((TILE + 2 * W + 1) * BLOCK), *partial = dz + (TILE + W) * BLOCK;
    memset(partial, 0, (size_t)((W + 1) * BLOCK) * sizeof *partial);
    for (int64_t i = 0; i < steps; i++)
        back_activation(job, tile, c0, width, before, tile->from + i, dz + i * BLOCK, partial, W);
    for (int64_t i = 0; a->dx && i < tile->to - tile->from; i++)
        back_input(job, tile, c0, width, dz, i, steps, a->dx + (tile->span.row * a->steps + tile->from + i) * D + c0, 1, W);
    if (a->dwindow && tile->from == tile->span.start)
        for (int i = 0; i < W - 1; i++)
            back_input(job, tile, c0, width, dz, i - (W - 1), steps, a->dwindow + (tile->n * D + c0) * (W - 1) + i, W - 1, W);
    for (int j = 0; j <= W; j++)
        memcpy(job->partials + (index * (W + 1) + j) * D + c0, partial + j * BLOCK, (size_t)width * sizeof *partial);
    free(dz);
}

static void backward_body(void *context, int64_t index) {
    const struct job *job = context;
    const int64_t c0 = index % job->blocks * BLOCK, width = rit_min(BLOCK, job->a->channels - c0);
    if (job->a->taps == 4)
        backward_tile(job, index / job->blocks, c0, width, 4);
    else
        backward_tile(job, index / job->blocks, c0, width, (int)job->a->taps);
}

static int64_t work(const struct arguments *a) {
    return (a->starts ? 1 : a->sequences) * a->steps * a->channels * (a->taps + (a->silu ? 12 : 0));
}

RIT_ENTRY(causal_conv_forward)(const struct arguments *a) {
    struct job job;
    plan(&job, a);
    rit_parallel_sized(job.tile_count * job.blocks, work(a), forward_body, &job);
    finish(&job);
}

RIT_ENTRY(causal_conv_backward)(const struct arguments *a) {
    struct job job;
    const int64_t W = a->taps, D = a->channels;
    plan(&job, a);
    job.partials = rit_scratch(job.tile_count * (W + 1) * D);
    rit_parallel_sized(job.tile_count * job.blocks, 3 * work(a), backward_body, &job);
    memset(a->dweight, 0, (size_t)(D * W) * sizeof(real));
    memset(a->dbias, 0, (size_t)D * sizeof(real));
    for (int64_t i = 0; i < job.tile_count; i++)
        for (int64_t d = 0; d < D; d++) {
            const real *partial = job.partials + i * (W + 1) * D + d;
            for (int64_t j = 0; j < W; j++) a->dweight[d * W + j] += partial[j * D];
            a->dbias[d] += partial[W * D];
        }
    finish(&job);
}
