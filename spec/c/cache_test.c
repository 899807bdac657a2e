/* SPDX-License-Identifier: MIT */
/* The Redis tier: keys, leases and fills, marks of transactions, epochs, damaged entries. */
#include "cache_support.h"

static fixture f;

/* Each test has a prefix of its own. */
#define SPEC(name)                                                                                 \
    static void spec_##name(void);                                                                 \
    TEST(name) {                                                                                   \
        fixture_init(&f, given_socket());                                                          \
        spec_##name();                                                                             \
        fixture_deinit(&f);                                                                        \
    }                                                                                              \
    static void spec_##name(void)

static bool ends(const rg__key *k, const char *with) {
    size_t n = strlen(with);
    return k->len >= n && memcmp(k->text + k->len - n, with, n) == 0;
}

/* ---- keys ---- */

SPEC(keys_are_named) {
    rg__key row = row_key(&f, f.both, 42), name = lookup_key(&f, f.both, 0, "ann");
    rg__key odd = lookup_key(&f, f.both, 1, "7");
    rg__key big = lookup_key(&f, f.both, 0, "0123456789012345678901234567890123456789x");
    CHECK(ends(&row, ":e:both:42"));
    char want[64];
    snprintf(want, sizeof want, ":l:both:name.%08x:rann", f.both->indexes[0].digest);
    CHECK(ends(&name, want));
    snprintf(want, sizeof want, ":l:both:by%%3an.%08x:r7", f.both->indexes[1].digest);
    CHECK(ends(&odd, want));
    CHECK(big.text[big.len - 17] == 'h');
    CHECK_EQ_INT(row.space, f.both->space);
    CHECK_EQ_INT(name.space, f.both->space + 1);
    CHECK_EQ_INT(odd.space, f.both->space + 2);
    CHECK_EQ_INT(row.hash, 42);
    CHECK(name.hash != odd.hash);
    rg__key *all[] = {&row, &name, &odd, &big};
    for (int i = 0; i < 4; i++) rg__key_deinit(all[i]);
}

SPEC(prefixes_are_checked) {
    const char *bad[] = {"", "a b", "a{b", "a}b", "a\nb", NULL};
    for (int i = 0; bad[i]; i++) {
        rg_err err = {0};
        CHECK(!rg__shared_new(f.pool, NULL, &f.schema, bad[i], NULL, &err));
        CHECK_EQ_INT(err.code, RG_EINVALID);
    }
}

/* ---- leases and fills ---- */

SPEC(a_miss_is_leased_filled_and_hit) {
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "ann", 5);
    uint64_t n;
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS);
    rg__entry e = lease_entry(&f, f.both, true, &k);
    CHECK(e.found == RG__MISS && e.lease.held && !e.lease.heal);
    CHECK_EQ_INT(state_of(&f, &k), 'L');
    CHECK(ttl_of(&f, &k) > 0);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS);
    fill_entry(&f, f.both, true, &k, row, &e, false);
    CHECK_EQ_INT(found_of(&f, f.both, &k, &n), RG__VALUE);
    CHECK_EQ_INT(n, 5);
    CHECK(ttl_of(&f, &k) > 0 && ttl_of(&f, &k) <= 600000);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(absence_is_cached_for_a_shorter_time) {
    rg__key k = row_key(&f, f.both, 1);
    cache_row(&f, f.both, &k, NULL);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__ABSENT);
    CHECK(ttl_of(&f, &k) > 0 && ttl_of(&f, &k) <= 20000);
    rg__key_deinit(&k);
}

SPEC(many_keys_in_one_call) {
    enum { N = 1300 };
    rg__key keys[N];
    rg__entry e[N];
    rg_block *rows[N];
    rg__ctx ctx = ctx_ms(5000);
    for (uint64_t i = 0; i < N; i++) {
        keys[i] = row_key(&f, f.both, i + 1);
        rows[i] = i % 3 ? make_row(f.both, i + 1, "x", i) : NULL;
    }
    rg__shared_get(f.shared, &ctx, f.both, true, keys, N, e);
    rg__shared_lease(f.shared, &ctx, f.both, true, keys, N, e);
    rg__shared_fill(f.shared, &ctx, f.both, true, keys, N, rows, e, false);
    rg__shared_get(f.shared, &ctx, f.both, true, keys, N, e);
    int right = 0;
    for (uint64_t i = 0; i < N; i++) {
        right += rows[i] ? e[i].found == RG__VALUE && n_of(f.both, e[i].block) == i
                         : e[i].found == RG__ABSENT;
        rg__entry_deinit(&e[i]);
        rg__key_deinit(&keys[i]);
        rg_block_unref(rows[i]);
    }
    CHECK_EQ_INT(right, N);
}

