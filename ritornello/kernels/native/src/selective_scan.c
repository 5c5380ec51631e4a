/* h ← e^{ΔA} h + Δ x Bᵀ, y = h C + D x: blocks of 64 channels, the lanes are channels.
 *
 * With channels in the lanes, y sums over the N states of a channel without a horizontal sum, and B and C are scalars. A
 * block's state, (N, 64), stays in L1. The backward pass walks back in chunks from checkpoints of the state, recomputes h
 * and e^{ΔA} within a chunk, and sums what B and C get over a block's lanes once per chunk. One step without gradients
 * (decoding) has the states in the lanes instead, as the state lies in memory. */
#include "isa.h"

enum { CHUNK = 32, BLOCK = 64 };

struct arguments {
    const act *x, *delta, *B, *C;
    const real *A, *D, *state; /* (D, N), (D) or null, (sequences, D, N) */
    act *out;
    real *last, *checkpoints; /* h before each chunk, (slots, blocks, N, BLOCK); no checkpoints where null */
    const int64_t *starts;
    int64_t sequences, steps, channels, states, is_signed;
    int64_t x_row, x_step, delta_row, delta_step, B_row, B_step, C_row, C_step;
    const act *grad; /* backward only, from here; null where absent */
    const real *grad_last;
    act *dx, *ddelta;
    real *dA, *dB, *dC, *dD, *dstate;
    int64_t grad_row, grad_step;
};

struct job {
    const struct arguments *a;
    int64_t blocks;
    real *of_A, *of_D; /* partial gradients: (items, N, BLOCK), (items, BLOCK) */
    real *of_B, *of_C; /* (blocks, rows, steps, N) */
};

/* One block of one sequence. */
struct place {
    struct rit_span span;
    int64_t n, block, c0, width;
};

static struct place place_of(const struct job *job, int64_t index) {
    const struct arguments *a = job->a;
    const int64_t n = index / job->blocks, block = index % job->blocks, c0 = block * BLOCK;
    return (struct place){rit_span(a->starts, n, a->steps), n, block, c0, rit_min(BLOCK, a->channels - c0)};
}

/* (width, N) to (N, BLOCK) and back; channels that do not exist are zero. */
static void transpose_in(const real *from, real *to, int64_t width, int64_t N) {
    for (int64_t n = 0; n < N; n++)
        for (int64_t c = 0; c < BLOCK; c++) to[n * BLOCK + c] = c < width ? from[c * N + n] : 0;
}

static void transpose_out(const real *from, real *to, int64_t width, int64_t N) {
    for (int64_t c = 0; c < width; c++)
        for (int64_t n = 0; n < N; n++) to[c * N + n] = from[n * BLOCK + c];
}

INLINE void widen(const act *from, real *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = act_get(from + i);
}

/* Where a sequence's checkpoints of a block begin; they are `stride` apart. */
INLINE real *checkpoint_of(const struct arguments *a, const struct place *p, int64_t *stride) {
    const int64_t slot = rit_first_slot(a->starts, p->n, a->steps, CHUNK), size = a->states * BLOCK;
    *stride = rit_divide_up(a->channels, BLOCK) * size;
    return a->checkpoints + slot * *stride + p->block * size;
}

/* One step of one vector of channels; returns y without the skip. */
INLINE vec step(real *h, const real *A, const real *B, const real *C, vec x, vec delta, int64_t N, int is_signed) {
    const vec added = delta * x;
    vec y = vec_set(0);
    for (int64_t n = 0; n < N; n++) {
        vec keep = vec_exp(delta * vec_load(A + n * BLOCK));
        if (is_signed) keep = REAL(2.0) * keep - REAL(1.0);
        const vec now = keep * vec_load(h + n * BLOCK) + added * B[n];
        vec_store(h + n * BLOCK, now);
        y += now * C[n];
    }
    return y;
}

