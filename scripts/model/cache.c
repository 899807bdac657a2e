/* SPDX-License-Identifier: MIT */
/* The cache protocol as a small model, and every state that it can reach.
 *
 * One row, one entry. Writers run the SQL, MARK, COMMIT, PUBLISH or roll back; readers lease, read the
 * database, fill; one write is queued and applied by a consumer. Anybody dies anywhere: a COMMIT that was
 * sent lands later, or never. Marks, leases and values expire at any moment. Redis loses its data once, or
 * comes back with what it held at some earlier moment. The functions named after scripts do what those of
 * core/src/cache/scripts do, for one key. The invariant is checked in every state, not in the end: what a
 * plain GET would answer is what the database holds, or what the queue will make of it.
 *
 *   cache [--without RULE] WRITERS READERS [queue] [loss]
 *
 * prints how many states there are, or the way to one that breaks the invariant (exit 1). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rules: what may be left out, to see that it is needed ---- */

/* X(name, what it says) */
#define RULES(X)                                                                                   \
    X(MARK_AFTER_SQL, "mark-after-sql", "MARK comes when the SQL holds the row's lock")            \
    X(LOCKING_HEAL, "locking-heal", "where a mark expired only a locking read fills")              \
    X(LEASE, "lease", "a fill needs the lease that was granted before the read")                   \
    X(ALONE, "alone", "PUBLISH leaves a value only if no other transaction marked meanwhile")      \
    X(VERIFY, "verify", "PUBLISH leaves a value only if the entry held what it was built on")      \
    X(EXPOSED, "stay-exposed", "a lease given where a mark expired exposes again when it is lost") \
    X(YOUNG, "young-epoch", "in a young epoch only locking reads fill")                            \
    X(EPOCH, "epoch", "values of an earlier epoch count for nothing")                              \
    X(PENDING, "pending", "MARK is refused while a queued write stands")                           \
    X(MARKED, "marked", "a write is not queued while a mark stands")                               \
    X(SUSPECT, "suspect", "a queued write of an earlier epoch is looked up in the ledger")         \
    X(CHECK, "consumer-check", "the consumer commits only in the epoch it has read the queue in")

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

static bool rules[RULE_END];

/* ---- a state ---- */

enum { WRITERS = 3, READERS = 3, NOTHING = 0xff, WRONG = 0xfe };

typedef enum kind { NONE = 0, VALID, LEASED, MARKED, EXPOSED, PENDING } kind;
static const char *const kind_names[] = {"none", "valid", "leased", "marked", "exposed", "pending"};

enum { POISON = 1, EXPIRED = 2, CROWD = 4 };

typedef struct entry {
    uint8_t kind, epoch;
    uint8_t value;  /* VALID; PENDING: what the database held when it was queued */
    uint8_t flag;   /* LEASED, PENDING: as in cache.h */
    uint8_t owner;  /* LEASED: reader */
    uint8_t marks;  /* MARKED: a bit a writer */
    uint8_t mflags;
    uint8_t saved;  /* MARKED: value, or NOTHING */
} entry;

typedef enum wpc {
    W_START, W_WRITTEN, W_MARKED, W_SENT, W_COMMITTED, W_UNDONE, W_DEAD, W_ZOMBIE, W_DONE,
    W_EARLY /* without MARK_AFTER_SQL: marked, nothing written */
} wpc;
typedef struct writer {
    uint8_t pc, sound, verified, value;
} writer;

typedef enum rpc { R_START, R_LEASED, R_READ, R_LEDGER, R_DONE } rpc;
typedef struct reader {
    uint8_t pc, value, locking, epoch;
} reader;

typedef enum op { OP_NONE, OP_QUEUED, OP_APPLIED, OP_TOLD } op;
typedef enum cpc { C_IDLE, C_FETCHED, C_WRITTEN, C_COMMITTED, C_DONE } cpc;

typedef struct state {
    uint8_t db;            /* the committed value: counts commits */
    uint8_t lock;          /* the row's: 0 free, 1 + writer, CONSUMER */
    uint8_t epoch, young, lost;
    uint8_t flying;        /* transactions that were open when Redis lost its data */
    entry e;
    uint8_t snapped, snap_op;
    entry snap;            /* what Redis may come back with */
    uint8_t op, op_before, op_value; /* the queued write; what the database held before and after it */
    uint8_t stream;        /* it stands in the queue */
    uint8_t cpc, cepoch;
    writer w[WRITERS];
    reader r[READERS];
} state;

