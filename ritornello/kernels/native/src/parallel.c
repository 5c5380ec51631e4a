/* The threads of PyTorch's own OpenMP runtime, where it is known, else a small pool of our own.
 *
 * OpenMP's threads spin for milliseconds after each of PyTorch's calls. Threads beside them would share their cores: a
 * call that follows a matrix product would run as if there were one. Our own pool is for the other runtimes, and for a
 * forked child, whose parent's OpenMP is lost; it sleeps between calls.
 *
 * One call owns the threads at a time; a caller who finds them busy (another Python thread, or a nested call) runs its
 * items itself. A worker of the pool that wakes late finds no place left in the job and sleeps again, so no call waits
 * for it. */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { MOST_WORKERS = 255, SPIN_NANOSECONDS = 20000 };

static struct {
    pthread_mutex_t owner; /* held by the call that uses the pool */
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t wake, done;
    int workers; /* threads that exist */
    int places;  /* workers that may still join the job */
    atomic_int running;
    atomic_uint job; /* counts the jobs */
    rit_body body;
    void *context;
    int64_t n;
    atomic_llong next;
} pool = {
    .owner = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

/* GOMP_parallel: (function, its argument, threads, flags). */
typedef void (*gomp_parallel)(void (*)(void *), void *, unsigned, unsigned);

static _Atomic(gomp_parallel) openmp;
static atomic_llong thread_limit = 1;
static pthread_once_t watch_fork = PTHREAD_ONCE_INIT;

void rit_set_threads(int64_t threads) { atomic_store(&thread_limit, threads < 1 ? 1 : threads); }

int64_t rit_threads(void) { return atomic_load(&thread_limit); }

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait a moment for `value` to leave `old`: cheaper than sleeping where calls follow each other closely. */
#define SPIN_WHILE(condition)                                        \
    for (int64_t until = nanoseconds() + SPIN_NANOSECONDS; (condition) && nanoseconds() < until;) relax()

static void drain(void) {
    for (int64_t i; (i = atomic_fetch_add(&pool.next, 1)) < pool.n;) pool.body(pool.context, i);
}

static void drain_in_team(void *unused) {
    (void)unused;
    drain();
}

static void *work(void *argument) {
    unsigned seen = (unsigned)(uintptr_t)argument;
    for (;;) {
        SPIN_WHILE(atomic_load(&pool.job) == seen);
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.job) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
        seen = atomic_load(&pool.job);
        const int join = pool.places > 0;
        if (join) {
            pool.places--;
            atomic_fetch_add(&pool.running, 1);
        }
        pthread_mutex_unlock(&pool.lock);
        if (!join) continue;
        drain();
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.running, 1) == 1) pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
    }
    return 0;
}

/* After fork the child has none of the threads and whatever the locks happened to be: it starts afresh. */
static void forget(void) {
    pool.owner = pool.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.wake = pool.done = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pool.workers = pool.places = 0;
    atomic_store(&pool.running, 0);
    atomic_store(&openmp, (gomp_parallel)0);
}

static void register_forget(void) { pthread_atfork(0, 0, forget); }

void rit_set_team(void *entry) {
    pthread_once(&watch_fork, register_forget);
    atomic_store(&openmp, (gomp_parallel)(uintptr_t)entry);
}