static void *fill_later(void *arg) {
    const rg__entry *lease = arg;
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "late", 9);
    rg__sleep_ms(20);
    fill_entry(&f, f.both, true, &k, row, lease, false);
    rg_block_unref(row);
    rg__key_deinit(&k);
    return NULL;
}

SPEC(who_finds_a_lease_waits_for_the_fill) {
    rg__key k = row_key(&f, f.both, 1);
    rg__entry other = {.found = RG__BYPASS};
    for (int i = 0; i < 50 && other.found == RG__BYPASS; i++) { /* it waits for 100 ms, however late the fill is */
        raw_del(&f, &k);
        rg__entry mine = lease_entry(&f, f.both, true, &k);
        pthread_t t;
        pthread_create(&t, NULL, fill_later, &mine);
        int64_t start = rg__now_ms();
        other = lease_entry(&f, f.both, true, &k);
        CHECK(rg__now_ms() - start < 90 + BUSY_MS);
        pthread_join(t, NULL);
    }
    CHECK_EQ_INT(other.found, RG__VALUE);
    if (other.found == RG__VALUE) CHECK_EQ_INT(n_of(f.both, other.block), 9);
    rg__entry_deinit(&other);
    rg__key_deinit(&k);
}

SPEC(a_lease_held_for_long_is_bypassed) {
    rg__key k = row_key(&f, f.both, 1);
    rg__entry mine = lease_entry(&f, f.both, true, &k);
    int64_t start = rg__now_ms();
    rg__entry other = lease_entry(&f, f.both, true, &k);
    CHECK_EQ_INT(other.found, RG__BYPASS);
    CHECK(!other.lease.held);
    CHECK(rg__now_ms() - start >= 95 && rg__now_ms() - start < 100 + BUSY_MS);
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_unlease(f.shared, &ctx, &k, 1, &mine);
    CHECK_EQ_INT(state_of(&f, &k), '-');
    rg__key_deinit(&k);
}

SPEC(who_got_a_lease_does_not_wait_for_others) {
    rg__key keys[2] = {row_key(&f, f.both, 1), row_key(&f, f.both, 2)};
    rg__entry mine = lease_entry(&f, f.both, true, &keys[0]), e[2] = {0};
    CHECK(mine.lease.held);
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5 || (i < 50 && best >= 50); i++) {
        rg__ctx ctx = ctx_ms(2000);
        int64_t start = rg__now_ms();
        rg__shared_lease(f.shared, &ctx, f.both, true, keys, 2, e);
        if (rg__now_ms() - start < best) best = rg__now_ms() - start;
        CHECK_EQ_INT(e[0].found, RG__BYPASS);
        CHECK(e[1].lease.held);
        rg__shared_unlease(f.shared, &ctx, &keys[1], 1, &e[1]);
    }
    CHECK(best < 50);
    for (int i = 0; i < 2; i++) rg__key_deinit(&keys[i]);
}

SPEC(an_expired_lease_is_taken_over) {
    rg__shared_timing(f.shared, 30, 0);
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "old", 1);
    rg__entry first = lease_entry(&f, f.both, true, &k);
    rg__sleep_ms(40);
    rg__shared_timing(f.shared, 5000, 0);
    rg__entry second = lease_entry(&f, f.both, true, &k);
    CHECK(first.lease.held && second.lease.held);
    unsigned long long refused = metrics.counter[RG__C_FILL_REFUSED];
    fill_entry(&f, f.both, true, &k, row, &first, false);
    CHECK_EQ_INT(metrics.counter[RG__C_FILL_REFUSED], refused + 1);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS);
    fill_entry(&f, f.both, true, &k, row, &second, false);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__VALUE);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(settled_entries_are_not_asked_again) {
    rg__key keys[2] = {row_key(&f, f.both, 1), row_key(&f, f.both, 2)};
    cache_row(&f, f.both, &keys[0], NULL);
    rg__entry e[2];
    rg__ctx ctx = ctx_ms(2000);
    rg__shared_get(f.shared, &ctx, f.both, true, keys, 2, e);
    rg__shared_lease(f.shared, &ctx, f.both, true, keys, 2, e);
    CHECK(e[0].found == RG__ABSENT && !e[0].lease.held);
    CHECK(e[1].found == RG__MISS && e[1].lease.held);
    for (int i = 0; i < 2; i++) rg__key_deinit(&keys[i]);
}

SPEC(lookups_are_lists) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg_block *ids = make_ids(3, (uint64_t[]){3, 9, 1ull << 60}), *none = make_ids(0, NULL);
    cache_ids(&f, f.both, &k, ids);
    rg__entry e = get_entry(&f, f.both, false, &k);
    CHECK(e.found == RG__VALUE && e.block->len == 24 && memcmp(e.block->data, ids->data, 24) == 0);
    rg__entry_deinit(&e);
    raw_del(&f, &k);
    cache_ids(&f, f.both, &k, none);
    e = get_entry(&f, f.both, false, &k);
    CHECK(e.found == RG__VALUE && e.block->len == 0);
    rg__entry_deinit(&e);
    rg_block_unref(ids);
    rg_block_unref(none);
    rg__key_deinit(&k);
}

