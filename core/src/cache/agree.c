/* SPDX-License-Identifier: MIT */
/* Programs that share a prefix have to agree on what a write does while Redis is away: asked once an epoch,
 * before anything of it is used (scripts/agree.lua). */
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(agree, agree);

static const char *policy_of(const rg_type *t) {
    return t->outage == RG_OUTAGE_AVAILABLE ? "available" : "strict";
}

static bool is_told(const rg__shared *s, const rg_type *t) {
    return rg__type_shared(t) && strcmp(t->redis, rg__redis_pool_name(s->pool)) == 0;
}

bool rg__agree_init(rg__shared *s) {
    for (uint32_t i = 0; i < s->schema->n; i++) {
        const rg_type *t = s->schema->types[i];
        if (!is_told(s, t)) continue;
        rg__key_table(t, &s->policies);
        rg__buf_char(&s->policies, 0);
        rg__buf_str(&s->policies, policy_of(t));
        rg__buf_char(&s->policies, 0);
    }
    return !s->policies.failed;
}

static void add_policies(rg__args *a, const rg__shared *s) {
    for (size_t at = 0; at < s->policies.len;) {
        size_t len = strlen(s->policies.p + at);
        rg__args_add(a, s->policies.p + at, len);
        at += len + 1;
    }
}

static int judge(const rg__shared *s, const redisReply *r, rg_err *err) {
    if (r && r->type == REDIS_REPLY_INTEGER) return RG_OK;
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_STRING)
        return rg__fail(err, RG_ECORRUPT, "AGREE answered something else");
    return rg__fail(err, RG_EMISUSE,
                    "programs with prefix %s have outage = '%s' for table %s; all have to be given the same",
                    s->prefix, r->element[1]->str, r->element[0]->str);
}

int rg__agree(rg__shared *s, rg__redis *c, const rg__ctx *ctx, uint64_t epoch, rg_err *err) {
    if (atomic_load_explicit(&s->agreed, memory_order_relaxed) == epoch) return RG_OK;
    rg__args a;
    redisReply *r = NULL;
    rg__args_init(&a);
    rg__args_name(&a, &s->epoch_key);
    rg__args_name(&a, &s->agreed_key);
    add_policies(&a, s);
    int rc = a.failed ? rg__fail_memory(err)
                      : rg__script_call(c, ctx, &agree, 2, a.n, a.argv, a.lens, &r, err);
    if (rc == RG_OK) rc = judge(s, r, err);
    if (rc == RG_OK) atomic_store_explicit(&s->agreed, epoch, memory_order_relaxed);
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}
