/* SPDX-License-Identifier: MIT */
/* Servers for the Redis specs: the given one (REGOLITH_REDIS_SOCKET), private ones that a spec may
 * restart and destroy, and peers that say whatever they are told. */
#ifndef RG_SPEC_REDIS_SUPPORT_H
#define RG_SPEC_REDIS_SUPPORT_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "redis/redis.h"

#define UNUSED __attribute__((unused))

static rg__metrics metrics;

static UNUSED const char *given_socket(void) { return getenv("REGOLITH_REDIS_SOCKET"); }

static UNUSED rg__ctx ctx_ms(int64_t ms) {
    return (rg__ctx){.deadline_ms = rg__now_ms() + ms, .metrics = &metrics};
}

static UNUSED rg__redis_pool *pool_on(const char *path) {
    const rg_pool_opts o = {.size = sizeof o, .unix_path = path, .max_connections = 16};
    rg_err err = {0};
    rg__redis_pool *p = rg__redis_pool_new(&o, &err);
    if (!p) printf("# %s\n", err.message);
    return p;
}

/* One command on a connection of the pool; its integer, or the length of its string, or -1 for nil.
 * An error's code when it fails. */
static UNUSED long long ask(rg__redis_pool *pool, int argc, const char *const *argv) {
    rg__ctx ctx = ctx_ms(5000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    rg_err err = {0};
    int rc = rg__redis_acquire(pool, &ctx, &c, &err);
    if (rc == RG_OK) rc = rg__redis_command(c, &ctx, &r, &err, argc, argv, NULL);
    rg__redis_release(c);
    if (rc < 0) printf("# %s: %s\n", argv[0], err.message);
    if (rc < 0) return rc;
    long long n = r->type == REDIS_REPLY_INTEGER ? r->integer
                  : r->type == REDIS_REPLY_NIL   ? -1
                  : r->type == REDIS_REPLY_ARRAY ? (long long)r->elements
                                                 : (long long)r->len;
    freeReplyObject(r);
    return n;
}
#define ASK(pool, ...)                                                                             \
    ask(pool, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                       \
        (const char *[]){__VA_ARGS__})

/* ---- private servers ---- */

typedef struct server {
    pid_t pid;
    char dir[64];
    char path[96];   /* of its socket */
    char *args[24];  /* after the fixed ones; NULL-terminated; borrowed */
} server;

static UNUSED bool server_answers(const server *s) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", s->path);
    char answer[8] = "";
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && write(fd, "PING\r\n", 6) == 6 &&
              read(fd, answer, 7) > 0; /* even -NOAUTH is an answer */
    close(fd);
    return ok;
}

static UNUSED void server_exec(const server *s) {
    const char *argv[40] = {"redis-server", "--port", "0", "--unixsocket", s->path, "--dir", s->dir,
                            "--save", "", "--daemonize", "no", "--logfile", "/dev/null"};
    int n = 13;
    for (int i = 0; s->args[i]; i++) argv[n++] = s->args[i];
    int null = open("/dev/null", O_RDWR);
    dup2(null, 1);
    dup2(null, 2);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Starts (again) with what is in the structure; false when there is no redis-server. */
static UNUSED bool server_run(server *s) {
    unlink(s->path);
    pid_t parent = getpid();
    s->pid = fork();
    if (s->pid == 0) server_exec(s);
    (void)parent;
    for (int i = 0; i < 1000; i++) {
        if (server_answers(s)) return true;
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) break;
        rg__sleep_ms(5);
    }
    s->pid = 0;
    return false;
}

static UNUSED bool server_start(server *s) {
    snprintf(s->dir, sizeof s->dir, "/tmp/rg-spec-XXXXXX");
    if (!mkdtemp(s->dir)) return false;
    snprintf(s->path, sizeof s->path, "%s/redis.sock", s->dir);
    return server_run(s);
}

static UNUSED void server_kill(server *s) {
    if (s->pid <= 0) return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static UNUSED void server_remove(server *s) {
    server_kill(s);
    char command[160];
    snprintf(command, sizeof command, "rm -rf -- '%s'", s->dir);
    if (strncmp(s->dir, "/tmp/rg-spec-", 13) == 0 && system(command) != 0)
        printf("# %s\n", command);
}

/* ---- peers that say what they are told ---- */

typedef struct peer {
    char dir[64], path[96];
    int listener;
    pthread_t thread;
    const char *say;   /* sent after the first bytes came; NULL: nothing ever */
    size_t len;
    size_t piece;      /* bytes at a time; 0: all at once */
    bool hang_up;      /* close after it */
    atomic_bool stop;
} peer;

static UNUSED void peer_talk(peer *p, int fd) {
    char heard[4096];
    if (read(fd, heard, sizeof heard) <= 0) return;
    for (size_t at = 0; p->say && at < p->len;) {
        size_t n = p->piece && p->len - at > p->piece ? p->piece : p->len - at;
        if (send(fd, p->say + at, n, MSG_NOSIGNAL) < 0) return;
        at += n;
        if (p->piece) usleep(20);
    }
    while (!p->hang_up && !atomic_load(&p->stop)) {
        struct timeval soon = {.tv_usec = 10000};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
        ssize_t n = read(fd, heard, sizeof heard);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return;
    }
}

static UNUSED void *peer_run(void *arg) {
    peer *p = arg;
    for (;;) {
        int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        if (atomic_load(&p->stop) || fd < 0) {
            if (fd >= 0) close(fd);
            return NULL;
        }
        peer_talk(p, fd);
        close(fd);
    }
}

static UNUSED bool peer_start(peer *p) {
    snprintf(p->dir, sizeof p->dir, "/tmp/rg-spec-XXXXXX");
    if (!mkdtemp(p->dir)) return false;
    snprintf(p->path, sizeof p->path, "%s/peer.sock", p->dir);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", p->path);
    if (bind(p->listener, (struct sockaddr *)&a, sizeof a) || listen(p->listener, 16)) return false;
    return pthread_create(&p->thread, NULL, peer_run, p) == 0;
}

static UNUSED void peer_stop(peer *p) {
    atomic_store(&p->stop, true);
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
    unlink(p->path);
    rmdir(p->dir);
}

/* ---- main ---- */

/* Without a server there is nothing to test. */
#define REDIS_MAIN                                                                                 \
    int main(int argc, char **argv) {                                                              \
        signal(SIGPIPE, SIG_DFL); /* nothing may rely on its being ignored */                      \
        if (given_socket()) return unit_main(argc, argv);                                          \
        printf("# REGOLITH_REDIS_SOCKET is not set\n0 passed, 0 failed\n");                        \
        return 0;                                                                                  \
    }

#endif
