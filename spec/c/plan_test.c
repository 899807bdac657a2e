/* SPDX-License-Identifier: MIT */
/* The flush planner: order of statements, grouping, unique values that change hands. */
#include "base/alloc.h"
#include "unit.h"
#include "unit/flush.h"

static rg__schema schema;
static rg_type *team, *user;

static void add_column(rg_type *t, const char *name, int kind, const char *target) {
    rg_column_opts o = {.size = sizeof o, .name = name, .kind = kind, .target = target,
                        .flags = target ? RG_COL_NULLABLE : 0};
    CHECK(rg_type_column(t, &o, NULL) == RG_OK);
}

static void add_unique(rg_type *t, const char *column) {
    rg_index_opts o = {.size = sizeof o, .name = column, .columns = &column, .n_columns = 1,
                       .flags = RG_INDEX_UNIQUE};
    CHECK(rg_type_index(t, &o, NULL) == RG_OK);
}

/* user is declared first, so that the order found is the references' and not the declaration's. */
static void make_schema(void) {
    rg_type_opts u = {.size = sizeof u, .name = "user"};
    rg_type_opts t = {.size = sizeof t, .name = "team"};
    user = rg_type_new(&u, NULL);
    team = rg_type_new(&t, NULL);
    add_column(user, "email", RG_STRING, NULL);
    add_column(user, "visits", RG_U32, NULL);
    add_column(user, "team", RG_REF, "team");
    add_unique(user, "email");
    add_column(team, "name", RG_STRING, NULL);
    CHECK(rg_type_freeze(user, NULL) == RG_OK && rg_type_freeze(team, NULL) == RG_OK);
    CHECK(rg__schema_add(&schema, user, NULL) == RG_OK);
    CHECK(rg__schema_add(&schema, team, NULL) == RG_OK);
    CHECK(rg__schema_resolve(&schema, NULL) == RG_OK);
    user->mysql_pool = team->mysql_pool = 0;
}

static rg_block *user_row(uint64_t id, const char *email, uint32_t visits) {
    rg_builder *b = rg_builder_new(user, NULL);
    rg_builder_u64(b, 0, id, NULL);
    rg_builder_string(b, 1, email, strlen(email), NULL);
    rg_builder_u64(b, 2, visits, NULL);
    rg_block *row = rg__builder_finish(b, true, 0, NULL);
    rg_builder_free(b);
    CHECK(row != NULL);
    return row;
}

static rg_block *team_row(uint64_t id) {
    rg_builder *b = rg_builder_new(team, NULL);
    rg_builder_u64(b, 0, id, NULL);
    rg_builder_string(b, 1, "t", 1, NULL);
    rg_block *row = rg__builder_finish(b, true, 0, NULL);
    rg_builder_free(b);
    return row;
}

static void add(rg__items *items, int write, const rg_type *t, uint64_t id, rg_block *before,
                rg_block *after) {
    rg__item *it = rg__items_add(items);
    *it = (rg__item){.write = write, .type = t, .id = id, .before = before, .after = after};
    if (write != RG_UPDATE) return;
    it->mask = rg__calloc(t->n_columns + 1, 1);
    rg__row_diff(t, rg_block_data(before), rg_block_data(after), it->mask);
}

static void check_step(const rg__plan *p, size_t i, int write, const rg_type *t, size_t n) {
    CHECK(i < p->n);
    CHECK_EQ_INT(p->steps[i].write, write);
    CHECK(p->steps[i].type == t);
    CHECK_EQ_INT((long)p->steps[i].n, (long)n);
}

static void inserts_go_referenced_first(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_INSERT, user, 2, NULL, user_row(2, "b", 0));
    add(&items, RG_INSERT, team, 1, NULL, team_row(1));
    add(&items, RG_INSERT, user, 1, NULL, user_row(1, "a", 0));
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, NULL), RG_OK);
    CHECK_EQ_INT((long)plan.n, 2);
    check_step(&plan, 0, RG_INSERT, team, 1);
    check_step(&plan, 1, RG_INSERT, user, 2);
    CHECK_EQ_INT((long)plan.steps[1].items[0], 2); /* sorted by id */
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

static void deletes_go_referencing_first(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_DELETE, team, 1, team_row(1), NULL);
    add(&items, RG_DELETE, user, 1, user_row(1, "a", 0), NULL);
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, NULL), RG_OK);
    check_step(&plan, 0, RG_DELETE, user, 1);
    check_step(&plan, 1, RG_DELETE, team, 1);
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

static void updates_group_by_columns(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_UPDATE, user, 1, user_row(1, "a", 0), user_row(1, "a", 1));
    add(&items, RG_UPDATE, user, 2, user_row(2, "b", 0), user_row(2, "c", 0));
    add(&items, RG_UPDATE, user, 3, user_row(3, "d", 0), user_row(3, "d", 7));
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, NULL), RG_OK);
    CHECK_EQ_INT((long)plan.n, 2);
    CHECK_EQ_INT((long)(plan.steps[0].n + plan.steps[1].n), 3);
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

static void a_freed_unique_value_is_freed_first(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_INSERT, user, 9, NULL, user_row(9, "a", 0));
    add(&items, RG_DELETE, user, 1, user_row(1, "a", 0), NULL);
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, NULL), RG_OK);
    check_step(&plan, 0, RG_DELETE, user, 1);
    check_step(&plan, 1, RG_INSERT, user, 1);
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

static void a_chain_of_updates_is_ordered(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_UPDATE, user, 1, user_row(1, "a", 0), user_row(1, "b", 0));
    add(&items, RG_UPDATE, user, 2, user_row(2, "b", 0), user_row(2, "c", 0));
    add(&items, RG_INSERT, user, 3, NULL, user_row(3, "a", 0));
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, NULL), RG_OK);
    size_t at[3] = {0};
    for (size_t s = 0; s < plan.n; s++)
        for (size_t i = 0; i < plan.steps[s].n; i++) at[plan.steps[s].items[i]] = s;
    CHECK(at[1] < at[0]); /* b is freed before it is taken */
    CHECK(at[0] < at[2]); /* a is freed before it is inserted */
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

static void twins_are_refused(void) {
    rg__items items = {0};
    rg__plan plan;
    rg_err err = {0};
    add(&items, RG_DELETE, user, 1, user_row(1, "a", 0), NULL);
    add(&items, RG_DELETE, user, 1, user_row(1, "a", 0), NULL);
    CHECK_EQ_INT(rg__plan_make(&items, 0, &plan, &err), RG_EMISUSE);
    rg__items_deinit(&items);
}

static void other_pools_are_left_alone(void) {
    rg__items items = {0};
    rg__plan plan;
    add(&items, RG_INSERT, team, 1, NULL, team_row(1));
    CHECK_EQ_INT(rg__plan_make(&items, 1, &plan, NULL), RG_OK);
    CHECK_EQ_INT((long)plan.n, 0);
    rg__plan_deinit(&plan);
    rg__items_deinit(&items);
}

int main(void) {
    make_schema();
    inserts_go_referenced_first();
    deletes_go_referencing_first();
    updates_group_by_columns();
    a_freed_unique_value_is_freed_first();
    a_chain_of_updates_is_ordered();
    twins_are_refused();
    other_pools_are_left_alone();
    rg__schema_deinit(&schema);
    return unit_report();
}
