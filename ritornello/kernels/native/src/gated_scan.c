/* h ← (1 − z) ⊙ h + z ⊙ g(v), z = σ(gate): a diagonal scan that is given its gate and not a and b, which never stand in
 * memory. Arranged as diagonal_scan.c: time in order, the lanes of a vector are channels, the states of a block of
 * channels in L1; the backward pass recomputes the states of a chunk from a checkpoint at its start. */
#include "functions.h"

enum { CHUNK = 64, MOST = 512, AHEAD = 2 };
enum activation { IDENTITY, POSITIVE, TANH, SILU };

struct arguments {
    const act *gate, *value;
    const real *state;
    act *out;
    real *last, *checkpoints; /* h before each chunk, (slots, C); no checkpoints where null */
    const int64_t *starts;
    int64_t sequences, steps, channels, activation;
    int64_t gate_row, gate_step, value_row, value_step;
    /* backward only: the gradients of out (strided) and last, and those of gate, value and state */
    const act *grad;
    const real *grad_last;
    act *dgate, *dvalue;
    real *dstate;
    int64_t grad_row, grad_step;
};

/* One call: its arguments, and how its channels are cut. */
struct job {
    const struct arguments *a;
    struct rit_blocks blocks;
};

/* g(v). */
INLINE vec candidate(vec v, enum activation kind) {
    if (kind == POSITIVE) return vec_select(v >= 0, v + REAL(0.5), vec_sigmoid(v));
    if (kind == TANH) return vec_tanh(v);
    if (kind == SILU) return vec_silu(v);
    return v;
}

/* g′(v); `g` is g(v). */
INLINE vec slope(vec v, vec g, enum activation kind) {
    if (kind == POSITIVE) return vec_select(v >= 0, vec_set(1), g * (1 - g));
    if (kind == TANH) return 1 - g * g;
    if (kind == SILU) return vec_silu_slope(v);
    return vec_set(1);
}

INLINE void step(const act *gate, const act *value, const real *before, real *h, act *out, int64_t width,
                 int64_t gate_next, int64_t value_next, enum activation kind) {
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t rest = rit_min(width - c, RIT_LANES);
        __builtin_prefetch(gate + c + gate_next);
        __builtin_prefetch(value + c + value_next);
        if (out) __builtin_prefetch(out + c, 1);
        const vec z = vec_sigmoid(act_load_part(gate + c, rest)), old = vec_load_part(before + c, rest);
        const vec x = old + z * (candidate(act_load_part(value + c, rest), kind) - old);
        vec_store_part(h + c, x, rest);
        if (out) act_store_part(out + c, x, rest);
    }
}

/* dh ← dh + grad; dz = dh (g(v) − h); dgate = dz z (1 − z); dv = dh z g′(v); dh ← (1 − z) dh. */
INLINE void back_step(const act *gate, const act *value, const act *grad, const real *before, real *dh, act *dgate,
                      act *dvalue, int64_t width, int64_t grad_next, int64_t d_next, enum activation kind) {
    for (int64_t c = 0; c < width; c += RIT_LANES) {
        const int64_t rest = rit_min(width - c, RIT_LANES);
        if (grad) __builtin_prefetch(grad + c + grad_next);
        __builtin_prefetch(dgate + c + d_next, 1);
        __builtin_prefetch(dvalue + c + d_next, 1);
        const vec z = vec_sigmoid(act_load_part(gate + c, rest)), v = act_load_part(value + c, rest);
        const vec g = candidate(v, kind);
        vec d = vec_load_part(dh + c, rest);
        if (grad) d += act_load_part(grad + c, rest);
        const vec dz = d * z;
        act_store_part(dgate + c, dz * (1 - z) * (g - vec_load_part(before + c, rest)), rest);
        act_store_part(dvalue + c, dz * slope(v, g, kind), rest);
        vec_store_part(dh + c, d - dz, rest);
    }
}

struct item {
    struct rit_span span;
    int64_t width, slot, base, out_base; /* slot: of the first checkpoint; base: of state and last */
    const act *gate, *value;
};