INLINE void forward(const struct arguments *a, const struct place *p, int is_signed) {
    const int64_t N = a->states;
    real *h = rit_scratch(2 * N * BLOCK + 2 * N), *A = h + N * BLOCK, *B = A + N * BLOCK, *C = B + N;
    transpose_in(a->state + (p->n * a->channels + p->c0) * N, h, p->width, N);
    transpose_in(a->A + p->c0 * N, A, p->width, N);
    int64_t stride = 0;
    real *checkpoint = a->checkpoints ? checkpoint_of(a, p, &stride) : 0;
    for (int64_t t = p->span.start; t < p->span.end; t++) {
        const act *x = a->x + p->span.row * a->x_row + t * a->x_step + p->c0;
        const act *delta = a->delta + p->span.row * a->delta_row + t * a->delta_step + p->c0;
        act *out = a->out + (p->span.row * a->steps + t) * a->channels + p->c0;
        widen(a->B + p->span.row * a->B_row + t * a->B_step, B, N);
        widen(a->C + p->span.row * a->C_row + t * a->C_step, C, N);
        if (checkpoint && (t - p->span.start) % CHUNK == 0) {
            memcpy(checkpoint, h, (size_t)(N * BLOCK) * sizeof *h);
            checkpoint += stride;
        }
        for (int64_t c = 0; c < p->width; c += RIT_LANES) {
            const int64_t count = rit_min(p->width - c, RIT_LANES);
            __builtin_prefetch(x + c + 4 * a->x_step); /* the rows lie pages apart, too far for the hardware */
            __builtin_prefetch(delta + c + 4 * a->delta_step);
            const vec now = act_load_part(x + c, count);
            vec y = step(h + c, A + c, B, C, now, act_load_part(delta + c, count), N, is_signed);
            if (a->D) y += vec_load_part(a->D + p->c0 + c, count) * now;
            act_store_part(out + c, y, count);
        }
    }
    transpose_out(h, a->last + (p->n * a->channels + p->c0) * N, p->width, N);
    free(h);
}

/* One step of one block, the states in the lanes. */
INLINE void decode(const struct arguments *a, const struct place *p, int is_signed) {
    const int64_t N = a->states;
    const act *B = a->B + p->n * a->B_row, *C = a->C + p->n * a->C_row;
    for (int64_t c = p->c0; c < p->c0 + p->width; c++) {
        const real x = act_get(a->x + p->n * a->x_row + c), delta = act_get(a->delta + p->n * a->delta_row + c);
        const int64_t base = (p->n * a->channels + c) * N;
        vec y = vec_set(0);
        for (int64_t n = 0; n < N; n += RIT_LANES) {
            const int64_t count = rit_min(N - n, RIT_LANES);
            vec keep = vec_exp(delta * vec_load_part(a->A + c * N + n, count));
            if (is_signed) keep = REAL(2.0) * keep - REAL(1.0);
            const vec h = keep * vec_load_part(a->state + base + n, count) + delta * x * act_load_part(B + n, count);
            vec_store_part(a->last + base + n, h, count);
            y += h * act_load_part(C + n, count);
        }
        act_put(a->out + p->n * a->channels + c, vec_sum(y) + (a->D ? a->D[c] * x : 0));
    }
}

static void forward_body(void *context, int64_t index) {
    const struct job *job = context;
    const struct arguments *a = job->a;
    const struct place p = place_of(job, index);
    if (a->steps == 1 && !a->starts && !a->checkpoints) {
        if (a->is_signed) decode(a, &p, 1);
        else decode(a, &p, 0);
    } else if (a->is_signed) {
        forward(a, &p, 1);
    } else {
        forward(a, &p, 0);
    }
}

/* What a block's backward pass works with: of the block, of one vector over a chunk, and of the chunk. */
struct work {
    real *A, *dh, *dA, *dD;     /* (N, BLOCK), dD (BLOCK) */
    real *h, *keep;             /* (CHUNK + 1, N, LANES): h before each step; (CHUNK, N, LANES): e^{ΔA} */
    real *B, *C, *of_B, *of_C;  /* (CHUNK, N); (CHUNK, N, LANES) */
};

static struct work work_new(int64_t N) {
    struct work w;
    w.A = rit_scratch(N * (3 * BLOCK + (4 * CHUNK + 1) * RIT_LANES + 2 * CHUNK) + BLOCK);
    w.dh = w.A + N * BLOCK;
    w.dA = w.dh + N * BLOCK;
    w.dD = w.dA + N * BLOCK;
    w.h = w.dD + BLOCK;
    w.keep = w.h + (CHUNK + 1) * N * RIT_LANES;
    w.of_B = w.keep + CHUNK * N * RIT_LANES;
    w.of_C = w.of_B + CHUNK * N * RIT_LANES;
    w.B = w.of_C + CHUNK * N * RIT_LANES;
    w.C = w.B + CHUNK * N;
    return w;
}

