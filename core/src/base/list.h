/* SPDX-License-Identifier: MIT */
/* Intrusive doubly linked list. A node is in at most one list; an unlinked node points to itself. */
#ifndef RG_BASE_LIST_H
#define RG_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct rg__node {
    struct rg__node *prev, *next;
} rg__node;

static inline void rg__list_init(rg__node *n) { n->prev = n->next = n; }
static inline bool rg__list_empty(const rg__node *l) { return l->next == l; }
static inline void rg__list_add_tail(rg__node *l, rg__node *n) {
    n->prev = l->prev;
    n->next = l;
    l->prev->next = n;
    l->prev = n;
}
static inline void rg__list_add_head(rg__node *l, rg__node *n) {
    n->next = l->next;
    n->prev = l;
    l->next->prev = n;
    l->next = n;
}
static inline void rg__list_remove(rg__node *n) {
    n->prev->next = n->next;
    n->next->prev = n->prev;
    rg__list_init(n);
}
#define rg__container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
