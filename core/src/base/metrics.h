/* SPDX-License-Identifier: MIT */
/* Counters and histograms; lock-free adds, rendered as Prometheus text. One set per engine. */
#ifndef RG_BASE_METRICS_H
#define RG_BASE_METRICS_H

#include "base/slice.h"
#include "base/slow.h"
#include <stdatomic.h>

/* X(enum, prometheus name, help) */
/* clang-format off */
#define RG__COUNTERS(X)                                                                            \
    X(PROCESS_HIT,        "regolith_process_cache_hits_total",      "rows answered by the process cache") \
    X(PROCESS_MISS,       "regolith_process_cache_misses_total",    "rows not in the process cache") \
    X(PROCESS_EVICTED,    "regolith_process_cache_evictions_total", "blocks evicted for room")      \
    X(PROCESS_INVALIDATED,"regolith_process_cache_invalidations_total","blocks dropped by invalidation") \
    X(PROCESS_CLEARED,    "regolith_process_cache_clears_total",    "times the cache was emptied because coherence was lost") \
    X(REDIS_HIT,          "regolith_redis_cache_hits_total",        "rows answered by Redis")       \
    X(REDIS_MISS,         "regolith_redis_cache_misses_total",      "rows not in Redis")            \
    X(REDIS_BYPASS,       "regolith_redis_cache_bypasses_total",    "reads that went past Redis (marked, leased or unreachable)") \
    X(CORRUPT_ENTRY,      "regolith_cache_corrupt_total",           "cache entries that failed a check and counted as a miss") \
    X(LOOKUP_MISMATCH,    "regolith_lookup_mismatch_total",         "lookups whose row did not have the values asked for") \
    X(FILL_REFUSED,       "regolith_cache_fill_refused_total",      "fills refused because the lease was lost") \
    X(VALUE_PROCESS_HIT,  "regolith_values_process_hits_total",     "values and searches answered by the process cache") \
    X(VALUE_REDIS_HIT,    "regolith_values_redis_hits_total",       "values and searches answered by Redis") \
    X(VALUE_MISS,         "regolith_values_misses_total",           "values and searches that Redis did not have") \
    X(VALUE_STALE,        "regolith_values_stale_total",            "values past their life that were served while they were loaded") \
    X(VALUE_WAIT,         "regolith_values_waits_total",            "times that somebody else's load was waited for") \
    X(VALUE_BYPASS,       "regolith_values_bypasses_total",         "values and searches that went past the cache (marked or unreachable)") \
    X(VALUE_REFUSED,      "regolith_values_fill_refused_total",     "loaded values that were refused: set, deleted or written meanwhile") \
    X(DB_ROWS_READ,       "regolith_mysql_rows_read_total",         "rows read from MySQL by key")   \
    X(MYSQL_QUERIES,      "regolith_mysql_queries_total",           "statements sent to MySQL")      \
    X(MYSQL_ERRORS,       "regolith_mysql_errors_total",            "statements that failed")        \
    X(MYSQL_CONNECTS,     "regolith_mysql_connects_total",          "MySQL connections made")        \
    X(REPLICA_READS,      "regolith_replica_reads_total",           "reads answered by a replica")   \
    X(REPLICA_BEHIND,     "regolith_replica_behind_total",          "reads that went to the primary because no replica had what their user has written") \
    X(REPLICA_SKIPPED,    "regolith_replica_skipped_total",         "reads that went to the primary because every replica was down or lagging") \
    X(REPLICA_FAILED,     "regolith_replica_failed_total",          "reads that failed on a replica and were made again on the primary") \
    X(TOKENS_REFUSED,     "regolith_tokens_refused_total",          "tokens of sessions that were none") \
    X(REDIS_COMMANDS,     "regolith_redis_commands_total",          "commands sent to Redis")        \
    X(REDIS_ERRORS,       "regolith_redis_errors_total",            "commands that failed")          \
    X(QUEUE_LOST,         "regolith_queue_lost_total",              "Times that Redis came back without flushes that it had acknowledged to this process") \
    X(QUEUE_SKIPPED,      "regolith_queue_skipped_total",           "Entries found behind the ledger after a failover, and applied all the same") \
    X(QUEUE_GAPS,         "regolith_queue_gaps_total",              "Times that entries were gone which MySQL had not seen") \
    X(REDIS_CONNECTS,     "regolith_redis_connects_total",          "Redis connections made")        \
    X(FLUSHES,            "regolith_flushes_total",                 "synchronous flushes")           \
    X(FLUSHES_FAILED,     "regolith_flushes_failed_total",          "synchronous flushes that failed") \
    X(FLUSHED_OPS,        "regolith_flushed_operations_total",      "rows written by synchronous flushes") \
    X(ENQUEUED_OPS,       "regolith_enqueued_operations_total",     "operations queued")             \
    X(APPLIED_OPS,        "regolith_applied_operations_total",      "queued operations applied")     \
    X(DEAD_OPS,           "regolith_dead_letters_total",            "queued operations that became dead letters") \
    X(BACKPRESSURE,       "regolith_backpressure_total",            "flushes that met a full queue") \
    X(LEAKED,             "regolith_leaked_handles_total",          "handles that the collector had to close")
#define RG__HISTOGRAMS(X)                                                                          \
    X(MYSQL_SECONDS, "regolith_mysql_seconds", "time of a statement")                              \
    X(REDIS_SECONDS, "regolith_redis_seconds", "time of a command or pipeline")                    \
    X(FLUSH_SECONDS, "regolith_flush_seconds", "time of a synchronous flush")                      \
    X(BATCH_SECONDS, "regolith_consumer_batch_seconds", "time of a consumer's transaction")
/* clang-format on */

typedef enum rg__counter {
#define X(id, name, help) RG__C_##id,
    RG__COUNTERS(X)
#undef X
    RG__C_END
} rg__counter;

typedef enum rg__histogram {
#define X(id, name, help) RG__H_##id,
    RG__HISTOGRAMS(X)
#undef X
    RG__H_END
} rg__histogram;

enum { RG__BUCKETS = 16 }; /* upper bounds 2^k * 25 us, last +Inf */

typedef struct rg__metrics {
    atomic_ullong counter[RG__C_END];
    struct {
        atomic_ullong bucket[RG__BUCKETS], count, sum_us;
    } histogram[RG__H_END];
    rg__slow *slow; /* NULL: nobody asks what took long */
} rg__metrics;

/* How a pool is doing. */
typedef struct rg__pool_figures {
    uint32_t busy, idle, waiting; /* connections, and callers who wait for one */
    uint32_t limit;               /* of connections */
    uint64_t errors;              /* calls that failed, connects too, and waits that were in vain */
} rg__pool_figures;

static inline void rg__count(rg__metrics *m, rg__counter c, uint64_t n) {
    if (m) atomic_fetch_add_explicit(&m->counter[c], n, memory_order_relaxed);
}
void rg__observe(rg__metrics *m, rg__histogram h, int64_t us);
/* Did a call take long enough to be remembered? */
static inline bool rg__is_slow(const rg__metrics *m, int64_t us) {
    return m && rg__slow_is(m->slow, us);
}
/* Appends HELP, TYPE and value lines of everything. */
void rg__metrics_render(const rg__metrics *m, rg__buf *out);

#endif
