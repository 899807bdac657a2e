/* SPDX-License-Identifier: MIT */
/* Errors: one enum, one struct, no allocation. */
#ifndef REGOLITH_ERR_H
#define REGOLITH_ERR_H

#ifndef __RG_CDEF__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <regolith/api.h>
#endif

/* Every failing call returns one of these, negated in the enum so that `< 0` is the test. The name
 * (second member) is the stable string that a Lua user sees as err.code. */
#ifndef __RG_CDEF__
/* clang-format off */
#define RG_ERROR_MAP(X)                                                                            \
    X(1,  INVALID,          "a value, option or definition is not acceptable; names the field")    \
    X(2,  MISUSE,           "the call is not allowed in this state")                               \
    X(3,  NO_MEMORY,        "out of memory")                                                       \
    X(4,  LIMIT,            "a configured bound was reached")                                      \
    X(5,  TIMEOUT,          "the deadline passed")                                                 \
    X(6,  UNAVAILABLE,      "a server cannot be reached or refuses work for now")                  \
    X(7,  ACCESS,           "a server refuses the credentials or the privilege")                   \
    X(8,  DUPLICATE_KEY,    "a unique index has that value already; names the index")              \
    X(9,  FOREIGN_KEY,      "a foreign key refuses the change")                                    \
    X(10, CONSTRAINT,       "a check, NOT NULL or type constraint of the server refuses the value")\
    X(11, CONFLICT,         "the row changed or vanished since it was read")                       \
    X(12, DEADLOCK,         "deadlock, certification failure or lock wait timeout; retriable")     \
    X(13, COMMIT_UNKNOWN,   "the connection died while COMMIT was in flight and it is unresolved") \
    X(14, BACKPRESSURE,     "the queue is at its bound")                                           \
    X(15, PENDING,          "queued writes of the same row are not applied yet")                   \
    X(16, CORRUPT,          "bytes that cannot be what they claim to be")                          \
    X(17, SCHEMA,           "the database lacks a table or column, or it differs")                 \
    X(18, SQL,              "another error of the MySQL server")                                   \
    X(19, REDIS,            "another error of the Redis server")                                   \
    X(20, CLOSED,           "the handle is closed")                                                \
    X(21, CANCELLED,        "the operation was abandoned")                                         \
    X(22, CONFIG,           "the configuration is wrong; the message lists every fault")           \
    X(23, READ_ONLY,        "the server accepts no writes now")                                    \
    X(24, INTERNAL,         "a broken invariant of the library; please report it")             \
    X(25, UNEXPECTED_ROLLBACK, "a transaction that was to be committed was rolled back; cause says why")\
    X(26, SELF_DEADLOCK,    "the row was written by a suspended transaction of the same caller") \
    X(27, LOCK_LOST,        "the lock is not held any more")                                                \
    X(28, SPLIT,            "the flush is not of one partition of the queue")                      \
    X(29, DURABILITY,       "it is queued, but not as safely as was asked for")                    \
    X(30, GAP,              "entries that MySQL has not seen are gone from the queue")
/* clang-format on */
#endif

typedef enum rg_code {
    RG_OK = 0,
    RG_EINVALID = -1,
    RG_EMISUSE = -2,
    RG_ENO_MEMORY = -3,
    RG_ELIMIT = -4,
    RG_ETIMEOUT = -5,
    RG_EUNAVAILABLE = -6,
    RG_EACCESS = -7,
    RG_EDUPLICATE_KEY = -8,
    RG_EFOREIGN_KEY = -9,
    RG_ECONSTRAINT = -10,
    RG_ECONFLICT = -11,
    RG_EDEADLOCK = -12,
    RG_ECOMMIT_UNKNOWN = -13,
    RG_EBACKPRESSURE = -14,
    RG_EPENDING = -15,
    RG_ECORRUPT = -16,
    RG_ESCHEMA = -17,
    RG_ESQL = -18,
    RG_EREDIS = -19,
    RG_ECLOSED = -20,
    RG_ECANCELLED = -21,
    RG_ECONFIG = -22,
    RG_EREAD_ONLY = -23,
    RG_EINTERNAL = -24,
    RG_EUNEXPECTED_ROLLBACK = -25,
    RG_ESELF_DEADLOCK = -26,
    RG_ELOCK_LOST = -27,
    RG_ESPLIT = -28,
    RG_EDURABILITY = -29,
    RG_EGAP = -30
} rg_code;

/* Where the error came from. */
typedef enum rg_domain { RG_DOMAIN_NONE = 0, RG_DOMAIN_ENGINE, RG_DOMAIN_MYSQL, RG_DOMAIN_REDIS } rg_domain;

/* What a caller may do about it; the consumer and the retries act on this. */
typedef enum rg_class {
    RG_CLASS_NONE = 0,
    RG_CLASS_RETRY,     /* R0: run the whole transaction again now */
    RG_CLASS_RECONNECT, /* R1: the connection is dead; nothing was applied unless ambiguous */
    RG_CLASS_WAIT,      /* R2: wait and tell the operator */
    RG_CLASS_PERMANENT, /* P: never retry as it is */
    RG_CLASS_AMBIGUOUS  /* A: outcome unknown until resolved */
} rg_class;

/* Caller's storage; plain values only. Zero-initialised means "no error". */
typedef struct rg_err {
    int32_t code;          /* rg_code */
    int32_t domain;        /* rg_domain */
    int32_t cls;           /* rg_class */
    uint32_t sql_errno;    /* the server's number; 0 when none */
    char sqlstate[8];      /* five characters and NUL; "" when none */
    int32_t retriable;     /* 1: the same call may succeed later unchanged */
    int32_t item;          /* index of the flush item at fault, or -1 */
    char field[72];        /* field named by INVALID; "" when none */
    char index[72];        /* index named by DUPLICATE_KEY; "" when none */
    char entity[72];       /* entity concerned; "" when none */
    char message[768];     /* NUL-terminated UTF-8, never holds a secret */
} rg_err;

/* The stable name of a code ("DUPLICATE_KEY"); "OK" for 0, "UNKNOWN" for anything else. Pure. */
RG_API const char *rg_code_name(int code);

#endif