enum { CONSUMER = 9, CONSUMER_BIT = 8 };

static int n_writers, n_readers;
static bool with_queue, with_loss;

/* ---- reached states ---- */

typedef struct node {
    state s;
    uint32_t parent;
    const char *how;
    int8_t who; /* its number, or NOBODY */
} node;

enum { NOBODY = -1 };

static node *nodes;
static uint32_t n_nodes, cap_nodes, mask;
static uint64_t *table; /* number of a node, and the high half of its hash */
static uint32_t current; /* being expanded */
static bool broken;

static uint64_t hash(const state *s) {
    const char *p = (const char *)s;
    uint64_t h = 1469598103934665603ULL, word;
    size_t at = 0;
    for (; at + sizeof word <= sizeof *s; at += sizeof word) {
        memcpy(&word, p + at, sizeof word);
        h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
        h ^= h >> 32;
    }
    for (; at < sizeof *s; at++) h = (h ^ (uint8_t)p[at]) * 1099511628211ULL;
    return h ^ h >> 29;
}

#define HIGH 0xffffffff00000000ULL

static void grow_table(void) {
    uint32_t size = table ? (mask + 1) * 4 : 1 << 18;
    free(table);
    table = calloc(size, sizeof *table);
    if (!table) abort();
    mask = size - 1;
    for (uint32_t i = 1; i < n_nodes; i++) {
        uint64_t h = hash(&nodes[i].s);
        uint32_t at = (uint32_t)h & mask;
        while (table[at]) at = (at + 1) & mask;
        table[at] = (h & HIGH) | i;
    }
}

static bool servable_is_right(const state *s);

/* Index 0 stands for none. */
static void reach(const state *s, const char *how, int who) {
    if (n_nodes * 2 >= mask) grow_table();
    uint64_t h = hash(s);
    uint32_t at = (uint32_t)h & mask;
    for (; table[at]; at = (at + 1) & mask)
        if (((table[at] ^ h) & HIGH) == 0 && !memcmp(&nodes[(uint32_t)table[at]].s, s, sizeof *s)) return;
    if (n_nodes == cap_nodes) {
        cap_nodes *= 2;
        nodes = realloc(nodes, cap_nodes * sizeof *nodes);
        if (!nodes) abort();
    }
    node *n = &nodes[n_nodes];
    n->s = *s;
    n->parent = current;
    n->how = how;
    n->who = (int8_t)who;
    table[at] = (h & HIGH) | n_nodes++;
    if (!servable_is_right(s)) broken = true;
}

/* ---- the entry ---- */

static bool counts(const state *s, const entry *e) {
    return e->epoch == s->epoch || rules[RULE_EPOCH];
}
static bool is_suspect(const state *s) {
    return s->e.kind == PENDING && s->e.epoch != s->epoch && !rules[RULE_SUSPECT];
}

static entry none(void) {
    return (entry){.kind = NONE, .saved = NOTHING};
}
static entry exposed(void) {
    return (entry){.kind = EXPOSED, .saved = NOTHING};
}
static entry valid(const state *s, uint8_t value) {
    return (entry){.kind = VALID, .epoch = s->epoch, .value = value, .saved = NOTHING};
}

/* What GET answers: V, or P unless it is void or suspect. */
static bool servable_is_right(const state *s) {
    const entry *e = &s->e;
    if (e->kind == VALID) return !counts(s, e) || e->value == s->db;
    if (e->kind != PENDING || e->flag == '2' || is_suspect(s)) return true;
    if (s->op == OP_QUEUED) return e->value == s->db;
    return s->op_before == e->value && s->op_value == s->db;
}

/* lease.lua, grant */
static entry leased(const state *s, int reader, bool was_exposed) {
    char flag = was_exposed && !rules[RULE_LOCKING_HEAL]   ? '1'
                : s->young && !rules[RULE_YOUNG]           ? '2'
                                                           : '0';
    return (entry){.kind = LEASED, .epoch = s->epoch, .flag = (uint8_t)flag, .owner = (uint8_t)reader,
                   .saved = NOTHING};
}

