/* Work shared among threads. Each item is run by one thread from its first to its last operation, and a caller cuts the
 * items by the number of threads only where no result depends on the cut: so the bits do not depend on that number. */
#ifndef RIT_PARALLEL_H
#define RIT_PARALLEL_H

#include <stdint.h>

typedef void (*rit_body)(void *context, int64_t index);

/* How many threads may work on one call, the caller's among them. */
__attribute__((visibility("default"))) void rit_set_threads(int64_t threads);

/* The address of GOMP_parallel in the OpenMP runtime that PyTorch uses, or null: then the pool is our own. */
__attribute__((visibility("default"))) void rit_set_team(void *entry);

int64_t rit_threads(void);

/* For tests, which a busy machine would leave nothing to find: all that are wanted come to a team, however long that takes,
 * and part at this meeting, if at all. 0: as it comes. */
__attribute__((visibility("default"))) void rit_set_parting(int64_t meeting);

/* body(context, i) for every i < n, in any order, on any thread; returns when all are done. */
void rit_parallel(int64_t n, rit_body body, void *context);

/* The same; where `work`, the number of multiplications or so, does not pay for waking a thread, on the caller alone. */
static inline void rit_parallel_sized(int64_t n, int64_t work, rit_body body, void *context) {
    if (work < 50000 || n < 2) {
        for (int64_t i = 0; i < n; i++) body(context, i);
    } else {
        rit_parallel(n, body, context);
    }
}

/* Threads that run at the same time and may wait for each other. They are as many as came within a moment, so one at
 * least. The one in place 0 stays to the end; the others leave when the team dissolves. */
struct rit_team;
typedef void (*rit_member)(void *context, struct rit_team *team, int64_t place);

/* body(context, team, place) on up to `most` threads at once; returns when all have returned. `between`: the nanoseconds that
 * the work from one meeting to the next may take on a slow machine, before which nobody is late. */
void rit_together(int64_t most, int64_t between, rit_member body, void *context);

/* How many came. */
int64_t rit_team_size(const struct rit_team *team);

/* Wait for all members to come here: what they wrote before is seen after. Whether they stay together: when one keeps the
 * others waiting, as it does where other programs want its core, they part here, and place 0 goes on alone. */
int rit_meet(struct rit_team *team, int64_t place);

#endif
