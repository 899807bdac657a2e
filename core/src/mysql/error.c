/* SPDX-License-Identifier: MIT */
/* From a server's error to rg_err: class, names in it, and a message without values. */
#include "mysql/conn.h"

#include <stdio.h>

/* ---- names inside server texts ---- */

/* Copies [p, end) unless it is longer than the field: a cut name would be a wrong name. */
static void copy_name(char *to, size_t cap, const char *p, const char *end) {
    size_t len = (size_t)(end - p);
    if (len >= cap) return;
    memcpy(to, p, len);
    to[len] = '\0';
}

static const char *find_last(const char *text, const char *what) {
    const char *found = NULL;
    for (const char *at = text; (at = strstr(at, what)); at++)
        found = at;
    return found;
}

/* What stands between quotes from `from` on; the last component of `db`.`t`.`c` or of t.c. */
static void copy_last_component(char *to, size_t cap, const char *from) {
    char quote = *from;
    const char *start = from + 1, *end = strchr(start, quote);
    while (end && quote == '`' && strncmp(end, "`.`", 3) == 0) {
        start = end + 3;
        end = strchr(start, quote);
    }
    if (!end) return;
    if (quote == '\'')
        for (const char *p = start; p < end; p++)
            if (*p == '.') start = p + 1;
    copy_name(to, cap, start, end);
}

/* "Column 'x' cannot be null", "Field 'x' doesn't ...", "Unknown column 'x' in ..." */
static void first_quoted(char *to, size_t cap, const char *text) {
    const char *at = strchr(text, '\'');
    if (at) copy_last_component(to, cap, at);
}

/* "... for column 'x' at row 1", "... for column `db`.`t`.`x` at row 1" */
static void for_column(char *to, size_t cap, const char *text) {
    const char *at = find_last(text, " for column ");
    if (!at) return;
    at += sizeof " for column " - 1;
    if (*at == '\'' || *at == '`') copy_last_component(to, cap, at);
}

/* "Duplicate entry 'it's' for key 'table.index'": the value may hold quotes, the end cannot. */
static void for_key(char *to, size_t cap, const char *text, rg__flavour f) {
    const char *at = find_last(text, " for key '");
    if (!at) return;
    at += sizeof " for key '" - 1;
    const char *end = strrchr(at, '\''), *dot = strchr(at, '.');
    if (!end) return;
    if (f == RG__MYSQL && dot && dot < end) at = dot + 1;
    copy_name(to, cap, at, end);
}

static void after(char *to, size_t cap, const char *text, const char *what) {
    const char *at = strstr(text, what);
    if (!at) return;
    at += strlen(what) - 1;
    const char *end = strchr(at + 1, *at);
    if (end) copy_name(to, cap, at + 1, end);
}

static void find_names(rg_err *err, const char *text, rg__flavour f) {
    switch (err->sql_errno) {
    case 1048:
    case 1054:
    case 1364:
        first_quoted(err->field, sizeof err->field, text);
        break;
    case 1264:
    case 1265:
    case 1292:
    case 1366:
    case 1406:
        for_column(err->field, sizeof err->field, text);
        break;
    case 1062:
    case 1586:
        for_key(err->index, sizeof err->index, text, f);
        break;
    case 1146:
        first_quoted(err->entity, sizeof err->entity, text);
        break;
    case 1451:
    case 1452:
        after(err->index, sizeof err->index, text, "CONSTRAINT `");
        after(err->field, sizeof err->field, text, "FOREIGN KEY (`");
        break;
    case 4025:
        after(err->index, sizeof err->index, text, "CONSTRAINT `");
        break;
    case 3819:
        after(err->index, sizeof err->index, text, "constraint '");
        break;
    default:
        break;
    }
}

/* ---- messages ---- */

