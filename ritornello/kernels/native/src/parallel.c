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
typedef void (*rit_team)(void (*)(void *), void *, unsigned, unsigned);

static _Atomic(rit_team) team;
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
    atomic_store(&team, (rit_team)0);
}

static void register_forget(void) { pthread_atfork(0, 0, forget); }

void rit_set_team(void *gomp_parallel) {
    pthread_once(&watch_fork, register_forget);
    atomic_store(&team, (rit_team)(uintptr_t)gomp_parallel);
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

void rit_parallel(int64_t n, rit_body body, void *context) {
    int64_t helpers = atomic_load(&thread_limit);
    helpers = (helpers < n ? helpers : n) - 1;
    if (helpers > MOST_WORKERS) helpers = MOST_WORKERS;
    if (helpers < 1 || pthread_mutex_trylock(&pool.owner)) {
        for (int64_t i = 0; i < n; i++) body(context, i);
        return;
    }
    const rit_team others = atomic_load(&team);
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
