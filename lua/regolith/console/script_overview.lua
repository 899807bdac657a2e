-- SPDX-License-Identifier: MIT
-- The console's script: how everything is, at a glance.
return [==[
// ---- overview ----

// The newest slot may lack workers that have not told yet.
function wholePoints() {
  var list = state.points, n = list.length;
  return n && state.last && list[n - 1].workers < state.last.processes ? list.slice(0, n - 1) : list;
}
function queuePoints() { return state.queuePoints; }

function hitsOf(p) {
  var asked = p.process_hits + p.process_misses;
  if (!asked) asked = p.redis_hits + p.redis_misses;
  var hits = p.process_hits + p.redis_hits;
  return asked > 0 ? Math.min(hits / asked * 100, 100) : null;
}

function queueSeries(get) {
  return function () {
    var names = state.last ? state.last.queues.list.map(function (q) { return q.queue; }) : [];
    return names.slice(0, 4).map(function (name) {
      return { name: name, get: function (p) { return p.queues[name] ? get(p.queues[name]) : null; } };
    });
  };
}
function fixed(list) { return function () { return list; }; }
function averaged(seconds, n) { return function (p) { return p[n] > 0 ? p[seconds] / p[n] * 1000 : null; }; }

var CHARTS = [
  { title: "Lag of the queues", points: queuePoints, format: duration, least: 1000,
    series: queueSeries(function (q) { return q.oldest_ms; }) },
  { title: "Entries in the queues", points: queuePoints, format: number, least: 4,
    series: queueSeries(function (q) { return q.length; }) },
  { title: "Operations applied / s", points: queuePoints, format: number, least: 1,
    series: queueSeries(function (q) { return q.rate; }) },
  { title: "Answered by caches", points: wholePoints, format: function (v) { return number(v) + " %"; }, most: 100,
    series: fixed([
      { name: "process", get: function (p) { return percent(p.process_hits, p.process_hits + p.process_misses); } },
      { name: "Redis", get: function (p) { return percent(p.redis_hits, p.redis_hits + p.redis_misses); } }]) },
  { title: "Calls / s", points: wholePoints, format: number, least: 1,
    series: fixed([{ name: "MySQL", get: function (p) { return p.mysql; } },
      { name: "Redis", get: function (p) { return p.redis; } }]) },
  { title: "Time of a call", points: wholePoints, format: millis, least: 1,
    series: fixed([{ name: "MySQL", get: averaged("mysql_s", "mysql_n") },
      { name: "p95", get: function (p) { return p.mysql_n > 0 ? p.mysql_p95 : null; } },
      { name: "Redis", get: averaged("redis_s", "redis_n") }]) }];

function tile(name, value, unit, sub, kind, line, href) {
  return h((href ? "a" : "div") + ".card.tile" + (kind ? "." + kind : ""), { href: href, "data-key": href && "tile " + name },
    h("span.name", {}, name), h("span.value", {}, value, unit ? h("small", {}, unit) : null), h("span.sub", {}, sub),
    line || null);
}

function tiles(last) {
  var points = wholePoints(), p = points[points.length - 1], queues = last.queues.list;
  function sum(name) { return queues.reduce(function (n, q) { return n + (q[name] || 0); }, 0); }
  var lag = queues.reduce(function (n, q) { return Math.max(n, q.oldest_ms); }, 0), dead = sum("dead");
  var used = last.pools.reduce(function (n, pool) { return n + pool.busy; }, 0);
  var limit = last.pools.reduce(function (n, pool) { return n + pool.limit; }, 0);
  var waiting = last.pools.reduce(function (n, pool) { return n + pool.waiting; }, 0) + (last.counts.waiting || 0);
  var hits = p ? hitsOf(p) : null;
  var failed = p ? (p.mysql_errors + p.redis_errors) * 60 : 0;
  return [
    tile("MySQL statements", p ? number(p.mysql) : "–", "/ s",
      p && p.mysql_n > 0 ? millis(p.mysql_s / p.mysql_n * 1000) + " each" : "none now", "",
      spark(points, function (q) { return q.mysql; }, last.now)),
    tile("Redis commands", p ? number(p.redis) : "–", "/ s",
      p && p.redis_n > 0 ? millis(p.redis_s / p.redis_n * 1000) + " each" : "none now", "",
      spark(points, function (q) { return q.redis; }, last.now)),
    tile("Answered by caches", hits === null ? "–" : number(hits), hits === null ? "" : "%",
      last.coherent ? "process and Redis" : "process caches are passed by", last.coherent ? "" : "warn",
      spark(points, hitsOf, last.now, 100)),
    tile("Queued", number(sum("length")), "entries", lag > 0 ? duration(lag) + " behind" : "up to date",
      lag > 60000 ? "warn" : "", spark(queuePoints(), function (q) {
        return Object.keys(q.queues).reduce(function (n, name) { return n + q.queues[name].length; }, 0);
      }, last.now)),
    tile("Dead letters", number(dead), "", dead ? "wait for somebody" : "none", dead ? "bad" : "",
      spark(queuePoints(), function (q) {
        return Object.keys(q.queues).reduce(function (n, name) { return n + q.queues[name].dead; }, 0);
      }, last.now), "#/letters"),
    tile("Connections", number(used), "of " + limit + " busy",
      waiting ? waiting + " waiting" : failed > 0 ? number(failed) + " errors / min" : "nobody waits",
      waiting ? "warn" : "", spark(points, function (q) { return q.busy; }, last.now))];
}

function poolRows(last) {
  return last.pools.map(function (p) {
    var full = p.busy / (p.limit || 1);
    return h("tr", {}, h("td", {}, h("b", {}, p.name), " ", h("span.soft", {}, p.kind)),
      h("td.wide", {}, p.ok === undefined ? h("span.tag", {}, "not asked") : p.ok ? h("span.tag.good", {}, "answers") :
        h("span.tag.bad", {}, "down"), p.error ? h("div.error", {}, p.error) : null),
      h("td", { "data-label": "busy" }, gauge(p.busy, p.limit, full >= 1 ? "bad" : full > 0.8 ? "warn" : ""),
        h("span.nowrap", {}, p.busy + " of " + p.limit)),
      h("td.n", { "data-label": "idle" }, exact(p.idle)),
      h("td.n", { "data-label": "waiting" }, p.waiting ? h("b.error", {}, exact(p.waiting)) : "0"),
      h("td.n", { "data-label": "errors" }, exact(p.errors)));
  });
}

function cacheRows(c) {
  function row(name, note, hits, misses, other) {
    return h("tr", {}, h("td", {}, h("b", {}, name), " ", h("span.soft", {}, note)),
      h("td", { "data-label": "answered" }, gauge(hits, hits + misses), h("span.nowrap", {}, ratio(hits, hits + misses))),
      h("td.n", { "data-label": "hits" }, exact(hits)), h("td.n", { "data-label": "misses" }, exact(misses)),
      h("td.wide.soft", {}, other));
  }
  var values = c.values_process_hits + c.values_redis_hits;
  return [
    row("Process", "rows", c.process_hits, c.process_misses, words(c.entries, "entry", "entries") + ", " + bytes(c.bytes) +
      (c.evictions ? ", " + exact(c.evictions) + " evicted" : "") + (c.clears ? ", emptied " + exact(c.clears) + "×" : "")),
    row("Redis", "rows", c.redis_hits, c.redis_misses, (c.redis_bypasses ? exact(c.redis_bypasses) + " passed by" : "") +
      (c.refused ? (c.redis_bypasses ? ", " : "") + exact(c.refused) + " fills refused" : "")),
    row("Values", "and searches", values, c.values_misses, c.values_stale ? exact(c.values_stale) + " stale" : "")];
}

function setPaused(queue, paused) {
  function go() {
    api("queue/" + (paused ? "pause" : "resume"), { queue: queue }).then(function () {
      toast("The queue " + queue + (paused ? " is paused." : " goes on."));
      tick();
    }, told);
  }
  if (!paused) return go();
  confirmed("Pause the queue " + queue + "?", "Its consumers, on all machines, finish what they are at and leave it alone " +
    "until somebody lets it go on. Flushes go on queueing.", "Pause it", false, go);
}

function queueRows(last) {
  var rows = [];
  last.queues.list.forEach(function (q) {
    rows.push(h("tr", {}, h("td", {}, h("b", {}, q.queue), " ", q.partitions.length > 1 ?
      h("span.soft", {}, q.partitions.length + " partitions") : null),
      h("td.wide", {}, q.paused ? h("span.tag.warn", {}, "paused") : h("span.tag.good", {}, "runs")),
      h("td.n", { "data-label": "entries" }, exact(q.length)), h("td.n", { "data-label": "lag" }, duration(q.oldest_ms)),
      h("td.n", { "data-label": "applied / s" }, number(q.rate || 0)),
      h("td.n", { "data-label": "applied" }, exact(q.applied)),
      h("td.n", { "data-label": "delayed", title: q.next_at ? "the next at " + clock(q.next_at) : null }, exact(q.delayed || 0)),
      h("td.n", { "data-label": "dead" }, q.dead ? h("a.error", { href: "#/letters/" + encodeURIComponent(q.queue),
        "data-key": "dead " + q.queue }, exact(q.dead)) : "0"),
      h("td.n", {}, state.session.read_only ? null : h("button", { type: "button", "data-key": "pause " + q.queue,
        "aria-label": (q.paused ? "Let go on: queue " : "Pause queue ") + q.queue,
        onclick: function () { setPaused(q.queue, !q.paused); } }, q.paused ? "Go on" : "Pause…"))));
    if (q.partitions.length > 1) q.partitions.forEach(function (part) {
      rows.push(h("tr.part.hide-small", {}, h("td", {}, "partition " + part.number), h("td", {}, part.paused ? "paused" : ""),
        h("td.n", {}, exact(part.length)), h("td.n", {}, duration(part.oldest_ms)), h("td.n"), h("td.n", {}, exact(part.applied)),
        h("td.n"), h("td.n", {}, exact(part.dead)), h("td")));
    });
  });
  return rows;
}

function table(title, note, columns) {
  var body = h("tbody"), noted = h("span.quiet", {}, note);
  return { body: body, note: noted, el: h("section.card", { "aria-label": title }, h("div.bar", {}, h("h2", {}, title), noted),
    h("div.scroll", {}, h("table.cards", {}, h("thead", {}, h("tr", {}, columns.map(function (c) {
      return h("th" + (c[0] === ">" ? ".n" : ""), { scope: "col" }, c.replace(/^>/, ""));
    }))), body))) };
}

page("overview", "Overview", function (main) {
  var notes = h("div"), top = h("div.tiles"), charts = CHARTS.map(chart);
  var queues = table("Queues", "", ["Queue", "State", ">Entries", ">Lag", ">Applied / s", ">Applied", ">Delayed", ">Dead", ""]);
  var pools = table("Connections", "", ["Pool", "State", "Busy", ">Idle", ">Waiting", ">Errors"]);
  var caches = table("Caches", "since the start", ["Tier", "Answered", ">Hits", ">Misses", ""]);
  var span = h("select", { "aria-label": "How far back the charts go", "data-key": "range", onchange: function () {
    state.range = Number(span.value);
    if (state.last) update(state.last);
  } }, [300, 900, 1800, 7200].filter(function (n, i) { return !i || n <= state.session.keep * state.session.interval_s; })
    .map(function (n) { return h("option", { value: String(n) }, "last " + duration(n * 1000)); }));
  span.value = String(state.range);
  if (!span.value) { state.range = 300; span.value = "300"; }

  function update(last) {
    swap(notes, last.queues.error ? h("p.note.bad", {}, "The queues cannot be asked: " + last.queues.error) : null,
      last.warnings.map(function (w) { return h("p.note", {}, w.text); }),
      last.partial ? h("p.note", {}, "Figures are those of one worker process (" + last.process +
        "). With a shared dictionary they are of all of them.") : null);
    notes.hidden = !notes.firstChild;
    swap.apply(null, [top].concat(tiles(last)));
    charts.forEach(function (c) { c.update(last.now); });
    swap.apply(null, [queues.body].concat(queueRows(last)));
    swap.apply(null, [pools.body].concat(poolRows(last)));
    swap.apply(null, [caches.body].concat(cacheRows(last.counts)));
    queues.el.hidden = !last.queues.list.length;
    pools.note.textContent = last.processes > 1 ? "of " + last.processes + " worker processes" : "of process " + last.process;
  }
  put(main, [h("div.bar", {}, h("h1", {}, "Overview"), h("div.right", {}, span)), notes, top,
    h("div.charts", {}, charts.map(function (c) { return c.el; })), queues.el,
    h("div.halves", {}, pools.el, caches.el)]);
  var observer = new ResizeObserver(function () { if (state.last) charts.forEach(function (c) { c.draw(); }); });
  observer.observe(main);
  return { update: update };
});
]==]
