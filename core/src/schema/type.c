/* SPDX-License-Identifier: MIT */
/* The table of kinds, and SQL types made from it. */
#include "schema/type.h"

#define SIGNED(n) -(INT64_C(1) << ((n)-1)), (UINT64_C(1) << ((n)-1)) - 1
#define UNSIGNED(n) 0, (~UINT64_C(0) >> (64 - (n)))
#define OTHER false, false, 0, 0

/* clang-format off */
static const rg__kind_info kinds[RG_KIND_END] = {
    /*               name        sql                    store         width unsigned integer  range */
    [RG_BOOL]     = {"bool",     "tinyint(1)",          RG_STORE_U8,  1, OTHER},
    [RG_I8]       = {"int8",     "tinyint",             RG_STORE_I8,  1, false, true, SIGNED(8)},
    [RG_I16]      = {"int16",    "smallint",            RG_STORE_I16, 2, false, true, SIGNED(16)},
    [RG_I24]      = {"int24",    "mediumint",           RG_STORE_I32, 4, false, true, SIGNED(24)},
    [RG_I32]      = {"int32",    "int",                 RG_STORE_I32, 4, false, true, SIGNED(32)},
    [RG_I64]      = {"int64",    "bigint",              RG_STORE_I64, 8, false, true, INT64_MIN, INT64_MAX},
    [RG_U8]       = {"uint8",    "tinyint unsigned",    RG_STORE_U8,  1, true,  true, UNSIGNED(8)},
    [RG_U16]      = {"uint16",   "smallint unsigned",   RG_STORE_U16, 2, true,  true, UNSIGNED(16)},
    [RG_U24]      = {"uint24",   "mediumint unsigned",  RG_STORE_U32, 4, true,  true, UNSIGNED(24)},
    [RG_U32]      = {"uint32",   "int unsigned",        RG_STORE_U32, 4, true,  true, UNSIGNED(32)},
    [RG_U64]      = {"uint64",   "bigint unsigned",     RG_STORE_U64, 8, true,  true, UNSIGNED(64)},
    [RG_FLOAT]    = {"float",    "float",               RG_STORE_F32, 4, OTHER},
    [RG_DOUBLE]   = {"double",   "double",              RG_STORE_F64, 8, OTHER},
    [RG_DECIMAL]  = {"decimal",  "decimal",             RG_STORE_VAR, 8, OTHER},
    [RG_STRING]   = {"string",   "varchar",             RG_STORE_VAR, 8, OTHER},
    [RG_TEXT]     = {"text",     "text",                RG_STORE_VAR, 8, OTHER},
    [RG_BINARY]   = {"binary",   "varbinary",           RG_STORE_VAR, 8, OTHER},
    [RG_BLOB]     = {"blob",     "blob",                RG_STORE_VAR, 8, OTHER},
    [RG_ENUM]     = {"enum",     "enum",                RG_STORE_U16, 2, OTHER},
    [RG_SET]      = {"set",      "set",                 RG_STORE_U64, 8, OTHER},
    [RG_DATE]     = {"date",     "date",                RG_STORE_I32, 4, OTHER},
    [RG_DATETIME] = {"datetime", "datetime(6)",         RG_STORE_I64, 8, OTHER},
    [RG_TIME]     = {"time",     "time(6)",             RG_STORE_I64, 8, OTHER},
    [RG_JSON]     = {"json",     "json",                RG_STORE_VAR, 8, OTHER},
    [RG_REF]      = {"ref",      "bigint unsigned",     RG_STORE_U64, 8, true,  true, 0, UINT64_C(1) << 53},
    [RG_REFS]     = {"refs",     "json",                RG_STORE_VAR, 8, OTHER},
};
/* clang-format on */

const rg__kind_info *rg__kind(int kind) {
    return kind > 0 && kind < RG_KIND_END ? &kinds[kind] : NULL;
}

/* MySQL's own steps from TEXT to LONGTEXT, in bytes. */
static const char *sized(uint32_t length) {
    return length > 0xFFFFFF ? "long" : length > 0xFFFF ? "medium" : "";
}

/* Quotes doubled; backslashes too, as no session of ours has NO_BACKSLASH_ESCAPES. */
static void add_literal(rg__buf *out, const char *text) {
    rg__buf_char(out, '\'');
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') rg__buf_char(out, *text);
        rg__buf_char(out, *text);
    }
    rg__buf_char(out, '\'');
}

static void add_values(const rg__column *c, rg__buf *out) {
    for (uint32_t i = 0; i < c->n_values; i++) {
        rg__buf_char(out, i ? ',' : '(');
        add_literal(out, c->values[i].p);
    }
    rg__buf_char(out, ')');
}

static void add_collation(const rg__column *c, rg__buf *out) {
    rg__buf_fmt(out, " CHARACTER SET utf8mb4 COLLATE %s",
                c->collation ? c->collation : "utf8mb4_bin");
}

/* MariaDB has no JSON type: its JSON is this alias, which it shows as such. */
static void add_json(bool mariadb, rg__buf *out) {
    rg__buf_str(out, mariadb ? "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" : "json");
}

void rg__column_sql_type(const rg__column *c, bool mariadb, rg__buf *out) {
    const char *sql = kinds[c->kind].sql;
    switch (c->kind) {
    case RG_DECIMAL: rg__buf_fmt(out, "%s(%u,%u)", sql, c->precision, c->scale); break;
    case RG_BINARY: rg__buf_fmt(out, "%s(%u)", sql, c->length); break;
    case RG_BLOB: rg__buf_fmt(out, "%s%s", sized(c->length), sql); break;
    case RG_STRING:
        rg__buf_fmt(out, "%s(%u)", sql, c->length);
        add_collation(c, out);
        break;
    case RG_TEXT:
        rg__buf_fmt(out, "%s%s", sized(c->length), sql);
        add_collation(c, out);
        break;
    case RG_ENUM:
    case RG_SET:
        rg__buf_str(out, sql);
        add_values(c, out);
        add_collation(c, out);
        break;
    case RG_JSON:
    case RG_REFS: add_json(mariadb, out); break;
    default: rg__buf_str(out, sql);
    }
}