/* Server texts whose quoted parts are names, hosts, paths or words of a definition, never values. */
static const uint16_t quote_names[] = {
    1040, 1044, 1045, 1048, 1049, 1051, 1052, 1054, 1060, 1061, 1067, 1072, 1074, 1091,
    1115, 1129, 1130, 1142, 1143, 1146, 1193, 1203, 1205, 1213, 1226, 1227, 1253, 1264,
    1265, 1273, 1290, 1291, 1305, 1364, 1406, 1451, 1452, 1553, 1698, 4025, 4150, 4151};

static bool quotes_names_only(unsigned number) {
    if ((number >= 2000 && number < 3000) || number >= 5000) return true; /* the client's own */
    for (size_t i = 0; i < sizeof quote_names / sizeof *quote_names; i++)
        if (quote_names[i] == number) return true;
    return false;
}

/* " at row 1", " at line 7": the only ends that are surely not part of a value. */
static const char *safe_tail(const char *text) {
    static const char *const words[] = {" at row ", " at line "};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *at = find_last(text, words[i]);
        size_t len = strlen(words[i]);
        if (at && at[len] && strspn(at + len, "0123456789") == strlen(at + len)) return at;
    }
    return "";
}

/* Everything from the first quote on goes: values hold quotes of their own, and long texts are cut.
 */
static void redact(char *to, size_t cap, const char *text) {
    size_t head = strcspn(text, "'\"");
    if (!text[head])
        snprintf(to, cap, "%s", text);
    else
        snprintf(to, cap, "%.*s'...'%s", (int)head, text, safe_tail(text + head));
}

static void describe(char *to, size_t cap, const rg_err *err, const char *text) {
    if (err->sql_errno == 1062 || err->sql_errno == 1586)
        snprintf(to, cap, "duplicate key '%s'", err->index);
    else if (quotes_names_only(err->sql_errno))
        snprintf(to, cap, "%s", text);
    else
        redact(to, cap, text);
    /* Redaction took the column's name, which is no secret. */
    if (err->field[0] && !strstr(to, err->field)) {
        size_t used = strlen(to);
        snprintf(to + used, cap - used, " (column '%s')", err->field);
    }
}

/* Mended by a retry as it is: not a wrong password, and not what only hostile bytes bring about. */
static bool retriable(const rg__sql_class *k, unsigned number) {
    if (k->cls == RG_CLASS_PERMANENT || k->cls == RG_CLASS_AMBIGUOUS) return false;
    if (k->code == RG_EACCESS) return false;
    return number != 2000 && number != 2014 && number != 2027 && number != 2036 && number != 5008;
}

int rg__sql_fail(rg__flavour f, unsigned number, const char *sqlstate, const char *text,
                 const char *what, rg_err *err) {
    const rg__sql_class *k = rg__sql_classify(f, number, sqlstate);
    char said[512];
    if (!err) return k->code;
    rg__err_clear(err);
    err->code = k->code;
    err->domain = RG_DOMAIN_MYSQL;
    err->cls = k->cls;
    err->sql_errno = number;
    err->retriable = retriable(k, number);
    snprintf(err->sqlstate, sizeof err->sqlstate, "%.5s", sqlstate ? sqlstate : "");
    find_names(err, text ? text : "", f);
    describe(said, sizeof said, err, text ? text : "");
    snprintf(err->message, sizeof err->message, "%s: %s (MySQL error %u)", what, said, number);
    return err->code;
}

int rg__mysql_error(rg__mysql *c, rg_err *err, const char *what) {
    return rg__sql_fail(c->flavour, mysql_errno(c->my), mysql_sqlstate(c->my), mysql_error(c->my),
                        what, err);
}

int rg__sql_fail_entity(rg_err *err, const rg_type *t) {
    if (!err) return RG_OK;
    rg__err_set_entity(err, t->name);
    int col = err->field[0] ? rg__type_column_find(t, err->field, strlen(err->field)) : -1;
    if (col >= 0) snprintf(err->field, sizeof err->field, "%s", t->columns[col].name);
    rg__err_prefix(err, "%s: ", t->name);
    return err->code;
}
