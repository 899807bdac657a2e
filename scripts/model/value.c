/* SPDX-License-Identifier: MIT */
/* Values that transactions set and delete (core/src/cache/scripts/value_*.lua) as a small model, and every
 * state that it can reach.
 *
 * One row, and a cached value that is made from it: by loaders, which read the row under no lock and fill
 * under a lease, and by transactions, which write the row and set or delete the value with their COMMIT.
 * Anybody dies anywhere: a COMMIT that was sent lands later, or never. Marks, leases and values expire. In
 * every state what is served is what the database holds.
 *
 *   value [--without RULE] WRITERS READERS
 *
 * prints how many states there are, or the way to one that breaks the invariant (exit 1). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* X(name, what it says) */
#define RULES(X)                                                                                   \
    X(MARK, "mark", "what a transaction changes is marked before its COMMIT")                      \
    X(LEASE, "lease", "a fill needs the lease that was granted before the load")                   \
    X(ALONE, "alone", "PUBLISH leaves a value only if no other transaction marked meanwhile")      \
    X(LATE, "late", "PUBLISH deletes where its mark is gone")                                      \
    X(SPOIL, "spoil", "a deletion that meets marks keeps a rollback from restoring the value")     \
    X(OUTLAST, "outlast", "a mark stands until it is known what became of the COMMIT")

typedef enum rule {
#define X(id, name, text) RULE_##id,
    RULES(X)
#undef X
    RULE_END
} rule;

static const char *const rule_names[] = {
#define X(id, name, text) name,
    RULES(X)
#undef X
};
static bool without[RULE_END];

/* ---- a state ---- */

enum { WRITERS = 3, READERS = 3, NOTHING = 15 };

typedef enum kind { NONE, VALID, LEASED, MARKED } kind;
static const char *const kind_names[] = {"none", "value", "leased", "marked"};

enum { POISON = 1, CROWD = 2 };

typedef enum wpc { W_START, W_WRITTEN, W_MARKED, W_SENT, W_COMMITTED, W_UNDONE, W_DEAD, W_ZOMBIE, W_DONE } wpc;
typedef enum rpc { R_START, R_LEASED, R_READ, R_DONE } rpc;

typedef struct writer {
    uint8_t pc, sets, value;
} writer;
typedef struct reader {
    uint8_t pc, value;
} reader;

typedef struct state {
    uint8_t db, lock;  /* lock: the row's, 1 + writer */
    uint8_t kind, value, owner, marks, flags, saved;
    uint8_t foreign;   /* 0: a write past all caches is to come, 1: its deletion is, 2: told */
    writer w[WRITERS];
    reader r[READERS];
} state;

static int n_writers, n_readers;

/* ---- reached states ---- */

typedef struct node {
    state s;
    uint32_t parent;
    const char *how;
    int who;
} node;

static node *nodes;
static uint32_t n_nodes = 1, cap_nodes, *table, mask, current;
static bool broken;

static uint32_t hash(const state *s) {
    const uint8_t *p = (const uint8_t *)s;
    uint64_t h = 1469598103934665603ULL;
    for (size_t i = 0; i < sizeof *s; i++) h = (h ^ p[i]) * 1099511628211ULL;
    return (uint32_t)(h ^ h >> 32);
}

static void grow(void) {
    mask = table ? mask * 4 + 3 : (1 << 16) - 1;
    free(table);
    table = calloc((size_t)mask + 1, sizeof *table);
    if (!table) abort();
    for (uint32_t i = 1; i < n_nodes; i++) {
        uint32_t at = hash(&nodes[i].s) & mask;
        while (table[at]) at = (at + 1) & mask;
        table[at] = i;
    }
}

static void reach(const state *s, const char *how, int who) {
    if (n_nodes * 2 >= mask) grow();
    uint32_t at = hash(s) & mask;
    for (; table[at]; at = (at + 1) & mask)
        if (!memcmp(&nodes[table[at]].s, s, sizeof *s)) return;
    if (n_nodes >= cap_nodes) {
        cap_nodes = cap_nodes ? cap_nodes * 2 : 1 << 12;
        nodes = realloc(nodes, cap_nodes * sizeof *nodes);
        if (!nodes) abort();
    }
    nodes[n_nodes] = (node){*s, current, how, who};
    table[at] = n_nodes++;
    if (s->kind == VALID && s->value != s->db && s->foreign != 1) broken = true;
}

/* ---- the entry ---- */