/* ---- transactions ---- */

/* A row in the cache with n = 1, and a transaction that makes it 2. */
typedef struct tx {
    rg__txid id;
    rg__key key;
    rg_block *before, *after;
    rg__change change;
} tx;

static tx begin_on(const rg_type *t, uint64_t id, bool cached) {
    tx x = {.id = new_tx(), .key = row_key(&f, t, id)};
    x.before = make_row(t, id, "a", 1);
    x.after = make_row(t, id, "a", 2);
    if (cached) cache_row(&f, t, &x.key, x.before);
    x.change = row_change(t, x.key, x.before, x.after);
    return x;
}

static void end(tx *x) {
    rg_block_unref(x->before);
    rg_block_unref(x->after);
    rg__key_deinit(&x->key);
}

static uint64_t cached_n(const tx *x) {
    uint64_t n = UINT64_MAX;
    found_of(&f, x->change.type, &x->key, &n);
    return n;
}

SPEC(a_commit_is_published) {
    tx x = begin_on(f.both, 1, true);
    CHECK_EQ_INT(mark_changes(&f, x.id, &x.change, 1, NULL), RG_OK);
    CHECK(x.change.verified);
    CHECK_EQ_INT(state_of(&f, &x.key), 'M');
    CHECK_EQ_INT(ttl_of(&f, &x.key), -1);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    CHECK_EQ_INT(e.found, RG__BYPASS);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 2);
    CHECK(ttl_of(&f, &x.key) > 0);
    CHECK_EQ_INT(ASK(f.pool, "EVAL", "return redis.call('ZCARD', ARGV[1])", "0", "x"), 0);
    publish_changes(&f, x.id, &x.change,
                    1); /* again: the mark is gone, so the value may be older */
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

SPEC(a_rollback_restores) {
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    unmark_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 1);
    unmark_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 1);
    end(&x);
}

SPEC(marks_may_be_repeated) {
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-'); /* the second did not see what it started from */
    end(&x);
    x = begin_on(f.both, 2, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    unmark_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 1);
    end(&x);
}

SPEC(only_what_was_verified_is_published) {
    tx x = begin_on(f.both, 1, false);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    CHECK(!x.change.verified);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    cache_row(&f, f.both, &x.key, x.after); /* not what the transaction believes */
    mark_changes(&f, x.id, &x.change, 1, NULL);
    CHECK(!x.change.verified);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

SPEC(inserts_are_published) {
    tx x = begin_on(f.both, 1, false);
    x.change.before = NULL;
    mark_changes(&f, x.id, &x.change, 1, NULL);
    CHECK(x.change.verified);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 2);
    end(&x);
    x = begin_on(f.both, 2, false); /* over a cached absence, which a rollback restores */
    x.change.before = NULL;
    cache_row(&f, f.both, &x.key, NULL);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    unmark_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'N');
    mark_changes(&f, x.id, &x.change, 1, NULL);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 2);
    end(&x);
}

SPEC(deletes_are_published_as_absence) {
    tx x = begin_on(f.both, 1, true);
    x.change.after = NULL;
    mark_changes(&f, x.id, &x.change, 1, NULL);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__ABSENT);
    end(&x);
}

