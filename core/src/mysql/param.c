/* SPDX-License-Identifier: MIT */
/* Values of rows as parameters of prepared statements. */
#include "mysql/columns.h"

#include <stdlib.h>

#include "row/listed.h"

/* ---- dates ---- */

static void split_day(int64_t us, MYSQL_TIME *t) {
    t->hour = (unsigned)(us / 3600000000);
    t->minute = (unsigned)(us / 60000000 % 60);
    t->second = (unsigned)(us / 1000000 % 60);
    t->second_part = (unsigned long)(us % 1000000);
}

static MYSQL_TIME date_of(int32_t days) {
    int year;
    MYSQL_TIME t = {.time_type = MYSQL_TIMESTAMP_DATE};
    rg__civil_from_days(days, &year, &t.month, &t.day);
    t.year = (unsigned)year;
    return t;
}

static MYSQL_TIME datetime_of(int64_t us) {
    const int64_t day = INT64_C(86400000000);
    int64_t days = us / day - (us % day < 0);
    MYSQL_TIME t = date_of((int32_t)days);
    t.time_type = MYSQL_TIMESTAMP_DATETIME;
    split_day(us - days * day, &t);
    return t;
}

static MYSQL_TIME time_of(int64_t us) {
    MYSQL_TIME t = {.time_type = MYSQL_TIMESTAMP_TIME, .neg = us < 0};
    split_day(us < 0 ? -us : us, &t);
    t.day = t.hour / 24; /* the wire counts days apart */
    t.hour %= 24;
    return t;
}

/* ---- binding ---- */

static size_t bind_time(MYSQL_BIND *b, rg__bound *at, enum enum_field_types type, MYSQL_TIME t) {
    at->time = t;
    b->buffer = &at->time;
    b->buffer_type = type;
    b->buffer_length = sizeof at->time;
    return 13;
}

static size_t bind_number(MYSQL_BIND *b, rg__bound *at, const rg__value *v) {
    bool is_signed = v->store <= RG_STORE_I64;
    if (is_signed)
        at->i = v->i;
    else
        at->u = v->u;
    b->buffer = at;
    b->buffer_type = MYSQL_TYPE_LONGLONG;
    b->is_unsigned = !is_signed;
    return 8;
}

static size_t bind_bytes(MYSQL_BIND *b, enum enum_field_types type, rg__slice s) {
    b->buffer = (void *)(s.len ? s.p : "");
    b->buffer_type = type;
    b->buffer_length = s.len;
    *b->length = s.len;
    return s.len + 9;
}

/* [1,2,3] of ids that lie as eight bytes each. */
static size_t bind_refs(MYSQL_BIND *b, rg__slice ids, rg__buf *scratch) {
    size_t from = scratch->len;
    for (size_t i = 0; i + 8 <= ids.len; i += 8) {
        uint64_t id;
        memcpy(&id, ids.p + i, 8);
        rg__buf_char(scratch, i ? ',' : '[');
        rg__buf_u64(scratch, id);
    }
    rg__buf_str(scratch, ids.len ? "]" : "[]");
    return bind_bytes(b, MYSQL_TYPE_STRING, (rg__slice){scratch->p + from, scratch->len - from});
}

void rg__param_bind_u64(MYSQL_BIND *b, uint64_t *at) {
    b->buffer = at;
    b->buffer_type = MYSQL_TYPE_LONGLONG;
    b->is_unsigned = true;
}

static size_t bind_set(MYSQL_BIND *b, const rg__column *col, uint64_t bits, rg__buf *scratch) {
    if (bits == 0) return bind_bytes(b, MYSQL_TYPE_STRING, (rg__slice){0});
    char *from = scratch->p + scratch->len;
    size_t len = (size_t)(rg__listed_put(col, bits, from) - from);
    scratch->len += len;
    return bind_bytes(b, MYSQL_TYPE_STRING, (rg__slice){from, len});
}

size_t rg__param_scratch(const rg__column *col, const rg__value *v) {
    if (v->is_null || !rg__param_is_made(col)) return 0;
    return col->kind == RG_SET ? rg__listed_len(col, v->u) : v->s.len / 8 * 21 + 2;
}

size_t rg__param_bind(const rg__column *col, const rg__value *v, MYSQL_BIND *b, rg__bound *at,
                      rg__buf *scratch) {
    *b->is_null = v->is_null;
    if (v->is_null) {
        b->buffer_type = MYSQL_TYPE_NULL;
        return 0;
    }
    switch (col->kind) {
    case RG_FLOAT:
        at->f = (float)v->d;
        b->buffer = at;
        b->buffer_type = MYSQL_TYPE_FLOAT;
        return 4;
    case RG_DOUBLE:
        at->d = v->d;
        b->buffer = at;
        b->buffer_type = MYSQL_TYPE_DOUBLE;
        return 8;
    case RG_DECIMAL:
        return bind_bytes(b, MYSQL_TYPE_NEWDECIMAL, v->s);
    case RG_STRING:
    case RG_TEXT:
    case RG_JSON:
        return bind_bytes(b, MYSQL_TYPE_STRING, v->s);
    case RG_BINARY:
    case RG_BLOB:
        return bind_bytes(b, MYSQL_TYPE_BLOB, v->s);
    case RG_DATE:
        return bind_time(b, at, MYSQL_TYPE_DATE, date_of((int32_t)v->i));
    case RG_DATETIME:
        return bind_time(b, at, MYSQL_TYPE_DATETIME, datetime_of(v->i));
    case RG_TIME:
        return bind_time(b, at, MYSQL_TYPE_TIME, time_of(v->i));
    case RG_ENUM:
        return bind_bytes(b, MYSQL_TYPE_STRING, rg__listed_word(col, v->u));
    case RG_SET:
        return bind_set(b, col, v->u, scratch);
    case RG_REFS:
        return bind_refs(b, v->s, scratch);
    default:
        return bind_number(b, at, v);
    }
}

size_t rg__param_bind_value(const rg__param *p, MYSQL_BIND *b, rg__bound *at) {
    *b->is_null = p->kind == RG__P_NULL;
    switch (p->kind) {
    case RG__P_NULL:
        b->buffer_type = MYSQL_TYPE_NULL;
        return 0;
    case RG__P_STRING:
        return bind_bytes(b, MYSQL_TYPE_STRING, p->s);
    case RG__P_BYTES:
        return bind_bytes(b, MYSQL_TYPE_BLOB, p->s);
    case RG__P_DOUBLE:
        at->d = p->d;
        break;
    default:
        at->u = p->u;
        break;
    }
    b->buffer = at;
    b->buffer_type = p->kind == RG__P_DOUBLE ? MYSQL_TYPE_DOUBLE : MYSQL_TYPE_LONGLONG;
    b->is_unsigned = p->kind == RG__P_U64;
    return 8;
}
