/* h_t = a_t ⊙ h_{t−1} + b_t over blocks of channels: time in order, the lanes of a vector are channels.
 *
 * A block's state stays in L1 while a, b and h stream past it once. The backward pass walks the time back in chunks, and
 * recomputes the h inside a chunk from a checkpoint at its start, so nothing of the size of h is kept. Complex numbers
 * lie as pairs of lanes. */
#include "isa.h"

enum { CHUNK = 64, MOST = 512, AHEAD = 2 };

struct arguments {
    const act *a, *b;
    const real *state;
    act *out;
    real *last, *checkpoints; /* h before each chunk, (slots, C); no checkpoints where null */
    const int64_t *starts;
    int64_t sequences, steps, channels;
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

/* Lanes of each pair by number: (0, 0) the real part twice, (1, 1) the imaginary part twice, (1, 0) exchanged. */
INLINE vec pairs(vec x, int from_even, int from_odd) {
    vec y = x;
#if defined(__clang__)
    for (int i = 0; i < RIT_LANES; i += 2) y[i] = x[i + from_even], y[i + 1] = x[i + from_odd];
#else
    ivec index;
    for (int i = 0; i < RIT_LANES; i += 2) index[i] = i + from_even, index[i + 1] = i + from_odd;
    y = __builtin_shuffle(x, index);
#endif
    return y;
}

/* x·h, or x·conj(h) and conj(x)·h by the sign of the imaginary part of x. */
INLINE vec times(vec x, vec h, int is_complex, int conjugate) {
    if (!is_complex) return x * h;
    vec sign;
    for (int i = 0; i < RIT_LANES; i++) sign[i] = (i % 2 == 0) == (conjugate == 0) ? -1 : 1;
    return pairs(x, 0, 0) * h + sign * pairs(x, 1, 1) * pairs(h, 1, 0);
}

/* One step of a block: h ← a h + b, into `h` and, where given, `out`. A row of a block is too short for the hardware to
 * fetch the next one by itself: (a_next, b_next) elements on is where that lies. */
INLINE void step(const act *a, const act *b, const real *before, real *h, act *out, int64_t width, int64_t a_next,
                 int64_t b_next, int is_complex) {
    int64_t c = 0;
    for (; c + RIT_LANES <= width; c += RIT_LANES) {
        __builtin_prefetch(a + c + a_next);
        __builtin_prefetch(b + c + b_next);
        if (out) __builtin_prefetch(out + c, 1);
        const vec x = times(act_load(a + c), vec_load(before + c), is_complex, 0) + act_load(b + c);
        vec_store(h + c, x);
        if (out) act_store(out + c, x);
    }
    if (c < width) {
        const int64_t rest = width - c;
        const vec x = times(act_load_part(a + c, rest), vec_load_part(before + c, rest), is_complex, 0) +
                      act_load_part(b + c, rest);
        vec_store_part(h + c, x, rest);
        if (out) act_store_part(out + c, x, rest);
    }
}

INLINE void forward(const struct job *job, int64_t index, int is_complex) {
    const struct arguments *a = job->a;
    const int64_t n = index / job->blocks.count, c0 = index % job->blocks.count * job->blocks.width;
    const int64_t width = rit_min(job->blocks.width, a->channels - c0), slot = rit_first_slot(a->starts, n, a->steps, CHUNK);
    const struct rit_span span = rit_span(a->starts, n, a->steps);
    real h[MOST] __attribute__((aligned(64)));
    memcpy(h, a->state + n * a->channels + c0, (size_t)width * sizeof *h);
    real *checkpoint = a->checkpoints ? a->checkpoints + slot * a->channels + c0 : 0;
    for (int64_t t = span.start; t < span.end; t++) {
        if (checkpoint && (t - span.start) % CHUNK == 0) {
            memcpy(checkpoint, h, (size_t)width * sizeof *h);
            checkpoint += a->channels;
        }
        step(a->a + span.row * a->a_row + t * a->a_step + c0, a->b + span.row * a->b_row + t * a->b_step + c0, h, h,
             a->out + (span.row * a->steps + t) * a->channels + c0, width, AHEAD * a->a_step, AHEAD * a->b_step, is_complex);
    }
    memcpy(a->last + n * a->channels + c0, h, (size_t)width * sizeof *h);
}

/* dh ← dh + g; db = dh; da = dh conj(h_{t−1}); dh ← conj(a) dh, for `rest` lanes. */
INLINE void back_vector(const act *a, const act *g, const real *before, real *dh, act *da, act *db, int64_t rest,
                        int is_complex) {
    vec d = vec_load_part(dh, rest);
    if (g) d += act_load_part(g, rest);
    if (db) act_store_part(db, d, rest);
    if (da) act_store_part(da, times(vec_load_part(before, rest), d, is_complex, 1), rest);
    vec_store_part(dh, times(act_load_part(a, rest), d, is_complex, 1), rest);
}

/* One step of a block back; (a_next, g_next, d_next) elements on lie the next one's a, gradient of h, and gradients of a and b. */
INLINE void back_step(const act *a, const act *g, const real *before, real *dh, act *da, act *db, int64_t width, int64_t a_next,
                      int64_t g_next, int64_t d_next, int is_complex) {
    int64_t c = 0;
    for (; c + RIT_LANES <= width; c += RIT_LANES) {
        __builtin_prefetch(a + c + a_next);
        if (g) __builtin_prefetch(g + c + g_next);
        if (da) __builtin_prefetch(da + c + d_next, 1);
        if (db) __builtin_prefetch(db + c + d_next, 1);
        back_vector(a + c, g ? g + c : 0, before + c, dh + c, da ? da + c : 0, db ? db + c : 0, RIT_LANES, is_complex);
    }
    if (c < width)
        back_vector(a + c, g ? g + c : 0, before + c, dh + c, da ? da + c : 0, db ? db + c : 0, width - c, is_complex);
}

INLINE void backward(const struct job *job, int64_t index, int is_complex) {
    const struct arguments *a = job->a;
    const int64_t block = job->blocks.width, C = a->channels;
    const int64_t n = index / job->blocks.count, c0 = index % job->blocks.count * block, width = rit_min(block, C - c0);
    const struct rit_span span = rit_span(a->starts, n, a->steps);
    const act *pa = a->a + span.row * a->a_row + c0, *pb = a->b + span.row * a->b_row + c0;
    const act *pg = a->grad ? a->grad + span.row * a->grad_row + c0 : 0;
    const int64_t base = span.row * a->steps * C + c0, slot = rit_first_slot(a->starts, n, a->steps, CHUNK);
    real dh[MOST] __attribute__((aligned(64))) = {0};
    if (a->grad_last) memcpy(dh, a->grad_last + n * C + c0, (size_t)width * sizeof *dh);
    real *h = a->da ? rit_scratch(CHUNK * block) : 0; /* h[j]: before step j of the chunk */
    for (int64_t chunk = rit_divide_up(span.end - span.start, CHUNK) - 1; chunk >= 0; chunk--) {
        const int64_t from = span.start + chunk * CHUNK, to = rit_min(from + CHUNK, span.end);
        if (h) {
            memcpy(h, a->checkpoints + (slot + chunk) * C + c0, (size_t)width * sizeof *h);
            for (int64_t t = from; t + 1 < to; t++)
                step(pa + t * a->a_step, pb + t * a->b_step, h + (t - from) * block, h + (t - from + 1) * block, 0, width,
                     AHEAD * a->a_step, AHEAD * a->b_step, is_complex);
        }
        for (int64_t t = to - 1; t >= from; t--)
            back_step(pa + t * a->a_step, pg ? pg + t * a->grad_step : 0, h + (h ? (t - from) * block : 0), dh,
                      a->da ? a->da + base + t * C : 0, a->db ? a->db + base + t * C : 0, width, -AHEAD * a->a_step,
                      -AHEAD * a->grad_step, -AHEAD * C, is_complex);
    }
    free(h);
    if (a->dstate) memcpy(a->dstate + n * C + c0, dh, (size_t)width * sizeof *dh);
}

static void over_items(const struct arguments *a, rit_body body) {
    struct job job = {a, rit_blocks(a->sequences, a->channels, 32, MOST)};
    const int64_t rows = a->starts ? 1 : a->sequences;
    rit_parallel_sized(a->sequences * job.blocks.count, rows * a->steps * a->channels, body, &job);
}

static void forward_real(void *job, int64_t index) { forward(job, index, 0); }
static void backward_real(void *job, int64_t index) { backward(job, index, 0); }

RIT_ENTRY(diagonal_scan_forward)(const struct arguments *a) { over_items(a, forward_real); }
RIT_ENTRY(diagonal_scan_backward)(const struct arguments *a) { over_items(a, backward_real); }

#if !defined(RIT_BF16) /* there is no complex bfloat16 */
static void forward_complex(void *job, int64_t index) { forward(job, index, 1); }
static void backward_complex(void *job, int64_t index) { backward(job, index, 1); }

RIT_ENTRY(diagonal_scan_complex_forward)(const struct arguments *a) { over_items(a, forward_complex); }
RIT_ENTRY(diagonal_scan_complex_backward)(const struct arguments *a) { over_items(a, backward_complex); }
#endif
