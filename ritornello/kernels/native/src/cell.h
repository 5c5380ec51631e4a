/* What the cells with a recurrent matrix share: the product of a few rows with a packed matrix, and the loop over time
 * for a group of rows and one head. Each cell adds what happens element by element.
 *
 * Threads share the rows, or the columns. With rows, an item of work is (group of rows, head) and runs all its times; nobody
 * waits for anybody, and every thread reads the whole matrix at every step. With columns, each thread of a team reads its part
 * of the matrix for all rows, and they meet at every step; that is for matrices that are long to read. Every sum over the
 * inputs of a row runs from the first to the last, so the bits depend on neither. */
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

/* Row r at its time t, in the columns of a share. */
INLINE struct cell_now cell_now(const struct cell_call *call, const struct cell_share *share, const struct cell_row *row,
                                int64_t head, int64_t t) {
    const struct cell *cell = call->cell;
    const int64_t D = cell->heads * cell->width, column = head * cell->width + share->first;
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
        .width = share->columns,
        .option = cell->option,
        .drive_gate = cell->width,
    };
    now.earlier = t ? now.trace - call->slots * D : 0;
    for (int64_t s = 0; s < call->states; s++) now.first[s] = cell->state[s] + row->index * D + column;
    return now;
}

/* What a group's steps are worked on in; a team has it together. */
struct cell_scratch {
    real *all;
    real *state;    /* [state][row][padded width] */
    real *product;  /* forward [row][gate][padded width], backward [row][padded width] */
    real *drive[2]; /* backward, by turns: [row][gate][width] */
    real *copy[2];  /* of what is multiplied, by turns */
};

static struct cell_scratch cell_scratch(const struct cell_call *call) {
    const int64_t padded = call->tiles * CELL_PANEL, width = call->cell->width, most = call->group;
    const int64_t state = CELL_STATES * CELL_MOST * padded, product = most * padded * (call->backward ? 1 : call->gates);
    const int64_t drive = call->backward ? most * call->gates * width : 0, copy = most * cell_copy_row(call);
    struct cell_scratch s = {.all = rit_scratch(state + product + 2 * drive + 2 * copy)};
    s.state = s.all;
    s.product = s.state + state;
    s.drive[0] = s.product + product;
    s.copy[0] = s.drive[0] + 2 * drive;
    s.drive[1] = s.drive[0] + drive;
    s.copy[1] = s.copy[0] + copy;
    /* The padding is multiplied by zeros, and must not be NaN. */
    memset(s.product, 0, (size_t)product * sizeof(real));
    memset(s.copy[0], 0, (size_t)(2 * copy) * sizeof(real));
    return s;
}

/* Copy the states of a group between (rows, D) and the scratch. */
INLINE void cell_gather(const struct cell_call *call, const struct cell_share *share, const struct cell_group *group, int64_t head,
                        const real *const *from, real *scratch, int64_t padded) {
    const int64_t width = call->cell->width, D = call->cell->heads * width, first = share->first;
    for (int64_t s = 0; s < call->states; s++)
        for (int64_t r = 0; r < group->rows; r++) {
            real *to = scratch + (s * CELL_MOST + r) * padded;
            if (from[s])
                memcpy(to + first, from[s] + group->row[r].index * D + head * width + first, (size_t)share->columns * sizeof *to);
            else
                memset(to + first, 0, (size_t)share->columns * sizeof *to);
            memset(to + width, 0, (size_t)(padded - width) * sizeof *to);
        }
}

INLINE void cell_scatter(const struct cell_call *call, const struct cell_share *share, const struct cell_group *group, int64_t head,
                         real *const *to, const real *scratch, int64_t padded) {
    const int64_t width = call->cell->width, D = call->cell->heads * width, first = share->first;
    for (int64_t s = 0; s < call->states; s++)
        for (int64_t r = 0; r < group->rows; r++)
            if (to[s])
                memcpy(to[s] + group->row[r].index * D + head * width + first, scratch + (s * CELL_MOST + r) * padded + first,
                       (size_t)share->columns * sizeof(real));
}

/* Ask for memory that is needed after the product, which takes as long as the memory does. */
INLINE void cell_fetch(const void *p, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)p + at, 0, 2);
}

INLINE struct cell_share cell_whole(const struct cell_call *call) {
    return (struct cell_share){.columns = call->cell->width};
}

