/* SPDX-License-Identifier: MIT */
/* What a thread has freed, by size. */
#include "base/recycle.h"

#include "base/alloc.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void *rg__recycle_malloc(size_t size) { return rg__malloc(size); }

void rg__recycle_free(void *p, size_t size) {
    (void)size;
    rg__free(p);
}

#else

#include <pthread.h>
#include <stdbool.h>

enum { STEP = 16, OWN = 8, LISTS = (RG__RECYCLE_SIZE + OWN + STEP - 1) / STEP + 1 };

typedef struct freed {
    struct freed *next;
} freed;

/* `bytes` counts what the lists hold. The thread's end frees it, and `ended` has it keep nothing more. */
typedef struct bin {
    freed *lists[LISTS];
    size_t bytes;
    bool known, ended;
} bin;

static _Thread_local bin mine;
static pthread_key_t at_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable;

/* Sizes as the C library makes them: whole steps, of which it has 8 bytes for itself. */
static size_t list_of(size_t size) { return (size + OWN + STEP - 1) / STEP; }
static size_t room_of(size_t list) { return list * STEP - OWN; }

static void end_thread(void *p) {
    bin *b = p;
    b->ended = true;
    for (size_t i = 0; i < LISTS; i++) {
        for (freed *f = b->lists[i], *next; f; f = next) {
            next = f->next;
            rg__free(f);
        }
        b->lists[i] = NULL;
    }
    b->bytes = 0;
}

static void make_key(void) { usable = pthread_key_create(&at_end, end_thread) == 0; }

/* From now on the thread's end is told. */
static bool introduce(bin *b) {
    if (b->ended) return false;
    pthread_once(&once, make_key);
    b->known = usable && pthread_setspecific(at_end, b) == 0;
    b->ended = !b->known;
    return b->known;
}

void *rg__recycle_malloc(size_t size) {
    if (size > RG__RECYCLE_SIZE) return rg__malloc(size);
    bin *b = &mine;
    size_t list = list_of(size);
    freed *f = b->lists[list];
    if (!f || rg__alloc_may_fail()) return rg__malloc(room_of(list));
    b->lists[list] = f->next;
    b->bytes -= list * STEP;
    return f;
}

void rg__recycle_free(void *p, size_t size) {
    size_t list = list_of(size);
    bin *b = &mine;
    if (size > RG__RECYCLE_SIZE || b->bytes + list * STEP > RG__RECYCLE_BYTES ||
        (!b->known && !introduce(b))) {
        rg__free(p);
        return;
    }
    freed *f = p;
    f->next = b->lists[list];
    b->lists[list] = f;
    b->bytes += list * STEP;
}

#endif