/* h and e^{ΔA} of one vector, over the chunk's steps from its checkpoint. */
INLINE void recompute(const struct work *w, const real *checkpoint, const real *A, vec x, vec delta, int64_t i, int64_t N,
                      int is_signed) {
    const vec added = delta * x;
    for (int64_t n = 0; n < N; n++) {
        const int64_t at = (i * N + n) * RIT_LANES;
        const vec before = i ? vec_load(w->h + at) : vec_load(checkpoint + n * BLOCK);
        vec keep = vec_exp(delta * vec_load(A + n * BLOCK));
        if (!i) vec_store(w->h + at, before);
        vec_store(w->keep + at, keep);
        if (is_signed) keep = REAL(2.0) * keep - REAL(1.0);
        vec_store(w->h + at + N * RIT_LANES, keep * before + added * w->B[i * N + n]);
    }
}

/* One step back of one vector. Adds to dh, dA, of_B and of_C; gives Σ_n dh B and the part of dΔ that goes through A. */
INLINE void back_step(const struct work *w, int64_t c, vec g, vec x, vec delta, int64_t i, int64_t N, int is_signed,
                      vec *of_added, vec *of_delta) {
    const vec added = delta * x;
    vec sum = vec_set(0), through = vec_set(0);
    for (int64_t n = 0; n < N; n++) {
        const int64_t at = (i * N + n) * RIT_LANES, lane = n * BLOCK + c;
        const vec e = vec_load(w->keep + at), d = vec_load(w->dh + lane) + g * w->C[i * N + n];
        vec_store(w->of_C + at, vec_load(w->of_C + at) + g * vec_load(w->h + at + N * RIT_LANES));
        vec_store(w->of_B + at, vec_load(w->of_B + at) + d * added);
        sum += d * w->B[i * N + n];
        vec q = d * vec_load(w->h + at) * e;
        if (is_signed) q += q;
        through += q * vec_load(w->A + lane);
        vec_store(w->dA + lane, vec_load(w->dA + lane) + q * delta);
        vec_store(w->dh + lane, d * (is_signed ? REAL(2.0) * e - REAL(1.0) : e));
    }
    *of_added = sum;
    *of_delta = through;
}

INLINE void back_vector(const struct arguments *a, const struct place *p, const struct work *w, const real *checkpoint,
                        int64_t c, int64_t from, int64_t to, int is_signed) {
    const int64_t N = a->states, count = rit_min(p->width - c, RIT_LANES);
    const act *x = a->x + p->span.row * a->x_row + p->c0 + c, *delta = a->delta + p->span.row * a->delta_row + p->c0 + c;
    const act *grad = a->grad ? a->grad + p->span.row * a->grad_row + p->c0 + c : 0;
    const vec skip = a->D ? vec_load_part(a->D + p->c0 + c, count) : vec_set(0);
    vec dD = vec_load(w->dD + c);
    for (int64_t t = from; t < to; t++)
        recompute(w, checkpoint + c, w->A + c, act_load_part(x + t * a->x_step, count),
                  act_load_part(delta + t * a->delta_step, count), t - from, N, is_signed);
    for (int64_t t = to - 1; t >= from; t--) {
        const vec g = grad ? act_load_part(grad + t * a->grad_step, count) : vec_set(0);
        const vec now = act_load_part(x + t * a->x_step, count), d = act_load_part(delta + t * a->delta_step, count);
        vec of_added, of_delta;
        back_step(w, c, g, now, d, t - from, N, is_signed, &of_added, &of_delta);
        const int64_t at = (p->span.row * a->steps + t) * a->channels + p->c0 + c;
        act_store_part(a->dx + at, of_added * d + skip * g, count);
        act_store_part(a->ddelta + at, of_delta + of_added * now, count);
        dD += g * now;
    }
    vec_store(w->dD + c, dD);
}

