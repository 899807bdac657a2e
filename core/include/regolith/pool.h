/* SPDX-License-Identifier: MIT */
/* Where the servers are and how their connections behave. */
#ifndef REGOLITH_POOL_H
#define REGOLITH_POOL_H

#ifndef __RG_CDEF__
#include <regolith/err.h>
#endif

/* How TLS is used. VERIFY checks the certificate and the name; ENCRYPT only makes sure that the
 * connection is encrypted; both refuse a server without TLS. */
typedef enum rg_tls { RG_TLS_OFF = 0, RG_TLS_VERIFY, RG_TLS_ENCRYPT } rg_tls;

/* All strings are borrowed until return and copied; passwords are zeroed when the pool is freed and
 * never appear in messages. Zero numbers take the default in brackets. */
typedef struct rg_pool_opts {
    uint32_t size;          /* sizeof(rg_pool_opts) */
    const char *name;       /* pool name, e.g. "default" */
    const char *host;       /* TCP host, or NULL */
    uint32_t port;          /* [3306 / 6379] */
    const char *unix_path;  /* unix socket, or NULL; at least one of host and unix_path */
    const char *user;       /* NULL: the client's default / none */
    const char *password;   /* NULL: none */
    const char *database;   /* MySQL schema, required; Redis: NULL */
    uint32_t db;            /* Redis database number [0] */
    int32_t tls;            /* rg_tls */
    const char *tls_ca, *tls_cert, *tls_key; /* PEM files, or NULL (system CAs) */
    uint32_t max_connections;    /* [8] */
    uint32_t connect_timeout_ms; /* [3000] */
    uint32_t timeout_ms;         /* longest single call when the operation has no deadline [30000] */
    uint32_t idle_timeout_ms;    /* idle connections are closed after [60000] */
    uint32_t max_replica_lag_ms; /* MySQL pool with replicas: one farther behind is not read [10000] */
    uint32_t max_statements;     /* prepared statements kept per MySQL connection [256] */
} rg_pool_opts;

#endif
