/* Back through a chunk's pairs of steps (matrix_chunk.h): from the gradients of qs, qk and so on to those of q, k, a, b and d.
 *
 * A row that reads at step t, in one key, sees U_t = U^t where U^0 = ∂x_start and U^{j+1} = d_{j+1} U^j + ∂xk_{t,j+1} k_{j+1}: that is ∂x_t.
 * The other way, A^j = D(t, j) x_t is what of step j arrives at the reader, so that ∂k_j += ∂xk_tj A^j and ∂d_j += A^j ⊙ U^{j−1}.
 * The end of the chunk is a reader too, with x = 1, and numbers ∂ke_j in every key where the others have one ∂xk_tj. */
#ifndef RIT_MATRIX_READERS_H
#define RIT_MATRIX_READERS_H

#include "matrix_chunk.h"

/* Gradients of the rows of a chunk, (CHUNK, width); of what they were multiplied to; of the pairs, (CHUNK, CHUNK). */
struct rows_back {
    real *q, *k, *d, *a, *b;
    real *qs, *as, *ke, *be, *de;
    real *qk, *qb, *ak, *ab;
};

static void rows_back_lay_out(struct rows_back *x, int64_t width, struct arena *arena) {
    real **rows[] = {&x->q, &x->k, &x->d, &x->a, &x->b, &x->qs, &x->as, &x->ke, &x->be};
    real **pairs[] = {&x->qk, &x->qb, &x->ak, &x->ab}, **ends[] = {&x->de};
    arena_take(arena, CHUNK * width, 9, rows);
    arena_take(arena, PAIRS, 4, pairs);
    arena_take(arena, width, 1, ends);
}

/* What readers of one kind share. */
struct readers {
    const real *x, *from_start; /* the rows that read, and the gradient of what they see of the chunk's start */
    const real *to_k, *to_b;    /* gradients of the pairs with k, and with b or null */
    real *dx;
};

/* The end of the chunk, in `vectors` vectors of keys. It is the first: what it adds to is set. */
INLINE void end_reads(const int vectors, const int dplr, const struct chunk *c, const struct rows_back *g, int64_t first) {
    const int64_t width = c->width;
    vec seen[CHUNK][4], u[4], a[4];
#pragma GCC unroll 4
    for (int n = 0; n < vectors; n++) u[n] = vec_load(g->de + first + n * RIT_LANES), a[n] = vec_set(1);
    for (int64_t t = 0; t < c->steps; t++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            const int64_t at = t * width + first + n * RIT_LANES;
            seen[t][n] = u[n];
            u[n] = u[n] * vec_load(c->d + at) + vec_load(g->ke + at) * vec_load(c->k + at);
            if (dplr) u[n] += vec_load(g->be + at) * vec_load(c->b + at);
        }
    for (int64_t t = c->steps - 1; t >= 0; t--)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            const int64_t at = t * width + first + n * RIT_LANES;
            vec_store(g->k + at, vec_load(g->ke + at) * a[n]);
            if (dplr) vec_store(g->b + at, vec_load(g->be + at) * a[n]);
            vec_store(g->d + at, seen[t][n] * a[n]);
            a[n] *= vec_load(c->d + at);
        }
}

INLINE void end_reads_all(const int dplr, const struct chunk *c, const struct rows_back *g) {
    int64_t i = 0;
    for (; i + 4 * RIT_LANES <= c->width; i += 4 * RIT_LANES) end_reads(4, dplr, c, g, i);
    for (; i < c->width; i += RIT_LANES) end_reads(1, dplr, c, g, i);
}

/* One step j towards the readers `from` to `count` − 1 of a block. */
INLINE void see(const int from, const int count, const int dplr, const struct chunk *c, const struct readers *r, int64_t first,
                int64_t j, int64_t i, vec *u, vec seen[][CHUNK]) {
    const int64_t at = j * c->width + i;
    const vec d = vec_load(c->d + at), k = vec_load(c->k + at);
#pragma GCC unroll 4
    for (int n = from; n < count; n++) {
        const int64_t pair = (first + n) * CHUNK + j;
        seen[n][j] = u[n];
        u[n] = u[n] * d + r->to_k[pair] * k;
        if (dplr) u[n] += r->to_b[pair] * vec_load(c->b + at);
    }
}

