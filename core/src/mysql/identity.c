/* SPDX-License-Identifier: MIT */
/* Which server a pool is connected to: after a failover it is another one, that may lack what the former
 * one had committed last. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mysql/due.h"
#include "mysql/pool.h"

/* Nodes of one Galera cluster are one server in this: none lacks what another has committed. */
static const char maria[] =
    "SELECT IF(@@wsrep_on,CONCAT('galera:',@@wsrep_cluster_name),"
    "CONCAT_WS(':',@@hostname,@@port,@@server_id,@@gtid_domain_id,@@datadir))";
static const char maria_alone[] =
    "SELECT CONCAT_WS(':',@@hostname,@@port,@@server_id,@@gtid_domain_id,@@datadir)";
/* A copy of a data directory has the uuid of its original. */
static const char oracle[] = "SELECT CONCAT_WS(':',@@server_uuid,@@hostname,@@port,@@datadir)";

static const char galera[] = "galera:";

static bool ask(rg__mysql *c, const char *sql) {
    if (mysql_real_query(c->my, sql, strlen(sql)) != 0) return false;
    MYSQL_RES *res = mysql_store_result(c->my);
    if (!res) return false;
    MYSQL_ROW row = mysql_fetch_row(res);
    bool known = row && row[0];
    c->pipelines = known && sql != oracle && strncmp(row[0], galera, strlen(galera)) != 0 && rg__due_possible(c);
    if (known) atomic_store(&c->pool->identity, XXH3_64bits(row[0], strlen(row[0])) | 1);
    mysql_free_result(res);
    return known;
}

void rg__conn_identify(rg__mysql *c) {
    bool mariadb = c->flavour == RG__MARIADB;
    if (!ask(c, mariadb ? maria : oracle) && mariadb) ask(c, maria_alone);
}

uint64_t rg__mysql_identity(const rg__mysql_pool *pool) {
    return atomic_load_explicit(&pool->identity, memory_order_relaxed);
}
