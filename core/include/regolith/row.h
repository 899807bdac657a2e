/* SPDX-License-Identifier: MIT */
/* The packed row and its builder.
 *
 * A row is one block of bytes, little-endian, the same in memory and in Redis:
 *
 *   0  u16 magic 0x5247        2  u8 format (1)      3  u8 flags (0)
 *   4  u32 length of the row in bytes, header included
 *   8  u64 fingerprint of the type's columns (names, kinds, lengths)
 *   16 u64 XXH3-64 of the row with these 8 bytes taken as zero: identity and integrity
 *   24 null bitmap, one bit a column in order of declaration, padded to 8 bytes
 *      fixed-width area: offsets fixed by the type, natural alignment, widest first
 *      variable area: bytes of VAR columns in order of declaration, no gaps
 *
 * The encoding is canonical: equal values give equal bytes, so rows compare with memcmp and the
 * checksum identifies a version of the row. NULL columns have zero bytes in the fixed area. */
#ifndef REGOLITH_ROW_H
#define REGOLITH_ROW_H

#ifndef __RG_CDEF__
#include <regolith/schema.h>
#endif

enum { RG_ROW_HEADER = 24, RG_ROW_MAGIC = 0x5247, RG_ROW_FORMAT = 1 };

/* An immutable, reference-counted block of bytes; shared (atomic count). */
typedef struct rg_block rg_block;
RG_API rg_block *rg_block_ref(rg_block *block);
RG_API void rg_block_unref(rg_block *block); /* NULL is fine */
RG_API const uint8_t *rg_block_data(const rg_block *block);
RG_API uint32_t rg_block_len(const rg_block *block);

/* A borrowed look at a row; valid while whatever pins it lives. */
typedef struct rg_view {
    const uint8_t *data;
    uint32_t len;
    uint32_t slot; /* where the session pins it */
} rg_view;

/* What a read of one row found. */
enum { RG_GET_MISS = 0, RG_GET_HIT = 1, RG_GET_ABSENT = 2 };

/* What a write does to a row. */
typedef enum rg_write { RG_INSERT = 1, RG_UPDATE = 2, RG_DELETE = 3 } rg_write;

/* Builds a row, or the key columns of one, value by value. Reusable, confined. Every setter checks
 * the value against the column (type, range, length, UTF-8, allowed values) and answers EINVALID
 * with err->field and a message that a person can act on. Bytes are copied. */
typedef struct rg_builder rg_builder;
RG_API rg_builder *rg_builder_new(const rg_type *type, rg_err *err);
RG_API void rg_builder_free(rg_builder *b);
/* Forgets all values. */
RG_API void rg_builder_reset(rg_builder *b);
/* Starts from the values of an existing row of the same type (checked by the caller). */
RG_API int rg_builder_load(rg_builder *b, const uint8_t *row, uint32_t len, rg_err *err);
/* Takes what the row (checked by the caller) holds there, whether a setter would or not: a value of old, or of
 * others, that an update does not change. */
RG_API int rg_builder_keep(rg_builder *b, uint32_t col, const uint8_t *row, rg_err *err);
RG_API int rg_builder_null(rg_builder *b, uint32_t col, rg_err *err);
RG_API int rg_builder_bool(rg_builder *b, uint32_t col, int v, rg_err *err);
/* A Lua number: integral for integer kinds, finite for floats; for DECIMAL the shortest digits that
 * give v back, rounded to the scale half away from zero (text is never rounded: exact or refused);
 * for date kinds seconds since 1970 UTC (DATE: the day they lie in). */
RG_API int rg_builder_number(rg_builder *b, uint32_t col, double v, rg_err *err);
RG_API int rg_builder_i64(rg_builder *b, uint32_t col, int64_t v, rg_err *err);
RG_API int rg_builder_u64(rg_builder *b, uint32_t col, uint64_t v, rg_err *err);
/* Text for every kind: digits for numbers and decimals, "2026-01-31", "2026-01-31 12:00:00.5",
 * ISO 8601 with T and Z or +00:00, "-12:30:00", an enum value, "a,b" for a set, JSON text. */
RG_API int rg_builder_string(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err);
/* One reference more for a REFS column (first call after reset or null starts an empty list). */
RG_API int rg_builder_refs_begin(rg_builder *b, uint32_t col, rg_err *err);
RG_API int rg_builder_refs_add(rg_builder *b, uint32_t col, double id, rg_err *err);
/* One value more for a SET column. */
RG_API int rg_builder_set_begin(rg_builder *b, uint32_t col, rg_err *err);
RG_API int rg_builder_set_add(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err);

/* The row that was built, as an insert would write it (defaults, required columns); one reference. */
RG_API rg_block *rg_builder_row(rg_builder *b, rg_err *err);
/* 1 when the bytes are a whole row of the type, 0 when not. Pure. */
RG_API int rg_row_sound(const rg_type *type, const uint8_t *row, uint32_t len);

/* Text of a stored value for a reader that does not decode by itself: dates, decimals, enums, sets.
 * Writes at most cap bytes, returns the length needed (without NUL), or negative. */
RG_API int rg_row_text(const rg_type *type, const uint8_t *row, uint32_t col, char *out, size_t cap);
/* Text of the stored value of a date (days since 1970-01-01), a datetime (microseconds since then) or
 * a time (microseconds), always UTC. out has room for 32 bytes; returns the length (without NUL). */
RG_API int rg_text_date(int32_t days, char *out);
RG_API int rg_text_datetime(int64_t us, char *out);
RG_API int rg_text_time(int64_t us, char *out);

#endif
