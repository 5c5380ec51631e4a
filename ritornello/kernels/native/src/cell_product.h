/* The product of a few rows with a matrix, sums in registers, each from the first to the last term. */
#ifndef RIT_CELL_PRODUCT_H
#define RIT_CELL_PRODUCT_H

#include "cell_act.h"
#include "transpose.h"

enum { CELL_PANEL = 2 * RIT_LANES, CELL_ROWS = RIT_BYTES == 64 ? 8 : 6, CELL_AHEAD = 8 };

/* a[r][k] at data[r * row + k * step]; w[k][j] of panel p, j < CELL_PANEL, at data[p * panel + k * step + j]. */
struct cell_rows {
    const real *data;
    int64_t row, step;
};

struct cell_panels {
    const real *data;
    int64_t panel, step;
};

/* out[r][j] (+)= Σ_k a[r][k] w[k][j] for R rows and P panels of columns. */
INLINE void cell_tile(const int R, const int P, const int add, int64_t depth, struct cell_rows a, struct cell_panels w,
                      real *out, int64_t out_row) {
    vec sum[CELL_ROWS][8];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < 2 * P; p++) sum[r][p] = add ? vec_load(out + r * out_row + p * RIT_LANES) : (vec){0};
    for (int64_t k = 0; k < depth; k++) {
        const real *row = w.data + k * w.step;
        vec column[8];
        /* The matrix comes from the second cache: without this, four rows run at half the speed. */
#pragma GCC unroll 8
        for (int p = 0; p < 2 * P; p++)
            __builtin_prefetch(row + (p / 2) * w.panel + CELL_AHEAD * w.step + (p % 2) * RIT_LANES);
#pragma GCC unroll 8
        for (int p = 0; p < 2 * P; p++) column[p] = vec_load(row + (p / 2) * w.panel + (p % 2) * RIT_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const vec x = vec_set(a.data[r * a.row + k * a.step]);
#pragma GCC unroll 8
            for (int p = 0; p < 2 * P; p++) sum[r][p] += x * column[p];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < 2 * P; p++) vec_store(out + r * out_row + p * RIT_LANES, sum[r][p]);
}

#define CELL_TILES(R, P)                                                                   \
    case R:                                                                                \
        for (; j + P <= panels; j += P, w.data += P * w.panel)                             \
            cell_tile(R, P, add, depth, a, w, out + j * CELL_PANEL, out_row);              \
        for (; P > 1 && j < panels; j++, w.data += w.panel)                                \
            cell_tile(R, 1, add, depth, a, w, out + j * CELL_PANEL, out_row);              \
        break;

/* The same for up to CELL_ROWS rows and any number of panels. Few rows take more panels, to keep the units busy. */
INLINE void cell_product(int64_t rows, int64_t depth, int64_t panels, const int add, struct cell_rows a,
                         struct cell_panels w, real *out, int64_t out_row) {
    int64_t j = 0;
    switch (rows) {
#if RIT_BYTES == 64
        CELL_TILES(1, 4)
        CELL_TILES(2, 4)
        CELL_TILES(3, 2)
        CELL_TILES(4, 2)
        CELL_TILES(5, 1)
        CELL_TILES(6, 1)
        CELL_TILES(7, 1)
        CELL_TILES(8, 1)
#else
        CELL_TILES(1, 4)
        CELL_TILES(2, 2)
        CELL_TILES(3, 1)
        CELL_TILES(4, 1)
        CELL_TILES(5, 1)
        CELL_TILES(6, 1)
#endif
    }
}

/* With contiguous rows, of any number, and a packed matrix, [panel][k][column]: few panels at a time, which more than
 * CELL_ROWS rows find in the second cache. */
static void cell_product_packed(int64_t rows, int64_t depth, int64_t panels, const real *a, int64_t a_row, const real *w,
                                real *out, int64_t out_row) {
    const int64_t panel = depth * CELL_PANEL, most = rows > CELL_ROWS ? 4 : panels;
    for (int64_t p = 0; p < panels; p += most)
        for (int64_t r = 0; r < rows; r += CELL_ROWS)
            cell_product(rit_min(CELL_ROWS, rows - r), depth, rit_min(most, panels - p), 0,
                         (struct cell_rows){a + r * a_row, a_row, 1}, (struct cell_panels){w + p * panel, panel, CELL_PANEL},
                         out + r * out_row + p * CELL_PANEL, out_row);
}

/* Panel `tile` of the matrix m[k][j], element (k, j) at m[k * m_row + j * m_column], columns beyond `columns` zero. */
INLINE void cell_pack(const act *m, int64_t m_row, int64_t m_column, int64_t depth, int64_t columns, int64_t tile,
                      real *out) {
    const int64_t first = tile * CELL_PANEL, count = rit_min(CELL_PANEL, columns - first);
#if !defined(RIT_BF16)
    if (m_row == 1 && count == CELL_PANEL && depth % RIT_LANES == 0) {
        transpose(m + first * m_column, m_column, CELL_PANEL, depth, out, CELL_PANEL);
        return;
    }
#endif
    for (int64_t k = 0; k < depth; k++)
        for (int64_t j = 0; j < CELL_PANEL; j++)
            out[k * CELL_PANEL + j] = j < count ? act_get(m + k * m_row + (first + j) * m_column) : 0;
}

#endif
