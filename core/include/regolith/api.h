/* SPDX-License-Identifier: MIT */
/* Visibility of the public C API. */
#ifndef REGOLITH_API_H
#define REGOLITH_API_H

/* RG_ABI changes whenever the layout of a public struct or the meaning of a call changes; the Lua
 * half refuses to load with another. */
#define RG_ABI 1
#define RG_VERSION "0.1.0"

#ifdef __RG_CDEF__
#define RG_API
#elif defined(__cplusplus)
#define RG_API extern "C" __attribute__((visibility("default")))
#else
#define RG_API __attribute__((visibility("default")))
#endif

#endif
