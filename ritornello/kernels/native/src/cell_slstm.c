/* sLSTM; its states are h, c, n and the stabiliser m, which is not differentiated.
 * The trace keeps i', f', tanh z, σ(o), the slope of log f', c and n of every step. */
#include "cell.h"

static void forward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        vec gate[4];
        for (int g = 0; g < 4; g++)
            gate[g] = vec_load(now->product + g * now->product_gate + j) + cell_load(now->u + g * now->u_gate + j, count);
        const vec n_old = vec_load(now->state[2] + j), kept = vec_log_sigmoid(gate[1]) + vec_load(now->state[3] + j);
        const vec m = vec_select(n_old == 0, gate[0], vec_max(kept, gate[0]));
        const ivec clamped = kept - m > 0; /* only where n is 0 */
        const vec f = vec_exp(vec_select(clamped, (vec){0}, kept - m)), i = vec_exp(gate[0] - m);
        const vec z = cell_tanh(gate[2]), o = cell_sigmoid(gate[3]);
        const vec c = f * vec_load(now->state[1] + j) + i * z, n = f * n_old + i, h = o * c / n;
        const vec new[4] = {h, c, n, m};
        for (int s = 0; s < 4; s++) vec_store(now->state[s] + j, new[s]);
        cell_store(now->y + j, h, count);
        if (!now->trace) continue;
        const vec slope = vec_select(clamped, (vec){0}, cell_sigmoid(-gate[1]));
        const vec saved[7] = {i, f, z, o, slope, c, n};
        for (int s = 0; s < 7; s++) vec_store_part(now->trace + s * now->D + j, saved[s], count);
    }
}

static void backward_point(const struct cell_now *now) {
    for (int64_t j = 0; j < now->width; j += RIT_LANES) {
        const int64_t count = now->width - j;
        vec saved[7];
        for (int s = 0; s < 7; s++) saved[s] = vec_load_part(now->trace + s * now->D + j, count);
        const vec i = saved[0], f = saved[1], z = saved[2], o = saved[3], slope = saved[4];
        /* Beyond the row's end n is 0 and no lane is stored. */
        const vec ratio = saved[5] / saved[6], per_n = 1 / saved[6];
        vec h_old, c_old, n_old;
        if (now->earlier) {
            c_old = vec_load_part(now->earlier + 5 * now->D + j, count);
            n_old = vec_load_part(now->earlier + 6 * now->D + j, count);
            h_old = vec_load_part(now->earlier + 3 * now->D + j, count) * c_old / n_old;
        } else {
            h_old = vec_load_part(now->first[0] + j, count);
            c_old = vec_load_part(now->first[1] + j, count);
            n_old = vec_load_part(now->first[2] + j, count);
        }
        vec dh = vec_load(now->state[0] + j);
        if (now->dy) dh += cell_load(now->dy + j, count);
        const vec dc = vec_load(now->state[1] + j) + dh * o * per_n;
        const vec dn = vec_load(now->state[2] + j) - dh * o * ratio * per_n;
        const vec d[4] = {i * (dc * z + dn), f * slope * (dc * c_old + dn * n_old), dc * i * (1 - z * z),
                          dh * ratio * o * (1 - o)};
        for (int s = 0; s < 4; s++) {
            cell_store(now->du + s * now->D + j, d[s], count);
            vec_store_part(now->drive + s * now->drive_gate + j, d[s], count);
        }
        cell_store(now->before + j, h_old, count);
        const vec carried[3] = {{0}, dc * f, dn * f};
        for (int s = 0; s < 3; s++) vec_store(now->state[s] + j, carried[s]);
    }
}

RIT_ENTRY(slstm)(const struct cell *cell) { cell_run(cell, 4, 4, 7, forward_point, 0); }
RIT_ENTRY(slstm_backward)(const struct cell *cell) { cell_run(cell, 4, 3, 7, backward_point, 1); }