SPEC(a_mark_ends_leases) {
    tx x = begin_on(f.both, 1, false);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    fill_entry(&f, f.both, true, &x.key, x.before, &e, false);
    CHECK_EQ_INT(state_of(&f, &x.key), 'M');
    unmark_changes(&f, x.id, &x.change, 1);
    fill_entry(&f, f.both, true, &x.key, x.before, &e, true);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

SPEC(two_transactions_on_a_row_publish_nothing) {
    for (int order = 0; order < 4; order++) {
        tx x = begin_on(f.both, 10 + (uint64_t)order, true);
        rg__change c = x.change;
        rg__txid other = new_tx();
        mark_changes(&f, x.id, &x.change, 1, NULL);
        mark_changes(&f, other, &c, 1, NULL);
        CHECK(!c.verified);
        if (order & 1) publish_changes(&f, x.id, &x.change, 1);
        else unmark_changes(&f, x.id, &x.change, 1);
        CHECK_EQ_INT(state_of(&f, &x.key), 'M');
        if (order & 2) publish_changes(&f, other, &c, 1);
        else unmark_changes(&f, other, &c, 1);
        CHECK_EQ_INT(state_of(&f, &x.key), order ? '-' : 'V'); /* both rolled back: as before */
        end(&x);
    }
}

/* x marked, other marked and rolled back, x published: order of commits is not known. */
SPEC(whoever_met_another_does_not_publish) {
    tx x = begin_on(f.both, 1, true);
    rg__change c = x.change;
    rg__txid other = new_tx();
    mark_changes(&f, x.id, &x.change, 1, NULL);
    mark_changes(&f, other, &c, 1, NULL);
    unmark_changes(&f, other, &c, 1);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

SPEC(lookups_are_dropped_or_restored) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg_block *ids = make_ids(1, (uint64_t[]){3});
    rg__change c = lookup_change(f.both, k, 4, true);
    for (int commit = 0; commit < 2; commit++) {
        rg__txid id = new_tx();
        if (!commit) cache_ids(&f, f.both, &k, ids);
        mark_changes(&f, id, &c, 1, NULL);
        CHECK_EQ_INT(state_of(&f, &k), 'M');
        if (commit) publish_changes(&f, id, &c, 1);
        else unmark_changes(&f, id, &c, 1);
        CHECK_EQ_INT(state_of(&f, &k), commit ? '-' : 'V');
    }
    rg_block_unref(ids);
    rg__key_deinit(&k);
}

SPEC(many_changes_in_one_transaction) {
    enum { N = 4500 };
    rg__change *c = rg__calloc(N, sizeof *c);
    rg_block *row = make_row(f.both, 1, "a", 2);
    for (uint64_t i = 0; i < N; i++) c[i] = row_change(f.both, row_key(&f, f.both, i), NULL, row);
    rg__txid id = new_tx();
    CHECK_EQ_INT(mark_changes(&f, id, c, N, NULL), RG_OK);
    int verified = 0;
    for (int i = 0; i < N; i++) verified += c[i].verified;
    CHECK_EQ_INT(verified, N);
    unmark_changes(&f, id, c, N);
    int marked = 0;
    for (int i = 0; i < N; i++) marked += i % 100 == 0 && state_of(&f, &c[i].key) != '-';
    CHECK_EQ_INT(marked, 0);
    for (int i = 0; i < N; i++) rg__key_deinit(&c[i].key);
    rg_block_unref(row);
    rg__free(c);
}

/* ---- marks that expire ---- */

SPEC(an_expired_mark_is_healed_by_a_locking_read_only) {
    rg__shared_timing(f.shared, 0, 20);
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    rg__sleep_ms(30);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__MISS);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    CHECK(e.lease.held && e.lease.heal);
    CHECK_EQ_INT(ttl_of(&f, &x.key), -1);
    fill_entry(&f, f.both, true, &x.key, x.before, &e, false);
    CHECK_EQ_INT(state_of(&f, &x.key), 'L');
    rg__entry liar = e; /* the script does not take our word for it */
    liar.lease.heal = false;
    fill_entry(&f, f.both, true, &x.key, x.before, &liar, false);
    CHECK_EQ_INT(state_of(&f, &x.key), 'L');
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_unlease(f.shared, &ctx, &x.key, 1, &e);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    e = lease_entry(&f, f.both, true, &x.key);
    CHECK(e.lease.heal);
    fill_entry(&f, f.both, true, &x.key, x.after, &e, true);
    CHECK_EQ_INT(cached_n(&x), 2);
    end(&x);
}