static void clear(state *s) {
    s->kind = NONE;
    s->value = s->owner = s->marks = s->flags = 0;
    s->saved = NOTHING;
}

static void hold(state *s, uint8_t value) {
    clear(s);
    s->kind = VALID;
    s->value = value;
}

/* value_mark.lua */
static void mark(state *s, int i) {
    uint8_t saved = s->kind == VALID ? s->value : NOTHING;
    if (s->kind == MARKED) {
        if (s->marks) s->flags |= CROWD;
        s->marks |= (uint8_t)(1 << i);
        return;
    }
    clear(s);
    s->kind = MARKED;
    s->saved = saved;
    s->marks = (uint8_t)(1 << i);
}

/* value_publish.lua */
static void publish(state *s, int i) {
    const writer *w = &s->w[i];
    bool mine = s->kind == MARKED && s->marks & 1 << i;
    if (s->kind == MARKED) s->marks &= (uint8_t)~(1 << i);
    if (s->kind == MARKED && s->marks) {
        s->flags |= POISON;
        s->saved = NOTHING;
        return;
    }
    bool alone = mine && (!s->flags || without[RULE_ALONE]);
    if (without[RULE_MARK] || (!mine && without[RULE_LATE])) alone = true;
    if (alone && w->sets) hold(s, w->value);
    else clear(s);
}

/* value_unmark.lua */
static void unmark(state *s, int i) {
    if (s->kind != MARKED || !(s->marks & 1 << i)) return;
    s->marks &= (uint8_t)~(1 << i);
    if (s->marks) return;
    uint8_t saved = s->saved;
    if (s->flags & POISON || saved == NOTHING) clear(s);
    else hold(s, saved);
}

/* value_delete.lua */
static void drop(state *s) {
    if (s->kind != MARKED) clear(s);
    else if (!without[RULE_SPOIL]) {
        s->flags |= POISON;
        s->saved = NOTHING;
    }
}

/* ---- writers ---- */

static void finish(const state *s, int i, const char *how) {
    state t = *s;
    if (t.lock == i + 1) t.lock = 0;
    t.w[i] = (writer){.pc = W_DONE};
    reach(&t, how, i);
}

static void commit(state *t, int i) {
    t->db++;
    t->lock = 0;
    t->w[i].value = t->db;
}

static void start(const state *s, int i) {
    for (uint8_t sets = 0; sets < 2 && !s->lock; sets++) {
        state t = *s;
        t.lock = (uint8_t)(i + 1);
        t.w[i] = (writer){.pc = W_WRITTEN, .sets = sets};
        reach(&t, sets ? "SQL, will set" : "SQL, will delete", i);
    }
}

static void move(const state *s, int i, wpc pc, const char *how) {
    state t = *s;
    t.w[i].pc = (uint8_t)pc;
    reach(&t, how, i);
}

static void written(const state *s, int i) {
    state t = *s;
    if (!without[RULE_MARK]) mark(&t, i);
    t.w[i].pc = W_MARKED;
    reach(&t, "MARK", i);
    move(s, i, W_DEAD, "death");
}

static void marked(const state *s, int i) {
    state t = *s;
    t.lock = 0;
    t.w[i].pc = W_UNDONE;
    reach(&t, "ROLLBACK", i);
    move(s, i, W_SENT, "COMMIT sent");
    move(s, i, W_DEAD, "death");
}

static void sent(const state *s, int i) {
    state t = *s;
    commit(&t, i);
    t.w[i].pc = W_COMMITTED;
    reach(&t, "COMMIT", i);
    move(s, i, W_ZOMBIE, "death");
}

static void tell(const state *s, int i, bool committed) {
    state t = *s;
    if (committed) publish(&t, i);
    else unmark(&t, i);
    finish(&t, i, committed ? "PUBLISH" : "UNMARK");
    finish(s, i, "death");
}

static void left_behind(const state *s, int i, bool may_commit) {
    finish(s, i, "server's ROLLBACK");
    if (!may_commit) return;
    state t = *s;
    commit(&t, i);
    finish(&t, i, "late COMMIT");
}

static void step_writer(const state *s, int i) {
    switch ((wpc)s->w[i].pc) {
    case W_START: start(s, i); break;
    case W_WRITTEN: written(s, i); break;
    case W_MARKED: marked(s, i); break;
    case W_SENT: sent(s, i); break;
    case W_COMMITTED: tell(s, i, true); break;
    case W_UNDONE: tell(s, i, false); break;
    case W_DEAD: left_behind(s, i, false); break;
    case W_ZOMBIE: left_behind(s, i, true); break;
    case W_DONE: break;
    }
}

