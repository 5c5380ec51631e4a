/* Which of the compiled instruction sets this machine runs. */
#include <string.h>

#include "parallel.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int rit_supports(const char *isa) {
    if (!strcmp(isa, "portable")) return 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa, "avx2")) return avx2;
    if (!strcmp(isa, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return 0;
}

/* The widest of them; its name is the suffix of the kernels' symbols. */
EXPORT const char *rit_widest(void) {
    return rit_supports("avx512") ? "avx512" : rit_supports("avx2") ? "avx2" : "portable";
}
