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

static const double SECONDS = 0.6; /* as long as ours: the longer look would find the better moment */
static volatile int over;
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
    for (;;) {
        pthread_barrier_wait(&gate);
        if (over) return 0;
        begun[me] = now();
        for (long i = 0; i < times; i++) {
            memcpy(to, from, each);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        done[me] = now();
        pthread_barrier_wait(&gate);
    }
}

int main(int count, char **words) {
    int threads = count > 2 ? atoi(words[1]) : 1;
    size_t touched = count > 2 ? strtoull(words[2], 0, 10) : 1u << 28;
    pthread_t made[64];
    each = touched / 2 / threads;
    times = (1L << 28) / (long)touched;
    pthread_barrier_init(&gate, 0, threads + 1);
    for (long i = 0; i < threads; i++) pthread_create(&made[i], 0, work, (void *)i);
    double best = 0, until = 0;
    while (!until || now() < until) {
        pthread_barrier_wait(&gate);
        if (!until) until = now() + SECONDS; /* the buffers are made */
        pthread_barrier_wait(&gate);
        double first = begun[0], last = done[0];
        for (int i = 1; i < threads; i++) {
            if (begun[i] < first) first = begun[i];
            if (done[i] > last) last = done[i];
        }
        double speed = 2.0 * each * threads * times / (last - first) / 1e9;
        if (speed > best) best = speed;
    }
    over = 1;
    pthread_barrier_wait(&gate);
    printf("%.6g\n", best);
    return 0;
}
