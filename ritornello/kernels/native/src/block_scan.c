/* h_i ← Σ_j a_ij ⊙ h_j + b_i, n = 2, 3 or 4 states of D channels: time in order, the lanes of a vector are channels.
 *
 * As in diagonal_scan.c: the states of a block of channels stay in L1 while a, b and h stream past once, and the
 * backward pass recomputes the states of a chunk from a checkpoint at its start. */
#include "isa.h"

enum { CHUNK = 64, MOST = 256, MOST_STATES = 4 };

struct arguments {
    const act *a, *b; /* (n, n, D) and (n, D) dense, at strides of their own over rows and steps */
    const real *state;
    act *out;
    real *last, *checkpoints; /* the states before each chunk, (slots, n, D); no checkpoints where null */
    const int64_t *starts;
    int64_t sequences, steps, states, channels;
    int64_t a_row, a_step, b_row, b_step;
    /* backward only: the gradients of out (strided) and last, and those of a, b and state; null where not wanted */
    const act *grad;
    const real *grad_last;
    act *da, *db;
    real *dstate;
    int64_t grad_row, grad_step;
};

/* One call: its arguments, and how its channels are cut. */
struct job {
    const struct arguments *a;
    struct rit_blocks blocks;
};

/* Where one item stands: its sequence, its channels, and the addresses that go with them. */
struct item {
    struct rit_span span;
    int64_t c0, width, slot, base, out_base;
    const act *a, *b;
};

INLINE struct item item_of(const struct job *job, int64_t index, int n) {
    const struct arguments *a = job->a;
    const int64_t row = index / job->blocks.count;
    struct item x;
    x.span = rit_span(a->starts, row, a->steps);
    x.c0 = index % job->blocks.count * job->blocks.width;
    x.width = rit_min(job->blocks.width, a->channels - x.c0);
    x.slot = rit_first_slot(a->starts, row, a->steps, CHUNK);
    x.base = row * n * a->channels + x.c0; /* of state, last and dstate */
    x.out_base = x.span.row * a->steps * n * a->channels + x.c0;
    x.a = a->a + x.span.row * a->a_row + x.c0;
    x.b = a->b + x.span.row * a->b_row + x.c0;
    return x;
}

/* Rows of `width` channels between memory of row length D and a dense scratch of row length MOST. */
INLINE void gather(real *to, const real *from, int64_t rows, int64_t width, int64_t D) {
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * MOST, from + i * D, (size_t)width * sizeof *to);
}

INLINE void scatter(real *to, const real *from, int64_t rows, int64_t width, int64_t D) {
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * D, from + i * MOST, (size_t)width * sizeof *to);
}

INLINE void step(const act *a, const act *b, const real *before, real *h, act *out, int64_t width, int64_t D, int n) {
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t rest = rit_min(width - c, RIT_LANES);
        vec old[MOST_STATES];
        for (int j = 0; j < n; j++) old[j] = vec_load_part(before + j * MOST + c, rest);
        for (int i = 0; i < n; i++) {
            vec x = act_load_part(b + i * D + c, rest);
            for (int j = 0; j < n; j++) x += act_load_part(a + (i * n + j) * D + c, rest) * old[j];
            vec_store_part(h + i * MOST + c, x, rest);
            if (out) act_store_part(out + i * D + c, x, rest);
        }
    }
}

INLINE void forward(const struct job *job, int64_t index, int n) {
    const struct arguments *a = job->a;
    const struct item x = item_of(job, index, n);
    const int64_t D = a->channels;
    real h[MOST_STATES * MOST] __attribute__((aligned(64)));
    gather(h, a->state + x.base, n, x.width, D);
    real *checkpoint = a->checkpoints ? a->checkpoints + x.slot * n * D + x.c0 : 0;
    for (int64_t t = x.span.start; t < x.span.end; t++) {
        if (checkpoint && (t - x.span.start) % CHUNK == 0) {
            scatter(checkpoint, h, n, x.width, D);
            checkpoint += n * D;
        }
        step(x.a + t * a->a_step, x.b + t * a->b_step, h, h, a->out + x.out_base + t * n * D, x.width, D, n);
    }
    scatter(a->last + x.base, h, n, x.width, D);
}

