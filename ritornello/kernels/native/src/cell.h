/* What the cells with a recurrent matrix share: the product of a few rows with a packed matrix, and the loop over time
 * for a group of rows and one head. Each cell adds what happens element by element.
 *
 * No thread waits for another within a call: the items are (group of rows, head), and an item runs all its times. A group
 * is at most as many rows as have their sums in registers at once; where that would make one item, the rows are halved.
 * Every sum over the inputs of a row runs from the first to the last, so the bits depend on neither the groups nor the
 * threads. */
#ifndef RIT_CELL_H
#define RIT_CELL_H

#include "cell_matrix.h"

/* -------------------------------------------------------------------------------------------------- one group of rows */

struct cell_row {
    struct rit_span span;
    int64_t index; /* of its state */
};

struct cell_group {
    int64_t rows, active;
    struct cell_row row[CELL_MOST];
};

/* The rows of one item, the longest first. */
INLINE struct cell_group cell_group(const struct cell_call *call, int64_t item) {
    const struct cell *cell = call->cell;
    struct cell_group group = {.rows = rit_min(call->group, cell->rows - item * call->group)};
    for (int64_t r = 0; r < group.rows; r++) {
        const int64_t i = item * call->group + r;
        group.row[r].index = cell->order ? cell->order[i] : i;
        group.row[r].span = rit_span(cell->starts, group.row[r].index, cell->steps);
    }
    return group;
}

INLINE int64_t cell_length(const struct cell_row *row) { return row->span.end - row->span.start; }

/* Row r at its time t. */
INLINE struct cell_now cell_now(const struct cell_call *call, const struct cell_row *row, int64_t head, int64_t t) {
    const struct cell *cell = call->cell;
    const int64_t D = cell->heads * cell->width, column = head * cell->width;
    const int64_t at = row->span.row * cell->steps + row->span.start + t, place = at * D + column;
    struct cell_now now = {
        .u = cell->u + row->span.row * cell->u_row + (row->span.start + t) * cell->u_time + column,
        .u_gate = cell->u_gate,
        .bias = cell->bias ? cell->bias + column : 0,
        .y = cell->y + place,
        .du = cell->du + at * call->gates * D + column,
        .before = cell->before + place,
        .dproduct = cell->dproduct + place,
        .dy = cell->dy ? cell->dy + place : 0,
        .trace = cell->trace ? cell->trace + at * call->slots * D + column : 0,
        .D = D,
        .width = cell->width,
        .option = cell->option,
    };
    now.earlier = t ? now.trace - call->slots * D : 0;
    for (int64_t s = 0; s < call->states; s++) now.first[s] = cell->state[s] + row->index * D + column;
    return now;
}

/* Copy the states of a group between (rows, D) and the scratch (states, rows, padded width). */
INLINE void cell_gather(const struct cell_call *call, const struct cell_group *group, int64_t head,
                        const real *const *from, real *scratch, int64_t padded) {
    const int64_t width = call->cell->width, D = call->cell->heads * width;
    for (int64_t s = 0; s < call->states; s++)
        for (int64_t r = 0; r < group->rows; r++) {
            real *to = scratch + (s * CELL_MOST + r) * padded;
            if (from[s])
                memcpy(to, from[s] + group->row[r].index * D + head * width, (size_t)width * sizeof *to);
            else
                memset(to, 0, (size_t)width * sizeof *to);
            memset(to + width, 0, (size_t)(padded - width) * sizeof *to);
        }
}

INLINE void cell_scatter(const struct cell_call *call, const struct cell_group *group, int64_t head, real *const *to,
                         const real *scratch, int64_t padded) {
    const int64_t width = call->cell->width, D = call->cell->heads * width;
    for (int64_t s = 0; s < call->states; s++)
        for (int64_t r = 0; r < group->rows; r++)
            if (to[s])
                memcpy(to[s] + group->row[r].index * D + head * width, scratch + (s * CELL_MOST + r) * padded,
                       (size_t)width * sizeof(real));
}

/* Ask for memory that is needed after the product, which takes as long as the memory does. */
INLINE void cell_fetch(const void *p, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)p + at, 0, 2);
}

