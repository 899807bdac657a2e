/* SPDX-License-Identifier: MIT */
/* Fingerprints: which list of columns a row was packed by. */
#include <regolith/row.h>

#include "schema/entity.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static void add_text(rg__buf *b, const char *s) {
    rg__buf_fmt(b, "%zu:%s", strlen(s), s);
}

/* Everything that decides how bytes of a row are read. */
static void add_column(rg__buf *b, const rg__column *c) {
    add_text(b, c->column);
    rg__buf_fmt(b, "|%d|%u|%u|%u|%d|", c->kind, c->length, c->precision, c->scale,
                (c->flags & RG_COL_NULLABLE) != 0);
    for (uint32_t i = 0; i < c->n_values; i++) add_text(b, c->values[i].p);
    rg__buf_char(b, '\n');
}

int rg__type_fingerprint(const rg_type *t, uint64_t *out) {
    rg__buf b = {0};
    rg__buf_fmt(&b, "regolith row %d\n", RG_ROW_FORMAT);
    for (uint32_t i = 0; i < t->n_columns; i++) add_column(&b, &t->columns[i]);
    int rc = b.failed ? RG_ENO_MEMORY : RG_OK;
    if (rc == RG_OK) *out = XXH3_64bits(b.p, b.len);
    rg__buf_deinit(&b);
    return rc;
}

int rg__index_digest(const rg_type *t, const rg__index *x, uint32_t *out) {
    rg__buf b = {0};
    rg__buf_fmt(&b, "%d|", (x->flags & RG_INDEX_UNIQUE) != 0); /* knows no NULL */
    for (uint32_t i = 0; i < x->n_columns; i++) {
        const rg__column *c = &t->columns[x->columns[i]];
        add_text(&b, c->column);
        add_text(&b, c->collation ? c->collation : "");
        rg__buf_fmt(&b, "|%d|%u|", c->store, c->scale);
        for (uint32_t k = 0; k < c->n_values; k++) add_text(&b, c->values[k].p);
    }
    int rc = b.failed ? RG_ENO_MEMORY : RG_OK;
    if (rc == RG_OK) *out = (uint32_t)XXH3_64bits(b.p, b.len);
    rg__buf_deinit(&b);
    return rc;
}