/* Where all have left what the next product reads. Whether this thread goes on: one that does after its team has parted has
 * all columns. */
INLINE int cell_meet(const struct cell_call *call, struct cell_share *share) {
    if (!share->team || rit_meet(share->team, share->place)) return 1;
    const int stays = !share->place;
    *share = cell_whole(call);
    return stays;
}

/* ------------------------------------------------------------------------------------- one group of rows through its times */

/* Whether this thread saw it to its end. */
static int cell_forward_group(const struct cell_call *call, struct cell_share *share, const struct cell_scratch *scratch,
                              int64_t item) {
    const struct cell *cell = call->cell;
    const int64_t head = item % cell->heads, padded = call->tiles * CELL_PANEL;
    const struct cell_group group = cell_group(call, item / cell->heads);
    const int64_t state_rows = call->tiled ? cell_copy_row(call) : padded; /* a team's columns have no padding */
    real *state = scratch->state, *product = scratch->product;
    int64_t active = group.rows;
    cell_begin(call, group.rows);
    cell_gather(call, share, &group, head, cell->state, state, padded);
    for (int64_t t = 0;; t++) {
        while (active && cell_length(&group.row[active - 1]) <= t) active--;
        if (!active) break;
        for (int64_t r = 0; r < active; r++) {
            const struct cell_now now = cell_now(call, share, &group.row[r], head, t);
            for (int64_t g = 0; g < call->gates; g++) cell_fetch(now.u + g * now.u_gate, now.width * (int64_t)sizeof(act));
        }
        for (int64_t stage = 0; stage < call->stages; stage++, share->turn = !share->turn) {
            const real *rows = state + stage * CELL_MOST * padded;
            const real *a = cell_operand(call, share, active, rows, padded, scratch->copy[share->turn]);
            if (!cell_meet(call, share)) return 0;
            cell_multiply(call, share, head, stage, active, a, state_rows, product + stage * call->each * padded,
                          call->gates * padded);
            for (int64_t r = 0; r < active; r++) {
                struct cell_now now = cell_now(call, share, &group.row[r], head, t);
                now.stage = stage;
                now.product = product + r * call->gates * padded + share->first;
                now.product_gate = padded;
                for (int64_t s = 0; s < CELL_STATES; s++) now.state[s] = state + (s * CELL_MOST + r) * padded + share->first;
                call->point(&now);
            }
        }
    }
    cell_scatter(call, share, &group, head, cell->last, state, padded);
    return 1;
}

/* state holds the gradients of the states here; what the point leaves in the first of them is the part of dh that does
 * not pass through the product of stage 0. Stages run from the last to the first, and `product` holds the gradient of
 * what a stage multiplied when the point of the stage before it is called. */
static int cell_backward_group(const struct cell_call *call, struct cell_share *share, const struct cell_scratch *scratch,
                               int64_t item) {
    const struct cell *cell = call->cell;
    const int64_t head = item % cell->heads, padded = call->tiles * CELL_PANEL;
    const int64_t depth = call->gates * cell->width, each = call->each * cell->width;
    const int64_t drive_rows = call->tiled ? cell_copy_row(call) : depth;
    const struct cell_group group = cell_group(call, item / cell->heads);
    real *state = scratch->state, *product = scratch->product;
    int64_t active = 0;
    cell_begin(call, group.rows);
    cell_gather(call, share, &group, head, cell->dlast, state, padded);
    for (int64_t t = group.rows ? cell_length(&group.row[0]) - 1 : -1; t >= 0; t--) {
        while (active < group.rows && cell_length(&group.row[active]) > t) active++;
        for (int64_t stage = call->stages - 1; stage >= 0; stage--, share->turn = !share->turn) {
            real *drive = scratch->drive[share->turn];
            for (int64_t r = 0; r < active; r++) {
                struct cell_now now = cell_now(call, share, &group.row[r], head, t);
                for (int64_t s = 0; s < call->states; s++) now.state[s] = state + (s * CELL_MOST + r) * padded + share->first;
                now.stage = stage;
                now.product = product + r * padded + share->first;
                now.drive = drive + r * depth + share->first;
                call->point(&now);
            }
            for (int64_t r = 0; r < active && t && !stage; r++) {
                const struct cell_now now = cell_now(call, share, &group.row[r], head, t - 1);
                for (int64_t s = 0; s < call->slots; s++) cell_fetch(now.trace + s * now.D, now.width * (int64_t)sizeof(real));
                if (now.dy) cell_fetch(now.dy, now.width * (int64_t)sizeof(act));
            }
            const real *a = cell_operand(call, share, active, drive + stage * each, depth, scratch->copy[share->turn]);
            if (!cell_meet(call, share)) return 0;
            cell_multiply(call, share, head, stage, active, a, drive_rows, product, padded);
        }
        for (int64_t r = 0; r < active; r++)
            for (int64_t j = share->first; j < share->first + share->columns; j += RIT_LANES) {
                real *dh = state + r * padded + j;
                vec_store(dh, vec_load(dh) + vec_load(product + r * padded + j));
            }
    }
    cell_scatter(call, share, &group, head, cell->dstate, state, padded);
    return 1;
}