INLINE struct item item_of(const struct job *job, int64_t index) {
    const struct arguments *a = job->a;
    const int64_t n = index / job->blocks.count, c0 = index % job->blocks.count * job->blocks.width;
    const struct rit_span span = rit_span(a->starts, n, a->steps);
    return (struct item){
        .span = span,
        .width = rit_min(job->blocks.width, a->channels - c0),
        .slot = rit_first_slot(a->starts, n, a->steps, CHUNK) * a->channels + c0,
        .base = n * a->channels + c0,
        .out_base = span.row * a->steps * a->channels + c0,
        .gate = a->gate + span.row * a->gate_row + c0,
        .value = a->value + span.row * a->value_row + c0,
    };
}

INLINE void forward(const struct job *job, int64_t index, enum activation kind) {
    const struct arguments *a = job->a;
    const struct item x = item_of(job, index);
    real h[MOST] __attribute__((aligned(64)));
    memcpy(h, a->state + x.base, (size_t)x.width * sizeof *h);
    real *checkpoint = a->checkpoints ? a->checkpoints + x.slot : 0;
    for (int64_t t = x.span.start; t < x.span.end; t++) {
        if (checkpoint && (t - x.span.start) % CHUNK == 0) {
            memcpy(checkpoint, h, (size_t)x.width * sizeof *h);
            checkpoint += a->channels;
        }
        step(x.gate + t * a->gate_step, x.value + t * a->value_step, h, h, a->out + x.out_base + t * a->channels, x.width,
             AHEAD * a->gate_step, AHEAD * a->value_step, kind);
    }
    memcpy(a->last + x.base, h, (size_t)x.width * sizeof *h);
}

INLINE void backward(const struct job *job, int64_t index, enum activation kind) {
    const struct arguments *a = job->a;
    const struct item x = item_of(job, index);
    const int64_t C = a->channels;
    const act *grad = a->grad ? a->grad + x.span.row * a->grad_row + (x.base % C) : 0;
    real dh[MOST] __attribute__((aligned(64))) = {0};
    if (a->grad_last) memcpy(dh, a->grad_last + x.base, (size_t)x.width * sizeof *dh);
    real *h = rit_scratch(CHUNK * MOST); /* h[j]: before step j of the chunk */
    for (int64_t chunk = rit_divide_up(x.span.end - x.span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = x.span.start + chunk * CHUNK, to = rit_min(from + CHUNK, x.span.end);
        memcpy(h, a->checkpoints + x.slot + chunk * C, (size_t)x.width * sizeof *h);
        for (int64_t t = from; t + 1 < to; t++)
            step(x.gate + t * a->gate_step, x.value + t * a->value_step, h + (t - from) * MOST, h + (t - from + 1) * MOST,
                 0, x.width, AHEAD * a->gate_step, AHEAD * a->value_step, kind);
        for (int64_t t = to - 1; t >= from; t--)
            back_step(x.gate + t * a->gate_step, x.value + t * a->value_step, grad ? grad + t * a->grad_step : 0,
                      h + (t - from) * MOST, dh, a->dgate + x.out_base + t * C, a->dvalue + x.out_base + t * C, x.width,
                      -AHEAD * a->grad_step, -AHEAD * C, kind);
    }
    free(h);
    memcpy(a->dstate + x.base, dh, (size_t)x.width * sizeof *dh);
}

#define BODIES(name, kind)                                                              \
    static void forward_##name(void *job, int64_t index) { forward(job, index, kind); } \
    static void backward_##name(void *job, int64_t index) { backward(job, index, kind); }

BODIES(identity, IDENTITY)
BODIES(positive, POSITIVE)
BODIES(tanh, TANH)
BODIES(silu, SILU)

static void over_items(const struct arguments *a, const rit_body *bodies) {
    struct job job = {a, rit_blocks(a->sequences, a->channels, 32, MOST)};
    const int64_t rows = a->starts ? 1 : a->sequences;
    rit_parallel_sized(a->sequences * job.blocks.count, 16 * rows * a->steps * a->channels, bodies[a->activation], &job);
}

RIT_ENTRY(gated_scan_forward)(const struct arguments *a) {
    static const rit_body bodies[] = {forward_identity, forward_positive, forward_tanh, forward_silu};
    over_items(a, bodies);
}

RIT_ENTRY(gated_scan_backward)(const struct arguments *a) {
    static const rit_body bodies[] = {backward_identity, backward_positive, backward_tanh, backward_silu};
    over_items(a, bodies);
}
