/* Products of small matrices whose factors lie in the caches, sums in registers. Of `a` single numbers are spread over a
 * register, of `b` and of the result rows are read: so `a` may lie in any order, `b` and the result have whole vectors. */
#ifndef RIT_MATRIX_PRODUCT_H
#define RIT_MATRIX_PRODUCT_H

#include "matrix.h"

/* a(i, p) = at[i * row + p * depth] */
struct factor {
    const real *at;
    int64_t row, depth;
};

/* What is there before: nothing, the result itself, or other numbers with their columns scaled. */
enum product_start { SET, ADD, SCALE_COLUMNS };

/* As many sums at once as hide the delay of an addition and leave registers for the factors. */
#if RIT_BYTES == 64
enum { PRODUCT_ROWS = 8, PRODUCT_VECTORS = 2 };
#else
enum { PRODUCT_ROWS = 4, PRODUCT_VECTORS = 2 };
#endif

INLINE void product_block(const int rows, const int vectors, int64_t depth, struct factor a, const real *b, int64_t b_row,
                          enum product_start start, const real *scale, const real *from, real *to, int64_t to_row) {
    vec sum[PRODUCT_ROWS][PRODUCT_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sum[i][j] = start == SET ? (vec){0} : vec_load(from + i * to_row + j * RIT_LANES);
    if (start == SCALE_COLUMNS) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] *= vec_load(scale + j * RIT_LANES);
    }
    for (int64_t p = 0; p < depth; p++, b += b_row, a.at += a.depth) {
        vec x[PRODUCT_VECTORS];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) x[j] = vec_load(b + j * RIT_LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec y = matrix_spread(a.at[i * a.row]);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] += y * x[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) vec_store(to + i * to_row + j * RIT_LANES, sum[i][j]);
}

INLINE void product_columns(const int vectors, int64_t rows, int64_t depth, struct factor a, const real *b, int64_t b_row,
                            enum product_start start, const real *scale, const real *from, real *to, int64_t to_row) {
    for (int64_t left = rows; left > 0;) {
        const int64_t block = left >= PRODUCT_ROWS ? PRODUCT_ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (block == PRODUCT_ROWS) product_block(PRODUCT_ROWS, vectors, depth, a, b, b_row, start, scale, from, to, to_row);
        else if (block == 4) product_block(4, vectors, depth, a, b, b_row, start, scale, from, to, to_row);
        else if (block == 2) product_block(2, vectors, depth, a, b, b_row, start, scale, from, to, to_row);
        else product_block(1, vectors, depth, a, b, b_row, start, scale, from, to, to_row);
        left -= block, a.at += block * a.row, from += block * to_row, to += block * to_row;
    }
}

INLINE void product_from(int64_t rows, int64_t columns, int64_t depth, struct factor a, const real *b, int64_t b_row,
                         enum product_start start, const real *scale, const real *from, real *to, int64_t to_row) {
    for (int64_t j = 0; j < columns;) {
        const int vectors = columns - j >= PRODUCT_VECTORS * RIT_LANES ? PRODUCT_VECTORS : 1;
        const real *factor = start == SCALE_COLUMNS ? scale + j : 0;
        if (vectors == 1) product_columns(1, rows, depth, a, b + j, b_row, start, factor, from + j, to + j, to_row);
        else product_columns(PRODUCT_VECTORS, rows, depth, a, b + j, b_row, start, factor, from + j, to + j, to_row);
        j += vectors * RIT_LANES;
    }
}

/* to (rows, columns) ← start + a (rows, depth) b (depth, columns); `columns` in whole vectors. */
static void product(int64_t rows, int64_t columns, int64_t depth, struct factor a, const real *b, int64_t b_row,
                    enum product_start start, real *to, int64_t to_row) {
    product_from(rows, columns, depth, a, b, b_row, start, 0, to, to, to_row);
}

/* to ← from, its columns scaled, + a b; rows of `from` lie as those of `to`, which it may be. */
static void product_scaled(int64_t rows, int64_t columns, int64_t depth, struct factor a, const real *b, int64_t b_row,
                           const real *scale, const real *from, real *to, int64_t to_row) {
    product_from(rows, columns, depth, a, b, b_row, SCALE_COLUMNS, scale, from, to, to_row);
}

/* The same where a(i, p) is zero for p > i (`lower`) or p < i: half of it is left out. */
static void product_triangle(int lower, int64_t size, int64_t columns, struct factor a, const real *b, int64_t b_row,
                             real *to, int64_t to_row) {
    enum { BLOCK = 8 };
    for (int64_t i = 0; i < size; i += BLOCK) {
        const int64_t rows = rit_min(BLOCK, size - i), first = lower ? 0 : i, end = lower ? i + rows : size;
        const struct factor part = {a.at + i * a.row + first * a.depth, a.row, a.depth};
        product(rows, columns, end - first, part, b + first * b_row, b_row, ADD, to + i * to_row, to_row);
    }
}

#endif
