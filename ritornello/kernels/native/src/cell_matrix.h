/* The recurrent matrix, packed once for a call, and the product of a group's rows with it. */
#ifndef RIT_CELL_MATRIX_H
#define RIT_CELL_MATRIX_H

#include "cell_call.h"

/* Where the matrix of one stage of one head begins. */
INLINE real *cell_packed(const struct cell_call *call, int64_t head, int64_t stage) {
    return call->packed + head * call->packed_head + stage * (call->packed_head / call->stages);
}

/* Forward: R of each gate, transposed: [head][gate][tile][in][out]. */
static void cell_pack_forward(void *context, int64_t item) {
    const struct cell_call *call = context;
    const int64_t width = call->cell->width, heads = call->cell->heads;
    const int64_t tile = item % call->tiles, gate = item / call->tiles % call->gates, head = item / call->tiles / call->gates;
    cell_pack(call->cell->weight + (gate * heads + head) * width * width, 1, width, width, width, tile,
              call->packed + head * call->packed_head + (gate * call->tiles + tile) * width * CELL_PANEL);
}

/* Backward: [head][stage][tile][gate of the stage, out][in]. */
static void cell_pack_backward(void *context, int64_t item) {
    const struct cell_call *call = context;
    const int64_t width = call->cell->width, heads = call->cell->heads;
    const int64_t tile = item % call->tiles, gate = item / call->tiles % call->gates, head = item / call->tiles / call->gates;
    const int64_t place = (gate / call->each * call->tiles + tile) * call->each + gate % call->each;
    cell_pack(call->cell->weight + (gate * heads + head) * width * width, width, 1, width, width, tile,
              call->packed + head * call->packed_head + place * width * CELL_PANEL);
}

#ifdef RIT_TILES
/* What a stage's tiles hold: `depth` terms a sum, and strips in bundles of `most`. Forward a bundle is the same columns of all
 * gates; backward it is columns side by side. */
struct cell_bundles {
    int64_t depth, strips, most;
};

INLINE struct cell_bundles cell_bundles(const struct cell_call *call) {
    const int64_t width = call->cell->width, across = rit_divide_up(width, TILE_COLUMNS);
    return call->backward ? (struct cell_bundles){call->each * width, across, TILE_SUMS}
                          : (struct cell_bundles){width, call->each * across, call->each};
}

/* An item is one strip of one stage. */
static void cell_pack_tiles(void *context, int64_t item) {
    const struct cell_call *call = context;
    const struct cell_bundles b = cell_bundles(call);
    const int64_t width = call->cell->width, heads = call->cell->heads, square = width * width;
    const int64_t strip = item % b.strips, stage = item / b.strips % call->stages, head = item / b.strips / call->stages;
    const int64_t bundle = strip / b.most, place = strip % b.most;
    const act *m = call->cell->weight + (stage * call->each * heads + head) * square;
    act *out = (act *)cell_packed(call, head, stage) + bundle * b.most * cell_tiles_strip(b.depth) + place * TILE_NUMBERS;
    if (call->backward)
        cell_tiles_pack(m + strip * TILE_COLUMNS, call->each, heads * square, width, width, 1, width - strip * TILE_COLUMNS,
                        rit_min(b.most, b.strips - bundle * b.most), out);
    else
        cell_tiles_pack(m + place * heads * square + bundle * TILE_COLUMNS * width, 1, 0, width, 1, width,
                        width - bundle * TILE_COLUMNS, b.most, out);
}
#endif

/* Pack the matrices for this direction. */
INLINE void cell_prepare(struct cell_call *call) {
    const struct cell *cell = call->cell;
    call->packed_head = call->gates * call->tiles * CELL_PANEL * cell->width;
    call->direct = !call->backward && cell->rows * cell->steps <= CELL_DIRECT;
    if (call->direct) return;
    int64_t items = cell->heads * call->gates * call->tiles;
    rit_body pack = call->backward ? cell_pack_backward : cell_pack_forward;
#ifdef RIT_TILES
    /* Not with relu, whose gradient would jump where the rounding of h moves a sum across 0. */
    call->tiled = cell->width >= TILE_DEPTH && !cell->option && cell_tiles_ready();
    if (call->tiled) {
        const struct cell_bundles b = cell_bundles(call);
        pack = cell_pack_tiles;
        items = cell->heads * call->stages * b.strips;
        call->packed_head = call->stages * b.strips * cell_tiles_strip(b.depth) / 2;
    }
#endif
    call->packed = rit_scratch(cell->heads * call->packed_head);
    rit_parallel_sized(items, cell->heads * call->packed_head, pack, call);
}

