-- SPDX-License-Identifier: MIT
-- The console's script: what took long, the schema, events, callbacks.
return [==[
// ---- what took long ----

function stamp(seconds) {
  var day = new Date(seconds * 1000).toLocaleDateString();
  return (day === new Date().toLocaleDateString() ? "" : day + " ") + clock(seconds);
}

page("slow", "Slow", function (main) {
  var list = h("section.card"), order = "duration", answer = null;
  function fill() {
    var rows = answer.slow.slice().sort(function (a, b) { return b[order] - a[order]; });
    var longest = rows.reduce(function (n, e) { return Math.max(n, e.duration); }, 0);
    if (!rows.length) return swap(list, h("p.empty", {}, h("b", {}, "Nothing slow"), "No statement has taken long since the start."));
    swap(list, h("div.scroll", {}, h("table.cards", {}, h("thead", {}, h("tr", {},
      ["Took", "When", "Where", "Statement"].map(function (t) { return h("th", { scope: "col" }, t); }),
      h("th.n", { scope: "col" }, "Rows"), h("th"))),
      h("tbody", {}, rows.map(function (e) {
        return h("tr", {}, h("td.nowrap", {}, gauge(e.duration, longest), duration(e.duration * 1000)),
          h("td.nowrap", {}, stamp(e.started)), h("td.nowrap", {}, e.source, " ", h("span.soft", {}, e.pool)),
          h("td.text.sql", {}, e.source === "redis" ? e.op + " (" + e.text + ")" : e.text),
          h("td.n", { "data-label": "rows" }, e.rows === undefined ? "" : exact(e.rows)),
          h("td", {}, e.code ? h("span.tag.bad", {}, e.code) : null));
      })))));
  }
  function load() {
    api("slow").then(function (given) { answer = given; fill(); }, function (failure) {
      swap(list, h("p.empty.error", { role: "alert" }, failure.message));
    });
  }
  put(main, [h("div.bar", {}, h("h1", {}, "Slow statements and commands"), h("div.right", {},
    h("select", { "aria-label": "Order", onchange: function (event) { order = event.target.value; if (answer) fill(); } },
      h("option", { value: "duration" }, "slowest first"), h("option", { value: "started" }, "latest first")),
    h("button", { type: "button", onclick: load }, "Look again"))),
    h("p.soft", {}, "The latest that took longer than the bound (slow_ms). Values are never kept."), list]);
  load();
});

// ---- schema ----

page("schema", "Schema", function (main) {
  var list = h("section.card");
  function load() {
    swap(list, h("p.empty", {}, "Looking at the databases…"));
    api("schema").then(function (answer) {
      if (!answer.changes.length) {
        return swap(list, h("p.empty", {}, h("b", {}, "No difference"), "The databases are as the entities say."));
      }
      var unsafe = answer.changes.filter(function (c) { return !c.safe; }).length;
      swap(list, h("div.bar", {}, h("h2", {}, words(answer.changes.length, "difference", "differences")),
        h("span.quiet", {}, unsafe ? words(unsafe, "is", "are") + " destructive" : "all safe")),
        answer.changes.map(function (c) {
          return h("div.change", {}, h("div.bar", {}, h("b", {}, c.table), h("span.soft", {}, c.pool),
            h("span.tag" + (c.safe ? ".good" : ".bad"), {}, c.safe ? "safe" : "destructive"), h("span", {}, c.reason || c.kind)),
            h("pre", {}, c.sql + ";"));
        }));
    }, function (failure) { swap(list, h("p.empty.error", { role: "alert" }, failure.message)); });
  }
  put(main, [h("div.bar", {}, h("h1", {}, "Schema"), h("div.right", {}, h("button", { type: "button", onclick: load }, "Look again"))),
    h("p.soft", {}, "What the databases lack, or have too much, to be as the entities say. It is only shown here: ",
      h("code", {}, "regolith schema apply"), " makes the changes."), list]);
  load();
});

// ---- events ----

function eventLetters(stream, group) {
  api("streams/letters" + query({ stream: stream, group: group })).then(function (answer) {
    var box = dialog(false, group + " of " + stream);
    function act(what, letter) {
      api("streams/" + what, { stream: stream, group: group, letters: [letter] }).then(function () {
        box.close();
        toast(what === "retry" ? "It will be handled again." : "It is dropped.");
        show();
      }, told);
    }
    put(box, [h("div.body", {}, answer.letters.length ? answer.letters.map(function (l) {
      return h("div.change", {}, h("div.bar", {}, h("span.mono", {}, l.letter), h("span.soft", {}, words(l.tries || 0, "try", "tries")),
        state.session.read_only ? null : h("div.right", {}, h("button.danger", { type: "button", onclick: function () {
          confirmed("Drop this event?", "The group " + group + " will never handle it.", "Drop it", true, function () { act("drop", l.letter); });
        } }, "Drop…"), h("button", { type: "button", onclick: function () { act("retry", l.letter); } }, "Try again"))),
        h("pre", {}, l.error_hidden ? "error and body are hidden: show values to see them" : (l.error || "") + "\n" + (l.body || "")));
    }) : h("p", {}, "No letters.")), h("div.bar.foot", {}, h("button", { type: "button", onclick: function () { box.close(); } }, "Close"))]);
    box.showModal();
  }, told);
}

page("events", "Events", function (main) {
  var list = h("section.card");
  function load() {
    api("streams").then(function (answer) {
      var rows = [];
      answer.streams.forEach(function (stream) {
        var n = Math.max(stream.groups.length, 1);
        (stream.groups.length ? stream.groups : [null]).forEach(function (g, i) {
          rows.push(h("tr", {}, i ? null : h("td.wide", { rowspan: n }, h("b", {}, stream.name), h("div.soft", {},
            words(stream.length, "event", "events") + (stream.length ? ", the oldest " + duration(stream.oldest_ms) + " old" : ""))),
            h("td", {}, g ? g.name : h("span.soft", {}, "no group")), h("td.n", { "data-label": "subscribers" }, g ? exact(g.subscribers) : ""),
            h("td.n", { "data-label": "behind" }, g && g.lag !== undefined ? exact(g.lag) : ""),
            h("td.n", { "data-label": "under way" }, g ? exact(g.pending) : ""),
            h("td.n", { "data-label": "dead" }, g && g.dead ? h("button.link", { type: "button", onclick: function () {
              eventLetters(stream.name, g.name);
            } }, exact(g.dead)) : g ? "0" : "")));
        });
      });
      swap(list, rows.length ? h("div.scroll", {}, h("table.cards", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Stream"),
        h("th", { scope: "col" }, "Group"),
        ["Subscribers", "Behind", "Under way", "Dead"].map(function (t) { return h("th.n", { scope: "col" }, t); }))),
        h("tbody", {}, rows))) : h("p.empty", {}, h("b", {}, "No streams"), "No entity has events, and nothing subscribes."));
    }, function (failure) { swap(list, h("p.empty.error", { role: "alert" }, failure.message)); });
  }
  put(main, [h("div.bar", {}, h("h1", {}, "Events"), h("div.right", {}, h("button", { type: "button", onclick: load }, "Look again"))), list]);
  load();
});

