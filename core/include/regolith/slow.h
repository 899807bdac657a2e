/* SPDX-License-Identifier: MIT */
/* The statements and commands that took long, as the engine remembers them. */
#ifndef REGOLITH_SLOW_H
#define REGOLITH_SLOW_H

#ifndef __RG_CDEF__
#include <regolith/engine.h>
#endif

typedef struct rg_slow_event {
    double number;      /* counts them, from 1 on */
    double started;     /* seconds since 1970 */
    double duration;    /* seconds */
    double rows;        /* rows, or commands of a pipeline; -1: not known */
    int32_t source;     /* 1 mysql, 2 redis */
    int32_t code;       /* rg_code of its error, or 0 */
    char op[32];
    char pool[64];
    char text[1024];    /* values are never shown; cut where it is longer */
} rg_slow_event;

/* The latest one of a number below `before` (0: the latest of all): 1, or 0 when it is forgotten, or there
 * was none. Shared; waits for nothing. */
RG_API int rg_engine_slow(rg_engine *engine, double before, rg_slow_event *out);
/* What counts as slow from now on; 0: nothing does. At first it is 100 ms. */
RG_API void rg_engine_set_slow(rg_engine *engine, uint32_t ms);

#endif
