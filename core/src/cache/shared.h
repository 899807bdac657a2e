/* SPDX-License-Identifier: MIT */
/* The inside of the Redis tier; for the files of cache/ only. */
#ifndef RG_CACHE_SHARED_H
#define RG_CACHE_SHARED_H

#include <pthread.h>
#include "base/map.h"
#include "cache/cache.h"
#include "rg_scripts.h"

enum {
    RG__LEASE_MS = 3000,
    RG__MARK_MS = 30000,       /* beyond any COMMIT */
    RG__READ_BOUND_MS = 250,   /* a reader waits no longer for Redis */
    RG__WRITE_BOUND_MS = 1000, /* nor does who fills, publishes or restores */
    RG__MARK_BOUND_MS = 3000,  /* nor who is about to commit, as rows are locked meanwhile */
    RG__FINISH_MS = 40,        /* which is tried for so long even past the deadline */
    RG__LEASE_WAIT_MS = 100,
    RG__EPOCH_AGE_MS = 1000,   /* plain reads ask for the life again when it is known for longer */
    RG__READ_CHUNK = 512,      /* keys of one MGET or lease */
    RG__WRITE_CHUNK = 2000,    /* keys of one writing script */
    RG__CHUNK_BYTES = 4 * 1024 * 1024,
    RG__LEAVE_BYTES = 32 * 1024, /* what is sent without waiting goes into a socket's buffer */
    RG__LEAVE_KEYS = 64,
    RG__FORGET = 64,           /* answered enqueues that the next one tells to forget */

    /* entry.c: where things are in an entry */
    RG__AT_EPOCH = 1,
    RG__AT_VALUE = 9,
    RG__AT_ID = 9,
    RG__AT_FLAG = 41,
    RG__AT_PENDING = 42,
    RG__AT_DELTAS = 10,
    RG__DELTA_BYTES = 41,
    RG__ID_HEX = 32,
};

/* A name with its length. */
typedef struct rg__name {
    char *text;
    uint32_t len;
} rg__name;

struct rg__shared {
    rg__redis_pool *pool;      /* borrowed */
    rg__process *process;      /* borrowed; may be NULL */
    const rg__schema *schema;  /* borrowed */
    rg__metrics *metrics;
    char *prefix;
    rg__name epoch_key, life_key, marked_key, producers_key;
    rg__name agreed_key;       /* "{P}:out": what programs agree on */
    rg__buf policies;          /* table and policy of each type told here, each with its NUL */
    rg__name rows, lookups;    /* "{P}:e:", "{P}:l:" */
    rg__name deps, counter_key; /* "{P}:d:", "{P}:uc" of value caches (value.h) */
    struct rg__values **values; /* that live here, borrowed; complete before first use */
    uint32_t n_values;
    rg__told *told;            /* by the channel of coherence: own_told, or that of all who share it */
    rg__told own_told;
    atomic_ullong epochs_seen; /* told->epochs when the server's life was last asked for */
    rg__name *row_prefixes;    /* "{P}:e:<table>:" by number of the type */
    uint32_t n_types;
    uint64_t seed;             /* of the hash of lookups */
    uint32_t lease_ms, mark_ms;
    atomic_ullong epoch;       /* its 8 bytes; 0: none known */
    atomic_ullong agreed;      /* the epoch in which this process' policies were agreed on */
    atomic_llong epoch_at_ms;  /* when the server's life was last asked for; 0: must be */
    atomic_llong away_until_ms; /* reads go past Redis until then; 0: it answers */
    atomic_int away_ms;        /* how long they did last */
    atomic_ullong published;   /* rg__script_misses() + 1 when PUBLISH was last answered; 0: never */
    atomic_ullong sweep_cursor; /* where the scan of producers goes on */
    atomic_llong clock_offset_us; /* Redis' clock less ours (monotonic); 0: not known yet */
    atomic_ullong last_id_us;  /* stream ids, as us: the last one wished for or learnt */
    pthread_mutex_t forget_lock; /* guards the two that follow; innermost */
    rg__name forget[RG__FORGET];
    uint32_t n_forget;
    rg__fitness fitness;       /* fitness.c; under forget_lock, too */
    int64_t fitness_at_ms;     /* 0: not looked at */
    uint64_t fitness_epoch;
};

/* ---- args.c: arguments of a command ---- */
typedef struct rg__args {
    const char **argv;
    size_t *lens;
    int n, cap;
    bool failed;       /* out of memory */
    size_t bytes;
    char numbers[8][24]; /* storage of rg__args_u64 */
    int n_numbers;
    const char *few_argv[24];
    size_t few_lens[24];
} rg__args;

