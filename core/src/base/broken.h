/* SPDX-License-Identifier: MIT */
/* Rules that tests have broken on purpose, to see that they notice. Only in builds for tests (Debug):
 * elsewhere there is nothing to break. */
#ifndef RG_BASE_BROKEN_H
#define RG_BASE_BROKEN_H

#ifdef RG__BREAKABLE
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The rule that REGOLITH_BREAK names. */
static inline bool rg__broken(const char *rule) {
    const char *name = getenv("REGOLITH_BREAK");
    return name && strcmp(name, rule) == 0;
}
#else
#define rg__broken(rule) false
#endif

#endif
