/* The running softmax average: m' = max(log d + m, l); u' = e^{log d + m − m'} u + e^{l − m'} v; w' likewise with 1; y = u'/w'.
 *
 * A step has two parts: the weights of a block of channels (the lanes are channels), then the values they weigh: the same
 * lanes, or where a channel has a vector of V values, the vector's. The backward pass walks back in chunks, recomputes the
 * weights and the states within a chunk from a checkpoint, and holds m constant, as nothing depends on it. */
#include "functions.h"

enum { CHUNK = 32, MOST = 256 };

struct arguments {
    const real *logits, *log_decay, *bonus, *m, *u, *w; /* log_decay and bonus may be null */
    const act *values;
    act *out;
    real *last_m, *last_u, *last_w, *checkpoints; /* (slots, C (V + 2)): m, u, w before each chunk; or null */
    const int64_t *starts;
    int64_t sequences, steps, channels, size; /* size: V, or 0 where the values are like the logits */
    int64_t logits_row, logits_step, decay_row, decay_step, values_row, values_step;
    const act *grad; /* backward only, from here; gradients of results are null where absent */
    const real *grad_u, *grad_w;
    real *dlogits, *ddecay, *dbonus, *du, *dw; /* dbonus (sequences, C) */
    act *dvalues;
    int64_t grad_row, grad_step;
};

/* One block of one sequence; `wide` is its number of values, `lanes` its channels rounded up to whole vectors. */
struct place {
    struct rit_span span;
    int64_t n, c0, width, wide, lanes, V;
};

/* The weights of one step, for each channel of a block, and the state they leave. */
struct weights {
    real *keep, *add;             /* u' = keep u + add v */
    real *read_keep, *read_add;   /* with a bonus: the output's own */
    real *inverse;                /* 1 / denominator of the output, 1 where that is 0, and the numerator too */
};

/* One call: its arguments, and how its channels are cut. */
struct job {
    const struct arguments *a;
    struct rit_blocks blocks;
};

static struct place place_of(const struct job *job, int64_t index) {
    const struct arguments *a = job->a;
    const int64_t n = index / job->blocks.count, c0 = index % job->blocks.count * job->blocks.width;
    const int64_t width = rit_min(job->blocks.width, a->channels - c0);
    const int64_t V = rit_max(a->size, 1);
    return (struct place){rit_span(a->starts, n, a->steps), n, c0, width, width * V,
                          rit_divide_up(width, RIT_LANES) * RIT_LANES, V};
}

static struct weights weights_at(real *memory, int64_t lanes) {
    return (struct weights){memory, memory + lanes, memory + 2 * lanes, memory + 3 * lanes, memory + 4 * lanes};
}

/* The maximum to subtract: 0 where nothing, or an infinity, has a weight, as −∞ − (−∞) is not a number. */
INLINE vec anchor(vec top) { return vec_select(vec_abs(top) == (real)INFINITY, vec_set(0), top); }

/* The weights of a step, and m and w after it. */
INLINE void weigh(const struct arguments *a, const struct place *p, int64_t t, real *m, real *w, const struct weights *k) {
    const real *logits = a->logits + p->span.row * a->logits_row + t * a->logits_step + p->c0;
    const real *log_decay = a->log_decay ? a->log_decay + p->span.row * a->decay_row + t * a->decay_step + p->c0 : 0;
    for (int64_t c = 0; c < p->width; c += RIT_LANES) {
        const int64_t count = rit_min(p->width - c, RIT_LANES);
        const vec logit = vec_load_part(logits + c, count);
        vec before = vec_load(m + c), weight = vec_load(w + c), bottom = vec_set(1);
        if (a->bonus) {
            const vec present = logit + vec_load_part(a->bonus + p->c0 + c, count), top = anchor(vec_max(before, present));
            const vec keep = vec_exp(before - top), add = vec_exp(present - top);
            vec_store(k->read_keep + c, keep);
            vec_store(k->read_add + c, add);
            bottom = keep * weight + add;
        }
        if (log_decay) before += vec_load_part(log_decay + c, count);
        const vec now = vec_max(before, logit), top = anchor(now), keep = vec_exp(before - top), add = vec_exp(logit - top);
        weight = keep * weight + add;
        if (!a->bonus) bottom = weight;
        vec_store(k->keep + c, keep);
        vec_store(k->add + c, add);
        vec_store(k->inverse + c, REAL(1.0) / vec_select(bottom > 0, bottom, vec_set(1)));
        vec_store(m + c, now);
        vec_store(w + c, weight);
    }
}

