/* SPDX-License-Identifier: MIT */
/* Result sets in memory: cells in an arena that lives as long as the result. */
#include "base/alloc.h"
#include "mysql/mysql.h"

enum { CHUNK = 16 * 1024 };

/* A chunk of the arena; `arena` points to the newest. */
typedef struct chunk {
    struct chunk *older;
    size_t used, cap;
    char bytes[];
} chunk;

static void free_one(rg__result *r) {
    for (chunk *c = r->arena; c;) {
        chunk *older = c->older;
        rg__free(c);
        c = older;
    }
    for (uint32_t i = 0; r->names && i < r->n_columns; i++) rg__free(r->names[i]);
    rg__free(r->names);
    rg__free(r->kinds);
    rg__free(r->cells);
    rg__free(r->info);
    rg__free(r);
}

void rg__result_free(rg__result *r) {
    while (r) {
        rg__result *next = r->next;
        free_one(r);
        r = next;
    }
}

rg__result *rg__result_new(const char *const *names, uint32_t n_columns) {
    rg__result *r = rg__calloc(1, sizeof *r);
    if (!r) return NULL;
    r->names = rg__calloc(n_columns + 1, sizeof *r->names);
    r->kinds = rg__calloc(n_columns + 1, sizeof *r->kinds);
    bool ok = r->names && r->kinds;
    for (; ok && r->n_columns < n_columns; r->n_columns++) {
        r->kinds[r->n_columns] = RG__CELL_TEXT;
        r->names[r->n_columns] = rg__strdup(names[r->n_columns]);
        ok = r->names[r->n_columns] != NULL;
    }
    if (ok) return r;
    rg__result_free(r);
    return NULL;
}

void *rg__result_alloc(rg__result *r, size_t len) {
    chunk *c = r->arena;
    size_t need = (len + 7) & ~(size_t)7;
    if (need < len) return NULL;
    if (!c || c->cap - c->used < need) {
        size_t cap = need > CHUNK ? need : CHUNK;
        chunk *fresh = rg__malloc(sizeof *fresh + cap);
        if (!fresh) return NULL;
        *fresh = (chunk){.older = c, .cap = cap};
        r->arena = c = fresh;
    }
    void *p = c->bytes + c->used;
    c->used += need;
    return p;
}

static int make_room(rg__result *r) {
    if (r->n_rows < r->cells_cap) return RG_OK;
    size_t cap = r->cells_cap ? r->cells_cap * 2 : 16;
    rg__slice *p = rg__reallocarray(r->cells, cap, sizeof *p * (r->n_columns ? r->n_columns : 1));
    if (!p) return RG_ENO_MEMORY;
    r->cells = p;
    r->cells_cap = cap;
    return RG_OK;
}

static int copy_cell(rg__result *r, rg__slice from, rg__slice *to) {
    *to = (rg__slice){0};
    if (!from.p) return RG_OK;
    char *p = rg__result_alloc(r, from.len + 1);
    if (!p) return RG_ENO_MEMORY;
    memcpy(p, from.p, from.len);
    p[from.len] = 0;
    *to = (rg__slice){p, from.len};
    return RG_OK;
}

int rg__result_add(rg__result *r, const rg__slice *cells) {
    int rc = make_room(r);
    for (uint32_t i = 0; rc == RG_OK && i < r->n_columns; i++)
        rc = copy_cell(r, cells[i], &r->cells[r->n_rows * r->n_columns + i]);
    if (rc == RG_OK) r->n_rows++;
    return rc;
}

int rg__result_add_strings(rg__result *r, const char *const *cells) {
    int rc = make_room(r);
    for (uint32_t i = 0; rc == RG_OK && i < r->n_columns; i++)
        rc = copy_cell(r, rg__slice_of(cells[i]), &r->cells[r->n_rows * r->n_columns + i]);
    if (rc == RG_OK) r->n_rows++;
    return rc;
}
