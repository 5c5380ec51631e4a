/* The product of the cells in bfloat16 on Intel's tile registers (AMX): the same sums as cell_product, with both operands
 * rounded to bfloat16 and the sums in float32. Chosen when the kernel runs; elsewhere bfloat16 is widened to float32. */
#ifndef RIT_CELL_TILES_H
#define RIT_CELL_TILES_H

#include "cell_product.h"

#if defined(RIT_BF16) && RIT_BYTES == 64 && defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RIT_TILES __attribute__((target("amx-tile,amx-bf16,avx512bf16")))

/* A tile of the matrix: TILE_DEPTH terms of the sums of TILE_COLUMNS columns. */
enum { TILE_COLUMNS = 16, TILE_DEPTH = 32, TILE_NUMBERS = TILE_COLUMNS * TILE_DEPTH, TILE_SUMS = 4 };

/* Whether the machine has the tiles and the system lends them: it must be asked once per process. */
static int cell_tiles_ready(void) {
    static int known; /* 0: not asked; threads that ask at once find the same */
    int ready = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!ready) {
        enum { ASK_PERMISSION = 0x1023, TILE_DATA = 18, TILE = 1 << 24, TILE_BF16 = 1 << 22, NARROW = 1 << 5 };
        unsigned a, b, c, d = 0, narrow = 0;
        int there = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILE) && (d & TILE_BF16);
        there = there && __get_cpuid_count(7, 1, &narrow, &b, &c, &d) && (narrow & NARROW);
        ready = there && !syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) ? 1 : -1;
        __atomic_store_n(&known, ready, __ATOMIC_RELAXED);
    }
    return ready > 0;
}

/* Tiles 0 to 3 hold sums and 4 a block of the rows, all of `rows` rows; 5 to 7 hold the matrix. */
RIT_TILES static void cell_tiles_begin(int64_t rows) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } layout = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        layout.bytes[i] = 64;
        layout.rows[i] = i < 5 ? (uint8_t)rows : 16;
    }
    /* Compilers take the intrinsic to read 8 of the 64 bytes, and drop the others without this. */
    __asm__ volatile("" ::"r"(&layout) : "memory");
    _tile_loadconfig(&layout);
}

RIT_TILES static void cell_tiles_end(void) { _tile_release(); }

INLINE int64_t cell_tiles_blocks(int64_t depth) { return rit_divide_up(depth, TILE_DEPTH); }

/* A strip is the tiles of 16 columns; the strips whose sums run side by side are a bundle, and packed as they are read:
 * [block of depth][strip of the bundle][pair of depths][column][which of the pair]. */
INLINE int64_t cell_tiles_strip(int64_t depth) { return cell_tiles_blocks(depth) * TILE_NUMBERS; }

/* One tile whose numbers are all there, from m[k * m_row + j * m_column] where one of the two is 1 and the other even:
 * a pair of depths is one word of a column, or of two rows. */
INLINE void cell_tiles_pack_whole(const act *m, int64_t m_row, int64_t m_column, act *out) {
    if (m_row == 1) {
        transpose((const real *)m, m_column / 2, TILE_COLUMNS, TILE_DEPTH / 2, (real *)out, TILE_COLUMNS);
        return;
    }
    for (int64_t k = 0; k < TILE_DEPTH; k += 2, out += 2 * TILE_COLUMNS) {
        half_vec even, odd;
        memcpy(&even, m + k * m_row, sizeof even);
        memcpy(&odd, m + (k + 1) * m_row, sizeof odd);
        const word_vec pair = __builtin_convertvector(even, word_vec) | __builtin_convertvector(odd, word_vec) << 16;
        memcpy(out, &pair, sizeof pair);
    }
}

/* One strip of the matrix whose rows k run over `outer` groups of `depth`, at m[group * m_outer + k * m_row + j * m_column]
 * for j < columns. `out` is its place in a bundle of `strips`. */
