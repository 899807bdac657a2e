/* SPDX-License-Identifier: MIT */
/* The notifier's socket: whoever connected to it hears of its end. */
#include "unit.h"

#include <poll.h>
#include <regolith/regolith.h>
#include <regolith/op.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static rg_engine *engine_of_nothing(void) {
    rg_err err = {0};
    const rg_pool_opts pool = {.size = sizeof pool, .host = "127.0.0.1", .port = 1, .database = "none"};
    rg_config *c = rg_config_new(NULL, &err);
    if (!c || rg_config_mysql(c, &pool, &err) < 0) return NULL;
    return rg_engine_new(c, &err);
}

static int client_of(const rg_notifier *n) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", rg_notifier_path(n));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

/* An nginx worker whose only operation was done before its pump had connected. */
TEST(a_client_that_was_not_accepted_yet_hears_of_the_end) {
    rg_err err = {0};
    rg_engine *e = engine_of_nothing();
    rg_notifier *n = e ? rg_notifier_new(e, 1, &err) : NULL;
    REQUIRE(n);
    int fd = client_of(n);
    REQUIRE(fd >= 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ_INT(poll(&p, 1, 50), 0);
    rg_notifier_close(n);
    CHECK_EQ_INT(poll(&p, 1, 5000), 1);
    close(fd);
    rg_notifier_close(n); /* may be repeated */
    rg_notifier_free(n);
    rg_engine_unref(e);
}

TEST(who_comes_after_the_end_finds_nothing) {
    rg_err err = {0};
    rg_engine *e = engine_of_nothing();
    rg_notifier *n = e ? rg_notifier_new(e, 1, &err) : NULL;
    REQUIRE(n);
    rg_notifier_close(n);
    CHECK_EQ_INT(client_of(n), -1);
    rg_notifier_free(n);
    rg_engine_unref(e);
}

UNIT_MAIN
