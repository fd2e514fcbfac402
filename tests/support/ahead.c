/* Preloaded into a server: its wall clock is ahead by the milliseconds that the first 8 bytes of a file say (AHEAD_FILE).
   libfaketime does this too, but not under jemalloc, which asks for the time before there is anything to ask.
   libc's own function makes no call of the system, which costs a server that asks twice for each command a fifth. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;
static int (*libc)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_file(void) {
    libc = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("AHEAD_FILE");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        void *found = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
        if (found != MAP_FAILED) ahead = found;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long failed = libc ? libc(clock, time) : syscall(SYS_clock_gettime, clock, time);
    if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanoseconds = time->tv_nsec + (*ahead % 1000) * 1000000;
        time->tv_sec += *ahead / 1000 + nanoseconds / 1000000000;
        time->tv_nsec = nanoseconds % 1000000000;
    }
    return (int)failed;
}

int gettimeofday(struct timeval *time, void *zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