/* dh ← dh + g; db = dh; da_ij = dh_i h_j; dh_j ← Σ_i a_ij dh_i. */
INLINE void back_step(const act *a, const act *g, const real *before, real *dh, act *da, act *db, int64_t width,
                      int64_t D, int n) {
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t rest = rit_min(width - c, RIT_LANES);
        vec d[MOST_STATES];
        for (int i = 0; i < n; i++) {
            d[i] = vec_load_part(dh + i * MOST + c, rest);
            if (g) d[i] += act_load_part(g + i * D + c, rest);
            if (db) act_store_part(db + i * D + c, d[i], rest);
        }
        for (int j = 0; j < n; j++) {
            const vec h = da ? vec_load_part(before + j * MOST + c, rest) : (vec){0};
            vec sum = {0};
            for (int i = 0; i < n; i++) {
                sum += act_load_part(a + (i * n + j) * D + c, rest) * d[i];
                if (da) act_store_part(da + (i * n + j) * D + c, d[i] * h, rest);
            }
            vec_store_part(dh + j * MOST + c, sum, rest);
        }
    }
}

INLINE void backward(const struct job *job, int64_t index, int n) {
    const struct arguments *a = job->a;
    const struct item x = item_of(job, index, n);
    const int64_t D = a->channels, size = (int64_t)n * MOST;
    const act *pg = a->grad ? a->grad + x.span.row * a->grad_row + x.c0 : 0;
    const int64_t da_base = x.span.row * a->steps * n * n * D + x.c0;
    real dh[MOST_STATES * MOST] __attribute__((aligned(64))) = {0};
    if (a->grad_last) gather(dh, a->grad_last + x.base, n, x.width, D);
    real *h = a->da ? rit_scratch(CHUNK * size) : 0; /* h[j]: before step j of the chunk */
    for (int64_t chunk = rit_divide_up(x.span.end - x.span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = x.span.start + chunk * CHUNK, to = rit_min(from + CHUNK, x.span.end);
        if (h) {
            gather(h, a->checkpoints + (x.slot + chunk) * n * D + x.c0, n, x.width, D);
            for (int64_t t = from; t + 1 < to; t++)
                step(x.a + t * a->a_step, x.b + t * a->b_step, h + (t - from) * size, h + (t - from + 1) * size, 0,
                     x.width, D, n);
        }
        for (int64_t t = to - 1; t >= from; t--)
            back_step(x.a + t * a->a_step, pg ? pg + t * a->grad_step : 0, h ? h + (t - from) * size : 0, dh,
                      h ? a->da + da_base + t * n * n * D : 0, a->db ? a->db + x.out_base + t * n * D : 0, x.width, D,
                      n);
    }
    free(h);
    if (a->dstate) scatter(a->dstate + x.base, dh, n, x.width, D);
}

static void over_items(const struct arguments *a, rit_body body) {
    struct job job = {a, rit_blocks(a->sequences, a->channels, 16, MOST)};
    const int64_t rows = a->starts ? 1 : a->sequences;
    rit_parallel_sized(a->sequences * job.blocks.count, rows * a->steps * a->channels * a->states * a->states, body, &job);
}

#define BODIES(n)                                                                 \
    static void forward_##n(void *job, int64_t index) { forward(job, index, n); } \
    static void backward_##n(void *job, int64_t index) { backward(job, index, n); }

BODIES(2)
BODIES(3)
BODIES(4)

RIT_ENTRY(block_scan_forward)(const struct arguments *a) {
    static const rit_body bodies[] = {forward_2, forward_3, forward_4};
    over_items(a, bodies[a->states - 2]);
}

RIT_ENTRY(block_scan_backward)(const struct arguments *a) {
    static const rit_body bodies[] = {backward_2, backward_3, backward_4};
    over_items(a, bodies[a->states - 2]);
}