/* R h from the weight as it is, for few steps, which do not pay for packing: lanes run over the inputs. */
static void cell_product_direct(const struct cell_call *call, int64_t head, int64_t stage, int64_t rows, const real *h,
                                int64_t h_row, real *out, int64_t out_row) {
    const int64_t width = call->cell->width, heads = call->cell->heads;
    for (int64_t gate = 0; gate < call->each; gate++)
        for (int64_t o = 0; o < width; o++) {
            const act *w = call->cell->weight + (((stage * call->each + gate) * heads + head) * width + o) * width;
            for (int64_t r = 0; r < rows; r++) {
                vec even = {0}, odd = {0};
                for (int64_t k = 0; k < width; k += CELL_PANEL) {
                    even += cell_load(w + k, width - k) * vec_load(h + r * h_row + k);
                    if (k + RIT_LANES < width)
                        odd += cell_load(w + k + RIT_LANES, width - k - RIT_LANES) * vec_load(h + r * h_row + k + RIT_LANES);
                }
                out[r * out_row + gate * h_row + o] = vec_sum(even + odd);
            }
        }
}

/* The product of the first `active` of the group's rows with the head's packed matrix of one stage, in the columns of this
 * share: forward the gates of the stage from h, backward the gradient of h from theirs. */
INLINE void cell_multiply(const struct cell_call *call, const struct cell_share *share, int64_t head, int64_t stage, int64_t active,
                          const real *a, int64_t a_row, real *out, int64_t out_row) {
    if (call->direct) {
        cell_product_direct(call, head, stage, active, a, a_row, out, out_row);
        return;
    }
    const int64_t width = call->cell->width, depth = call->backward ? call->each * width : width;
    const int64_t padded = call->tiles * CELL_PANEL;
    const real *w = cell_packed(call, head, stage);
    out += share->first;
#ifdef RIT_TILES
    if (call->tiled) {
        const struct cell_bundles b = cell_bundles(call);
        const int64_t side = call->backward ? b.most : 1, bundle = side * TILE_COLUMNS; /* its strips side by side, its columns */
        const act *tiles = (const act *)w + share->first / bundle * b.most * cell_tiles_strip(depth);
        const int64_t strips = rit_divide_up(share->columns, TILE_COLUMNS) * (b.most / side);
        cell_tiles_product(strips, b.most, cell_tiles_blocks(depth), (const act *)a, tiles, out, out_row,
                           call->backward ? TILE_COLUMNS : padded, bundle);
        return;
    }
#endif
    /* All columns of all gates are one run of panels; of some, those of each gate. */
    const int whole = share->columns == width;
    const int64_t gates = call->backward || whole ? 1 : call->each;
    const int64_t panels = whole ? (call->backward ? 1 : call->each) * call->tiles : share->columns / CELL_PANEL;
    w += share->first * depth;
    for (int64_t gate = 0; gate < gates; gate++, w += padded * depth, out += padded)
        cell_product_packed(active, depth, panels, a, a_row, w, out, out_row);
}

/* Reals of a row of what the product multiplies, where cell_operand copies it, else 0. */
INLINE int64_t cell_copy_row(const struct cell_call *call) {
    const int64_t width = call->cell->width;
#ifdef RIT_TILES
    if (call->tiled) return cell_tiles_blocks((call->backward ? call->each : 1) * width) * TILE_DEPTH / 2;
#endif
    return call->members > 1 && !call->backward ? width : 0;
}

/* The rows as the product takes them: for the tiles in bfloat16, and for a team where the others go on reading them while the
 * next ones are made. A share copies its own columns. */
INLINE const real *cell_operand(const struct cell_call *call, const struct cell_share *share, int64_t active, const real *rows,
                                int64_t row, real *copy) {
    const int64_t width = call->cell->width;
#ifdef RIT_TILES
    if (call->tiled) {
        const int64_t gates = call->backward ? call->each : 1;
        const int64_t to_row = 2 * cell_copy_row(call), runs = share->columns == width ? 1 : gates;
        for (int64_t run = 0; run < runs; run++) {
            const int64_t at = run * width + share->first;
            cell_tiles_narrow(active, share->columns * gates / runs, rows + at, row, (act *)copy + at, to_row);
        }
        return copy;
    }
#endif
    if (!share->team || call->backward) return rows; /* backward they are made in two places in turn */
    for (int64_t r = 0; r < active; r++)
        memcpy(copy + r * width + share->first, rows + r * row + share->first, (size_t)share->columns * sizeof *copy);
    return copy;
}

INLINE void cell_begin(const struct cell_call *call, int64_t rows) {
#ifdef RIT_TILES
    if (call->tiled) cell_tiles_begin(rows);
#endif
    (void)call, (void)rows;
}

INLINE void cell_end(const struct cell_call *call) {
#ifdef RIT_TILES
    if (call->tiled) cell_tiles_end();
#endif
    (void)call;
}

#endif
