/* Loads and stores of the cells' activations. */
#ifndef RIT_CELL_ACT_H
#define RIT_CELL_ACT_H

#include "functions.h"

/* Activations, the first `count` lanes: whole registers, which is nearly always, without a detour. */
INLINE vec cell_load(const act *p, int64_t count) { return count >= RIT_LANES ? act_load(p) : act_load_part(p, count); }

INLINE void cell_store(act *p, vec x, int64_t count) {
    if (count >= RIT_LANES)
        act_store(p, x);
    else
        act_store_part(p, x, count);
}

#endif
