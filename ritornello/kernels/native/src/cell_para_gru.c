/* ParaGRU; gates and weights in the order z, r, c. */
#include "cell_diagonal.h"

struct gates {
    vec z, r, c;
};

INLINE struct gates gates(const vec *u, const vec *w, vec h) {
    const vec z = cell_sigmoid(u[0] + w[0] * h), r = cell_sigmoid(u[1] + w[1] * h);
    return (struct gates){z, r, cell_tanh(u[2] + w[2] * h * r)};
}

INLINE void step(const vec *u, const vec *w, vec *state) {
    const struct gates g = gates(u, w, state[0]);
    state[0] = (1 - g.z) * state[0] + g.z * g.c;
}

INLINE void reverse(const vec *u, const vec *w, const vec *state, vec *d, vec *du, vec *dw) {
    const vec h = state[0], dh = d[0];
    const struct gates g = gates(u, w, h);
    du[0] = dh * (g.c - h) * g.z * (1 - g.z);
    du[2] = dh * g.z * (1 - g.c * g.c);
    du[1] = du[2] * w[2] * h * g.r * (1 - g.r);
    d[0] = dh * (1 - g.z) + du[0] * w[0] + du[1] * w[1] + du[2] * w[2] * g.r;
    dw[0] += du[0] * h;
    dw[1] += du[1] * h;
    dw[2] += du[2] * h * g.r;
}

DIAGONAL_ENTRIES(para_gru, 1, 3)
