/* SPDX-License-Identifier: MIT */
/* Events of a batch: of what was applied, and of what became a dead letter. */
#include "queue/batch.h"
#include "queue/outbox.h"

/* What has gone wrong, of an entity where the message names one of its shards ("name@shard"). */
static void add_error(rg__buf *out, const char *message, const char *entity) {
    size_t full = strlen(entity), len = rg__entity_len(entity);
    rg__buf plain = {0};
    for (const char *at; full > len && (at = strstr(message, entity)); message = at + full) {
        rg__buf_add(&plain, message, (size_t)(at - message));
        rg__buf_add(&plain, entity, len);
    }
    rg__buf_str(&plain, message);
    if (plain.failed) out->failed = true;
    rg__json_text(out, plain.p, plain.len);
    rg__buf_deinit(&plain);
}

static void letter_text(const rg__task *t, const rg__queue *q, rg__buf *out) {
    const char *entity = t->op ? rg__qop_entity(t->op) : "";
    const char *operation = t->op ? rg__write_name(t->op->write) : "entry";
    char id[RG__POS_TEXT];
    rg__pos_format(t->id, id);
    rg__buf_str(out, "{\"queue\":");
    rg__json_text(out, q->name, strlen(q->name));
    rg__buf_fmt(out, ",\"number\":%llu,\"id\":\"%s\",\"operation\":\"%s\",\"state\":\"%s\",\"entity\":",
                (unsigned long long)t->letter, id, operation,
                t->fate == RG__FATE_PARKED ? "parked" : "dead");
    rg__json_text(out, entity, rg__entity_len(entity));
    rg__buf_fmt(out, ",\"entity_id\":%llu,\"errno\":%u,\"sqlstate\":\"%s\",\"error\":",
                (unsigned long long)(t->op ? t->op->id : 0), t->error->sql_errno, t->error->sqlstate);
    add_error(out, t->error->message, entity);
    rg__buf_char(out, '}');
}

static int announce(rg__outbox *o, const rg__task *t, const rg__ctx *ctx, rg_err *err) {
    rg__buf stream = {0}, body = {0};
    rg__dead_stream(o->q, &stream);
    letter_text(t, o->q, &body);
    int rc = stream.failed || body.failed
                 ? rg__fail_memory(err)
                 : rg__outbox_add(o, ctx, (rg__slice){stream.p, stream.len},
                                  (rg__slice){body.p, body.len}, err);
    rg__buf_deinit(&stream);
    rg__buf_deinit(&body);
    return rc;
}

static int tell(rg__outbox *o, const rg__task *t, const rg__ctx *ctx, rg_err *err) {
    if (t->fate != RG__FATE_GOOD) return announce(o, t, ctx, err);
    return rg__qop_tell(o, ctx, t->op, err);
}

int rg__qop_tell(rg__outbox *o, const rg__ctx *ctx, const rg__qdecoded *op, rg_err *err) {
    if (!op->type || op->type->n_feeds == 0) return RG_OK;
    return rg__outbox_tell(o, ctx, op->type, op->write, op->id, op->row ? op->row->data : NULL,
                           op->mask, err);
}

int rg__batch_write_events(const rg__batch *b, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx,
                           rg_err *err) {
    rg__outbox o = {.q = q, .c = c};
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++) rc = tell(&o, &b->tasks[i], ctx, err);
    if (rc >= 0) rc = rg__outbox_write(&o, ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}
