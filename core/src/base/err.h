/* SPDX-License-Identifier: MIT */
/* Filling and prefixing rg_err. Every function tolerates err == NULL and returns the code. */
#ifndef RG_BASE_ERR_H
#define RG_BASE_ERR_H

#include <regolith/err.h>
#include <stdarg.h>

/* Replaces *err, with the class and the retriability usual for the code; returns code. */
int rg__fail(rg_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, naming the field. */
int rg__fail_field(rg_err *err, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int rg__fail_memory(rg_err *err);
/* Puts words in front of the message ("loading user 42: "), once a layer. Returns err->code. */
int rg__err_prefix(rg_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same with what was being done to an entity, unless the error names it already. */
void rg__err_about(rg_err *err, const char *doing, const char *entity);
void rg__err_clear(rg_err *err);
void rg__err_set_entity(rg_err *err, const char *entity);

#endif