/* `count` values of one channel each (the weights are vectors) or all of one channel (they are one number, spread). */
#define WEIGHT(array) (a->size ? vec_set(k->array[c]) : vec_load(k->array + c))

INLINE void apply_vector(const struct arguments *a, const struct weights *k, const act *v, const real *before, real *u,
                         act *out, int64_t c, int64_t at, int64_t count) {
    const vec value = act_load_part(v + at, count), old = vec_load_part(before + at, count);
    const vec now = WEIGHT(keep) * old + WEIGHT(add) * value;
    vec_store_part(u + at, now, count);
    if (!out) return;
    const vec top = a->bonus ? WEIGHT(read_keep) * old + WEIGHT(read_add) * value : now;
    act_store_part(out + at, top * WEIGHT(inverse), count);
}

/* The numerators after a step, and its output. */
INLINE void apply(const struct arguments *a, const struct place *p, const struct weights *k, const act *v,
                  const real *before, real *u, act *out) {
    if (!a->size) {
        for (int64_t c = 0; c < p->width; c += RIT_LANES)
            apply_vector(a, k, v, before, u, out, c, c, rit_min(p->width - c, RIT_LANES));
        return;
    }
    for (int64_t c = 0; c < p->width; c++)
        for (int64_t j = 0; j < p->V; j += RIT_LANES)
            apply_vector(a, k, v, before, u, out, c, c * p->V + j, rit_min(p->V - j, RIT_LANES));
}

/* Where a sequence's checkpoint of chunk `chunk` keeps m, u and w of a block. */
struct checkpoint {
    real *m, *u, *w;
};

INLINE struct checkpoint checkpoint_of(const struct arguments *a, const struct place *p, int64_t chunk) {
    const int64_t first = rit_first_slot(a->starts, p->n, a->steps, CHUNK), C = a->channels;
    real *slot = a->checkpoints + (first + chunk) * C * (p->V + 2);
    return (struct checkpoint){slot + p->c0, slot + C + p->c0 * p->V, slot + C * (p->V + 1) + p->c0};
}

INLINE void copy(real *to, const real *from, int64_t count) { memcpy(to, from, (size_t)count * sizeof *to); }

static void forward_body(void *job, int64_t index) {
    const struct arguments *a = ((const struct job *)job)->a;
    const struct place p = place_of(job, index);
    const int64_t C = a->channels, at = p.n * C + p.c0;
    real *m = rit_scratch(7 * p.lanes + p.wide), *w = m + p.lanes, *u = w + 6 * p.lanes;
    memset(m, 0, (size_t)(7 * p.lanes) * sizeof *m);
    const struct weights k = weights_at(w + p.lanes, p.lanes);
    copy(m, a->m + at, p.width);
    copy(u, a->u + at * p.V, p.wide);
    copy(w, a->w + at, p.width);
    for (int64_t t = p.span.start; t < p.span.end; t++) {
        if (a->checkpoints && (t - p.span.start) % CHUNK == 0) {
            const struct checkpoint kept = checkpoint_of(a, &p, (t - p.span.start) / CHUNK);
            copy(kept.m, m, p.width);
            copy(kept.u, u, p.wide);
            copy(kept.w, w, p.width);
        }
        weigh(a, &p, t, m, w, &k);
        apply(a, &p, &k, a->values + p.span.row * a->values_row + t * a->values_step + p.c0 * p.V, u, u,
              a->out + ((p.span.row * a->steps + t) * C + p.c0) * p.V);
    }
    copy(a->last_m + at, m, p.width);
    copy(a->last_u + at * p.V, u, p.wide);
    copy(a->last_w + at, w, p.width);
    free(m);
}