static bool heals(const entry *e) { return e->kind == LEASED && e->flag == '1'; }

/* ---- writers ---- */

static void end_flight(state *s, int bit) {
    s->flying &= (uint8_t)~(1 << bit);
}

static void finish(state *s, int i) {
    s->w[i] = (writer){.pc = W_DONE};
    end_flight(s, i);
}

/* mark.lua; false: refused */
static bool mark(state *s, int i) {
    entry *e = &s->e;
    if (e->kind == PENDING && !rules[RULE_PENDING]) return false;
    s->w[i].verified = 0;
    if (e->kind == MARKED) {
        if (e->marks) e->mflags |= CROWD;
        e->marks |= (uint8_t)(1 << i);
        return true;
    }
    bool held = e->kind == VALID && counts(s, e);
    s->w[i].verified = rules[RULE_VERIFY] || (held && s->w[i].sound);
    *e = (entry){.kind = MARKED,
                 .epoch = s->epoch,
                 .marks = (uint8_t)(1 << i),
                 .mflags = e->kind == EXPOSED || heals(e) ? EXPIRED : 0,
                 .saved = held ? e->value : NOTHING};
    return true;
}

/* publish.lua, late */
static void late(state *s) {
    entry *e = &s->e;
    if (e->kind == PENDING) e->flag = '0';
    else if (e->kind == MARKED) e->mflags |= POISON;
    else if (heals(e)) *e = exposed();
    else if (e->kind != EXPOSED) *e = none();
}

/* publish.lua */
static void publish(state *s, int i) {
    entry *e = &s->e;
    if (e->kind != MARKED || !(e->marks & 1 << i)) {
        late(s);
        return;
    }
    e->marks &= (uint8_t)~(1 << i);
    if (e->marks) {
        e->mflags |= POISON;
        return;
    }
    bool alone = !(e->mflags & (POISON | CROWD)) || rules[RULE_ALONE];
    bool plain = alone && e->epoch == s->epoch && s->w[i].verified;
    if (e->mflags & EXPIRED) *e = exposed();
    else if (plain) *e = valid(s, s->w[i].sound ? s->w[i].value : WRONG);
    else *e = none();
}

/* unmark.lua */
static void unmark(state *s, int i) {
    entry *e = &s->e;
    if (e->kind != MARKED || !(e->marks & 1 << i)) return;
    e->marks &= (uint8_t)~(1 << i);
    if (e->marks) return;
    bool restore = !(e->mflags & POISON) && e->saved != NOTHING;
    uint8_t epoch = e->epoch, saved = e->saved;
    if (e->mflags & EXPIRED) *e = exposed();
    else if (restore) *e = (entry){.kind = VALID, .epoch = epoch, .value = saved, .saved = NOTHING};
    else *e = none();
}

static void commit(state *s) {
    s->db++;
    s->lock = 0;
}

static void start_writer(const state *s, int i) {
    state t = *s;
    if (rules[RULE_MARK_AFTER_SQL]) {
        t.w[i].sound = 1;
        t.w[i].pc = W_EARLY;
        if (mark(&t, i)) reach(&t, "MARK", i);
        return;
    }
    if (s->lock) return;
    for (int sound = 0; sound < 2; sound++) {
        t = *s;
        t.lock = (uint8_t)(1 + i);
        t.w[i] = (writer){.pc = W_WRITTEN, .sound = (uint8_t)sound};
        reach(&t, sound ? "SQL" : "blind SQL", i);
    }
}

static void written(const state *s, int i) {
    state t = *s;
    t.w[i].pc = W_MARKED;
    if (mark(&t, i)) {
        reach(&t, "MARK", i);
    } else {
        t = *s;
        t.lock = 0;
        finish(&t, i);
        reach(&t, "PENDING, ROLLBACK", i);
    }
    t = *s;
    t.w[i].pc = W_DEAD;
    reach(&t, "death", i);
}

static void marked(const state *s, int i) {
    state t = *s;
    t.w[i].pc = W_SENT;
    reach(&t, "COMMIT sent", i);
    t = *s;
    t.lock = 0;
    t.w[i].pc = W_UNDONE;
    reach(&t, "ROLLBACK", i);
    t = *s;
    t.w[i] = (writer){.pc = W_DEAD};
    reach(&t, "death", i);
}