static void cell_forward_item(void *context, int64_t item) {
    const struct cell_call *call = context;
    const struct cell *cell = call->cell;
    const int64_t head = item % cell->heads, padded = call->tiles * CELL_PANEL;
    struct cell_group group = cell_group(call, item / cell->heads);
    real *state = rit_scratch((CELL_STATES + call->gates) * CELL_MOST * padded);
    real *product = state + CELL_STATES * CELL_MOST * padded;
    act *narrow = cell_begin(call, group.rows, cell->width);
    cell_gather(call, &group, head, cell->state, state, padded);
    /* A direct product writes no padding, and what is there is multiplied by zeros: it must not be NaN. */
    if (call->direct) memset(product, 0, (size_t)(group.rows * call->gates * padded) * sizeof *product);
    int64_t active = group.rows;
    for (int64_t t = 0;; t++) {
        while (active && cell_length(&group.row[active - 1]) <= t) active--;
        if (!active) break;
        for (int64_t r = 0; r < active; r++) {
            const struct cell_now now = cell_now(call, &group.row[r], head, t);
            for (int64_t g = 0; g < call->gates; g++) cell_fetch(now.u + g * now.u_gate, cell->width * (int64_t)sizeof(act));
        }
        for (int64_t stage = 0; stage < call->stages; stage++) {
            cell_multiply(call, head, stage, active, state + stage * CELL_MOST * padded, padded, narrow,
                          product + stage * call->each * padded, call->gates * padded);
            for (int64_t r = 0; r < active; r++) {
                struct cell_now now = cell_now(call, &group.row[r], head, t);
                now.stage = stage;
                now.product = product + r * call->gates * padded;
                now.product_gate = padded;
                for (int64_t s = 0; s < CELL_STATES; s++) now.state[s] = state + (s * CELL_MOST + r) * padded;
                call->point(&now);
            }
        }
    }
    cell_scatter(call, &group, head, cell->last, state, padded);
    cell_end(call, narrow);
    free(state);
}

/* state holds the gradients of the states here; what the point leaves in the first of them is the part of dh that does
 * not pass through the product of stage 0. Stages run from the last to the first, and `product` holds the gradient of
 * what a stage multiplied when the point of the stage before it is called. */
static void cell_backward_item(void *context, int64_t item) {
    const struct cell_call *call = context;
    const struct cell *cell = call->cell;
    const int64_t head = item % cell->heads, padded = call->tiles * CELL_PANEL;
    const int64_t depth = call->gates * cell->width, each = call->each * cell->width;
    struct cell_group group = cell_group(call, item / cell->heads);
    real *state = rit_scratch((CELL_STATES + 1) * CELL_MOST * padded + CELL_MOST * depth);
    real *product = state + CELL_STATES * CELL_MOST * padded, *drive = product + CELL_MOST * padded;
    act *narrow = cell_begin(call, group.rows, each);
    memset(product, 0, (size_t)(CELL_MOST * padded) * sizeof *product); /* the tiles leave out the padding */
    cell_gather(call, &group, head, cell->dlast, state, padded);
    int64_t active = 0;
    for (int64_t t = group.rows ? cell_length(&group.row[0]) - 1 : -1; t >= 0; t--) {
        while (active < group.rows && cell_length(&group.row[active]) > t) active++;
        for (int64_t stage = call->stages - 1; stage >= 0; stage--) {
            for (int64_t r = 0; r < active; r++) {
                struct cell_now now = cell_now(call, &group.row[r], head, t);
                for (int64_t s = 0; s < call->states; s++) now.state[s] = state + (s * CELL_MOST + r) * padded;
                now.stage = stage;
                now.product = product + r * padded;
                now.drive = drive + r * depth;
                call->point(&now);
            }
            if (stage)
                cell_multiply(call, head, stage, active, drive + stage * each, depth, narrow, product, padded);
        }
        for (int64_t r = 0; r < active && t; r++) {
            const struct cell_now now = cell_now(call, &group.row[r], head, t - 1);
            for (int64_t s = 0; s < call->slots; s++)
                cell_fetch(now.trace + s * now.D, cell->width * (int64_t)sizeof(real));
            if (now.dy) cell_fetch(now.dy, cell->width * (int64_t)sizeof(act));
        }
        cell_multiply(call, head, 0, active, drive, depth, narrow, product, padded);
        for (int64_t r = 0; r < active; r++)
            for (int64_t j = 0; j < padded; j += RIT_LANES) {
                real *dh = state + r * padded + j;
                vec_store(dh, vec_load(dh) + vec_load(product + r * padded + j));
            }
    }
    cell_scatter(call, &group, head, cell->dstate, state, padded);
    cell_end(call, narrow);
    free(state);
}

/* ----------------------------------------------------------------------------------------------------- the whole call */

/* A cell whose gates' products come one after the other: the first multiplies h, the next what the point of the stage
 * before it has left in that state's place, up to CELL_STATES. */
INLINE void cell_run_staged(const struct cell *cell, int64_t gates, int64_t stages, int64_t states, int64_t slots,
                            cell_point point, int backward) {
    struct cell_call call = {
        .cell = cell, .gates = gates, .states = states, .slots = slots, .point = point,
        .stages = stages, .each = gates / stages,
        .tiles = rit_divide_up(cell->width, CELL_PANEL), .backward = backward,
    };
    cell_prepare(&call);
    call.group = rit_max(1, rit_min(call.tiled ? CELL_MOST : CELL_ROWS, rit_divide_up(cell->rows * cell->heads, 2)));
    const int64_t groups = rit_divide_up(cell->rows, call.group);
    const int64_t work = (cell->starts ? cell->steps : cell->rows * cell->steps) * cell->heads * call.packed_head;
    rit_parallel_sized(groups * cell->heads, work, backward ? cell_backward_item : cell_forward_item, &call);
    free(call.packed);
}

INLINE void cell_run(const struct cell *cell, int64_t gates, int64_t states, int64_t slots, cell_point point, int backward) {
    cell_run_staged(cell, gates, 1, states, slots, point, backward);
}

#endif