INLINE void backward(const struct job *job, int64_t index, int is_signed) {
    const struct arguments *a = job->a;
    const struct place p = place_of(job, index);
    const int64_t N = a->states, rows = a->starts ? 1 : a->sequences;
    const struct work w = work_new(N);
    const size_t block_bytes = (size_t)(N * BLOCK) * sizeof(real);
    memset(w.dh, 0, 2 * block_bytes);
    memset(w.dD, 0, BLOCK * sizeof(real));
    if (a->grad_last) transpose_in(a->grad_last + (p.n * a->channels + p.c0) * N, w.dh, p.width, N);
    transpose_in(a->A + p.c0 * N, w.A, p.width, N);
    int64_t stride;
    const real *checkpoint = checkpoint_of(a, &p, &stride);
    for (int64_t chunk = rit_divide_up(p.span.end - p.span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = p.span.start + chunk * CHUNK, to = rit_min(from + CHUNK, p.span.end);
        for (int64_t t = from; t < to; t++) {
            widen(a->B + p.span.row * a->B_row + t * a->B_step, w.B + (t - from) * N, N);
            widen(a->C + p.span.row * a->C_row + t * a->C_step, w.C + (t - from) * N, N);
        }
        memset(w.of_B, 0, (size_t)(2 * CHUNK * N * RIT_LANES) * sizeof(real));
        for (int64_t c = 0; c < p.width; c += RIT_LANES)
            back_vector(a, &p, &w, checkpoint + chunk * stride, c, from, to, is_signed);
        const int64_t at = ((p.block * rows + p.span.row) * a->steps + from) * N;
        for (int64_t i = 0; i < (to - from) * N; i++) {
            job->of_B[at + i] = vec_sum(vec_load(w.of_B + i * RIT_LANES));
            job->of_C[at + i] = vec_sum(vec_load(w.of_C + i * RIT_LANES));
        }
    }
    memcpy(job->of_A + index * N * BLOCK, w.dA, block_bytes);
    memcpy(job->of_D + index * BLOCK, w.dD, BLOCK * sizeof(real));
    transpose_out(w.dh, a->dstate + (p.n * a->channels + p.c0) * N, p.width, N);
    free(w.A);
}

static void backward_body(void *context, int64_t index) {
    const struct job *job = context;
    if (job->a->is_signed)
        backward(job, index, 1);
    else
        backward(job, index, 0);
}

static int64_t cost(const struct arguments *a) {
    return (a->starts ? 1 : a->sequences) * a->steps * a->channels * a->states * 12;
}

RIT_ENTRY(selective_scan_forward)(const struct arguments *a) {
    struct job job = {.a = a, .blocks = rit_divide_up(a->channels, BLOCK)};
    rit_parallel_sized(a->sequences * job.blocks, cost(a), forward_body, &job);
}

/* The partial sums, in a fixed order: over blocks for B and C, over sequences for A and D. */
static void sum_partials(const struct job *job) {
    const struct arguments *a = job->a;
    const int64_t N = a->states, size = (a->starts ? 1 : a->sequences) * a->steps * N;
    memcpy(a->dB, job->of_B, (size_t)size * sizeof(real));
    memcpy(a->dC, job->of_C, (size_t)size * sizeof(real));
    for (int64_t block = 1; block < job->blocks; block++)
        for (int64_t i = 0; i < size; i++) {
            a->dB[i] += job->of_B[block * size + i];
            a->dC[i] += job->of_C[block * size + i];
        }
    memset(a->dA, 0, (size_t)(a->channels * N) * sizeof(real));
    memset(a->dD, 0, (size_t)a->channels * sizeof(real));
    for (int64_t item = 0; item < a->sequences * job->blocks; item++) {
        const struct place p = place_of(job, item);
        for (int64_t c = 0; c < p.width; c++) {
            for (int64_t n = 0; n < N; n++) a->dA[(p.c0 + c) * N + n] += job->of_A[(item * N + n) * BLOCK + c];
            a->dD[p.c0 + c] += job->of_D[item * BLOCK + c];
        }
    }
}

RIT_ENTRY(selective_scan_backward)(const struct arguments *a) {
    struct job job = {.a = a, .blocks = rit_divide_up(a->channels, BLOCK)};
    const int64_t N = a->states, rows = a->starts ? 1 : a->sequences, items = a->sequences * job.blocks;
    job.of_A = rit_scratch(items * BLOCK * (N + 1));
    job.of_D = job.of_A + items * BLOCK * N;
    job.of_B = rit_scratch(2 * job.blocks * rows * a->steps * N);
    job.of_C = job.of_B + job.blocks * rows * a->steps * N;
    if (a->starts) memset(job.of_B, 0, (size_t)(2 * job.blocks * a->steps * N) * sizeof(real)); /* the tail is not visited */
    rit_parallel_sized(items, 3 * cost(a), backward_body, &job);
    sum_partials(&job);
    free(job.of_A);
    free(job.of_B);
}