static void sent(const state *s, int i) {
    state t = *s;
    commit(&t);
    t.w[i].pc = W_COMMITTED;
    t.w[i].value = t.db;
    reach(&t, "COMMIT", i);
    t = *s;
    t.w[i] = (writer){.pc = W_ZOMBIE};
    reach(&t, "death", i);
}

/* Between the outcome and telling it, and the death there. */
static void tell(const state *s, int i, bool committed) {
    state t = *s;
    if (committed) publish(&t, i);
    else unmark(&t, i);
    finish(&t, i);
    reach(&t, committed ? "PUBLISH" : "UNMARK", i);
    t = *s;
    finish(&t, i);
    reach(&t, "death", i);
}

static void left_behind(const state *s, int i, bool may_commit) {
    state t = *s;
    t.lock = 0;
    finish(&t, i);
    reach(&t, "server's ROLLBACK", i);
    if (!may_commit) return;
    t = *s;
    commit(&t);
    finish(&t, i);
    reach(&t, "late COMMIT", i);
}

static void early(const state *s, int i) {
    if (s->lock) return;
    state t = *s;
    t.lock = (uint8_t)(1 + i);
    t.w[i].pc = W_MARKED;
    reach(&t, "SQL", i);
}

static void step_writer(const state *s, int i) {
    switch ((wpc)s->w[i].pc) {
    case W_START: start_writer(s, i); break;
    case W_WRITTEN: written(s, i); break;
    case W_MARKED: marked(s, i); break;
    case W_SENT: sent(s, i); break;
    case W_COMMITTED: tell(s, i, true); break;
    case W_UNDONE: tell(s, i, false); break;
    case W_DEAD: left_behind(s, i, false); break;
    case W_ZOMBIE: left_behind(s, i, true); break;
    case W_EARLY: early(s, i); break;
    case W_DONE: break;
    }
}

/* ---- readers ---- */

static void read_done(const state *s, int i, const char *how) {
    state t = *s;
    t.r[i] = (reader){.pc = R_DONE};
    reach(&t, how, i);
}

static void grant(const state *s, int i, bool was_exposed) {
    state t = *s;
    t.e = leased(s, i, was_exposed);
    t.r[i] = (reader){.pc = R_LEASED, .locking = t.e.flag != '0'};
    reach(&t, "LEASE", i);
}

/* The ledger is read, then ADOPT called: it may have moved. */
static void ask_ledger(const state *s, int i) {
    state t = *s;
    t.r[i] = (reader){.pc = R_LEDGER, .value = s->op >= OP_APPLIED, .epoch = s->epoch};
    reach(&t, "ledger read by", i);
}

static void adopt(const state *s, int i) {
    state t = *s;
    if (t.r[i].epoch == t.epoch && t.e.kind == PENDING && t.e.epoch != t.epoch) {
        if (t.r[i].value) t.e = none();
        else t.e.epoch = t.epoch;
    }
    t.r[i] = (reader){.pc = R_DONE};
    reach(&t, "ADOPT", i);
}

/* GET and lease.lua: who is answered, or has to bypass, is done. */
static void start_reader(const state *s, int i) {
    const entry *e = &s->e;
    switch ((kind)e->kind) {
    case NONE: grant(s, i, false); break;
    case VALID:
        if (!counts(s, e)) grant(s, i, false);
        break;
    case LEASED: grant(s, i, heals(e) && !rules[RULE_EXPOSED]); break; /* its deadline passed */
    case EXPOSED: grant(s, i, true); break;
    case PENDING:
        if (is_suspect(s)) ask_ledger(s, i);
        break;
    case MARKED: break;
    }
}

/* fill.lua */
static void fill(const state *s, int i) {
    state t = *s;
    const entry *e = &s->e;
    bool held = e->kind == LEASED && e->owner == i && e->epoch == s->epoch &&
                (s->r[i].locking || e->flag == '0');
    if (rules[RULE_LEASE]) held = e->kind == NONE || e->kind == LEASED;
    if (held) t.e = valid(s, s->r[i].value);
    t.r[i] = (reader){.pc = R_DONE};
    reach(&t, "FILL", i);
}

