/* SPDX-License-Identifier: MIT */
/* Overflow-checked allocation. Test builds can make the n-th call fail (rg__alloc_fail_at). */
#ifndef RG_BASE_ALLOC_H
#define RG_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *rg__malloc(size_t size);
void *rg__calloc(size_t n, size_t size);
void *rg__realloc(void *p, size_t size);
void *rg__reallocarray(void *p, size_t n, size_t size);
char *rg__strdup(const char *s);              /* NULL in, NULL out */
char *rg__memdup0(const void *p, size_t len); /* copy with a NUL added */
void rg__free(void *p);
/* Fails the n-th allocation from now on (1 = next); forever: all later ones too. 0 switches off. */
void rg__alloc_fail_at(long n, int forever);
bool rg__alloc_may_fail(void); /* is it switched on? */

#endif
