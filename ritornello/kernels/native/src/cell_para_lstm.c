/* ParaLSTM; gates in the order f, o, g; weights a_f, a_o, a_g, p_f, p_o; states h, c. */
#include "cell_diagonal.h"

struct gates {
    vec f, g, c, o;
};

INLINE struct gates gates(const vec *u, const vec *w, const vec *state) {
    const vec h = state[0];
    const vec f = cell_sigmoid(u[0] + w[0] * h + w[3] * state[1]), g = cell_tanh(u[2] + w[2] * h);
    const vec c = f * state[1] + (1 - f) * g;
    return (struct gates){f, g, c, cell_sigmoid(u[1] + w[1] * h + w[4] * c)};
}

INLINE void step(const vec *u, const vec *w, vec *state) {
    const struct gates x = gates(u, w, state);
    state[0] = x.o * cell_tanh(x.c);
    state[1] = x.c;
}

INLINE void reverse(const vec *u, const vec *w, const vec *state, vec *d, vec *du, vec *dw) {
    const vec h = state[0], c = state[1];
    const struct gates x = gates(u, w, state);
    const vec read = cell_tanh(x.c);
    du[1] = d[0] * read * x.o * (1 - x.o);
    const vec dc = d[1] + d[0] * x.o * (1 - read * read) + du[1] * w[4];
    du[0] = dc * (c - x.g) * x.f * (1 - x.f);
    du[2] = dc * (1 - x.f) * (1 - x.g * x.g);
    d[0] = du[0] * w[0] + du[1] * w[1] + du[2] * w[2];
    d[1] = dc * x.f + du[0] * w[3];
    for (int s = 0; s < 3; s++) dw[s] += du[s] * h;
    dw[3] += du[0] * c;
    dw[4] += du[1] * x.c;
}

DIAGONAL_ENTRIES(para_lstm, 2, 5)
