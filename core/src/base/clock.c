/* SPDX-License-Identifier: MIT */
/* Clocks, deadlines, sleep and randomness. */
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static int64_t now_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t rg__now_ms(void) { return now_us(CLOCK_MONOTONIC) / 1000; }
int64_t rg__coarse_ms(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
#else
    return rg__now_ms();
#endif
}
int64_t rg__now_us(void) { return now_us(CLOCK_MONOTONIC); }
int64_t rg__wall_us(void) { return now_us(CLOCK_REALTIME); }

int rg__left_ms(int64_t deadline_ms) {
    if (deadline_ms == RG__NO_DEADLINE) return INT32_MAX;
    int64_t now = rg__now_ms();
    if (deadline_ms <= now) return 0;
    int64_t left = deadline_ms - now;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

int64_t rg__deadline_within(int64_t deadline_ms, int64_t ms) {
    if (ms <= 0) return deadline_ms;
    int64_t soon;
    if (__builtin_add_overflow(rg__now_ms(), ms, &soon)) return deadline_ms;
    return soon < deadline_ms ? soon : deadline_ms;
}

void rg__sleep_ms(int64_t ms) {
    if (ms <= 0) return;
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}

/* For kernels and sandboxes without the getrandom call. */
static void read_urandom(uint8_t *p, uint32_t len) {
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && len > 0) {
        ssize_t n = read(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        p += n;
        len -= (uint32_t)n;
    }
    if (fd >= 0) close(fd);
}

void rg__random(void *p, uint32_t len) {
    uint8_t *at = p;
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            read_urandom(at, len);
            return;
        }
        at += n;
        len -= (uint32_t)n;
    }
}
