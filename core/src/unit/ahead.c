/* SPDX-License-Identifier: MIT */
/* Several chunks of one shape: while the server works on one the next is made and sent, so that neither waits
 * for the other. Each is a transaction of its own, and they write different rows: it is as if one came after the
 * other. What does not go well is seen to when no answer is awaited any more. */
#include "unit/chunk.h"

/* A chunk whose statement was sent, or has failed to be. */
typedef struct flight {
    rg__chunk k;
    uint32_t *items;
    rg__failure failure;
} flight;

/* How many of the items it takes; 0: the rest does not go this way. */
static size_t send(rg__each_run *e, flight *f, uint32_t *items, size_t n) {
    bool sent = false;
    n = rg__chunk_fits(e, items, n);
    if (n < 2 || !e->conn) return 0; /* what went wrong before may have cost the connection */
    rg__chunk_init(&f->k, e, items, n);
    if (!rg__chunk_is_plain(&f->k)) return 0;
    f->items = items;
    f->k.cas.brief = e->defer;
    f->failure.thread = rg__each_thread(e);
    rg__err_clear(&f->failure.fault);
    f->failure.code = rg__sql_cas_send(e->conn, e->ctx, &f->k.cas, f->k.ids, f->k.rows, f->k.expected, n, &sent,
                                       &f->failure.fault);
    return sent || f->failure.code < 0 ? n : 0;
}

static void take(flight *f) {
    if (f->failure.code >= 0)
        f->failure.code = rg__sql_cas_take(f->k.e->conn, f->k.n, &f->k.marks, &f->failure.fault);
}

/* False: there is more to ask the server about it. */
static bool is_applied(flight *f) {
    if (f->failure.code < 0 || f->k.marks != rg__chunk_all(f->k.n)) return false;
    rg__chunk_end(&f->k, false, NULL);
    return true;
}

/* True when it has failed. */
static bool see_to(flight *f, rg__rest_fn rest) {
    if (f->failure.code >= 0) f->failure.code = rg__chunk_end(&f->k, false, &f->failure.fault);
    rest(f->k.e, f->items, f->k.n, &f->failure);
    return f->failure.code < 0;
}

size_t rg__ahead_run(rg__each_run *e, uint32_t *items, size_t n, rg__rest_fn rest) {
    flight flights[RG__CAS_AHEAD];
    size_t at = 0;
    unsigned oldest = 0, flying = 0;
    bool going = n > 1 && rg__each_connect(e, e->items->items[items[0]].type, NULL) >= 0;
    for (;;) {
        while (going && flying < RG__CAS_AHEAD && at < n) {
            flight *f = &flights[(oldest + flying) % RG__CAS_AHEAD];
            size_t k = send(e, f, items + at, n - at);
            going = k && f->failure.code >= 0;
            flying += k > 0;
            at += k;
        }
        if (flying == 0) return at;
        flight *f = &flights[oldest];
        take(f);
        oldest = (oldest + 1) % RG__CAS_AHEAD;
        flying--;
        if (is_applied(f)) continue;
        for (unsigned i = 0; i < flying; i++) take(&flights[(oldest + i) % RG__CAS_AHEAD]);
        going &= !see_to(f, rest);
        for (; flying > 0; flying--, oldest = (oldest + 1) % RG__CAS_AHEAD)
            going &= !see_to(&flights[oldest], rest);
    }
}
