/* LSTM. The trace keeps σ(i), σ(f), tanh g, σ(o) and c of every step. */
#include "cell.h"

static void forward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t n = now->width - j;
        vec gate[4];
        for (int g = 0; g < 4; g++)
            gate[g] = vec_load(now->product + g * now->product_gate + j) + cell_load(now->u + g * now->u_gate + j, n);
        const vec i = cell_sigmoid(gate[0]), f = cell_sigmoid(gate[1]), g = cell_tanh(gate[2]), o = cell_sigmoid(gate[3]);
        const vec c = f * vec_load(now->state[1] + j) + i * g, h = o * cell_tanh(c);
        vec_store(now->state[0] + j, h);
        vec_store(now->state[1] + j, c);
        cell_store(now->y + j, h, n);
        if (!now->trace) continue;
        const vec kept[5] = {i, f, g, o, c};
        for (int s = 0; s < 5; s++) vec_store_part(now->trace + s * now->D + j, kept[s], n);
    }
}

static void backward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t n = now->width - j;
        vec kept[5];
        for (int s = 0; s < 5; s++) kept[s] = vec_load_part(now->trace + s * now->D + j, n);
        const vec i = kept[0], f = kept[1], g = kept[2], o = kept[3], c = cell_tanh(kept[4]);
        vec h_before, c_before;
        if (now->earlier) {
            c_before = vec_load_part(now->earlier + 4 * now->D + j, n);
            h_before = vec_load_part(now->earlier + 3 * now->D + j, n) * cell_tanh(c_before);
        } else {
            c_before = vec_load_part(now->first[1] + j, n);
            h_before = vec_load_part(now->first[0] + j, n);
        }
        vec dh = vec_load(now->state[0] + j);
        if (now->dy) dh += cell_load(now->dy + j, n);
        const vec dc = vec_load(now->state[1] + j) + dh * o * (1 - c * c);
        const vec d[4] = {dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g), dh * c * o * (1 - o)};
        for (int s = 0; s < 4; s++) {
            cell_store(now->du + s * now->D + j, d[s], n);
            vec_store_part(now->drive + s * now->drive_gate + j, d[s], n);
        }
        cell_store(now->before + j, h_before, n);
        vec_store(now->state[0] + j, (vec){0});
        vec_store(now->state[1] + j, dc * f);
    }
}

RIT_ENTRY(lstm)(const struct cell *cell) { cell_run(cell, 4, 2, 5, forward_point, 0); }
RIT_ENTRY(lstm_backward)(const struct cell *cell) { cell_run(cell, 4, 2, 5, backward_point, 1); }
