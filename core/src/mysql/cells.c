/* SPDX-License-Identifier: MIT */
/* Results from the wire: kinds of columns, cells within bounds, values as text. */
#include "mysql/cells.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/err.h"

enum { BINARY_CHARSET = 63, TYPE_JSON = 245 };

/* ---- kinds ---- */

/* MariaDB's JSON is text with a check: the newer protocol tells by an attribute of the column. */
static bool is_json(const MYSQL_FIELD *f) {
    if ((int)f->type == TYPE_JSON) return true;
#ifdef MARIADB_PACKAGE_VERSION
    MARIADB_CONST_STRING format = {0};
    return mariadb_field_attr(&format, f, MARIADB_FIELD_ATTR_FORMAT_NAME) == 0 &&
           format.length == 4 && memcmp(format.str, "json", 4) == 0;
#else
    return false;
#endif
}

static int kind_of(const MYSQL_FIELD *f) {
    switch (f->type) {
    case MYSQL_TYPE_TINY:
    case MYSQL_TYPE_SHORT:
    case MYSQL_TYPE_INT24:
    case MYSQL_TYPE_LONG:
    case MYSQL_TYPE_LONGLONG:
    case MYSQL_TYPE_YEAR:
        return f->flags & UNSIGNED_FLAG ? RG__CELL_U64 : RG__CELL_I64;
    case MYSQL_TYPE_BIT:
        return RG__CELL_U64;
    case MYSQL_TYPE_FLOAT:
    case MYSQL_TYPE_DOUBLE:
        return RG__CELL_DOUBLE;
    case MYSQL_TYPE_DECIMAL:
    case MYSQL_TYPE_NEWDECIMAL:
        return RG__CELL_DECIMAL;
    case MYSQL_TYPE_DATE:
    case MYSQL_TYPE_NEWDATE:
    case MYSQL_TYPE_TIME:
    case MYSQL_TYPE_DATETIME:
    case MYSQL_TYPE_TIMESTAMP:
        return RG__CELL_TIME;
    case MYSQL_TYPE_NULL:
        return RG__CELL_TEXT;
    default:
        break;
    }
    if (is_json(f)) return RG__CELL_JSON;
    return f->charsetnr == BINARY_CHARSET ? RG__CELL_BYTES : RG__CELL_TEXT;
}

/* ---- filling ---- */

static const char **names_of(const MYSQL_FIELD *fields, uint32_t n) {
    const char **names = rg__reallocarray(NULL, n ? n : 1, sizeof *names);
    for (uint32_t i = 0; names && i < n; i++)
        names[i] = fields[i].name;
    return names;
}

rg__result *rg__cells_result(MYSQL_RES *meta) {
    uint32_t n = meta ? mysql_num_fields(meta) : 0;
    const MYSQL_FIELD *fields = meta ? mysql_fetch_fields(meta) : NULL;
    const char **names = names_of(fields, n);
    rg__result *r = names ? rg__result_new(names, n) : NULL;
    for (uint32_t i = 0; r && i < n; i++)
        r->kinds[i] = kind_of(&fields[i]);
    rg__free(names);
    return r;
}

int rg__cells_row(rg__filling *f, rg_err *err) {
    rg__result *r = f->r;
    if (f->rows >= RG__MAX_ROWS) return rg__fail(err, RG_ELIMIT, "more than %d rows", RG__MAX_ROWS);
    if (f->bytes > RG__MAX_BYTES)
        return rg__fail(err, RG_ELIMIT, "a result of more than %zu MiB", RG__MAX_BYTES >> 20);
    if (r->n_rows == r->cells_cap) {
        size_t cap = r->cells_cap ? r->cells_cap * 2 : 16;
        rg__slice *cells = rg__reallocarray(r->cells, cap, r->n_columns * sizeof *cells);
        if (!cells) return rg__fail_memory(err);
        r->cells = cells;
        r->cells_cap = cap;
    }
    memset(&r->cells[r->n_rows * r->n_columns], 0, r->n_columns * sizeof *r->cells);
    f->bytes += r->n_columns * sizeof *r->cells;
    r->n_rows++;
    f->rows++;
    return 0;
}

char *rg__cells_room(rg__filling *f, uint32_t col, size_t len) {
    rg__result *r = f->r;
    char *p = len <= RG__MAX_BYTES ? rg__result_alloc(r, len + 1) : NULL;
    if (!p) return NULL;
    p[len] = '\0';
    r->cells[(r->n_rows - 1) * r->n_columns + col] = (rg__slice){p, len};
    f->bytes += len;
    return p;
}

/* BIT comes as bytes, the highest first. */
static size_t bit_text(const char *p, size_t len, char *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++)
        v = v << 8 | (uint8_t)p[i];
    return (size_t)sprintf(out, "%llu", (unsigned long long)v);
}

bool rg__cells_text(rg__filling *f, uint32_t col, const MYSQL_FIELD *field, const char *p,
                    size_t len) {
    char digits[24];
    if (field->type == MYSQL_TYPE_BIT) {
        len = bit_text(p, len, digits);
        p = digits;
    }
    char *to = rg__cells_room(f, col, len);
    if (to) memcpy(to, p, len);
    return to != NULL;
}

/* ---- values as text ---- */

static size_t fraction_text(unsigned long us, unsigned decimals, char *out) {
    char digits[8];
    if (decimals == 0 || decimals > 6) return 0;
    snprintf(digits, sizeof digits, "%06lu", us % 1000000);
    *out = '.';
    memcpy(out + 1, digits, decimals);
    return decimals + 1;
}

size_t rg__time_text(const MYSQL_TIME *v, enum enum_field_types type, unsigned decimals,
                     char *out) {
    int len;
    if (type == MYSQL_TYPE_TIME)
        len = snprintf(out, 40, "%s%02u:%02u:%02u", v->neg ? "-" : "", v->day * 24 + v->hour,
                       v->minute, v->second);
    else
        len = snprintf(out, 40, "%04u-%02u-%02u", v->year, v->month, v->day);
    if (type == MYSQL_TYPE_DATE || type == MYSQL_TYPE_NEWDATE) return (size_t)len;
    if (type != MYSQL_TYPE_TIME)
        len += snprintf(out + len, (size_t)(40 - len), " %02u:%02u:%02u", v->hour, v->minute,
                        v->second);
    return (size_t)len + fraction_text(v->second_part, decimals, out + len);
}