/* And from them. */
INLINE void answer(const int from, const int count, const int dplr, const struct chunk *c, const struct readers *r,
                   const struct rows_back *g, int64_t first, int64_t j, int64_t i, vec *a, const vec seen[][CHUNK]) {
    const int64_t at = j * c->width + i;
    const vec d = vec_load(c->d + at);
    vec dk = vec_load(g->k + at), dd = vec_load(g->d + at), db = dplr ? vec_load(g->b + at) : d;
#pragma GCC unroll 4
    for (int n = from; n < count; n++) {
        const int64_t pair = (first + n) * CHUNK + j;
        dk += r->to_k[pair] * a[n];
        if (dplr) db += r->to_b[pair] * a[n];
        dd += a[n] * seen[n][j];
        a[n] *= d;
    }
    vec_store(g->k + at, dk), vec_store(g->d + at, dd);
    if (dplr) vec_store(g->b + at, db);
}

/* `count` readers from step `first` on, together as far as the first of them sees. */
INLINE void block_reads(const int count, const int early, const int dplr, const struct chunk *c, const struct readers *r,
                        const struct rows_back *g, int64_t first, int64_t i) {
    const int64_t width = c->width, common = first + !early;
    vec u[4], a[4], seen[4][CHUNK];
#pragma GCC unroll 4
    for (int n = 0; n < count; n++) {
        u[n] = vec_load(r->from_start + (first + n) * width + i);
        a[n] = vec_load(r->x + (first + n) * width + i);
    }
    for (int64_t j = 0; j < common; j++) see(0, count, dplr, c, r, first, j, i, u, seen);
    if (count > 1) see(1, count, dplr, c, r, first, common, i, u, seen);
    if (count > 2) see(2, count, dplr, c, r, first, common + 1, i, u, seen);
    if (count > 3) see(3, count, dplr, c, r, first, common + 2, i, u, seen);
#pragma GCC unroll 4
    for (int n = 0; n < count; n++) vec_store(r->dx + (first + n) * width + i, u[n]);
    if (count > 3) answer(3, count, dplr, c, r, g, first, common + 2, i, a, seen);
    if (count > 2) answer(2, count, dplr, c, r, g, first, common + 1, i, a, seen);
    if (count > 1) answer(1, count, dplr, c, r, g, first, common, i, a, seen);
    for (int64_t j = common - 1; j >= 0; j--) answer(0, count, dplr, c, r, g, first, j, i, a, seen);
}

INLINE void all_read(const int early, const int dplr, const struct chunk *c, const struct readers *r, const struct rows_back *g) {
    for (int64_t i = 0; i < c->width; i += RIT_LANES) {
        int64_t t = 0;
        for (; t + 4 <= c->steps; t += 4) block_reads(4, early, dplr, c, r, g, t, i);
        for (; t < c->steps; t++) block_reads(1, early, dplr, c, r, g, t, i);
    }
}

INLINE vec dot_part(const real *x, const real *y, int64_t width) {
    vec sum = {0};
    for (int64_t i = 0; i < width; i += RIT_LANES) sum += vec_load(x + i) * vec_load(y + i);
    return sum;
}