void rg__args_init(rg__args *a);
void rg__args_deinit(rg__args *a);
void rg__args_add(rg__args *a, const void *p, size_t len); /* borrows p until the call */
void rg__args_name(rg__args *a, const rg__name *name);
void rg__args_buf(rg__args *a, const rg__buf *b);
void rg__args_u64(rg__args *a, uint64_t v); /* at most 8 */

/* ---- key.c ---- */
int rg__key_prefixes(rg__shared *s);
/* The part of a key's text that names the table: ':' and '%' escaped, pool in front. */
void rg__key_table(const rg_type *t, rg__buf *out);
/* In an id's place: announces that nothing of the table holds. */
#define RG__ALL_ROWS "*"
void rg__key_escape(const char *name, rg__buf *out);
/* "<index>.<digest>:", as it follows the table. */
void rg__key_index(const rg__index *x, rg__buf *out);
uint64_t rg__key_hash(const rg__shared *s, rg__slice k);

/* ---- entry.c ---- */
/* Reads an entry into out (found, pending, block, deltas). epoch: 8 bytes. False when it is not
 * well-formed or its row does not pass the check: found is MISS, or BYPASS when it is pending. */
bool rg__entry_read(const rg_type *t, bool is_row, const rg__key *key, rg__slice bytes,
                    uint64_t epoch, rg__entry *out);
/* A row out of V or P, checked; NULL when there is none. */
rg_block *rg__entry_row(const rg_type *t, uint64_t id, rg__slice bytes);
/* "ms-seq" and 32 hex digits; false when it is none. */
bool rg__id_to_hex(const char *id, uint32_t part, char hex[RG__ID_HEX]);
bool rg__id_from_hex(const char *hex, char id[48]);

/* ---- life.c: does the data belong to the server that answers? ----
 * Nothing of a connection is used before that is known, and plain reads ask again each second: a server
 * that restarted, or took another's place, may hold older data than was read before. */
int rg__life_ask(rg__shared *s, rg__redis *c, const rg__ctx *ctx, rg_err *err);
/* Is the connection new, or was asked too long ago? Then what follows goes along with the read. */
bool rg__life_due(rg__shared *s, rg__redis *c);
int rg__life_append(rg__shared *s, rg__redis *c, rg_err *err);
int rg__life_take(rg__shared *s, rg__redis *c, const rg__ctx *ctx, rg_err *err);
/* ---- agree.c ---- */
/* Writes down the policies of the schema's types; false: no memory. */
bool rg__agree_init(rg__shared *s);
/* On a connection between exchanges. EMISUSE when other programs have other policies. */
int rg__agree(rg__shared *s, rg__redis *c, const rg__ctx *ctx, uint64_t epoch, rg_err *err);
/* What another script told of the epoch. */
void rg__shared_learn(rg__shared *s, uint64_t epoch);

/* ---- breaker.c ---- */
/* True: read past Redis. False: try, and tell how it went. */
bool rg__breaker_open(rg__shared *s);
void rg__breaker_note(rg__shared *s, bool timed_out);

/* ---- shared.c ---- */
uint64_t rg__epoch_of(const char *bytes);
/* The context with an earlier deadline. */
rg__ctx rg__ctx_within(const rg__ctx *ctx, int64_t ms);
/* For what follows an outcome (fill, publish, restore): bounded, but tried in any case. */
rg__ctx rg__ctx_finish(const rg__ctx *ctx);
/* epoch and marked key, then entries. */
void rg__args_keys(rg__args *a, const rg__shared *s, const rg__key *keys, size_t n);
/* Acquires, calls, releases; again on another connection when one was lost: scripts may be run twice.
 * REDIS_REPLY_ERROR is a failure. */
int rg__shared_run(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys,
                   const rg__args *a, redisReply **reply, rg_err *err);
/* The same of a command that may be run twice. */
int rg__shared_command(rg__shared *s, const rg__ctx *ctx, const rg__args *a, redisReply **reply,
                       rg_err *err);
/* As rg__shared_run, until the deadline: for what must not be missed by a server that restarts. */
int rg__shared_insist(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys,
                      const rg__args *a, redisReply **reply);
void rg__shared_drop_process(rg__shared *s, const rg__key *key);

/* A script of this folder with what all begin with. */
#define RG__SCRIPT(var, file)                                                                      \
    static const char *const var##_parts[] = {rg__script_text_prelude, rg__script_text_marks,      \
                                              rg__script_text_##file, NULL};                       \
    static rg__script var = {.name = #file, .parts = var##_parts}

#endif
