/* SPDX-License-Identifier: MIT */
/* A session's rows as they were when a transaction or a savepoint began. */
#ifndef RG_RUN_SAVE_H
#define RG_RUN_SAVE_H

#include "base/block.h"

typedef struct rg__save {
    rg_block **rows; /* of slots 0 to n-1; references */
    uint32_t n;
    int number;      /* by which it is known */
} rg__save;

typedef struct rg__saves {
    rg__save *items;
    uint32_t n, cap;
    int last; /* number given */
    rg_block **first; /* by slot: the row it was pinned with since the outermost save; references */
    uint32_t first_cap, first_end; /* all from first_end on are NULL */
} rg__saves;

/* The number of a new one, from 1. They end in any order: those of different pools do not nest. */
int rg__saves_push(rg__saves *s, rg_block *const *slots, uint32_t n);
void rg__saves_drop(rg__saves *s, int number);
void rg__saves_restore(rg__saves *s, int number, rg_block **slots, uint32_t n); /* and drops */
/* A slot was pinned with its first row. */
int rg__saves_first(rg__saves *s, uint32_t slot, rg_block *row);
/* A slot comes back with this row (NULL: with none). */
int rg__saves_keep(rg__saves *s, int number, uint32_t slot, rg_block *row);
/* That row is none to come back to. */
void rg__saves_own(rg__saves *s, uint32_t slot);
/* No slots any more; the saves stand, with nothing in them. */
void rg__saves_clear(rg__saves *s);
void rg__saves_deinit(rg__saves *s);

#endif
