/* SPDX-License-Identifier: MIT */
/* One connection: options, TLS, the session state that everything else relies on, its end. */
#include "mysql/due.h"
#include "mysql/pool.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/x509.h>
#include "base/alloc.h"

/* Longer than any deadline: the deadline of a call ends it, this is for a call without one. */
enum { BACKSTOP_S = 3600 };

static const char sql_mode[] =
    "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/* ---- options ---- */

static void set_uint(MYSQL *my, enum mysql_option option, unsigned v) {
    mysql_options(my, option, &v);
}

static void set_flag(MYSQL *my, enum mysql_option option, bool v) {
    rg__flag flag = v;
    mysql_options(my, option, &flag);
}

static void set_text(MYSQL *my, enum mysql_option option, const char *v) {
    if (v) mysql_options(my, option, v);
}

#if RG__CLIENT_MARIADB
static void set_tls_mode(MYSQL *my, int tls) {
    set_flag(my, MYSQL_OPT_SSL_ENFORCE, tls != RG_TLS_OFF);
    set_flag(my, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, tls == RG_TLS_VERIFY);
    /* A server that could be anybody must not ask for the password in clear. */
    if (tls != RG_TLS_VERIFY)
        set_text(my, MARIADB_OPT_RESTRICTED_AUTH,
                 "mysql_native_password,client_ed25519,caching_sha2_password,sha256_password,"
                 "auth_gssapi_client,parsec");
}
#else
static void set_tls_mode(MYSQL *my, int tls) {
    set_uint(my, MYSQL_OPT_SSL_MODE,
             tls == RG_TLS_OFF      ? SSL_MODE_DISABLED
             : tls == RG_TLS_VERIFY ? SSL_MODE_VERIFY_IDENTITY
                                    : SSL_MODE_REQUIRED);
    /* Without TLS, caching_sha2_password needs the server's key to hide the password. */
    if (tls == RG_TLS_OFF) set_flag(my, MYSQL_OPT_GET_SERVER_PUBLIC_KEY, true);
}
#endif

static void set_tls(MYSQL *my, const rg_pool_opts *o) {
    set_tls_mode(my, o->tls);
    if (o->tls == RG_TLS_OFF) return;
    set_text(my, MYSQL_OPT_SSL_CA, o->tls_ca);
    if (!o->tls_ca && o->tls == RG_TLS_VERIFY)
        set_text(my, MYSQL_OPT_SSL_CAPATH, X509_get_default_cert_dir());
    set_text(my, MYSQL_OPT_SSL_CERT, o->tls_cert);
    set_text(my, MYSQL_OPT_SSL_KEY, o->tls_key);
    set_text(my, MYSQL_OPT_TLS_VERSION, "TLSv1.2,TLSv1.3");
}