/* unlease.lua */
static void unlease(const state *s, int i) {
    state t = *s;
    if (s->e.kind == LEASED && s->e.owner == i) t.e = heals(&s->e) ? exposed() : none();
    t.r[i] = (reader){.pc = R_DONE};
    reach(&t, "UNLEASE", i);
}

static void step_reader(const state *s, int i) {
    state t = *s;
    switch ((rpc)s->r[i].pc) {
    case R_START: start_reader(s, i); break;
    case R_LEASED:
        if (s->r[i].locking && s->lock) {
            unlease(s, i); /* TRY fails: reads past the cache */
            break;
        }
        t.r[i].pc = R_READ;
        t.r[i].value = s->db;
        reach(&t, "read by", i);
        read_done(s, i, "death of reader");
        break;
    case R_READ: fill(s, i); break;
    case R_LEDGER: adopt(s, i); break;
    case R_DONE: break;
    }
}

/* ---- the queue ---- */

/* enqueue.lua: a checked update */
static void enqueue(const state *s) {
    const entry *e = &s->e;
    bool held = e->kind == VALID && counts(s, e);
    if (rules[RULE_MARKED]) held |= e->kind == MARKED && e->saved == s->db;
    if (s->op != OP_NONE || s->lost || !held) return;
    state t = *s;
    t.e = (entry){.kind = PENDING, .epoch = s->epoch, .flag = '1', .saved = NOTHING,
                  .value = e->kind == VALID ? e->value : e->saved};
    t.op = OP_QUEUED;
    t.stream = 1;
    reach(&t, "ENQUEUE", NOBODY);
}

/* applied.lua */
static void applied(state *s) {
    entry *e = &s->e;
    if (e->kind != PENDING) return;
    if (e->flag != '1' || e->epoch != s->epoch) *e = none();
    else *e = valid(s, e->value == s->op_before ? s->op_value : WRONG);
}

static void tell_applied(const state *s) {
    state t = *s;
    applied(&t);
    t.op = OP_TOLD;
    t.stream = 0;
    t.cpc = C_DONE;
    reach(&t, "APPLIED", NOBODY);
}

static void consumer_stops(const state *s, const char *how) {
    state t = *s;
    t.lock = s->lock == CONSUMER ? 0 : s->lock;
    t.cpc = C_IDLE;
    end_flight(&t, CONSUMER_BIT - 1);
    reach(&t, how, NOBODY);
}

static void consumer_writes(const state *s) {
    if (s->lock) return;
    state t = *s;
    t.lock = CONSUMER;
    t.cpc = C_WRITTEN;
    reach(&t, "consumer's SQL", NOBODY);
}

static void consumer_commits(const state *s) {
    if (s->cepoch != s->epoch && !rules[RULE_CHECK]) {
        consumer_stops(s, "consumer starts again");
        return;
    }
    state t = *s;
    t.op_before = s->db;
    commit(&t);
    t.op = OP_APPLIED;
    t.op_value = t.db;
    t.cpc = C_COMMITTED;
    end_flight(&t, CONSUMER_BIT - 1);
    reach(&t, "consumer's COMMIT", NOBODY);
}

static void step_consumer(const state *s) {
    state t = *s;
    switch ((cpc)s->cpc) {
    case C_IDLE: /* what the ledger has passed is only told; what is not there is not applied */
        if (!s->stream) break;
        if (s->op >= OP_APPLIED) {
            tell_applied(s);
            break;
        }
        t.cpc = C_FETCHED;
        t.cepoch = s->epoch;
        reach(&t, "consumer reads the queue", NOBODY);
        break;
    case C_FETCHED:
        consumer_writes(s);
        consumer_stops(s, "consumer's death");
        break;
    case C_WRITTEN:
        consumer_commits(s);
        consumer_stops(s, "consumer's death");
        break;
    case C_COMMITTED:
        tell_applied(s);
        consumer_stops(s, "consumer's death");
        break;
    case C_DONE: break;
    }
}

/* ---- time, and Redis ---- */

/* marks.lua, expire: at any moment, whoever looks */
static void expire_marks(const state *s) {
    if (s->e.kind != MARKED) return;
    for (int i = 0; i < n_writers; i++) {
        if (!(s->e.marks & 1 << i)) continue;
        state t = *s;
        t.e.marks &= (uint8_t)~(1 << i);
        t.e.mflags |= EXPIRED | POISON;
        t.e.saved = NOTHING;
        if (!t.e.marks) t.e = exposed();
        reach(&t, "expiry of mark", i);
    }
}

