/* h ← e^{ΔA} h + Δ x Bᵀ, y = h C + D x: blocks of 64 channels, the lanes are channels.
 *
 * With channels in the lanes, y sums over the N states of a channel without a horizontal sum, and B and C are scalars. A
 * block's state, (N, 64), stays in L1. The backward pass walks back in chunks from checkpoints of the state, a few states at
 * a time: their h and e^{ΔA} over a chunk are computed again into L1, their gradients stay in registers, and what B and C get
 * is summed over a block's lanes once per chunk. One step without gradients (decoding) has the states in the lanes instead,
 * as the state lies in memory. */
#include "functions.h"

enum { CHUNK = 32, BLOCK = 64, GROUP = 4 }; /* steps, channels, and states of the backward pass */

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

/* What a block's backward pass works with; states in whole groups, those that do not exist zero. */
struct work {
    int64_t states;
    real *A, *dh, *dA;          /* (states, BLOCK) */
    real *dD;                   /* (BLOCK) */
    real *B, *C;                /* of a chunk, (CHUNK, states) */
    real *of_added, *through;   /* of a chunk, (CHUNK, BLOCK): Σ_n dh B, and the part of dΔ that goes through A */
    real *h, *keep;             /* of one vector and group, (CHUNK, GROUP, LANES): h before each step, and e^{ΔA} */
    real *of_B, *of_C;          /* of a group, (CHUNK, GROUP, LANES) */
};

static struct work work_new(int64_t N) {
    struct work w = {.states = rit_divide_up(N, GROUP) * GROUP};
    const int64_t block = w.states * BLOCK, numbers = CHUNK * w.states, sums = CHUNK * BLOCK, lanes = CHUNK * GROUP * RIT_LANES;
    real *at = rit_scratch(3 * block + BLOCK + 2 * numbers + 2 * sums + 4 * lanes);
    real **parts[] = {&w.A, &w.dh, &w.dA, &w.dD, &w.of_added, &w.through, &w.h, &w.keep, &w.of_B, &w.of_C, &w.B, &w.C};
    const int64_t sizes[] = {block, block, block, BLOCK, sums, sums, lanes, lanes, lanes, lanes, numbers, numbers};
    for (int i = 0; i < 12; i++, at += sizes[i - 1]) *parts[i] = at;
    memset(w.A, 0, (size_t)(3 * block + BLOCK) * sizeof(real));
    memset(w.B, 0, (size_t)(2 * numbers) * sizeof(real));
    return w;
}

/* Where one vector of channels of a block reads its rows, and writes them; grad is null where there is none. */
struct rows {
    const act *x, *delta, *grad;
    act *dx, *ddelta;
    int64_t x_step, delta_step, grad_step, d_step, count;
};

static struct rows rows_of(const struct arguments *a, const struct place *p, int64_t c) {
    const int64_t d = p->span.row * a->steps * a->channels + p->c0 + c;
    return (struct rows){
        a->x + p->span.row * a->x_row + p->c0 + c, a->delta + p->span.row * a->delta_row + p->c0 + c,
        a->grad ? a->grad + p->span.row * a->grad_row + p->c0 + c : 0, a->dx + d, a->ddelta + d,
        a->x_step, a->delta_step, a->grad_step, a->channels, rit_min(p->width - c, RIT_LANES),
    };
}

/* Ask for what is written of step t, and for the rows of the chunk that comes next. */
INLINE void rows_fetch(const struct rows *r, int64_t t) {
    __builtin_prefetch(r->dx + t * r->d_step, 1);
    __builtin_prefetch(r->ddelta + t * r->d_step, 1);
    __builtin_prefetch(r->x + (t - CHUNK) * r->x_step);
    __builtin_prefetch(r->delta + (t - CHUNK) * r->delta_step);
    if (r->grad) __builtin_prefetch(r->grad + (t - CHUNK) * r->grad_step);
}

INLINE vec row_of(const act *x, int64_t step, int64_t t, int64_t count) {
    return x ? act_load_part(x + t * step, count) : vec_set(0);
}

