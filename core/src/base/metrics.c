/* SPDX-License-Identifier: MIT */
/* Histograms, and counters as Prometheus text. */
#include "base/metrics.h"

static const struct { const char *name, *help; } counters[] = {
#define X(id, name, help) {name, help},
    RG__COUNTERS(X)
#undef X
}, histograms[] = {
#define X(id, name, help) {name, help},
    RG__HISTOGRAMS(X)
#undef X
};

static uint64_t bound_us(unsigned bucket) { return UINT64_C(25) << bucket; }

static unsigned bucket_of(uint64_t us) {
    unsigned k = 0;
    while (k < RG__BUCKETS - 1 && us > bound_us(k)) k++;
    return k;
}

static void add(atomic_ullong *to, uint64_t n) {
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static uint64_t load(const atomic_ullong *from) {
    return atomic_load_explicit(from, memory_order_relaxed);
}

void rg__observe(rg__metrics *m, rg__histogram h, int64_t us) {
    if (!m) return;
    uint64_t took = us > 0 ? (uint64_t)us : 0;
    add(&m->histogram[h].bucket[bucket_of(took)], 1);
    add(&m->histogram[h].count, 1);
    add(&m->histogram[h].sum_us, took);
}

static void add_seconds(rg__buf *out, uint64_t us) {
    rg__buf_u64(out, us / 1000000);
    rg__buf_fmt(out, ".%06u", (unsigned)(us % 1000000));
}

static void add_head(rg__buf *out, const char *name, const char *help, const char *type) {
    rg__buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_value(rg__buf *out, const char *name, const char *suffix, uint64_t v) {
    rg__buf_fmt(out, "%s%s ", name, suffix);
    rg__buf_u64(out, v);
    rg__buf_char(out, '\n');
}

static void render_buckets(const rg__metrics *m, int h, const char *name, rg__buf *out) {
    uint64_t below = 0;
    for (unsigned k = 0; k < RG__BUCKETS; k++) {
        below += load(&m->histogram[h].bucket[k]);
        rg__buf_fmt(out, "%s_bucket{le=\"", name);
        if (k < RG__BUCKETS - 1) add_seconds(out, bound_us(k));
        else rg__buf_str(out, "+Inf");
        add_value(out, "\"}", "", below);
    }
    /* The count is the last bucket: it then agrees with them while others are adding. */
    add_value(out, name, "_count", below);
}

static void render_histogram(const rg__metrics *m, int h, rg__buf *out) {
    const char *name = histograms[h].name;
    add_head(out, name, histograms[h].help, "histogram");
    render_buckets(m, h, name, out);
    rg__buf_fmt(out, "%s_sum ", name);
    add_seconds(out, load(&m->histogram[h].sum_us));
    rg__buf_char(out, '\n');
}

void rg__metrics_render(const rg__metrics *m, rg__buf *out) {
    for (int c = 0; c < RG__C_END; c++) {
        add_head(out, counters[c].name, counters[c].help, "counter");
        add_value(out, counters[c].name, "", load(&m->counter[c]));
    }
    for (int h = 0; h < RG__H_END; h++) render_histogram(m, h, out);
}
