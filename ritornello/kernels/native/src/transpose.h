/* The transposition of a matrix in memory, a block of registers at a time. */
#ifndef RIT_TRANSPOSE_H
#define RIT_TRANSPOSE_H

#include "isa.h"

/* to[j, i] = from[i, j] for i < rows, j < columns; up to whole vectors of i and of j, `to` is filled with zeros and
 * `from` is read, whose rows therefore are whole vectors. */
static __attribute__((unused)) void transpose(const real *from, int64_t from_row, int64_t rows, int64_t columns, real *to,
                                              int64_t to_row) {
    for (int64_t i = 0; i < rows; i += RIT_LANES)
        for (int64_t j = 0; j < columns; j += RIT_LANES) {
#if defined(__clang__)
            for (int l = 0; l < RIT_LANES; l++)
                for (int m = 0; m < RIT_LANES; m++)
                    if (i + l < rows)
                        memcpy(to + (j + m) * to_row + i + l, from + (i + l) * from_row + j + m, sizeof *to);
                    else
                        to[(j + m) * to_row + i + l] = 0;
#else
            vec x[RIT_LANES];
            ivec lane;
#pragma GCC unroll 16
            for (int l = 0; l < RIT_LANES; l++) {
                lane[l] = l;
                x[l] = i + l < rows ? vec_load(from + (i + l) * from_row + j) : (vec){0};
            }
            /* Blocks of `half` lanes change places with those of the row `half` below. */
#pragma GCC unroll 4
            for (int half = 1; half < RIT_LANES; half *= 2) {
                const ivec upper = (lane & half) != 0;
                const ivec low = (lane & ~half) + (upper & RIT_LANES), high = (lane | half) + (upper & RIT_LANES);
#pragma GCC unroll 16
                for (int l = 0; l < RIT_LANES; l++)
                    if (!(l & half)) {
                        const vec a = x[l], b = x[l + half];
                        x[l] = __builtin_shuffle(a, b, low);
                        x[l + half] = __builtin_shuffle(a, b, high);
                    }
            }
#pragma GCC unroll 16
            for (int l = 0; l < RIT_LANES; l++) vec_store(to + (j + l) * to_row + i, x[l]);
#endif
        }
}

#endif