// ---- callbacks ----

page("callbacks", "Callbacks", function (main, rest) {
  var queues = state.session.queues, queue = queues.indexOf(rest[0]) >= 0 ? rest[0] : queues[0];
  var list = h("section.card"), only = "";
  function act(what, number) {
    api("callbacks/" + what, { queue: queue, numbers: [number] }).then(function (r) {
      toast(r.n ? (what === "retry" ? "It will run again." : "It is dropped.") : "It is not dead any more.");
      load();
    }, told);
  }
  function row(c) {
    return h("tr", {}, h("td", {}, String(c.number)), h("td", {}, h("b", {}, c.name), " ", c.key ? h("span.mono.soft", {}, c.key) : null),
      h("td", {}, h("span.tag" + (c.state === "dead" ? ".bad" : ""), {}, c.running ? "runs" : c.state)),
      h("td.nowrap", { "data-label": "due" }, String(c.due).replace(/\..*/, "")), h("td.n", { "data-label": "tries" }, String(c.tries)),
      h("td.text", {}, c.error ? h("div", {}, c.error) : null, c.payload ? h("div.mono.soft", {}, c.payload) : null),
      h("td.n", {}, c.state !== "dead" || state.session.read_only ? null : [
        h("button", { type: "button", onclick: function () { act("retry", c.number); } }, "Run again"), " ",
        h("button.danger", { type: "button", onclick: function () {
          confirmed("Drop callback " + c.number + "?", c.name + " will not run. Those of its key behind it go on.", "Drop it", true,
            function () { act("drop", c.number); });
        } }, "Drop…")]));
  }
  function load() {
    api("callbacks" + query({ queue: queue, state: only || null })).then(function (answer) {
      var st = answer.stats;
      swap(list, h("div.bar", {}, h("h2", {}, words(st.waiting, "waits", "wait") + ", " + exact(st.dead) + " dead"),
        st.oldest_s > 0 ? h("span.quiet", {}, "the oldest is due since " + duration(st.oldest_s * 1000)) : null),
        answer.callbacks.length ? h("div.scroll", {}, h("table.cards", {}, h("thead", {}, h("tr", {},
          ["No.", "Callback", "State", "Due (UTC)"].map(function (t) { return h("th", { scope: "col" }, t); }),
          h("th.n", { scope: "col" }, "Tries"), h("th", { scope: "col" }, state.values ? "Error and payload" : "Error (hidden)"), h("th"))),
          h("tbody", {}, answer.callbacks.map(row)))) : h("p.empty", {}, h("b", {}, "None"), "No callback waits or has died."));
    }, function (failure) { swap(list, h("p.empty.error", { role: "alert" }, failure.message)); });
  }
  put(main, [h("div.bar", {}, h("h1", {}, "Callbacks"), queues.length > 1 ? h("select", { "aria-label": "Pool",
    onchange: function (event) { location.hash = "#/callbacks/" + encodeURIComponent(event.target.value); } },
    queues.map(function (name) { return h("option", { value: name, selected: name === queue }, name); })) : null,
    h("div.right", {}, h("select", { "aria-label": "Which", onchange: function (event) { only = event.target.value; load(); } },
      h("option", { value: "" }, "all"), h("option", { value: "dead" }, "dead only"), h("option", { value: "waiting" }, "waiting only")),
      h("button", { type: "button", onclick: load }, "Look again"))), list]);
  load();
});

]==]