static void set_options(MYSQL *my, const rg_pool_opts *o, int left_ms) {
    set_uint(my, MYSQL_OPT_CONNECT_TIMEOUT, (unsigned)(left_ms + 999) / 1000);
    set_uint(my, MYSQL_OPT_READ_TIMEOUT, BACKSTOP_S);
    set_uint(my, MYSQL_OPT_WRITE_TIMEOUT, BACKSTOP_S);
    set_uint(my, MYSQL_OPT_LOCAL_INFILE, 0);
    set_uint(my, MYSQL_OPT_PROTOCOL, o->unix_path ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP);
    unsigned long packet = 1UL << 30; /* the server's own bound is the one that counts */
    mysql_options(my, MYSQL_OPT_MAX_ALLOWED_PACKET, &packet);
    set_text(my, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    set_flag(my, MYSQL_REPORT_DATA_TRUNCATION, true);
    set_tls(my, o);
    rg__wait_install(my);
}

/* ---- what the server is ---- */

static void read_version(rg__mysql *c) {
    const char *info = mysql_get_server_info(c->my);
    if (!info) info = "";
    if (strncmp(info, "5.5.5-", 6) == 0) info += 6;
    char *at = NULL;
    unsigned long major = strtoul(info, &at, 10);
    unsigned long minor = *at == '.' ? strtoul(at + 1, &at, 10) : 0;
    unsigned long patch = *at == '.' ? strtoul(at + 1, &at, 10) : 0;
    c->version = (unsigned)(major * 10000 + minor * 100 + patch);
    c->flavour = strstr(info, "MariaDB") ? RG__MARIADB : RG__MYSQL;
    bool speaks_only = strstr(info, "TiDB") || strstr(info, "Vitess");
    c->json_table =
        c->flavour == RG__MARIADB ? c->version >= 100600 : c->version >= 80004 && !speaks_only;
}

/* ---- session state ---- */

static int run(rg__mysql *c, const char *sql, rg_err *err) {
    if (mysql_real_query(c->my, sql, strlen(sql)) == 0) return 0;
    return rg__mysql_error(c, err, "preparing the session");
}

static bool is(const char *value, const char *want) {
    return value && strcmp(value, want) == 0;
}

/* MySQL 8 has dropped nothing of this; MariaDB may name the character set utf8mb4 only. */
static bool row_is_pinned(char **row) {
    return is(row[0], sql_mode) && is(row[1], "+00:00") && is(row[2], "utf8mb4") &&
           is(row[3], "utf8mb4") && is(row[4], "utf8mb4") && is(row[5], "1");
}

/* Resetting a session leaves it in the database that a USE took it to: what it was opened in is kept. */
static bool is_at_home(rg__mysql *c, const char *database) {
    if (!database) return false;
    if (!c->home[0]) snprintf(c->home, sizeof c->home, "%s", database);
    return is(database, c->home);
}

static void read_limits(rg__mysql *c, char **row) {
    c->max_packet = row[6] ? strtoull(row[6], NULL, 10) : 0;
    c->id_step = row[7] ? strtoull(row[7], NULL, 10) : 0;
    if (c->max_packet < 1024) c->max_packet = 1024;
    if (c->id_step == 0) c->id_step = 1;
}

static int verify_pins(rg__mysql *c, rg_err *err) {
    int code = run(c,
                   "SELECT @@sql_mode, @@time_zone, @@character_set_client, "
                   "@@character_set_connection, @@character_set_results, @@autocommit, "
                   "@@max_allowed_packet, @@auto_increment_increment, DATABASE()",
                   err);
    if (code) return code;
    MYSQL_RES *res = mysql_store_result(c->my);
    if (!res) return rg__mysql_error(c, err, "preparing the session");
    MYSQL_ROW row = mysql_fetch_row(res);
    bool ok = row && mysql_num_fields(res) == 9 && row_is_pinned(row) && is_at_home(c, row[8]);
    if (ok) read_limits(c, row);
    mysql_free_result(res);
    if (ok) return 0;
    return rg__fail(err, RG_EUNAVAILABLE, "the server did not take the session's settings");
}

static int pin_session(rg__mysql *c, rg_err *err) {
    char sql[400];
    snprintf(sql, sizeof sql,
             "SET SESSION sql_mode='%s', SESSION time_zone='+00:00', SESSION autocommit=1, "
             "SESSION lc_messages='en_US'",
             sql_mode);
    int code = run(c, sql, err);
    return code ? code : verify_pins(c, err);
}

int rg__conn_reset(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__due_forget(c);
    rg__wait_begin(c, ctx->deadline_ms);
    int code = mysql_reset_connection(c->my) ? rg__mysql_error(c, err, "resetting the session") : 0;
    rg__stmt_clear(c);
    if (code == 0) code = pin_session(c, err);
    if (code == 0) rg__track_start(c);
    if (rg__wait_end(c) || code) c->broken = true;
    c->tx = RG__TXS_NONE;
    c->tainted = c->broken;
    return code;
}

/* ---- connecting ---- */

static int check_tls(rg__mysql *c, const rg_pool_opts *o, rg_err *err) {
    if (o->tls == RG_TLS_OFF || c->tls) return 0;
    return rg__fail(err, RG_EACCESS, "the server does not offer TLS, which the pool asks for");
}

static int connect_server(rg__mysql *c, int64_t deadline, rg_err *err) {
    const rg_pool_opts *o = rg__pool_opts(c->pool);
    set_options(c->my, o, rg__left_ms(deadline));
    rg__wait_begin(c, deadline);
    MYSQL *my = mysql_real_connect(c->my, o->unix_path ? "localhost" : o->host, o->user,
                                   o->password, o->database, o->unix_path ? 0 : o->port,
                                   o->unix_path, CLIENT_FOUND_ROWS | CLIENT_MULTI_RESULTS);
    bool late = rg__wait_end(c) || (!my && rg__left_ms(deadline) == 0);
    c->fd = my ? (int)c->my->net.fd : -1;
    c->tls = my && mysql_get_ssl_cipher(c->my) != NULL;
    if (my) return check_tls(c, o, err);
    /* Until the handshake nobody knows whose numbers these are; both flavours agree on them. */
    int code = rg__sql_fail(RG__MARIADB | RG__MYSQL, mysql_errno(c->my), mysql_sqlstate(c->my),
                            mysql_error(c->my), "connecting", err);
    return late ? rg__fail(err, RG_ETIMEOUT, "connecting: the deadline passed") : code;
}

static int start_session(rg__mysql *c, int64_t deadline, rg_err *err) {
    read_version(c);
    rg__wait_begin(c, deadline);
    int code = pin_session(c, err);
    if (code == 0) rg__track_start(c);
    if (code == 0) rg__conn_identify(c);
    bool late = rg__wait_end(c);
    return late ? rg__fail(err, RG_ETIMEOUT, "preparing the session: the deadline passed") : code;
}

rg__mysql *rg__conn_open(rg__mysql_pool *pool, const rg__ctx *ctx, rg_err *err) {
    const rg_pool_opts *o = rg__pool_opts(pool);
    int64_t deadline = rg__deadline_within(ctx->deadline_ms, o->connect_timeout_ms);
    if (rg__left_ms(deadline) == 0) {
        rg__fail(err, RG_ETIMEOUT, "connecting: the deadline passed before anything was sent");
        return NULL;
    }
    rg__mysql *c = rg__calloc(1, sizeof *c);
    if (!c) goto no_memory;
    c->pool = pool;
    c->fd = c->watch_fd = -1;
    c->tls = o->tls != RG_TLS_OFF;
    c->pid = rg__pid();
    c->flavour = RG__MARIADB;
    rg__list_init(&c->node);
    rg__list_init(&c->stmt_lru);
    c->stmts = rg__map_new();
    c->my = mysql_init(NULL);
    if (!c->stmts || !c->my) goto no_memory;
    rg__count(ctx->metrics, RG__C_MYSQL_CONNECTS, 1);
    if (connect_server(c, deadline, err) || start_session(c, deadline, err)) goto failed;
    return c;
no_memory:
    rg__fail_memory(err);
failed:
    if (c) rg__conn_close(c);
    return NULL;
}

/* ---- the end ---- */

/* The client library closes its socket when a call fails; its number may be another one's by now. */
void rg__conn_forget_closed(rg__mysql *c) {
    if (c->fd < 0 || !c->my || RG__SOCKET_OF(c->my)) return;
    pthread_mutex_lock(&c->pool->lock);
    c->fd = -1;
    pthread_mutex_unlock(&c->pool->lock);
}

void rg__conn_cut(rg__mysql *c) {
    if (c->fd >= 0) shutdown(c->fd, SHUT_RDWR);
}

/* The library may write to it and close it: neither reaches the server. */
void rg__conn_abandon(rg__mysql *c) {
    c->broken = true;
    if (c->fd < 0) return;
    int nowhere[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, nowhere) == 0) {
        close(nowhere[1]);
        dup3(nowhere[0], c->fd, O_CLOEXEC);
        close(nowhere[0]);
    } else {
        close(c->fd);
        c->my = NULL; /* leaks it: closing would close a descriptor that is no longer ours */
    }
    c->fd = -1;
}