SPEC(a_late_publish_drops_what_was_filled) {
    rg__shared_timing(f.shared, 0, 20);
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    rg__sleep_ms(30);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    fill_entry(&f, f.both, true, &x.key, x.before, &e, true);
    CHECK_EQ_INT(cached_n(&x), 1);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

SPEC(a_late_publish_keeps_an_exposed_key_exposed) {
    rg__shared_timing(f.shared, 0, 20);
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    rg__sleep_ms(30);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    fill_entry(&f, f.both, true, &x.key, x.before, &e, true);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    rg__txid second = new_tx(); /* a transaction on it keeps that as well */
    mark_changes(&f, second, &x.change, 1, NULL);
    CHECK(!x.change.verified);
    unmark_changes(&f, second, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    mark_changes(&f, second, &x.change, 1, NULL);
    publish_changes(&f, second, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    end(&x);
}

SPEC(one_mark_of_two_expires) {
    rg__shared_timing(f.shared, 0, 20);
    tx x = begin_on(f.both, 1, true);
    rg__change c = x.change;
    rg__txid other = new_tx();
    mark_changes(&f, x.id, &x.change, 1, NULL);
    rg__sleep_ms(30);
    rg__shared_timing(f.shared, 0, 5000);
    mark_changes(&f, other, &c, 1, NULL);
    rg__entry e = lease_entry(&f, f.both, true, &x.key);
    CHECK_EQ_INT(e.found, RG__BYPASS);
    unmark_changes(&f, other, &c, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    end(&x);
}

static int sweep(uint32_t max) {
    rg__ctx ctx = ctx_ms(1000);
    rg_err err = {0};
    int n = rg__shared_sweep(f.shared, &ctx, max, &err);
    if (n < 0) printf("# %s\n", err.message);
    return n;
}

SPEC(the_sweeper_finds_what_nobody_reads) {
    rg__shared_timing(f.shared, 0, 20);
    tx x = begin_on(f.both, 1, true), y = begin_on(f.both, 2, true), z = begin_on(f.both, 3, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    mark_changes(&f, y.id, &y.change, 1, NULL);
    CHECK_EQ_INT(sweep(0), 0);
    rg__sleep_ms(30);
    rg__shared_timing(f.shared, 0, 5000);
    mark_changes(&f, z.id, &z.change, 1, NULL);
    CHECK_EQ_INT(sweep(1), 1);
    CHECK_EQ_INT(sweep(10), 1);
    CHECK_EQ_INT(sweep(10), 0);
    CHECK_EQ_INT(state_of(&f, &x.key), 'X');
    CHECK_EQ_INT(state_of(&f, &y.key), 'X');
    CHECK_EQ_INT(state_of(&f, &z.key), 'M');
    unmark_changes(&f, z.id, &z.change, 1);
    char marked[64]; /* a day later */
    snprintf(marked, sizeof marked, "{%s}:mz", f.prefix);
    CHECK_EQ_INT(ASK(f.pool, "ZCARD", marked), 2);
    ASK(f.pool, "ZADD", marked, "1", x.key.text);
    CHECK_EQ_INT(sweep(10), 0);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    CHECK_EQ_INT(ASK(f.pool, "ZCARD", marked), 1);
    end(&x);
    end(&y);
    end(&z);
}

/* ---- types that Redis does not cache ---- */

SPEC(changes_of_process_only_types_are_announced) {
    tx x = begin_on(f.local, 1, false);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    CHECK_EQ_INT(state_of(&f, &x.key), 'T');
    CHECK(ttl_of(&f, &x.key) > 20000); /* its expiry announces the commit of a writer that died */
    CHECK_EQ_INT(found_of(&f, f.local, &x.key, NULL), RG__MISS);
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), 'T');
    CHECK(ttl_of(&f, &x.key) <= 1000);
    end(&x);
}

SPEC(rows_nobody_caches_leave_no_entry) {
    tx x = begin_on(f.none, 1, false);
    CHECK_EQ_INT(mark_changes(&f, x.id, &x.change, 1, NULL), RG_OK);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

/* ---- epochs, floods and losses ---- */

SPEC(a_new_epoch_forgets_entries_but_not_marks) {
    tx x = begin_on(f.both, 1, true), y = begin_on(f.both, 2, true);
    rg__entry lease = {0};
    rg__key k = row_key(&f, f.both, 3);
    lease = lease_entry(&f, f.both, true, &k);
    mark_changes(&f, y.id, &y.change, 1, NULL);
    rg__ctx ctx = ctx_ms(1000);
    CHECK_EQ_INT(rg__shared_renew(f.shared, &ctx, NULL), RG_OK);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__MISS);
    rg_block *row = make_row(f.both, 3, "c", 3);
    fill_entry(&f, f.both, true, &k, row, &lease, true);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS);
    CHECK_EQ_INT(state_of(&f, &y.key), 'M');
    publish_changes(&f, y.id, &y.change, 1); /* what was committed may be gone again */
    CHECK_EQ_INT(state_of(&f, &y.key), '-');
    cache_row(&f, f.both, &x.key, x.before);
    CHECK_EQ_INT(cached_n(&x), 1);
    rg_block_unref(row);
    rg__key_deinit(&k);
    end(&x);
    end(&y);
}

/* Another process renews: this one learns it without a channel within a second. */
SPEC(a_foreign_epoch_is_noticed) {
    tx x = begin_on(f.both, 1, true);
    CHECK_EQ_INT(cached_n(&x), 1);
    rg__shared *other = rg__shared_new(f.pool, NULL, &f.schema, f.prefix, NULL, NULL);
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_renew(other, &ctx, NULL);
    rg__sleep_ms(1050);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__MISS);
    rg__shared_free(other);
    end(&x);
}

/* The second PUBLISH finds Redis standing still: nobody waits for its answer, and it counts all the same. */
TEST(a_publish_is_not_waited_for) {
    server server = {0};
    if (!server_start(&server)) return;
    fixture_init(&f, server.path);
    rg__key k = row_key(&f, f.both, 1);
    rg_block *rows[3];
    for (uint64_t n = 0; n < 3; n++) rows[n] = make_row(f.both, 1, "ann", n);
    cache_row(&f, f.both, &k, rows[0]);
    for (int i = 1; i < 3; i++) {
        rg__txid id = new_tx();
        rg__change c = row_change(f.both, k, rows[i - 1], rows[i]);
        CHECK_EQ_INT(mark_changes(&f, id, &c, 1, NULL), RG_OK);
        if (i == 2) kill(server.pid, SIGSTOP);
        int64_t start = rg__now_ms();
        publish_changes(&f, id, &c, 1);
        if (i == 2) CHECK(rg__now_ms() - start < 300 + BUSY_MS);
    }
    kill(server.pid, SIGCONT);
    uint64_t n = 0;
    for (int i = 0; i < 400 && n != 2; i++) { /* a server that goes on answers a while later */
        rg__sleep_ms(5);
        found_of(&f, f.both, &k, &n);
    }
    CHECK_EQ_INT(n, 2);
    for (int i = 0; i < 3; i++) rg_block_unref(rows[i]);
    rg__key_deinit(&k);
    fixture_deinit(&f);
    server_remove(&server);
}

/* Redis may have lost the mark of a transaction that is open still. */
SPEC(a_young_epoch_is_filled_by_locking_reads_only) {
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_renew(f.shared, &ctx, NULL);
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "ann", 5);
    rg__entry e = lease_entry(&f, f.both, true, &k);
    CHECK(e.lease.held && e.lease.heal);
    CHECK(ttl_of(&f, &k) > 0);
    fill_entry(&f, f.both, true, &k, row, &e, false);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS);
    fill_entry(&f, f.both, true, &k, row, &e, true);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__VALUE);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(scripts_that_were_flushed_come_back) {
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    ASK(f.pool, "SCRIPT", "FLUSH");
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(cached_n(&x), 2);
    end(&x);
}

