/* The loop over time that the element-wise cells share. An item is one row and a few registers of columns, whose chains
 * of operations overlap; the states stay in registers. The backward pass computes the gates again from the states of the
 * trace, which is cheaper than to store and load them. */
#ifndef RIT_CELL_DIAGONAL_H
#define RIT_CELL_DIAGONAL_H

#include "cell_act.h"

enum { DIAGONAL_STATES = 2, DIAGONAL_GATES = 3, DIAGONAL_WEIGHTS = 5, DIAGONAL_WIDE = 4, DIAGONAL_AHEAD = 4 };

/* Every field is 8 bytes. Tensors without strides are contiguous; absent ones are null. */
struct diagonal {
    int64_t rows, steps, width;
    const int64_t *starts;
    const act *u; /* (B, T, gates, D) */
    int64_t u_row, u_time, u_gate;
    const real *weights; /* (weights, D) */
    const real *state[DIAGONAL_STATES];
    act *y;
    real *last[DIAGONAL_STATES];
    real *trace; /* (B, T, states, D): the states after each step */
    const act *dy;
    const real *dlast[DIAGONAL_STATES];
    act *du;        /* (B, T, gates, D) */
    real *dweights; /* (rows, weights, D) */
    real *dstate[DIAGONAL_STATES];
};

/* The state after one step, from the gates' inputs and the weights. */
typedef void (*diagonal_step)(const vec *u, const vec *w, vec *state);
/* `d`: from the gradient of the state after the step to that before it, `state`; adds to the gradient of the weights. */
typedef void (*diagonal_reverse)(const vec *u, const vec *w, const vec *state, vec *d, vec *du, vec *dw);

struct diagonal_call {
    const struct diagonal *cell;
    int64_t blocks; /* of columns */
};

struct diagonal_item {
    int64_t index, column, count; /* row, first column, columns */
    struct rit_span span;
};

INLINE struct diagonal_item diagonal_item(const struct diagonal_call *call, int64_t item) {
    const int64_t column = item % call->blocks * DIAGONAL_WIDE * RIT_LANES, index = item / call->blocks;
    return (struct diagonal_item){index, column, rit_min(DIAGONAL_WIDE * RIT_LANES, call->cell->width - column),
                                  rit_span(call->cell->starts, index, call->cell->steps)};
}

#define DIAGONAL_EACH(v, at) \
    for (int64_t v = 0, at = it.column, n = it.count; v < DIAGONAL_WIDE && n > 0; v++, at += RIT_LANES, n -= RIT_LANES)

INLINE void diagonal_forward_item(const struct diagonal_call *call, int64_t item, int states, int weights,
                                  diagonal_step step) {
    const struct diagonal *cell = call->cell;
    const struct diagonal_item it = diagonal_item(call, item);
    const int64_t D = cell->width;
    vec h[DIAGONAL_WIDE][DIAGONAL_STATES], w[DIAGONAL_WIDE][DIAGONAL_WEIGHTS];
    DIAGONAL_EACH(v, at) {
        for (int s = 0; s < states; s++) h[v][s] = vec_load_part(cell->state[s] + it.index * D + at, n);
        for (int s = 0; s < weights; s++) w[v][s] = vec_load_part(cell->weights + s * D + at, n);
    }
    for (int64_t t = it.span.start; t < it.span.end; t++) {
        const int64_t place = it.span.row * cell->steps + t;
        DIAGONAL_EACH(v, at) {
            vec u[DIAGONAL_GATES];
            const act *inputs = cell->u + it.span.row * cell->u_row + t * cell->u_time + at;
            for (int g = 0; g < DIAGONAL_GATES; g++) {
                __builtin_prefetch(inputs + g * cell->u_gate + DIAGONAL_AHEAD * cell->u_time);
                u[g] = cell_load(inputs + g * cell->u_gate, n);
            }
            __builtin_prefetch(cell->y + (place + DIAGONAL_AHEAD) * D + at, 1);
            step(u, w[v], h[v]);
            cell_store(cell->y + place * D + at, h[v][0], n);
            for (int s = 0; cell->trace && s < states; s++)
                vec_store_part(cell->trace + (place * states + s) * D + at, h[v][s], n);
        }
    }
    DIAGONAL_EACH(v, at)
        for (int s = 0; s < states; s++) vec_store_part(cell->last[s] + it.index * D + at, h[v][s], n);
}

