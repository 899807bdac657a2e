/* SPDX-License-Identifier: MIT */
/* SIGINT and SIGTERM as a flag that a consumer's loop looks at. Only installed when asked for. */
#include "bindings.h"

#include <signal.h>
#include <string.h>

static const int watched[] = {SIGINT, SIGTERM};
enum { N_WATCHED = sizeof watched / sizeof watched[0] };

static volatile sig_atomic_t taken;          /* last signal caught, 0 none */
static struct sigaction former[N_WATCHED];   /* what was installed before; valid while installed */
static int installed;

static void note(int number) { taken = number; }

/* Installs the handlers; a second signal of the kind meets the former handler (so that a second
 * Ctrl-C ends a program that does not listen). */
static int watch(lua_State *L) {
    if (!installed) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = note;
        action.sa_flags = (int)SA_RESETHAND;
        sigemptyset(&action.sa_mask);
        for (int i = 0; i < N_WATCHED; i++) sigaction(watched[i], &action, &former[i]);
        installed = 1;
    }
    taken = 0;
    lua_pushboolean(L, 1);
    return 1;
}

/* The signal caught since signal_watch, or nil. */
static int take(lua_State *L) {
    if (taken == 0) return 0;
    lua_pushinteger(L, taken);
    return 1;
}

static int unwatch(lua_State *L) {
    (void)L;
    if (installed) {
        for (int i = 0; i < N_WATCHED; i++) sigaction(watched[i], &former[i], NULL);
        installed = 0;
    }
    return 0;
}

void rg__signal_register(lua_State *L) {
    lua_pushcfunction(L, watch);
    lua_setfield(L, -2, "signal_watch");
    lua_pushcfunction(L, take);
    lua_setfield(L, -2, "signal_taken");
    lua_pushcfunction(L, unwatch);
    lua_setfield(L, -2, "signal_unwatch");
}