SPEC(a_lost_mark_publishes_nothing) {
    tx x = begin_on(f.both, 1, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    raw_del(&f, &x.key);
    cache_row(&f, f.both, &x.key, x.before); /* somebody read before the commit */
    publish_changes(&f, x.id, &x.change, 1);
    CHECK_EQ_INT(state_of(&f, &x.key), '-');
    end(&x);
}

/* ---- dropping ---- */

SPEC(drop_forgets_all_but_marks_and_exposure) {
    tx x = begin_on(f.both, 1, true), y = begin_on(f.both, 2, true);
    mark_changes(&f, y.id, &y.change, 1, NULL);
    rg__key keys[] = {x.key, y.key, row_key(&f, f.both, 3)};
    rg__ctx ctx = ctx_ms(1000);
    rg_err err = {0};
    CHECK_EQ_INT(rg__shared_drop(f.shared, &ctx, keys, 3, &err), 1);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__MISS);
    CHECK_EQ_INT(state_of(&f, &y.key), 'M');
    unmark_changes(&f, y.id, &y.change, 1);
    CHECK_EQ_INT(state_of(&f, &y.key), '-');
    rg__key_deinit(&keys[2]);
    end(&x);
    end(&y);
}

SPEC(a_type_is_dropped_as_a_whole) {
    tx x = begin_on(f.both, 1, true), y = begin_on(f.both, 2, true), z = begin_on(f.local, 1, true);
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg_block *ids = make_ids(1, (uint64_t[]){3});
    cache_ids(&f, f.both, &k, ids);
    uint64_t dropped = 0;
    rg__ctx ctx = ctx_ms(5000);
    CHECK_EQ_INT(rg__shared_drop_type(f.shared, &ctx, f.both, &dropped, NULL), RG_OK);
    CHECK_EQ_INT(dropped, 3);
    CHECK_EQ_INT(found_of(&f, f.both, &x.key, NULL), RG__MISS);
    CHECK_EQ_INT(found_of(&f, f.local, &z.key, NULL), RG__VALUE);
    rg_block_unref(ids);
    rg__key_deinit(&k);
    end(&x);
    end(&y);
    end(&z);
}

/* ---- damage ---- */

/* Whatever bytes stand in an entry, a reader gets the right row, or none, and the next fill mends
 * it. */
static void survive(const rg__key *k, rg_block *row, const char *bytes, size_t n) {
    raw_set(&f, k, bytes, n);
    rg__entry e = get_entry(&f, f.both, true, k);
    bool hit = e.found == RG__VALUE;
    if (hit) CHECK(e.block->len == row->len && memcmp(e.block->data, row->data, row->len) == 0);
    bool stuck = e.found == RG__ABSENT || e.found == RG__BYPASS || e.found == RG__DELTAS;
    rg__entry_deinit(&e);
    if (hit || stuck) return;
    e = lease_entry(&f, f.both, true, k);
    if (e.lease.held) fill_entry(&f, f.both, true, k, row, &e, true);
    bool mended = e.lease.held || e.found == RG__VALUE;
    rg__entry_deinit(&e);
    /* states that a flipped bit made of V: marks and leases are honoured, pending ones kept */
    if (strchr("LMPQD", bytes[0])) return;
    CHECK(mended);
    uint64_t got = 0;
    int found = found_of(&f, f.both, k, &got);
    for (int i = 0; i < 100 && found == RG__BYPASS; i++) { /* Redis was late, and reads go past it for a while */
        rg__sleep_ms(10);
        found = found_of(&f, f.both, k, &got);
    }
    CHECK_EQ_INT(found, RG__VALUE);
    CHECK_EQ_INT(got, n_of(f.both, row));
}

