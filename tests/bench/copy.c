/* A copy benchmark that shares nothing with ours: so many threads copy buffers of their own with memcpy; the best pass
 * in 1e9 bytes a second, read and written. Usage: copy THREADS BYTES, both buffers of all threads together.
 *
 * Buffers lie in huge pages where there are any, as large arrays do. Each thread reads the clock itself: one that waits
 * for them would be late where they have all the cores. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PASSES = 40 };
static size_t each;
static long times;
static pthread_barrier_t gate;

static double begun[64], done[64];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static char *buffer(int value) {
    void *made = 0;
    if (posix_memalign(&made, 1 << 21, each)) exit(1);
    madvise(made, each, MADV_HUGEPAGE);
    return memset(made, value, each);
}

static void *work(void *number) {
    long me = (long)number;
    char *from = buffer(1), *to = buffer(2);
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&gate);
        begun[me] = now();
        for (long i = 0; i < times; i++) {
            memcpy(to, from, each);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        done[me] = now();
        pthread_barrier_wait(&gate);
    }
    return 0;
}

int main(int count, char **words) {
    int threads = count > 2 ? atoi(words[1]) : 1;
    size_t touched = count > 2 ? strtoull(words[2], 0, 10) : 1u << 28;
    pthread_t made[64];
    each = touched / 2 / threads;
    times = (1L << 28) / (long)touched + 1;
    pthread_barrier_init(&gate, 0, threads + 1);
    for (long i = 0; i < threads; i++) pthread_create(&made[i], 0, work, (void *)i);
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&gate);
        pthread_barrier_wait(&gate);
        double first = begun[0], last = done[0];
        for (int i = 1; i < threads; i++) {
            if (begun[i] < first) first = begun[i];
            if (done[i] > last) last = done[i];
        }
        double speed = 2.0 * each * threads * times / (last - first) / 1e9;
        if (speed > best) best = speed;
    }
    printf("%.6g\n", best);
    return 0;
}