INLINE void diagonal_backward_item(const struct diagonal_call *call, int64_t item, int states, int weights,
                                   diagonal_reverse reverse) {
    const struct diagonal *cell = call->cell;
    const struct diagonal_item it = diagonal_item(call, item);
    const int64_t D = cell->width;
    vec d[DIAGONAL_WIDE][DIAGONAL_STATES], w[DIAGONAL_WIDE][DIAGONAL_WEIGHTS], dw[DIAGONAL_WIDE][DIAGONAL_WEIGHTS];
    DIAGONAL_EACH(v, at) {
        for (int s = 0; s < states; s++)
            d[v][s] = cell->dlast[s] ? vec_load_part(cell->dlast[s] + it.index * D + at, n) : (vec){0};
        for (int s = 0; s < weights; s++) {
            w[v][s] = vec_load_part(cell->weights + s * D + at, n);
            dw[v][s] = (vec){0};
        }
    }
    for (int64_t t = it.span.end - 1; t >= it.span.start; t--) {
        const int64_t place = it.span.row * cell->steps + t;
        DIAGONAL_EACH(v, at) {
            vec u[DIAGONAL_GATES], du[DIAGONAL_GATES], before[DIAGONAL_STATES];
            const act *inputs = cell->u + it.span.row * cell->u_row + t * cell->u_time + at;
            for (int g = 0; g < DIAGONAL_GATES; g++) {
                __builtin_prefetch(inputs + g * cell->u_gate - DIAGONAL_AHEAD * cell->u_time);
                __builtin_prefetch(cell->du + ((place - DIAGONAL_AHEAD) * DIAGONAL_GATES + g) * D + at, 1);
                u[g] = cell_load(inputs + g * cell->u_gate, n);
            }
            if (cell->dy) __builtin_prefetch(cell->dy + (place - DIAGONAL_AHEAD) * D + at);
            for (int s = 0; s < states; s++) __builtin_prefetch(cell->trace + ((place - 1 - DIAGONAL_AHEAD) * states + s) * D + at);
            for (int s = 0; s < states; s++)
                before[s] = t > it.span.start ? vec_load_part(cell->trace + ((place - 1) * states + s) * D + at, n)
                                              : vec_load_part(cell->state[s] + it.index * D + at, n);
            if (cell->dy) d[v][0] += cell_load(cell->dy + place * D + at, n);
            reverse(u, w[v], before, d[v], du, dw[v]);
            for (int g = 0; g < DIAGONAL_GATES; g++) cell_store(cell->du + (place * DIAGONAL_GATES + g) * D + at, du[g], n);
        }
    }
    DIAGONAL_EACH(v, at) {
        for (int s = 0; s < states; s++) vec_store_part(cell->dstate[s] + it.index * D + at, d[v][s], n);
        for (int s = 0; s < weights; s++) vec_store_part(cell->dweights + (it.index * weights + s) * D + at, dw[v][s], n);
    }
}

INLINE void diagonal_run(const struct diagonal *cell, rit_body body) {
    struct diagonal_call call = {.cell = cell, .blocks = rit_divide_up(cell->width, DIAGONAL_WIDE * RIT_LANES)};
    const int64_t times = cell->starts ? cell->steps : cell->rows * cell->steps;
    rit_parallel_sized(cell->rows * call.blocks, 40 * times * cell->width, body, &call);
}

/* The two entries of a cell, from its step and its reverse. */
#define DIAGONAL_ENTRIES(name, states, weights)                                                      \
    static void forward_item(void *call, int64_t item) {                                             \
        diagonal_forward_item(call, item, states, weights, step);                                    \
    }                                                                                                \
    static void backward_item(void *call, int64_t item) {                                            \
        diagonal_backward_item(call, item, states, weights, reverse);                                \
    }                                                                                                \
    RIT_ENTRY(name)(const struct diagonal *cell) { diagonal_run(cell, forward_item); }               \
    RIT_ENTRY(name##_backward)(const struct diagonal *cell) { diagonal_run(cell, backward_item); }

#endif
