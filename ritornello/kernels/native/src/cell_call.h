/* What is asked of a cell with a recurrent matrix, and what its parts are given. */
#ifndef RIT_CELL_CALL_H
#define RIT_CELL_CALL_H

#include "cell_product.h"
#include "cell_tiles.h"

/* CELL_MOST: rows of a group, of which the tiles take CELL_TILED; CELL_DIRECT: rows and steps that do not pay for packing the
 * matrix; CELL_UNIT: columns that a thread of a team has or has not. */
enum { CELL_STATES = 4, CELL_MOST = 32, CELL_TILED = 16, CELL_DIRECT = 16, CELL_UNIT = 64 };

/* Every field is 8 bytes. D = heads * width; tensors without strides are contiguous; absent ones are null. */
struct cell {
    int64_t rows, steps, heads, width, option;
    const int64_t *starts, *order;        /* packed: (rows + 1) bounds, and the rows by falling length */
    const act *u;                         /* (B, T, gates, D) */
    int64_t u_row, u_time, u_gate;        /* strides of u */
    const act *weight;                    /* (gates, heads, width, width) [gate, head, out, in] */
    const real *bias;                     /* (D) */
    const real *state[CELL_STATES];       /* (rows, D) */
    act *y;                               /* (B, T, D) */
    real *last[CELL_STATES];              /* (rows, D) */
    real *trace;                          /* (B, T, slots, D), what the backward pass needs */
    const act *dy;                        /* (B, T, D) */
    const real *dlast[CELL_STATES];       /* (rows, D) */
    act *du;                              /* (B, T, gates, D) */
    act *before;                          /* (B, T, D): h one step earlier */
    act *dproduct;                        /* (B, T, D): the GRU's gradient of R_n h; the MGU's f h, which R_n takes */
    real *dstate[CELL_STATES];            /* (rows, D) */
};

/* One row at one time, in the columns of one head or some of them. */
struct cell_now {
    const act *u;
    int64_t u_gate;
    const real *product;                /* R h, gate after gate */
    int64_t product_gate;
    const real *bias;
    real *state[CELL_STATES];           /* scratch, carried over time */
    act *y, *du, *before, *dproduct;
    const act *dy;
    real *trace;
    const real *earlier;                /* trace one step earlier, null at the first */
    const real *first[CELL_STATES];     /* the initial state */
    int64_t D, width;
    int64_t option, stage;
    real *drive;                        /* gradient of the product, gate after gate */
    int64_t drive_gate;
};

typedef void (*cell_point)(const struct cell_now *now);

struct cell_call {
    const struct cell *cell;
    int64_t gates, states, slots, group, tiles;
    int64_t members;      /* threads that share the columns; 1 where they share the rows */
    int64_t stages, each; /* products of a step, one after the other, and the gates of one; nearly always one of all */
    int backward;        /* the products are with Rᵀ */
    int tiled;           /* packed is for cell_tiles_product */
    int direct;          /* nothing is packed: the weight is read as it is */
    real *packed;
    int64_t packed_head; /* reals for one head */
    cell_point point;
};

/* What one thread does of a group: all columns of the head, or some beside a team's others, who need what it leaves. */
struct cell_share {
    struct rit_team *team; /* null: it has the group to itself */
    int64_t place, first, columns;
    int turn; /* which of two places the next product reads */
};

#endif