SPEC(every_flipped_bit_is_survived) {
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "some name", 77);
    cache_row(&f, f.both, &k, row);
    char good[512], bad[512];
    size_t n = raw_get(&f, &k, good, sizeof good);
    REQUIRE(n > 40);
    for (size_t bit = 0; bit < n * 8; bit++) {
        memcpy(bad, good, n);
        bad[bit / 8] ^= (char)(1 << bit % 8);
        raw_del(&f, &k);
        survive(&k, row, bad, n);
    }
    for (size_t cut = 0; cut < n; cut++) survive(&k, row, good, cut);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(random_entries_are_survived) {
    rg__key k = row_key(&f, f.both, 1);
    rg_block *row = make_row(f.both, 1, "some name", 77);
    unsigned seed = 42;
    for (int i = 0; i < 3000; i++) {
        char bytes[128];
        size_t n = (unsigned)rand_r(&seed) % sizeof bytes;
        for (size_t j = 0; j < n; j++) bytes[j] = (char)rand_r(&seed);
        if (n) bytes[0] = "VNPQDLMXT"[(unsigned)rand_r(&seed) % 9];
        raw_del(&f, &k);
        survive(&k, row, n ? bytes : "", n);
        tx x = {.id = new_tx(), .key = k};
        x.change = row_change(f.both, k, row, row);
        int rc = mark_changes(&f, x.id, &x.change, 1, NULL);
        CHECK(rc == RG_OK || rc == RG_EPENDING);
        publish_changes(&f, x.id, &x.change, 1);
        rg__ctx ctx = ctx_ms(1000);
        CHECK(rg__shared_drop(f.shared, &ctx, &k, 1, NULL) >= 0);
    }
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(a_row_under_another_id_is_refused) {
    rg__key a = row_key(&f, f.both, 1), b = row_key(&f, f.both, 2);
    rg_block *row = make_row(f.both, 1, "ann", 5);
    cache_row(&f, f.both, &a, row);
    char bytes[512];
    size_t n = raw_get(&f, &a, bytes, sizeof bytes);
    raw_set(&f, &b, bytes, n);
    unsigned long long before = metrics.counter[RG__C_CORRUPT_ENTRY];
    CHECK_EQ_INT(found_of(&f, f.both, &b, NULL), RG__MISS);
    CHECK_EQ_INT(metrics.counter[RG__C_CORRUPT_ENTRY], before + 1);
    rg_block_unref(row);
    rg__key_deinit(&a);
    rg__key_deinit(&b);
}

SPEC(a_key_of_another_type_is_replaced) {
    rg__key k = row_key(&f, f.both, 1), other = row_key(&f, f.both, 2);
    rg_block *row = make_row(f.both, 1, "ann", 5);
    for (int many = 0; many < 2; many++) {
        ASK(f.pool, "DEL", k.text);
        ASK(f.pool, "LPUSH", k.text, "x");
        rg__key keys[] = {k, other};
        rg__entry e[2];
        rg__ctx ctx = ctx_ms(1000);
        rg__shared_get(f.shared, &ctx, f.both, true, keys, 1 + (size_t)many, e);
        CHECK_EQ_INT(e[0].found, RG__MISS);
        rg__shared_lease(f.shared, &ctx, f.both, true, keys, 1, e);
        CHECK(e[0].lease.held);
        fill_entry(&f, f.both, true, &k, row, &e[0], false);
        CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__VALUE);
    }
    rg_block_unref(row);
    rg__key_deinit(&k);
    rg__key_deinit(&other);
}

SPEC(an_epoch_of_another_type_is_replaced) {
    char name[64];
    snprintf(name, sizeof name, "{%s}:ep", f.prefix);
    ASK(f.pool, "LPUSH", name, "x");
    tx x = begin_on(f.both, 1, true);
    CHECK_EQ_INT(cached_n(&x), 1);
    end(&x);
}

/* ---- Redis away ---- */