/* Sums over the values of each channel: of (dy/bottom)·y, (dy/bottom)·v, du·v and du·u. */
struct sums {
    real *read, *read_value, *value, *state;
};

struct four {
    vec read, read_value, value, state;
};

INLINE void back_values(const struct arguments *a, const struct weights *k, const act *v, const act *grad,
                        const real *before, real *du, act *dv, int64_t c, int64_t at, int64_t count, struct four *sum) {
    const vec value = act_load_part(v + at, count), u = vec_load_part(before + at, count);
    const vec keep = WEIGHT(keep), add = WEIGHT(add), inverse = WEIGHT(inverse);
    const vec read = (grad ? act_load_part(grad + at, count) : vec_set(0)) * inverse;
    vec d = vec_load_part(du + at, count), dvalue = vec_set(0), past = vec_set(0), y;
    if (a->bonus) {
        const vec read_keep = WEIGHT(read_keep), read_add = WEIGHT(read_add);
        y = (read_keep * u + read_add * value) * inverse;
        dvalue = read_add * read;
        past = read_keep * read;
    } else {
        y = (keep * u + add * value) * inverse;
        d += read;
    }
    sum->read += read * y;
    sum->read_value += read * value;
    sum->value += d * value;
    sum->state += d * u;
    if (dv) act_store_part(dv + at, dvalue + add * d, count);
    vec_store_part(du + at, past + keep * d, count);
}

INLINE void back_apply(const struct arguments *a, const struct place *p, const struct weights *k, const act *v,
                       const act *grad, const real *before, real *du, act *dv, const struct sums *s) {
    const int64_t stride = a->size ? 1 : RIT_LANES;
    for (int64_t c = 0; c < p->width; c += stride) {
        struct four sum = {{0}, {0}, {0}, {0}};
        if (a->size) {
            for (int64_t j = 0; j < p->V; j += RIT_LANES)
                back_values(a, k, v, grad, before, du, dv, c, c * p->V + j, rit_min(p->V - j, RIT_LANES), &sum);
            s->read[c] = vec_sum(sum.read);
            s->read_value[c] = vec_sum(sum.read_value);
            s->value[c] = vec_sum(sum.value);
            s->state[c] = vec_sum(sum.state);
        } else {
            back_values(a, k, v, grad, before, du, dv, c, c, rit_min(p->width - c, RIT_LANES), &sum);
            vec_store(s->read + c, sum.read);
            vec_store(s->read_value + c, sum.read_value);
            vec_store(s->value + c, sum.value);
            vec_store(s->state + c, sum.state);
        }
    }
}

/* The gradients of a step's logits, decay and bonus from those sums; dw is that of the denominator. */
INLINE void back_weights(const struct arguments *a, const struct place *p, int64_t t, const struct weights *k,
                         const struct sums *s, const real *before, real *dw, real *dbonus) {
    const int64_t at = (p->span.row * a->steps + t) * a->channels + p->c0;
    for (int64_t c = 0; c < p->width; c += RIT_LANES) {
        const int64_t count = rit_min(p->width - c, RIT_LANES);
        const vec keep = vec_load(k->keep + c), add = vec_load(k->add + c), dbottom = -vec_load(s->read + c);
        vec d = vec_load(dw + c), dlogit = vec_set(0), past = vec_set(0);
        if (a->bonus) {
            dlogit = vec_load(k->read_add + c) * (vec_load(s->read_value + c) + dbottom);
            past = vec_load(k->read_keep + c) * dbottom;
            vec_store(dbonus + c, vec_load(dbonus + c) + dlogit);
        } else {
            d += dbottom;
        }
        dlogit += add * (vec_load(s->value + c) + d);
        vec_store_part(a->dlogits + at + c, dlogit, count);
        if (a->ddecay) vec_store_part(a->ddecay + at + c, keep * (vec_load(s->state + c) + d * vec_load(before + c)), count);
        vec_store(dw + c, past + keep * d);
    }
}

/* What a block's backward pass works with, over a chunk: weights, and w and u before each step; then what is carried. */
struct work {
    real *weights, *w, *u, *m, *du, *dw, *dbonus;
    struct sums sums;
};