/* ----------------------------------------------------------------------------------------------------- the whole call */

INLINE int cell_group_through(const struct cell_call *call, struct cell_share *share, const struct cell_scratch *scratch,
                              int64_t item) {
    return (call->backward ? cell_backward_group : cell_forward_group)(call, share, scratch, item);
}

INLINE int64_t cell_items(const struct cell_call *call) {
    return rit_divide_up(call->cell->rows, call->group) * call->cell->heads;
}

/* How many rows, of any head, a thread gets where they are what is shared. */
INLINE int64_t cell_rows(const struct cell_call *call) {
    return rit_divide_up(call->cell->rows * call->cell->heads, rit_threads());
}

/* How many threads share the columns, 1 where they share the rows: columns where threads would be idle, and where a
 * matrix beyond the second cache is read for few rows. A meeting takes about a microsecond. */
INLINE int64_t cell_members(const struct cell_call *call, int64_t rows, int64_t work) {
    enum { CACHE = 3 << 19, WORK = 4000000 };
    const int64_t few = call->packed_head * (int64_t)sizeof(real) > CACHE ? 8 : 1;
    if (rows > few || work < WORK || call->cell->width % CELL_UNIT || call->direct) return 1;
    return rit_min(rit_threads(), call->cell->width / CELL_UNIT);
}

/* By rows: one group, by one thread. */
static void cell_item(void *context, int64_t item) {
    const struct cell_call *call = context;
    const struct cell_scratch scratch = cell_scratch(call);
    struct cell_share share = cell_whole(call);
    cell_group_through(call, &share, &scratch, item);
    cell_end(call);
    free(scratch.all);
}

/* By columns: all groups, by all of a team. */
struct cell_together {
    const struct cell_call *call;
    struct cell_scratch scratch;
};

static void cell_member(void *context, struct rit_team *team, int64_t place) {
    const struct cell_together *work = context;
    const struct cell_call *call = work->call;
    const int64_t size = rit_team_size(team), units = call->cell->width / CELL_UNIT;
    const int64_t first = place * units / size * CELL_UNIT, end = (place + 1) * units / size * CELL_UNIT;
    struct cell_share share = size == 1 ? cell_whole(call) : (struct cell_share){team, place, first, end - first, 0};
    for (int64_t item = 0, items = cell_items(call); item < items; item++)
        if (!cell_group_through(call, &share, &work->scratch, item)) break;
    cell_end(call);
}

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
    const int64_t work = (cell->starts ? cell->steps : cell->rows * cell->steps) * cell->heads * call.packed_head;
    /* Packed rows are of many lengths: small groups, for whoever is free. */
    const int64_t most = call.tiled ? CELL_TILED : cell->starts ? CELL_ROWS : CELL_MOST, rows = cell_rows(&call);
    call.members = cell_members(&call, rows, work);
    call.group = rit_max(1, rit_min(most, call.members > 1 ? cell->rows : rows)); /* packed, there may be no row */
    if (call.members > 1) {
        struct cell_together together = {&call, cell_scratch(&call)};
        /* Three multiplications a nanosecond is a tenth of what a core does. */
        rit_together(call.members, call.group * call.packed_head / call.stages / call.members / 3, cell_member, &together);
        free(together.scratch.all);
    } else {
        rit_parallel_sized(cell_items(&call), work, cell_item, &call);
    }
    free(call.packed);
}

INLINE void cell_run(const struct cell *cell, int64_t gates, int64_t states, int64_t slots, cell_point point, int backward) {
    cell_run_staged(cell, gates, 1, states, slots, point, backward);
}

#endif
