/* SPDX-License-Identifier: MIT */
/* What a connection to a primary with replicas writes, and at which position: told to the timeline
 * of whoever wrote. Statements name their table; those that do not are taken to write all. */
#include "mysql/replica.h"

/* ---- what was written since the last position ---- */

static void note_write(rg__mysql *c, const rg__call *call) {
    rg__wrote *w = &c->wrote;
    for (uint32_t i = 0; i < w->n; i++)
        if (w->types[i] == call->type) return;
    if (!call->type || w->n == RG__WROTE)
        w->any = true;
    else
        w->types[w->n++] = call->type;
}

static void tell(rg__mysql *c, const rg__ctx *ctx, const rg__need *need) {
    rg__wrote *w = &c->wrote;
    for (uint32_t i = 0; ctx->timeline && i < w->n; i++)
        rg__timeline_add(ctx->timeline, c->pool, w->types[i], need);
    if (ctx->timeline && w->any) rg__timeline_add(ctx->timeline, c->pool, NULL, need);
    *w = (rg__wrote){0};
}

/* ---- what the answer says ---- */

/* MariaDB tells a system variable: its name, then its value. */
static rg__slice told(rg__mysql *c) {
    const char *p = NULL;
    size_t len = 0;
    bool mysql = c->flavour == RG__MYSQL;
    enum enum_session_state_type kind =
        mysql ? SESSION_TRACK_GTIDS : SESSION_TRACK_SYSTEM_VARIABLES;
    if (!c->tracks || !(c->my->server_status & SERVER_SESSION_STATE_CHANGED))
        return (rg__slice){NULL, 0};
    int rc = mysql_session_track_get_first(c->my, kind, &p, &len);
    for (bool name = !mysql; rc == 0; rc = mysql_session_track_get_next(c->my, kind, &p, &len)) {
        if (!name) return (rg__slice){p, len};
        name = !rg__slice_eq((rg__slice){p, len}, rg__slice_of("last_gtid"));
    }
    return (rg__slice){NULL, 0};
}

static rg__need need_of(rg__slice position) {
    rg__need need = {0};
    need.n = position.len ? rg__gtid_read(position, need.gtids, RG__NEED_GTIDS) : 0;
    if (need.n > 0) return need;
    return (rg__need){.vague = true};
}

void rg__track_end(rg__mysql *c, const rg__call *call, int code) {
    if (!rg__pool_replicas(c->pool)) return;
    if (call->rollback) {
        c->wrote = (rg__wrote){0};
        return;
    }
    if (call->write) note_write(c, call);
    if (!c->wrote.n && !c->wrote.any) return;
    if (code == RG_ECOMMIT_UNKNOWN) {
        tell(c, call->ctx, &(rg__need){.lost = true});
    } else if (c->tx == RG__TXS_NONE) {
        rg__need need = {0}; /* failed: nothing was written */
        if (code == 0) need = need_of(told(c));
        tell(c, call->ctx, &need);
    }
}

/* A server that does not know the setting is asked where it is instead. */
void rg__track_start(rg__mysql *c) {
    if (!rg__pool_replicas(c->pool)) return;
    const char *sql = c->flavour == RG__MYSQL
                          ? "SET SESSION session_track_gtids=OWN_GTID"
                          : "SET SESSION session_track_system_variables='last_gtid'";
    c->tracks = mysql_real_query(c->my, sql, strlen(sql)) == 0;
}