SPEC(readers_never_fail) {
    rg__redis_pool *nowhere = pool_on("/tmp/rg-spec-no-such-socket");
    rg__shared *s = rg__shared_new(nowhere, NULL, &f.schema, "x", &metrics, NULL);
    rg__key k = row_key(&f, f.both, 1);
    rg__entry e;
    rg__ctx ctx = ctx_ms(5000);
    int64_t start = rg__now_ms();
    for (int i = 0; i < 100; i++) {
        rg__shared_get(s, &ctx, f.both, true, &k, 1, &e);
        CHECK_EQ_INT(e.found, RG__BYPASS);
        rg__shared_lease(s, &ctx, f.both, true, &k, 1, &e);
        CHECK_EQ_INT(e.found, RG__BYPASS);
        rg__shared_fill(s, &ctx, f.both, true, &k, 1, &(rg_block *){NULL}, &e, false);
        rg__shared_unlease(s, &ctx, &k, 1, &e);
    }
    CHECK(rg__now_ms() - start < BUSY_MS);
    rg__change c = row_change(f.both, k, NULL, NULL);
    rg_err err = {0};
    CHECK_EQ_INT(rg__shared_mark(s, &ctx, new_tx(), &c, 1, NULL, &err), RG_EUNAVAILABLE);
    rg__shared_free(s);
    rg__redis_pool_free(nowhere);
    rg__key_deinit(&k);
}

SPEC(a_silent_redis_costs_readers_little) {
    peer p = {.say = "+OK\r\n", .len = 5};
    REQUIRE(peer_start(&p));
    rg__redis_pool *pool = pool_on(p.path);
    rg__shared *s = rg__shared_new(pool, NULL, &f.schema, "x", &metrics, NULL);
    rg__key k = row_key(&f, f.both, 1);
    rg__entry e;
    rg__ctx ctx = ctx_ms(5000);
    int64_t start = rg__now_ms();
    rg__shared_get(s, &ctx, f.both, true, &k, 1, &e);
    CHECK_EQ_INT(e.found, RG__BYPASS);
    CHECK(rg__now_ms() - start < 250 + BUSY_MS);
    ctx = ctx_ms(50);
    start = rg__now_ms();
    rg__shared_get(s, &ctx, f.both, true, &k, 1, &e);
    CHECK_EQ_INT(e.found, RG__BYPASS);
    CHECK(rg__now_ms() - start < 50 + BUSY_MS);
    rg__shared_free(s);
    rg__redis_pool_free(pool);
    peer_stop(&p);
    rg__key_deinit(&k);
}

/* Want of memory refuses marks, and so transactions; what follows an outcome never leaves an old
 * value. */
SPEC(a_full_redis_keeps_nothing_old) {
    server s = {.args = {"--maxmemory-policy", "noeviction"}};
    if (!server_start(&s)) return;
    fixture outer = f;
    fixture_init(&f, s.path);
    tx x = begin_on(f.both, 1, true), y = begin_on(f.both, 2, true);
    mark_changes(&f, x.id, &x.change, 1, NULL);
    mark_changes(&f, y.id, &y.change, 1, NULL);
    ASK(f.pool, "CONFIG", "SET", "maxmemory", "1");
    CHECK_EQ_INT(mark_changes(&f, new_tx(),
                              &(rg__change){.key = x.key, .type = f.both, .is_row = true}, 1, NULL),
                 RG_EUNAVAILABLE);
    publish_changes(&f, x.id, &x.change, 1);
    unmark_changes(&f, y.id, &y.change, 1);
    CHECK(cached_n(&x) == 2 || state_of(&f, &x.key) == '-');
    CHECK(cached_n(&y) == 1 || state_of(&f, &y.key) == '-');
    rg__key k = row_key(&f, f.both, 3);
    rg__entry e = lease_entry(&f, f.both, true, &k);
    CHECK_EQ_INT(e.found, RG__BYPASS);
    rg__key_deinit(&k);
    ASK(f.pool, "CONFIG", "SET", "maxmemory", "0");
    end(&x);
    end(&y);
    fixture_deinit(&f);
    f = outer;
    server_remove(&s);
}

/* ---- memory ---- */

SPEC(lives_without_memory) {
    rg_block *row = make_row(f.both, 1, "ann", 5);
    for (long n = 1; n < 80; n++) {
        rg__alloc_fail_at(n, 0);
        rg__key k = row_key(&f, f.both, 1);
        rg__entry e[1];
        rg__ctx ctx = ctx_ms(1000);
        rg__shared_get(f.shared, &ctx, f.both, true, &k, 1, e);
        if (e->found == RG__MISS) rg__shared_lease(f.shared, &ctx, f.both, true, &k, 1, e);
        rg__shared_fill(f.shared, &ctx, f.both, true, &k, 1, &row, e, true);
        rg__entry_deinit(e);
        rg__change c = row_change(f.both, k, row, row);
        rg__txid id = new_tx();
        rg_err err = {0};
        if (rg__shared_mark(f.shared, &ctx, id, &c, 1, NULL, &err) == RG_OK)
            rg__shared_publish(f.shared, &ctx, id, &c, 1);
        rg__alloc_fail_at(0, 0);
        if (k.text) raw_del(&f, &k);
        rg__key_deinit(&k);
    }
    rg_block_unref(row);
}

REDIS_MAIN