/* Back through a chunk for one vector of channels and `GROUP` states from n0 on: adds to of_added, through, of_B and of_C. */
INLINE void back_group(const struct work *w, const struct rows *r, const real *checkpoint, int64_t N, int64_t c, int64_t n0,
                       int64_t from, int64_t to, int is_signed) {
    vec A[GROUP], h[GROUP], dh[GROUP], dA[GROUP];
    for (int n = 0; n < GROUP; n++) {
        const int64_t lane = (n0 + n) * BLOCK + c;
        A[n] = vec_load(w->A + lane);
        dh[n] = vec_load(w->dh + lane);
        dA[n] = vec_load(w->dA + lane);
        h[n] = n0 + n < N ? vec_load(checkpoint + lane) : vec_set(0);
    }
    for (int64_t i = 0; i < to - from; i++) {
        if (!n0) rows_fetch(r, from + i);
        const vec delta = row_of(r->delta, r->delta_step, from + i, r->count);
        const vec added = delta * row_of(r->x, r->x_step, from + i, r->count);
        for (int n = 0; n < GROUP; n++) {
            const vec e = vec_exp(delta * A[n]);
            vec_store(w->keep + (i * GROUP + n) * RIT_LANES, e);
            vec_store(w->h + (i * GROUP + n) * RIT_LANES, h[n]);
            h[n] = (is_signed ? REAL(2.0) * e - REAL(1.0) : e) * h[n] + added * w->B[i * w->states + n0 + n];
        }
    }
    for (int64_t i = to - from - 1; i >= 0; i--) {
        const vec g = row_of(r->grad, r->grad_step, from + i, r->count);
        const vec delta = row_of(r->delta, r->delta_step, from + i, r->count);
        const vec added = delta * row_of(r->x, r->x_step, from + i, r->count);
        real *of_added = w->of_added + i * BLOCK + c, *through = w->through + i * BLOCK + c;
        vec sum = vec_load(of_added), sum_a = vec_load(through);
        for (int n = 0; n < GROUP; n++) {
            const int64_t at = (i * GROUP + n) * RIT_LANES, number = i * w->states + n0 + n;
            const vec e = vec_load(w->keep + at), before = vec_load(w->h + at), d = dh[n] + g * w->C[number];
            vec_store(w->of_C + at, vec_load(w->of_C + at) + g * h[n]);
            vec_store(w->of_B + at, vec_load(w->of_B + at) + d * added);
            sum += d * w->B[number];
            vec q = d * before * e;
            if (is_signed) q += q;
            sum_a += q * A[n];
            dA[n] += q * delta;
            dh[n] = d * (is_signed ? REAL(2.0) * e - REAL(1.0) : e);
            h[n] = before;
        }
        vec_store(of_added, sum);
        vec_store(through, sum_a);
    }
    for (int n = 0; n < GROUP; n++) {
        vec_store(w->dh + (n0 + n) * BLOCK + c, dh[n]);
        vec_store(w->dA + (n0 + n) * BLOCK + c, dA[n]);
    }
}

/* What is known of one vector of channels once all states have been walked: the gradients of x and Δ, and D's. */
static void back_rows(const struct arguments *a, const struct place *p, const struct work *w, const struct rows *r, int64_t c,
                      int64_t from, int64_t to) {
    const vec skip = a->D ? vec_load_part(a->D + p->c0 + c, r->count) : vec_set(0);
    vec dD = vec_load(w->dD + c);
    for (int64_t t = from; t < to; t++) {
        const vec g = row_of(r->grad, r->grad_step, t, r->count), x = row_of(r->x, r->x_step, t, r->count);
        const vec of_added = vec_load(w->of_added + (t - from) * BLOCK + c);
        act_store_part(r->dx + t * r->d_step, of_added * row_of(r->delta, r->delta_step, t, r->count) + skip * g, r->count);
        act_store_part(r->ddelta + t * r->d_step, vec_load(w->through + (t - from) * BLOCK + c) + of_added * x, r->count);
        dD += g * x;
    }
    vec_store(w->dD + c, dD);
}

/* One chunk of a block; `of_B` and `of_C` are its first step's rows of the block's partial sums. */
INLINE void back_chunk(const struct arguments *a, const struct place *p, const struct work *w, const real *checkpoint,
                       int64_t from, int64_t to, real *of_B, real *of_C, int is_signed) {
    const int64_t N = a->states;
    for (int64_t t = from; t < to; t++) {
        widen(a->B + p->span.row * a->B_row + t * a->B_step, w->B + (t - from) * w->states, N);
        widen(a->C + p->span.row * a->C_row + t * a->C_step, w->C + (t - from) * w->states, N);
    }
    memset(w->of_added, 0, (size_t)(2 * CHUNK * BLOCK) * sizeof(real));
    for (int64_t n0 = 0; n0 < N; n0 += GROUP) {
        memset(w->of_B, 0, (size_t)(2 * CHUNK * GROUP * RIT_LANES) * sizeof(real));
        for (int64_t c = 0; c < p->width; c += RIT_LANES) {
            const struct rows r = rows_of(a, p, c);
            back_group(w, &r, checkpoint, N, c, n0, from, to, is_signed);
        }
        for (int64_t i = 0; i < to - from; i++)
            for (int64_t n = 0; n < rit_min(GROUP, N - n0); n++) {
                of_B[i * N + n0 + n] = vec_sum(vec_load(w->of_B + (i * GROUP + n) * RIT_LANES));
                of_C[i * N + n0 + n] = vec_sum(vec_load(w->of_C + (i * GROUP + n) * RIT_LANES));
            }
    }
    for (int64_t c = 0; c < p->width; c += RIT_LANES) {
        const struct rows r = rows_of(a, p, c);
        back_rows(a, p, w, &r, c, from, to);
    }
}

INLINE void backward(const struct job *job, int64_t index, int is_signed) {
    const struct arguments *a = job->a;
    const struct place p = place_of(job, index);
    const int64_t N = a->states, rows = a->starts ? 1 : a->sequences;
    const struct work w = work_new(N);
    if (a->grad_last) transpose_in(a->grad_last + (p.n * a->channels + p.c0) * N, w.dh, p.width, N);
    transpose_in(a->A + p.c0 * N, w.A, p.width, N);
    int64_t stride;
    const real *checkpoint = checkpoint_of(a, &p, &stride);
    for (int64_t chunk = rit_divide_up(p.span.end - p.span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = p.span.start + chunk * CHUNK, to = rit_min(from + CHUNK, p.span.end);
        const int64_t at = ((p.block * rows + p.span.row) * a->steps + from) * N;
        back_chunk(a, &p, &w, checkpoint + chunk * stride, from, to, job->of_B + at, job->of_C + at, is_signed);
    }
    memcpy(job->of_A + index * N * BLOCK, w.dA, (size_t)(N * BLOCK) * sizeof(real));
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
