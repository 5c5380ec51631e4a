/* GRU. The trace keeps r, z, n, a = R_n h + bias, and h of every step. */
#include "cell.h"

static void forward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        vec gate[3], drive[3];
        for (int g = 0; g < 3; g++) {
            gate[g] = vec_load(now->product + g * now->product_gate + j);
            drive[g] = cell_load(now->u + g * now->u_gate + j, count);
        }
        const vec a = now->bias ? gate[2] + vec_load_part(now->bias + j, count) : gate[2];
        const vec r = cell_sigmoid(drive[0] + gate[0]), z = cell_sigmoid(drive[1] + gate[1]);
        const vec n = cell_tanh(drive[2] + r * a);
        const vec h = (1 - z) * n + z * vec_load(now->state[0] + j);
        vec_store(now->state[0] + j, h);
        cell_store(now->y + j, h, count);
        if (!now->trace) continue;
        const vec kept[5] = {r, z, n, a, h};
        for (int s = 0; s < 5; s++) vec_store_part(now->trace + s * now->D + j, kept[s], count);
    }
}

static void backward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        vec kept[4];
        for (int s = 0; s < 4; s++) kept[s] = vec_load_part(now->trace + s * now->D + j, count);
        const vec r = kept[0], z = kept[1], n = kept[2], a = kept[3];
        const vec before = vec_load_part(now->earlier ? now->earlier + 4 * now->D + j : now->first[0] + j, count);
        vec dh = vec_load(now->state[0] + j);
        if (now->dy) dh += cell_load(now->dy + j, count);
        const vec dn = dh * (1 - z) * (1 - n * n), da = dn * r;
        const vec d[3] = {dn * a * r * (1 - r), dh * (before - n) * z * (1 - z), dn};
        for (int s = 0; s < 3; s++) {
            cell_store(now->du + s * now->D + j, d[s], count);
            vec_store_part(now->drive + s * now->drive_gate + j, s < 2 ? d[s] : da, count);
        }
        cell_store(now->before + j, before, count);
        cell_store(now->dproduct + j, da, count);
        vec_store(now->state[0] + j, dh * z);
    }
}

RIT_ENTRY(gru)(const struct cell *cell) { cell_run(cell, 3, 1, 5, forward_point, 0); }
RIT_ENTRY(gru_backward)(const struct cell *cell) { cell_run(cell, 3, 1, 5, backward_point, 1); }
