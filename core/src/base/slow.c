/* SPDX-License-Identifier: MIT */
/* What took long: a ring whose slots are locked one by one. */
#include "base/slow.h"

#include "base/alloc.h"

typedef struct slot {
    atomic_bool taken; /* being written or read */
    uint64_t number;   /* 0: never used; below `taken`, as is what follows */
    rg_slow_event event;
} slot;

struct rg__slow {
    atomic_int_least64_t bound_us; /* 0: nothing is slow */
    atomic_ullong last;            /* number given last */
    slot slots[RG__SLOW_KEPT];
};

rg__slow *rg__slow_new(void) {
    rg__slow *s = rg__calloc(1, sizeof *s);
    if (s) rg__slow_bound(s, RG__SLOW_MS);
    return s;
}

void rg__slow_free(rg__slow *s) { rg__free(s); }

void rg__slow_bound(rg__slow *s, uint32_t ms) { atomic_store(&s->bound_us, (int64_t)ms * 1000); }

bool rg__slow_is(const rg__slow *s, int64_t us) {
    if (!s) return false;
    int64_t bound = atomic_load_explicit(&s->bound_us, memory_order_relaxed);
    return bound > 0 && us >= bound;
}

static bool take(slot *at) {
    bool free = false;
    return atomic_compare_exchange_strong_explicit(&at->taken, &free, true, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void give(slot *at) { atomic_store_explicit(&at->taken, false, memory_order_release); }

/* Cut between characters: a byte 10xxxxxx goes on with one. */
static void copy(char *to, size_t size, rg__slice from) {
    size_t n = from.len;
    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((unsigned char)from.p[n] & 0xc0) == 0x80) n--;
    }
    if (n) memcpy(to, from.p, n);
    to[n] = '\0';
}

void rg__slow_add(rg__slow *s, rg_slow_event *e, const char *op, const char *pool, rg__slice text) {
    uint64_t number = atomic_fetch_add(&s->last, 1) + 1;
    slot *at = &s->slots[number % RG__SLOW_KEPT];
    e->number = (double)number;
    copy(e->op, sizeof e->op, rg__slice_of(op));
    copy(e->pool, sizeof e->pool, rg__slice_of(pool));
    copy(e->text, sizeof e->text, text);
    if (!take(at)) return;
    if (number > at->number) {
        at->number = number;
        at->event = *e;
    }
    give(at);
}

static bool read_slot(slot *at, uint64_t number, rg_slow_event *out) {
    if (!take(at)) return false;
    bool found = at->number == number;
    if (found) *out = at->event;
    give(at);
    return found;
}

bool rg__slow_get(rg__slow *s, uint64_t before, rg_slow_event *out) {
    uint64_t last = atomic_load(&s->last);
    uint64_t number = before > 0 && before <= last ? before - 1 : last;
    for (; number > 0 && number + RG__SLOW_KEPT > last; number--)
        if (read_slot(&s->slots[number % RG__SLOW_KEPT], number, out)) return true;
    return false;
}
