/* SPDX-License-Identifier: MIT */
/* Transactions: a physical one and its savepoints. Which scope joins which, callbacks and entities are
 * the host language's; what is sent to the servers, and when, is decided here.
 *
 * A transaction sends nothing before the first statement that needs it, and nothing at its end when
 * there was none. It is bound to a session: what the session does on that pool is part of it.
 * Confined; operations on it run one at a time. */
#ifndef REGOLITH_TX_H
#define REGOLITH_TX_H

#ifndef __RG_CDEF__
#include <regolith/op.h>
#endif

typedef enum rg_propagation {
    RG_PROPAGATION_REQUIRED = 0,
    RG_PROPAGATION_SUPPORTS,
    RG_PROPAGATION_MANDATORY,
    RG_PROPAGATION_REQUIRES_NEW,
    RG_PROPAGATION_NOT_SUPPORTED,
    RG_PROPAGATION_NEVER,
    RG_PROPAGATION_NESTED
} rg_propagation;

/* What a scope does, given a propagation and whether there is a transaction. */
typedef enum rg_tx_action {
    RG_TX_CREATE = 1,
    RG_TX_JOIN,
    RG_TX_SAVEPOINT,
    RG_TX_SUSPEND_AND_CREATE,
    RG_TX_SUSPEND,
    RG_TX_RUN_WITHOUT,
    RG_TX_REFUSE
} rg_tx_action;
/* EINVALID for an unknown propagation. Pure. */
RG_API int rg_tx_action_of(int propagation, int exists);

typedef struct rg_tx rg_tx;

typedef enum rg_tx_phase {
    RG_TX_IDLE = 0,   /* nothing was sent yet */
    RG_TX_OPEN,
    RG_TX_DOOMED,     /* only a rollback is left: the server undid it, the connection or the time is up */
    RG_TX_COMMITTED,
    RG_TX_ROLLED_BACK,
    RG_TX_UNKNOWN     /* nobody knows whether it was committed */
} rg_tx_phase;

typedef struct rg_tx_opts {
    uint32_t size;       /* sizeof(rg_tx_opts) */
    const char *pool;    /* NULL: "default" */
    int32_t isolation;   /* 0 the server's, 1 READ UNCOMMITTED, 2 READ COMMITTED, 3 REPEATABLE READ,
                            4 SERIALIZABLE, 5 SNAPSHOT */
    int32_t read_only;
    uint32_t timeout_ms; /* of all of it, COMMIT included; 0: none */
} rg_tx_opts;

/* outer: the transaction on the same pool that is suspended meanwhile, or NULL; a reference is held. */
RG_API rg_tx *rg_tx_new(rg_engine *engine, const rg_tx_opts *opts, rg_tx *outer, rg_err *err);
/* Drops the handle; never waits. A transaction that was not ended is rolled back by closing its
 * connection. */
RG_API void rg_tx_free(rg_tx *tx);
RG_API int rg_tx_phase_of(const rg_tx *tx);
/* Why it is doomed, rolled back or unknown; code 0 when it is not. Borrowed from the transaction. */
RG_API const rg_err *rg_tx_cause(const rg_tx *tx);

/* Number of a MySQL pool by name, or EINVALID naming those there are. */
RG_API int rg_engine_pool(const rg_engine *engine, const char *name, rg_err *err);
/* Number of the MySQL pool that a type is on; negative when there is no such type. */
RG_API int rg_engine_type_pool(const rg_engine *engine, uint32_t type);
/* What the session does on that pool from now on is part of tx (NULL: of none). suspended: the one that
 * is suspended there meanwhile; who has one must not wait for a connection, nor for its locks. */
RG_API int rg_session_enter(rg_session *s, int pool, rg_tx *tx, rg_tx *suspended, rg_err *err);
/* A session with nothing in it that shares with another what replicas must know. */
RG_API rg_session *rg_session_beside(rg_session *s, rg_err *err);
/* Binds an operation to the transactions that the session is in; before it runs. */
RG_API int rg_op_within(rg_op *op, rg_session *s, rg_err *err);

/* Begins now instead of with the first statement. */
RG_API rg_op *rg_op_tx_begin(rg_tx *tx, rg_err *err);
/* MARK, COMMIT, PUBLISH. resolve: leaves a row that tells, should the answer to COMMIT be lost, whether
 * it was done. Afterwards the transaction has ended, one way or another. */
RG_API rg_op *rg_op_tx_commit(rg_tx *tx, int resolve, rg_err *err);
/* What the transaction has set and deleted in caches of values (regolith/cache.h), each key and each tag
 * once, before its commit runs: as with rows, nobody is served what it replaces once it is committed,
 * whoever dies. While Redis cannot be told nothing is committed. A tag is of the last value that was set. */
RG_API int rg_op_tx_set(rg_op *commit, uint32_t cache, const char *key, size_t key_len, const char *value,
                        size_t len, double ttl_ms, rg_err *err);
RG_API int rg_op_tx_tag(rg_op *commit, const char *tag, size_t len, rg_err *err);
RG_API int rg_op_tx_delete(rg_op *commit, uint32_t cache, const char *key, size_t len, rg_err *err);
RG_API int rg_op_tx_delete_tag(rg_op *commit, uint32_t cache, const char *tag, size_t len, rg_err *err);
RG_API rg_op *rg_op_tx_rollback(rg_tx *tx, rg_err *err);

/* Savepoints. Setting and leaving one sends nothing; the depth, or negative. */
RG_API int rg_tx_push(rg_tx *tx, rg_err *err);
RG_API int rg_tx_merge(rg_tx *tx, rg_err *err);
/* Rolls back to the innermost one and leaves it. */
RG_API rg_op *rg_op_tx_undo(rg_tx *tx, rg_err *err);

/* ---- a session's rows, as they were ---- */
/* Remembers the rows in all slots. The save's number, from 1. */
RG_API int rg_session_save(rg_session *s, rg_err *err);
/* Forgets a save. */
RG_API void rg_session_unsave(rg_session *s, int save);
/* Gives every slot its row of the save back, and forgets the save. A slot pinned since has the row
 * that it had first, or none when that was one of the transaction's own. */
RG_API void rg_session_restore(rg_session *s, int save);
/* Before that: a slot shall keep the row that it has now. */
RG_API int rg_session_keep(rg_session *s, int save, uint32_t slot, rg_err *err);

#endif
