/* MGU: a product of h for the gate f, then one of f h for the candidate n. The trace keeps f, n and h of every step. */
#include "cell.h"

static void gate_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        const vec f = cell_sigmoid(cell_load(now->u + j, count) + vec_load(now->product + j));
        vec_store(now->state[1] + j, f * vec_load(now->state[0] + j)); /* what the next product multiplies */
        vec_store(now->state[2] + j, f);
    }
}

static void candidate_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        const vec f = vec_load(now->state[2] + j), before = vec_load(now->state[0] + j);
        const vec n = cell_tanh(cell_load(now->u + now->u_gate + j, count) + vec_load(now->product + now->product_gate + j));
        const vec h = (1 - f) * before + f * n;
        vec_store(now->state[0] + j, h);
        cell_store(now->y + j, h, count);
        if (!now->trace) continue;
        const vec kept[3] = {f, n, h};
        for (int s = 0; s < 3; s++) vec_store_part(now->trace + s * now->D + j, kept[s], count);
    }
}

static void forward_point(const struct cell_now *now) {
    if (now->stage)
        candidate_point(now);
    else
        gate_point(now);
}

/* The candidate first: R_nᵀ of its gradient is what the gate's needs. */
static void backward_point(const struct cell_now *now) {
    const int64_t gate = now->stage * now->D, drive = now->stage * now->drive_gate;
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        const vec f = vec_load_part(now->trace + j, count), n = vec_load_part(now->trace + now->D + j, count);
        const vec before = vec_load_part(now->earlier ? now->earlier + 2 * now->D + j : now->first[0] + j, count);
        vec dh = vec_load(now->state[0] + j), d;
        if (now->stage) {
            if (now->dy) dh += cell_load(now->dy + j, count);
            d = dh * f * (1 - n * n);
            vec_store(now->state[0] + j, dh);
            cell_store(now->before + j, before, count);
            cell_store(now->dproduct + j, f * before, count);
        } else {
            const vec held = vec_load(now->product + j); /* the gradient of f h */
            d = (dh * (n - before) + held * before) * f * (1 - f);
            vec_store(now->state[0] + j, dh * (1 - f) + held * f);
        }
        cell_store(now->du + gate + j, d, count);
        vec_store_part(now->drive + drive + j, d, count);
    }
}

RIT_ENTRY(mgu)(const struct cell *cell) { cell_run_staged(cell, 2, 2, 1, 3, forward_point, 0); }
RIT_ENTRY(mgu_backward)(const struct cell *cell) { cell_run_staged(cell, 2, 2, 1, 3, backward_point, 1); }
