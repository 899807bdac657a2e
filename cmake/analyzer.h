/* SPDX-License-Identifier: MIT */
/* Included before each file under analysis, and never in a build: what the analyzer cannot see from
 * one file, that a failure's code is negative. */
#include "base/err.h"

#define rg__fail(err, code, ...) (rg__fail(err, code, __VA_ARGS__), (code))
#define rg__fail_field(err, field, ...) (rg__fail_field(err, field, __VA_ARGS__), RG_EINVALID)
#define rg__fail_memory(err) (rg__fail_memory(err), RG_ENO_MEMORY)
