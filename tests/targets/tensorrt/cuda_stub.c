/* The CUDA runtime and driver that the target and Polygraphy use, in host memory: a "device" pointer is a host pointer,
   an event is a reading of the clock, a recorded graph is the list of functions that were enqueued meanwhile.
   Environment: DOUBLE_GPUS, how many there are; DOUBLE_GPU_NAME; DOUBLE_CAPABILITY, such as 89. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int count(void) { const char *said = getenv("DOUBLE_GPUS"); return said ? atoi(said) : 1; }
static int capability(void) { const char *said = getenv("DOUBLE_CAPABILITY"); return said ? atoi(said) : 89; }

/* DOUBLE_CALLS, a file that is told of calls whose effect does not show otherwise. */
static void told(const char *what, int number) {
  const char *path = getenv("DOUBLE_CALLS");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) { fprintf(file, "%s %d\n", what, number); fclose(file); }
}

/* ---- runtime */
static int current = 0;
int cudaSetDevice(int index) {
  if (index < 0 || index >= count()) return 101;
  told("cudaSetDevice", index);
  current = index;
  return 0;
}
int cudaGetDevice(int *index) { *index = current; return 0; }
int cudaMalloc(void **p, size_t n) { *p = malloc(n ? n : 1); return *p ? 0 : 2; }
int cudaFree(void *p) { free(p); return 0; }
int cudaMallocHost(void **p, size_t n) { return cudaMalloc(p, n); }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemset(void *p, int byte, size_t n) { memset(p, byte, n); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memmove(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { memmove(to, from, n); return 0; }
int cudaStreamCreate(void **p) { *p = malloc(1); return 0; }
int cudaStreamSynchronize(void *p) { return 0; }
int cudaStreamDestroy(void *p) { free(p); return 0; }

typedef struct { struct timespec at; } event;
int cudaEventCreate(void **p) { *p = calloc(1, sizeof(event)); return 0; }
int cudaEventRecord(void *p, void *stream) { clock_gettime(CLOCK_MONOTONIC, &((event *)p)->at); return 0; }
int cudaEventSynchronize(void *p) { return 0; }
int cudaEventDestroy(void *p) { free(p); return 0; }
int cudaEventElapsedTime(float *ms, void *a, void *b) {
  struct timespec x = ((event *)a)->at, y = ((event *)b)->at;
  *ms = (float)((y.tv_sec - x.tv_sec) * 1e3 + (y.tv_nsec - x.tv_nsec) / 1e6);
  return 0;
}

typedef int (*work)(void);
typedef struct { int length; work items[64]; } graph;
static graph *recording = NULL;
int double_recording(void) { return recording != NULL; }
int double_record(work item) {
  if (!recording || recording->length == 64) return 1;
  recording->items[recording->length++] = item;
  return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) {
  if (recording) return 900;
  recording = calloc(1, sizeof(graph));
  return 0;
}
int cudaStreamEndCapture(void *stream, void **made) { *made = recording; recording = NULL; return 0; }
int cudaGraphInstantiateWithFlags(void **made, void *from, unsigned long long flags) {
  *made = malloc(sizeof(graph));
  memcpy(*made, from, sizeof(graph));
  return 0;
}
int cudaGraphDestroy(void *p) { free(p); return 0; }
int cudaGraphLaunch(void *p, void *stream) {
  told("cudaGraphLaunch", ((graph *)p)->length);
  for (int i = 0; i < ((graph *)p)->length; i++) ((graph *)p)->items[i]();
  return 0;
}

/* ---- driver */
int cuInit(unsigned flags) { return count() > 0 ? 0 : 100; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = count(); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  const char *said = getenv("DOUBLE_GPU_NAME");
  snprintf(name, length, "%s", said ? said : "Double 9000");
  return 0;
}
int cuDeviceGetUuid(void *uuid, int device) { memset(uuid, 0x11 + device, 16); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? capability() / 10 : attribute == 76 ? capability() % 10 : 0;
  return 0;
}
