/* Elman's cell, option 0 with tanh, 1 with relu. The trace keeps h of every step. */
#include "cell.h"

static void forward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t n = now->width - j;
        const vec x = vec_load(now->product + j) + cell_load(now->u + j, n);
        const vec h = now->option ? vec_select(x <= 0, (vec){0}, x) : cell_tanh(x); /* a NaN stays */
        vec_store(now->state[0] + j, h);
        cell_store(now->y + j, h, n);
        if (now->trace) vec_store_part(now->trace + j, h, n);
    }
}

static void backward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t n = now->width - j;
        const vec h = vec_load_part(now->trace + j, n);
        vec dh = vec_load(now->state[0] + j);
        if (now->dy) dh += cell_load(now->dy + j, n);
        const vec d = now->option ? vec_select(h > 0, dh, (vec){0}) : dh * (1 - h * h);
        cell_store(now->du + j, d, n);
        vec_store_part(now->drive + j, d, n);
        cell_store(now->before + j, vec_load_part((now->earlier ? now->earlier : now->first[0]) + j, n), n);
        vec_store(now->state[0] + j, (vec){0});
    }
}

RIT_ENTRY(elman)(const struct cell *cell) { cell_run(cell, 1, 1, 1, forward_point, 0); }
RIT_ENTRY(elman_backward)(const struct cell *cell) { cell_run(cell, 1, 1, 1, backward_point, 1); }