/* What has a TTL goes at any moment, or is evicted. */
static void expire_entry(const state *s) {
    bool has_ttl = s->e.kind == VALID || (s->e.kind == LEASED && !heals(&s->e)) ||
                   (heals(&s->e) && rules[RULE_EXPOSED]);
    if (!has_ttl) return;
    state t = *s;
    t.e = none();
    reach(&t, "TTL", NOBODY);
}

static uint8_t open_transactions(const state *s) {
    uint8_t open = 0;
    for (int i = 0; i < n_writers; i++)
        if (s->w[i].pc != W_START && s->w[i].pc != W_DONE) open |= (uint8_t)(1 << i);
    if (s->cpc == C_WRITTEN) open |= 1 << (CONSUMER_BIT - 1);
    return open;
}

/* life.lua: nobody reads before the epoch is a new one. The queue comes back as it was as well. */
static void lose(const state *s, const entry *e, uint8_t stream, const char *how) {
    state t = *s;
    t.e = *e;
    t.stream = stream;
    if (!stream && s->op == OP_QUEUED && s->cpc == C_IDLE) t.op = OP_NONE;
    t.lost = 1;
    t.epoch++;
    t.young = 1;
    t.flying = open_transactions(s);
    t.snapped = 0;
    t.snap = none();
    t.snap_op = 0;
    reach(&t, how, NOBODY);
}

static void step_redis(const state *s) {
    state t = *s;
    if (s->lost) {
        if (!s->young || s->flying) return;
        t.young = 0; /* no transaction is open for that long */
        reach(&t, "the epoch ages", NOBODY);
        return;
    }
    const entry nothing = none();
    lose(s, &nothing, 0, "Redis loses everything");
    if (s->snapped) {
        lose(s, &s->snap, s->snap_op, "Redis comes back old");
    } else if (s->e.kind != NONE && s->e.kind != LEASED) {
        t.snapped = 1;
        t.snap = s->e;
        t.snap_op = s->stream;
        reach(&t, "what is on disk", NOBODY);
    }
}

/* ---- the search ---- */

static void expand(const state *s) {
    for (int i = 0; i < n_writers; i++) step_writer(s, i);
    for (int i = 0; i < n_readers; i++) step_reader(s, i);
    if (with_queue) {
        enqueue(s);
        step_consumer(s);
    }
    expire_marks(s);
    expire_entry(s);
    if (with_loss) step_redis(s);
}

static void show(uint32_t at) {
    if (!at) return;
    show(nodes[at].parent);
    const state *s = &nodes[at].s;
    char how[40];
    snprintf(how, sizeof how, nodes[at].who == NOBODY ? "%s" : "%s %d", nodes[at].how, nodes[at].who + 1);
    printf("  %-26s database %u, entry %s", how, s->db, kind_names[s->e.kind]);
    if (s->e.kind == VALID) printf(" %u", s->e.value);
    if (s->e.epoch != s->epoch && s->e.kind != NONE && s->e.kind != EXPOSED) printf(" (earlier epoch)");
    putchar('\n');
}

static int search(void) {
    cap_nodes = 1 << 16;
    nodes = malloc(cap_nodes * sizeof *nodes);
    if (!nodes) abort();
    n_nodes = 1;
    state start;
    memset(&start, 0, sizeof start);
    start.e = none();
    start.snap = none();
    reach(&start, "start", NOBODY);
    for (current = 1; current < n_nodes && !broken; current++) {
        state s = nodes[current].s; /* the array may move */
        expand(&s);
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
    fprintf(stderr, "usage: cache [--without RULE] WRITERS READERS [queue] [loss]\nrules:\n");
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
        rules[i] = true; /* true: left out */
        at = 3;
    }
    if (argc < at + 2) return usage();
    n_writers = atoi(argv[at]);
    n_readers = atoi(argv[at + 1]);
    if (n_writers < 0 || n_writers > WRITERS || n_readers < 0 || n_readers > READERS) return usage();
    for (at += 2; at < argc; at++) {
        if (!strcmp(argv[at], "queue")) with_queue = true;
        else if (!strcmp(argv[at], "loss")) with_loss = true;
        else return usage();
    }
    return search();
}