static struct work work_new(const struct place *p) {
    const int64_t L = p->lanes;
    const int64_t count = CHUNK * 5 * L + (CHUNK + 1) * (L + p->wide) + p->wide + 7 * L;
    real *memory = rit_scratch(count);
    memset(memory, 0, (size_t)count * sizeof *memory);
    struct work k = {.weights = memory};
    k.w = k.weights + CHUNK * 5 * L;
    k.u = k.w + (CHUNK + 1) * L;
    k.du = k.u + (CHUNK + 1) * p->wide;
    k.m = k.du + p->wide;
    k.dw = k.m + L;
    k.dbonus = k.dw + L;
    k.sums = (struct sums){k.dbonus + L, k.dbonus + 2 * L, k.dbonus + 3 * L, k.dbonus + 4 * L};
    return k;
}

INLINE void recompute(const struct arguments *a, const struct place *p, const struct work *k, int64_t chunk, int64_t from,
                      int64_t to) {
    const struct checkpoint kept = checkpoint_of(a, p, chunk);
    copy(k->m, kept.m, p->width);
    copy(k->w, kept.w, p->width);
    copy(k->u, kept.u, p->wide);
    for (int64_t t = from; t < to; t++) {
        const struct weights at = weights_at(k->weights + (t - from) * 5 * p->lanes, p->lanes);
        real *w = k->w + (t - from) * p->lanes, *u = k->u + (t - from) * p->wide;
        copy(w + p->lanes, w, p->lanes);
        weigh(a, p, t, k->m, w + p->lanes, &at);
        apply(a, p, &at, a->values + p->span.row * a->values_row + t * a->values_step + p->c0 * p->V, u, u + p->wide, 0);
    }
}

static void backward_body(void *job, int64_t index) {
    const struct arguments *a = ((const struct job *)job)->a;
    const struct place p = place_of(job, index);
    const int64_t C = a->channels, first = p.n * C + p.c0;
    const struct work k = work_new(&p);
    if (a->grad_u) copy(k.du, a->grad_u + first * p.V, p.wide);
    if (a->grad_w) copy(k.dw, a->grad_w + first, p.width);
    for (int64_t chunk = rit_divide_up(p.span.end - p.span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = p.span.start + chunk * CHUNK, to = rit_min(from + CHUNK, p.span.end);
        recompute(a, &p, &k, chunk, from, to);
        for (int64_t t = to - 1; t >= from; t--) {
            const struct weights at = weights_at(k.weights + (t - from) * 5 * p.lanes, p.lanes);
            const act *v = a->values + p.span.row * a->values_row + t * a->values_step + p.c0 * p.V;
            const act *grad = a->grad ? a->grad + p.span.row * a->grad_row + t * a->grad_step + p.c0 * p.V : 0;
            act *dv = a->dvalues + ((p.span.row * a->steps + t) * C + p.c0) * p.V;
            back_apply(a, &p, &at, v, grad, k.u + (t - from) * p.wide, k.du, dv, &k.sums);
            back_weights(a, &p, t, &at, &k.sums, k.w + (t - from) * p.lanes, k.dw, k.dbonus);
        }
    }
    copy(a->du + first * p.V, k.du, p.wide);
    copy(a->dw + first, k.dw, p.width);
    if (a->dbonus) copy(a->dbonus + first, k.dbonus, p.width);
    free(k.weights);
}

static void over_items(const struct arguments *a, int64_t cost, rit_body body) {
    const int64_t unit = a->size ? 1 : 16, most = a->size ? rit_max(1, 8 * MOST / a->size) : MOST;
    struct job job = {a, rit_blocks(a->sequences, a->channels, unit, most)};
    const int64_t channels = (a->starts ? 1 : a->sequences) * a->steps * a->channels;
    rit_parallel_sized(a->sequences * job.blocks.count, channels * (30 + 2 * a->size) * cost, body, &job);
}

RIT_ENTRY(softmax_scan_forward)(const struct arguments *a) { over_items(a, 1, forward_body); }
RIT_ENTRY(softmax_scan_backward)(const struct arguments *a) { over_items(a, 3, backward_body); }