void rg__conn_close(rg__mysql *c) {
    if (c->fd >= 0 && c->pid != rg__pid()) rg__conn_abandon(c);
    rg__conn_forget_closed(c);
    if (c->broken) rg__conn_cut(c);
    rg__wait_begin(c, rg__now_ms() + 100);
    if (c->my) rg__stmt_clear(c);
    if (c->my) mysql_close(c->my);
    rg__wait_end(c);
    rg__map_free(c->stmts);
    rg__buf_deinit(&c->text);
    rg__buf_deinit(&c->key);
    rg__buf_deinit(&c->position);
    rg__free(c);
}

/* ---- health ---- */

bool rg__conn_quiet(const rg__mysql *c) {
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    return !c->broken && poll(&p, 1, 0) == 0;
}

int rg__conn_ping(rg__mysql *c, const rg__ctx *ctx) {
    rg__wait_begin(
        c, rg__deadline_within(ctx->deadline_ms, rg__pool_opts(c->pool)->connect_timeout_ms));
    int failed = mysql_ping(c->my);
    if (rg__wait_end(c) || failed) c->broken = true;
    return failed ? RG_EUNAVAILABLE : 0;
}

rg__buf *rg__conn_text(rg__mysql *c) {
    rg__buf_clear(&c->text);
    return &c->text;
}

void rg__conn_text_done(rg__mysql *c) {
    if (c->text.cap > 1 << 20) rg__buf_deinit(&c->text);
}

/* ---- what others ask ---- */

rg__flavour rg__mysql_flavour(const rg__mysql *c) {
    return c->flavour;
}
unsigned rg__mysql_version(const rg__mysql *c) {
    return c->version;
}
unsigned long rg__mysql_thread_id(const rg__mysql *c) {
    return mysql_thread_id(c->my);
}
size_t rg__mysql_max_packet(const rg__mysql *c) {
    return c->max_packet;
}
bool rg__mysql_alive(const rg__mysql *c) {
    return !c->broken && c->pid == rg__pid() && rg__conn_quiet(c);
}
bool rg__mysql_broken(const rg__mysql *c) {
    return c->broken;
}
bool rg__mysql_doomed(const rg__mysql *c) {
    return c->tx == RG__TXS_DOOMED;
}
unsigned rg__mysql_warnings(const rg__mysql *c) {
    return c->warnings;
}
void rg__mysql_taint(rg__mysql *c) {
    c->tainted = true;
}
void rg__mysql_poison(rg__mysql *c) {
    c->poisoned = true;
}
void rg__mysql_hang_up(rg__mysql *c) {
    c->broken = true;
    rg__conn_cut(c);
}

bool rg__mysql_in_transaction(const rg__mysql *c) {
    return !c->broken && (c->tx == RG__TXS_OPEN || c->tx == RG__TXS_MUST_ROLLBACK);
}