static void cell_tiles_pack(const act *m, int64_t outer, int64_t m_outer, int64_t depth, int64_t m_row, int64_t m_column,
                            int64_t columns, int64_t strips, act *out) {
    const int64_t count = rit_min(TILE_COLUMNS, columns), block = strips * TILE_NUMBERS;
    /* Whole tiles: m_row or m_column is 1, and the other, the depth, is even. */
    if (count == TILE_COLUMNS && depth % TILE_DEPTH == 0) {
        for (int64_t group = 0; group < outer; group++)
            for (int64_t k = 0; k < depth; k += TILE_DEPTH, out += block)
                cell_tiles_pack_whole(m + group * m_outer + k * m_row, m_row, m_column, out);
        return;
    }
    for (int64_t b = 0; b < cell_tiles_blocks(outer * depth); b++) memset(out + b * block, 0, TILE_NUMBERS * sizeof *out);
    for (int64_t group = 0, at = 0; group < outer; group++)
        for (int64_t k = 0; k < depth; k++, at++) {
            act *row = out + at / TILE_DEPTH * block + at % TILE_DEPTH / 2 * 32 + at % 2;
            for (int64_t j = 0; j < count; j++) row[2 * j] = m[group * m_outer + k * m_row + j * m_column];
        }
}

/* Rows as bfloat16, subnormal numbers as zeros, which is what the tiles take them for; whole registers are written. */
RIT_TILES static void cell_tiles_narrow(int64_t rows, int64_t depth, const real *a, int64_t a_row, act *out, int64_t out_row) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < depth; k += RIT_LANES) {
            const __m256bh narrow = _mm512_cvtneps_pbh((__m512)vec_load_part(a + r * a_row + k, depth - k));
            memcpy(out + r * out_row + k, &narrow, sizeof narrow);
        }
}

#define TILE_SUM(strip, tile)                            \
    if (strips > strip) {                                \
        _tile_loadd(tile, w + strip * TILE_NUMBERS, 64); \
        _tile_dpbf16ps(strip, 4, tile);                  \
    }
#define TILE_STORE(strip) \
    if (strips > strip) _tile_stored(strip, out + strip * out_strip, (size_t)out_row * sizeof *out)

/* The matrix is read from the second cache as fast as it comes: asking for it ahead of time takes a quarter longer. */
RIT_TILES INLINE void cell_tiles_bundle(const int strips, int64_t blocks, const act *a, const act *w, real *out,
                                        int64_t out_row, int64_t out_strip) {
    _tile_zero(0);
    if (strips > 1) _tile_zero(1);
    if (strips > 2) _tile_zero(2);
    if (strips > 3) _tile_zero(3);
    for (int64_t k = 0; k < blocks; k++, w += strips * TILE_NUMBERS) {
        _tile_loadd(4, a + k * TILE_DEPTH, (size_t)(blocks * TILE_DEPTH) * sizeof *a);
        TILE_SUM(0, 5)
        TILE_SUM(1, 6)
        TILE_SUM(2, 7)
        TILE_SUM(3, 5)
    }
    TILE_STORE(0);
    TILE_STORE(1);
    TILE_STORE(2);
    TILE_STORE(3);
}

/* Rows times bundles of strips, the last of which may have fewer, between cell_tiles_begin and cell_tiles_end:
 * the sums of a strip are 16 columns of `out`, out_strip from the next in its bundle. */
RIT_TILES static void cell_tiles_product(int64_t strips, int64_t most, int64_t blocks, const act *a, const act *w, real *out,
                                         int64_t out_row, int64_t out_strip, int64_t out_bundle) {
    for (int64_t left; (left = rit_min(strips, most)) > 0; strips -= left, w += left * blocks * TILE_NUMBERS, out += out_bundle)
        switch (left) {
        case 1: cell_tiles_bundle(1, blocks, a, w, out, out_row, out_strip); break;
        case 2: cell_tiles_bundle(2, blocks, a, w, out, out_row, out_strip); break;
        case 3: cell_tiles_bundle(3, blocks, a, w, out, out_row, out_strip); break;
        default: cell_tiles_bundle(4, blocks, a, w, out, out_row, out_strip);
        }
}
#endif

#endif