/* The gradient of a scalar decay, by the recursions above for numbers summed over the keys; the lanes are the readers. */
static void scalar_decay_back(int64_t mode, const struct chunk *c, struct rows_back *g) {
    enum { VECTORS = CHUNK / RIT_LANES };
    const int64_t width = c->width, steps = c->steps;
    real from_start[CHUNK] = {0}, to_end[CHUNK], *dd = g->d, *to_pair = g->qb; /* no pairs with b here: their place is free */
    vec end = {0};
    for (int64_t i = 0; i < width; i += RIT_LANES) end += vec_load(g->de + i);
    for (int64_t t = 0; t < steps; t++) {
        const int64_t at = t * width;
        vec start = dot_part(c->q + at, g->qs + at, width);
        if (mode == DELTA) start += dot_part(c->k + at, g->as + at, width);
        from_start[t] = vec_sum(start);
        to_end[t] = vec_sum(dot_part(c->k + at, g->ke + at, width));
        for (int64_t j = t * CHUNK; j < (t + 1) * CHUNK; j += RIT_LANES) {
            vec x = vec_load(g->qk + j) * vec_load(c->bare_qk + j);
            if (mode == DELTA) x += vec_load(g->ak + j) * vec_load(c->bare_ak + j);
            vec_store(g->ab + j, x);
        }
    }
    /* Steps that are not there have factors of 0; what another head left in their lanes might be no number. */
    if (steps < CHUNK) memset(to_pair, 0, PAIRS * sizeof(real));
    transpose(g->ab, CHUNK, steps, CHUNK, to_pair, CHUNK);
    vec u[VECTORS], a[VECTORS], seen[CHUNK][VECTORS];
    for (int m = 0; m < VECTORS; m++) u[m] = vec_load(from_start + m * RIT_LANES), a[m] = (vec){0};
    real end_u = vec_sum(end);
    for (int64_t j = 0; j < steps; j++) {
        dd[j] = c->between[(steps - 1) * CHUNK + j] * end_u;
        end_u = end_u * c->d[j] + to_end[j];
        for (int m = 0; m < VECTORS; m++) {
            seen[j][m] = u[m];
            u[m] = u[m] * c->d[j] + vec_load(to_pair + j * CHUNK + m * RIT_LANES);
        }
    }
    for (int64_t j = steps - 1; j >= 0; j--) {
        vec sum = {0};
        for (int m = 0; m < VECTORS; m++) {
            a[m] = put_one(a[m], m * RIT_LANES, j); /* D(t, j): those that read before step j have not begun */
            sum += a[m] * seen[j][m];
            a[m] *= c->d[j];
        }
        dd[j] += vec_sum(sum);
    }
}

/* With a scalar decay the gradients of the rows are products too. */
static void scalar_rows_back(int64_t mode, const struct chunk *c, struct rows_back *g) {
    const int64_t width = c->width, steps = c->steps;
    scalar_decay_back(mode, c, g);
    for (int64_t at = 0; at < steps * CHUNK; at += RIT_LANES) {
        vec_store(g->qk + at, vec_load(g->qk + at) * vec_load(c->between + at));
        if (mode == DELTA) vec_store(g->ak + at, vec_load(g->ak + at) * vec_load(c->between + at));
    }
    scale_rows(c, g->qs, c->start, g->q);
    scale_rows(c, g->ke, c->between + (steps - 1) * CHUNK, g->k);
    product_triangle(1, steps, width, (struct factor){g->qk, CHUNK, 1}, c->k, width, g->q, width);
    product_triangle(0, steps, width, (struct factor){g->qk, 1, CHUNK}, c->q, width, g->k, width);
    if (mode != DELTA) return;
    scale_rows(c, g->as, c->start, g->a);
    product_triangle(1, steps, width, (struct factor){g->ak, CHUNK, 1}, c->k, width, g->a, width);
    product_triangle(0, steps, width, (struct factor){g->ak, 1, CHUNK}, c->k, width, g->k, width);
}

/* The gradients of the rows. That of k includes, for DELTA, that of k as a reader. */
static void rows_back(int64_t mode, const struct chunk *c, struct rows_back *g) {
    const struct readers of_q = {c->q, g->qs, g->qk, g->qb, g->q};
    const struct readers of_a = {mode == DELTA ? c->k : c->a, g->as, g->ak, g->ab, g->a};
    if (mode == DELTA)
        for (int t = 0; t < CHUNK; t++) g->ak[t * CHUNK + t] = 0; /* k reads before it is written */
    if (c->scalar) {
        scalar_rows_back(mode, c, g);
    } else if (mode == DPLR) {
        end_reads_all(1, c, g);
        all_read(0, 1, c, &of_q, g);
        all_read(1, 1, c, &of_a, g);
    } else {
        end_reads_all(0, c, g);
        if (mode == BONUS) all_read(1, 0, c, &of_q, g);
        else all_read(0, 0, c, &of_q, g);
        if (mode == DELTA) all_read(0, 0, c, &of_a, g);
    }
    for (int64_t i = 0; i < c->steps * c->width && mode == DELTA; i += RIT_LANES)
        vec_store(g->k + i, vec_load(g->k + i) + vec_load(g->a + i));
}

#endif
