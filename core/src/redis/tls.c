/* SPDX-License-Identifier: MIT */
/* TLS on a connection's socket: OpenSSL over a transport that raises no SIGPIPE. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/err.h"
#include "redis/conn.h"

/* ---- the transport: OpenSSL's own one writes with write(), which may raise SIGPIPE ---- */

static int bio_write(BIO *b, const char *p, int n) {
    const rg__redis *c = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    ssize_t done = send(c->fd, p, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(b);
    return (int)done;
}

static int bio_read(BIO *b, char *p, int n) {
    const rg__redis *c = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    ssize_t done = recv(c->fd, p, (size_t)n, MSG_DONTWAIT);
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(b);
    return (int)done;
}

static long bio_ctrl(BIO *b, int cmd, long n, void *p) {
    (void)b, (void)n, (void)p;
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *transport;
static pthread_once_t transport_once = PTHREAD_ONCE_INIT;

static void make_transport(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "regolith socket");
    if (!m) return;
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_ctrl(m, bio_ctrl);
    transport = m;
}

/* ---- the pool's context ---- */

static int fail(rg_err *err, int code, const char *what) {
    char reason[200] = "unknown reason";
    unsigned long e = ERR_get_error();
    if (e) ERR_error_string_n(e, reason, sizeof reason);
    ERR_clear_error();
    rg__fail(err, code, "TLS: %s: %s", what, reason);
    if (err) err->domain = RG_DOMAIN_REDIS;
    return code;
}

static int load_files(SSL_CTX *ctx, const rg_pool_opts *o, rg_err *err) {
    if (o->tls_ca && SSL_CTX_load_verify_locations(ctx, o->tls_ca, NULL) != 1)
        return fail(err, RG_ECONFIG, "tls_ca");
    if (!o->tls_ca && SSL_CTX_set_default_verify_paths(ctx) != 1)
        return fail(err, RG_ECONFIG, "system CAs");
    if (o->tls_cert && SSL_CTX_use_certificate_chain_file(ctx, o->tls_cert) != 1)
        return fail(err, RG_ECONFIG, "tls_cert");
    if (o->tls_key && SSL_CTX_use_PrivateKey_file(ctx, o->tls_key, SSL_FILETYPE_PEM) != 1)
        return fail(err, RG_ECONFIG, "tls_key");
    return RG_OK;
}

static SSL_CTX *make_context(const rg_pool_opts *o, rg_err *err) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx) {
        rg__fail_memory(err);
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, o->tls == RG_TLS_VERIFY ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (load_files(ctx, o, err) == RG_OK) return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

/* Two threads may make one each; the second one's is thrown away. */
static SSL_CTX *context(rg__redis_pool *pool, rg_err *err) {
    pthread_mutex_lock(&pool->lock);
    SSL_CTX *ctx = pool->tls;
    pthread_mutex_unlock(&pool->lock);
    if (ctx) return ctx;
    ctx = make_context(&pool->opts, err);
    if (!ctx) return NULL;
    pthread_mutex_lock(&pool->lock);
    SSL_CTX *spare = pool->tls ? ctx : NULL;
    if (!pool->tls) pool->tls = ctx;
    ctx = pool->tls;
    pthread_mutex_unlock(&pool->lock);
    SSL_CTX_free(spare);
    return ctx;
}

void rg__redis_tls_pool_free(rg__redis_pool *pool) {
    SSL_CTX_free(pool->tls);
    pool->tls = NULL;
}

/* ---- the handshake ---- */

static bool is_address(const char *host) {
    unsigned char ip[16];
    return inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1;
}

/* Server name indication, and the name that the certificate must be for. */
static bool set_name(SSL *tls, const rg_pool_opts *o) {
    if (!o->host) return true;
    if (is_address(o->host))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), o->host) == 1;
    SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(tls, o->host) == 1 && SSL_set1_host(tls, o->host) == 1;
}

static int attach(rg__redis *c, SSL_CTX *ctx, rg_err *err) {
    pthread_once(&transport_once, make_transport);
    BIO *bio = transport ? BIO_new(transport) : NULL;
    c->tls = SSL_new(ctx);
    if (!bio || !c->tls) {
        BIO_free(bio);
        return rg__fail_memory(err);
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(c->tls, bio, bio);
    if (!set_name(c->tls, &c->pool->opts)) return fail(err, RG_ECONFIG, "host name");
    return RG_OK;
}

static int handshake_failed(rg__redis *c, rg_err *err) {
    long verified = SSL_get_verify_result(c->tls);
    c->broken = true;
    if (verified == X509_V_OK || c->pool->opts.tls != RG_TLS_VERIFY)
        return fail(err, RG_EUNAVAILABLE, "handshake");
    ERR_clear_error();
    rg__fail(err, RG_EACCESS, "TLS: the server's certificate is refused: %s",
             X509_verify_cert_error_string(verified));
    if (err) err->domain = RG_DOMAIN_REDIS;
    return RG_EACCESS;
}

int rg__redis_tls_start(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    SSL_CTX *ctx = context(c->pool, err);
    if (!ctx) return err ? err->code : RG_ECONFIG;
    int rc = attach(c, ctx, err);
    while (rc == RG_OK) {
        int done = SSL_connect(c->tls);
        if (done == 1) return RG_OK;
        int want = SSL_get_error(c->tls, done);
        if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE)
            return handshake_failed(c, err);
        int ready =
            rg__redis_wait(c, want == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline_ms, err);
        if (ready == 0) return rg__redis_timed_out(c, err);
        if (ready < 0) rc = ready;
    }
    return rc;
}

void rg__redis_tls_free(rg__redis *c) {
    if (c->tls) SSL_free(c->tls);
    c->tls = NULL;
}

/* ---- bytes ---- */

static ssize_t outcome(rg__redis *c, int n, short *events) {
    if (n > 0) return n;
    int want = SSL_get_error(c->tls, n);
    ERR_clear_error();
    if (want == SSL_ERROR_ZERO_RETURN) return 0;
    bool again = want == SSL_ERROR_WANT_READ || want == SSL_ERROR_WANT_WRITE;
    *events = want == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
    errno = again ? EAGAIN : ECONNRESET;
    return -1;
}

ssize_t rg__redis_tls_recv(rg__redis *c, void *p, size_t n, short *events) {
    return outcome(c, SSL_read(c->tls, p, n > INT32_MAX ? INT32_MAX : (int)n), events);
}

ssize_t rg__redis_tls_send(rg__redis *c, const void *p, size_t n, short *events) {
    return outcome(c, SSL_write(c->tls, p, n > INT32_MAX ? INT32_MAX : (int)n), events);
}
