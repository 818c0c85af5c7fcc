/* A copy benchmark that shares nothing with ours: so many threads copy buffers of their own with memcpy; the best pass
 * in 1e9 bytes a second, read and written. Usage: copy THREADS BYTES, both buffers of all threads together. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PASSES = 40 };
static size_t each;
static long times;
static pthread_barrier_t gate;

static void *work(void *unused) {
    char *from = malloc(each), *to = malloc(each);
    memset(from, 1, each);
    memset(to, 2, each);
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&gate);
        for (long i = 0; i < times; i++) {
            memcpy(to, from, each);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        pthread_barrier_wait(&gate);
    }
    return unused;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int count, char **words) {
    int threads = count > 2 ? atoi(words[1]) : 1;
    size_t touched = count > 2 ? strtoull(words[2], 0, 10) : 1u << 28;
    pthread_t made[threads];
    each = touched / 2 / threads;
    times = (1L << 28) / (long)touched + 1;
    pthread_barrier_init(&gate, 0, threads + 1);
    for (int i = 0; i < threads; i++) pthread_create(&made[i], 0, work, 0);
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&gate);
        double start = now();
        pthread_barrier_wait(&gate);
        double speed = 2.0 * each * threads * times / (now() - start) / 1e9;
        if (speed > best) best = speed;
    }
    printf("%.6g\n", best);
    return 0;
}
