/* The product of the cells in bfloat16 on Intel's tile registers (AMX): the same sums as cell_product, with both operands
 * rounded to bfloat16 and the sums in float32. Chosen when the kernel runs; elsewhere bfloat16 is widened to float32. */
#ifndef RIT_CELL_TILES_H
#define RIT_CELL_TILES_H

#include "cell_product.h"

#if defined(RIT_BF16) && RIT_BYTES == 64 && defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RIT_TILES __attribute__((target("amx-tile,amx-bf16")))

enum { TILE_ROWS = 16, TILE_DEPTH = 32, TILE_NUMBERS = 16 * 32 };

/* Whether the machine has the tiles and the system lends them: it must be asked once per process. */
static int cell_tiles_ready(void) {
    static int known; /* 0: not asked; threads that ask at once find the same */
    int ready = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!ready) {
        enum { ASK_PERMISSION = 0x1023, TILE_DATA = 18, TILE = 1 << 24, TILE_BF16 = 1 << 22 };
        unsigned a, b, c, d = 0;
        const int there = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILE) && (d & TILE_BF16);
        ready = there && !syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) ? 1 : -1;
        __atomic_store_n(&known, ready, __ATOMIC_RELAXED);
    }
    return ready > 0;
}

/* Tiles 0 to 3 hold sums and 4 a block of the rows, both of `rows` rows; 6 and 7 a block of the matrix. */
RIT_TILES static void cell_tiles_begin(int64_t rows) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } layout = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        layout.bytes[i] = 64;
        layout.rows[i] = i < 6 ? (uint8_t)rows : 16;
    }
    /* Compilers take the intrinsic to read 8 of the 64 bytes, and drop the others without this. */
    __asm__ volatile("" ::"r"(&layout) : "memory");
    _tile_loadconfig(&layout);
}

RIT_TILES static void cell_tiles_end(void) { _tile_release(); }

INLINE int64_t cell_tiles_blocks(int64_t depth) { return rit_divide_up(depth, TILE_DEPTH); }

/* bfloat16 numbers of one panel: [block of depth][half of the panel][pair of depths][column][which of the pair]. */
INLINE int64_t cell_tiles_panel(int64_t depth) { return cell_tiles_blocks(depth) * 2 * TILE_NUMBERS; }

/* One panel of the matrix whose rows k run over `outer` groups of `depth`, at m[group * m_outer + k * m_row + j * m_column]. */
static void cell_tiles_pack(const act *m, int64_t outer, int64_t m_outer, int64_t depth, int64_t m_row, int64_t m_column,
                            int64_t columns, int64_t tile, act *out) {
    const int64_t first = tile * CELL_PANEL, count = rit_min(CELL_PANEL, columns - first);
    memset(out, 0, (size_t)cell_tiles_panel(outer * depth) * sizeof *out);
    for (int64_t group = 0, at = 0; group < outer; group++)
        for (int64_t k = 0; k < depth; k++, at++) {
            act *row = out + at / TILE_DEPTH * 2 * TILE_NUMBERS + at % TILE_DEPTH / 2 * 32 + at % 2;
            for (int64_t j = 0; j < count; j++)
                row[j / 16 * TILE_NUMBERS + j % 16 * 2] = m[group * m_outer + k * m_row + (first + j) * m_column];
        }
}

#define TILE_PREFETCH(w) \
    for (int line_ = 0; line_ < 2 * TILE_NUMBERS; line_ += 32) __builtin_prefetch((w) + line_)

/* Between cell_tiles_begin and cell_tiles_end; a has a_row numbers from row to row, zeros beyond the depth. */
RIT_TILES static void cell_tiles_product(int64_t depth, int64_t panels, const act *a, int64_t a_row, const act *w,
                                         real *out, int64_t out_row) {
    const int64_t blocks = cell_tiles_blocks(depth), panel = cell_tiles_panel(depth);
    const size_t from_row = (size_t)a_row * sizeof *a, to_row = (size_t)out_row * sizeof *out;
    for (int64_t p = 0; p < panels; p += 2, w += 2 * panel, out += 2 * CELL_PANEL) {
        const int both = p + 1 < panels;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < blocks; k++) {
            const act *left = w + k * 2 * TILE_NUMBERS, *right = left + panel;
            TILE_PREFETCH(left + 2 * TILE_NUMBERS);
            _tile_loadd(4, a + k * TILE_DEPTH, from_row);
            _tile_loadd(6, left, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, left + TILE_NUMBERS, 64);
            _tile_dpbf16ps(1, 4, 7);
            if (!both) continue;
            TILE_PREFETCH(right + 2 * TILE_NUMBERS);
            _tile_loadd(6, right, 64);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(7, right + TILE_NUMBERS, 64);
            _tile_dpbf16ps(3, 4, 7);
        }
        _tile_stored(0, out, to_row);
        _tile_stored(1, out + 16, to_row);
        if (!both) break;
        _tile_stored(2, out + 32, to_row);
        _tile_stored(3, out + 48, to_row);
    }
}
#endif

#endif
