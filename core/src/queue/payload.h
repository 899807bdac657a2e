/* SPDX-License-Identifier: MIT */
/* The bytes of a queued flush, and what its writer and its reader share. Numbers are little-endian;
 * a name is u16 length and bytes; a varint is LEB128.
 *
 *   u16 magic "RQ"   u8 version   u8 zero   u64 XXH3-64 of all that follows
 *   u32 operations   u16 tables
 *   each table:      name entity, name SQL table, u16 columns used, of each: u8 kind, name column
 *   each operation:  u32 bytes that follow, u16 table, u8 write, u8 flags, u64 id,
 *                    [u64 expected version] [values] [values before] [values expected] [current row]
 *   values:          bitmap of the columns present, bitmap of those that are NULL (a bit a column
 *                    of the table, low bit first, whole bytes), then what is present and not NULL
 *   value, by kind:  1, 2, 4 or 8 bytes as stored in a row; else varint length and bytes. ENUM and
 *                    SET travel as text (names, comma between), for the lists may differ.
 *
 * The id column is never among the columns: each operation has its id. */
#ifndef RG_QUEUE_PAYLOAD_H
#define RG_QUEUE_PAYLOAD_H

#include "queue/queue.h"

enum {
    RG__PAYLOAD_MAGIC = 0x5152, /* "RQ" */
    RG__PAYLOAD_VERSION = 1,
    RG__PAYLOAD_SUM = 4,
    RG__PAYLOAD_SUMMED = 12,
    RG__PAYLOAD_HEADER = 18,
    RG__OP_HEADER = 12,         /* after the length: table, write, flags, id */
    RG__OP_SMALLEST = 4 + RG__OP_HEADER
};

/* Flags of an operation. */
enum {
    RG__OP_EXPECTED = 1,
    RG__OP_VALUES = 2,
    RG__OP_BEFORE = 4,
    RG__OP_COMPARED = 8, /* columns that have to hold certain values */
    RG__OP_CURRENT = 16, /* of dead letters: the row that was met instead */
    RG__OP_FLAGS = 31
};

/* Bytes that a value of this kind takes, 0 when it has a length of its own, -1 for no such kind. */
int rg__payload_width(int kind);
/* A header without its checksum, and the checksum of a payload that begins at `start`. */
void rg__payload_header(rg__buf *out, uint32_t n_ops, uint16_t n_tables);
void rg__payload_seal(rg__buf *out, size_t start);
uint64_t rg__payload_sum(const void *payload, size_t len);
/* Operations that the header speaks of, 0 when it is no header. Cheap; unchecked otherwise. */
uint32_t rg__payload_count(rg__slice bytes);

/* ---- pack.c: rows made of values that decode.c has converted ---- */
/* A packed row of the given values (n_columns of them; column 0 is the id). Columns without
 * `given` are NULL, or zero and empty when they cannot be: such a row stands for its given columns
 * only. NULL when out of memory. */
rg_block *rg__row_partial(const rg_type *t, const rg__value *values, const uint8_t *given);

/* ---- convert.c ---- */
/* Turns a value of `kind` (as it travelled) into one that the column holds, when it fits; text that
 * must be made goes to scratch. 0, or RG_EINVALID naming the field, never showing the value. */
int rg__value_convert(const rg__column *c, int kind, rg__value *v, rg__buf *scratch, rg_err *err);

#endif