/* Bring the pool to `wanted` workers; with fewer, where the system gives no more, the work is done all the same. */
static void grow(int wanted) {
    pthread_once(&watch_fork, register_forget);
    sigset_t all, before; /* signals are Python's, and go to its threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; pool.workers < wanted; pool.workers++) {
        if (pthread_create(&thread, 0, work, (void *)(uintptr_t)atomic_load(&pool.job))) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

static void run(int64_t n, int helpers, rit_body body, void *context) {
    if (pool.workers < helpers) grow(helpers);
    pthread_mutex_lock(&pool.lock);
    pool.body = body;
    pool.context = context;
    pool.n = n;
    atomic_store(&pool.next, 0);
    pool.places = helpers < pool.workers ? helpers : pool.workers;
    atomic_fetch_add(&pool.job, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    drain();
    pthread_mutex_lock(&pool.lock);
    pool.places = 0;
    pthread_mutex_unlock(&pool.lock);
    SPIN_WHILE(atomic_load(&pool.running) > 0);
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.running) > 0) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

/* Make the threads this call's own, for up to `n` items: how many may help, none where they are busy or not wanted. */
static int64_t take(int64_t n) {
    int64_t helpers = atomic_load(&thread_limit);
    helpers = (helpers < n ? helpers : n) - 1;
    if (helpers > MOST_WORKERS) helpers = MOST_WORKERS;
    return helpers < 1 || pthread_mutex_trylock(&pool.owner) ? 0 : helpers;
}

/* The items, by the threads that are this call's own; then they are anybody's again. */
static void spread(int64_t n, int64_t helpers, rit_body body, void *context) {
    const gomp_parallel others = atomic_load(&openmp);
    if (others) {
        pool.body = body;
        pool.context = context;
        pool.n = n;
        atomic_store(&pool.next, 0);
        /* As many as PyTorch asks for, whatever n is: a smaller team would end the others, a larger one start them. */
        others(drain_in_team, 0, (unsigned)atomic_load(&thread_limit), 0);
    } else {
        run(n, (int)helpers, body, context);
    }
    pthread_mutex_unlock(&pool.owner);
}

void rit_parallel(int64_t n, rit_body body, void *context) {
    const int64_t helpers = take(n);
    if (helpers)
        spread(n, helpers, body, context);
    else
        for (int64_t i = 0; i < n; i++) body(context, i);
}

/* ------------------------------------------------------------------------------------------ threads that wait for each other */

enum { MOST_MEMBERS = 16, SPINS = 1000, COMING_NANOSECONDS = 200000, LATE_NANOSECONDS = 500000 };
static const int64_t CLOSED = (int64_t)1 << 32;
static atomic_llong parting;

void rit_set_parting(int64_t meeting) { atomic_store(&parting, meeting); }

struct rit_team {
    rit_member body;
    void *context;
    int64_t wanted, patience;
    int arranged;      /* all come, and when they part is known */
    atomic_llong roll; /* how many came; CLOSED when no more are let in */
    atomic_llong last; /* the meeting at which they part */
    atomic_int late;   /* somebody was */
    struct {
        _Alignas(64) atomic_llong met; /* this member's meetings: a line of the cache of its own */
    } member[MOST_MEMBERS];
};

int64_t rit_team_size(const struct rit_team *t) { return atomic_load(&((struct rit_team *)t)->roll) & ~CLOSED; }

/* Wait until `condition`; whether it came within the time. A short wait asks again at once, a long one lets others run. */
#define WAIT_FOR(condition, within)                                     \
    ({                                                                  \
        int64_t begin_ = 0;                                             \
        int in_time_ = 1;                                               \
        for (int64_t spins_ = 0; !(condition); spins_++) {              \
            if (spins_ < SPINS) continue;                               \
            if (!begin_) begin_ = nanoseconds();                        \
            if (nanoseconds() - begin_ > (within)) {                    \
                in_time_ = 0;                                           \
                break;                                                  \
            }                                                           \
            relax();                                                    \
        }                                                               \
        in_time_;                                                       \
    })

static void join(void *context, int64_t unused) {
    (void)unused;
    struct rit_team *t = context;
    long long came = atomic_load(&t->roll);
    do {
        if (came & CLOSED) return;
    } while (!atomic_compare_exchange_weak(&t->roll, &came, came + 1));
    if (came + 1 < t->wanted && !WAIT_FOR(atomic_load(&t->roll) & CLOSED, COMING_NANOSECONDS))
        while (t->arranged && !(atomic_load(&t->roll) & CLOSED)) sched_yield();
    atomic_fetch_or(&t->roll, CLOSED);
    t->body(t->context, t, came);
}

void rit_together(int64_t most, int64_t between, rit_member body, void *context) {
    const int64_t arranged = atomic_load(&parting);
    struct rit_team t = {.body = body, .context = context, .wanted = 1, .arranged = arranged > 0};
    t.patience = between < LATE_NANOSECONDS ? LATE_NANOSECONDS : between;
    atomic_init(&t.last, arranged > 0 ? arranged : INT64_MAX);
    const int64_t helpers = take(most < MOST_MEMBERS ? most : MOST_MEMBERS);
    t.wanted += helpers;
    if (helpers)
        spread(t.wanted, helpers, join, &t);
    else
        join(&t, 0);
}

int rit_meet(struct rit_team *t, int64_t place) {
    const int64_t size = rit_team_size(t);
    const int64_t meeting = atomic_load_explicit(&t->member[place].met, memory_order_relaxed) + 1;
    /* Place 0 decides, before it comes: so that all find the same. */
    if (!place && !t->arranged && atomic_load_explicit(&t->late, memory_order_relaxed)) atomic_store(&t->last, meeting);
    atomic_store_explicit(&t->member[place].met, meeting, memory_order_release);
    for (int64_t i = 0; i < size; i++)
        if (!WAIT_FOR(atomic_load_explicit(&t->member[i].met, memory_order_acquire) >= meeting, t->patience)) {
            atomic_store(&t->late, 1);
            while (atomic_load_explicit(&t->member[i].met, memory_order_acquire) < meeting) sched_yield();
        }
    return atomic_load_explicit(&t->last, memory_order_relaxed) > meeting;
}