/* Somebody writes the row past all caches, and deletes the value then: stale in between, as he knows. */
static void step_foreign(const state *s) {
    state t = *s;
    if (s->foreign == 0 && !s->lock) {
        t.db++;
        t.foreign = 1;
        reach(&t, "a write without a transaction", -1);
    }
    if (s->foreign != 1) return;
    drop(&t);
    t.foreign = 2;
    reach(&t, "its deletion", -1);
}

/* ---- readers ---- */

static void step_reader(const state *s, int i) {
    state t = *s;
    switch ((rpc)s->r[i].pc) {
    case R_START: /* value_take.lua; a lease may have passed its deadline */
        if (s->kind != NONE && s->kind != LEASED) break;
        clear(&t);
        t.kind = LEASED;
        t.owner = (uint8_t)i;
        t.r[i].pc = R_LEASED;
        reach(&t, "LEASE", i);
        break;
    case R_LEASED:
        t.r[i] = (reader){R_READ, s->db};
        reach(&t, "load", i);
        break;
    case R_READ: /* value_fill.lua */
        if ((s->kind == LEASED && s->owner == i) || (without[RULE_LEASE] && s->kind != MARKED))
            hold(&t, s->r[i].value);
        t.r[i] = (reader){.pc = R_DONE};
        reach(&t, "FILL", i);
        break;
    case R_DONE: break;
    }
}

/* ---- time ---- */

static bool is_decided(const writer *w) {
    return w->pc == W_COMMITTED || w->pc == W_UNDONE || w->pc == W_DONE;
}

static void step_time(const state *s) {
    state t = *s;
    if (s->kind == VALID || s->kind == LEASED) {
        clear(&t);
        reach(&t, "TTL", -1);
    }
    for (int i = 0; s->kind == MARKED && i < n_writers; i++) {
        if (!(s->marks & 1 << i) || (!is_decided(&s->w[i]) && !without[RULE_OUTLAST])) continue;
        t = *s;
        t.marks &= (uint8_t)~(1 << i);
        t.flags |= POISON;
        t.saved = NOTHING;
        if (!t.marks) clear(&t);
        reach(&t, "expiry of mark", i);
    }
}

/* ---- the search ---- */

static void show(uint32_t at) {
    if (!at) return;
    show(nodes[at].parent);
    const state *s = &nodes[at].s;
    char how[48];
    snprintf(how, sizeof how, nodes[at].who < 0 ? "%s" : "%s %d", nodes[at].how, nodes[at].who + 1);
    printf("  %-30s database %u, entry %s", how, s->db, kind_names[s->kind]);
    if (s->kind == VALID) printf(" %u", s->value);
    putchar('\n');
}

static int search(void) {
    state first;
    memset(&first, 0, sizeof first);
    clear(&first);
    reach(&first, "start", -1);
    for (current = 1; current < n_nodes && !broken; current++) {
        state s = nodes[current].s; /* the array may move */
        for (int i = 0; i < n_writers; i++) step_writer(&s, i);
        for (int i = 0; i < n_readers; i++) step_reader(&s, i);
        step_foreign(&s);
        step_time(&s);
    }
    if (!broken) {
        printf("%u states, the invariant holds in each\n", n_nodes - 1);
        return 0;
    }
    printf("%u states, then one that serves what the database does not hold:\n", n_nodes - 1);
    show(n_nodes - 1);
    return 1;
}

static int usage(void) {
    fprintf(stderr, "usage: value [--without RULE] WRITERS READERS\nrules:\n");
#define X(id, name, text) fprintf(stderr, "  %-16s %s\n", name, text);
    RULES(X)
#undef X
    return 2;
}

int main(int argc, char **argv) {
    int at = 1;
    if (argc > 2 && !strcmp(argv[1], "--without")) {
        int i = 0;
        while (i < RULE_END && strcmp(rule_names[i], argv[2])) i++;
        if (i == RULE_END) return usage();
        without[i] = true;
        at = 3;
    }
    if (argc != at + 2) return usage();
    n_writers = atoi(argv[at]);
    n_readers = atoi(argv[at + 1]);
    if (n_writers < 0 || n_writers > WRITERS || n_readers < 0 || n_readers > READERS) return usage();
    return search();
}
