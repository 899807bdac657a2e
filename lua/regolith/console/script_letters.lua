-- SPDX-License-Identifier: MIT
-- The console's script: dead letters, which are read, tried again, changed and dropped.
return [==[
// ---- dead letters ----

function valueOf(v, sensitive) {
  if (v === undefined) return h("span.veil", { title: "hidden" }, sensitive ? "(hidden)" : "•••••");
  return v === null ? h("span.null", {}, "NULL") : h("span.mono", {}, String(v));
}

function outcome(result, verb) {
  var n = result.done.length, text = n ? words(n, "letter", "letters") + " " + verb + "." : "";
  if (result.failed.length) {
    text += (n ? " " : "") + words(result.failed.length, "stays", "stay") + ": no. " + result.failed[0].number + ", " +
      (result.failed[0].error || result.failed[0].code);
  }
  toast(text);
}

function retryLetters(queue, numbers, then) {
  api("letters/retry", { queue: queue, numbers: numbers }).then(function (r) { outcome(r, "applied"); then(r); }, told);
}

function dropLetters(queue, numbers, then) {
  confirmed(numbers.length === 1 ? "Drop letter " + numbers[0] + "?" : "Drop " + numbers.length + " letters?",
    "What is dropped is never written to the database: " + (numbers.length === 1 ? "this write is" : "these writes are") +
    " lost. The cache is mended to what the database says.", "Drop " + (numbers.length === 1 ? "it" : "them"), true,
    function () {
      api("letters/drop", { queue: queue, numbers: numbers }).then(function (r) { outcome(r, "dropped"); then(r); }, told);
    });
}

function fieldRows(letter) {
  return letter.fields.filter(function (f) { return f.given || f.current !== undefined || letter.met_another_row; })
    .map(function (f) {
      return h("tr", {}, h("td", {}, f.path, " ", h("span.soft", {}, f.kind || "")),
        h("td.text", { "data-label": "letter" }, f.given ? valueOf(f.value, f.sensitive) : h("span.soft", {}, "unchanged")),
        letter.met_another_row ? h("td.text", { "data-label": "row" }, valueOf(f.current, f.sensitive)) : null);
    });
}

function openLetter(queue, number, changed) {
  api("letter" + query({ queue: queue, number: number })).then(function (letter) {
    var box = dialog(false, "Letter " + letter.number + ": " + letter.operation + " " + letter.entity + " " + letter.entity_id);
    var body = h("div.body");
    function again() { box.close(); changed(); }
    put(box, [body]);
    put(body, [h("dl.facts", {}, h("dt", {}, "Died"), h("dd", {}, String(letter.at).replace(/\..*/, "") + " UTC"),
      h("dt", {}, "State"), h("dd", {}, letter.state + (letter.tries ? ", tried " + letter.tries + "× since" : "")),
      h("dt", {}, "Entry"), h("dd.mono", {}, letter.id), letter.errno ? [h("dt", {}, "Error"),
        h("dd", {}, letter.errno + " (" + letter.sqlstate + ")")] : null),
      h("pre", { "data-key": "error" }, letter.error || ""),
      letter.values_shown ? null : h("p.soft", {}, "Values are hidden" + (state.session.values ? ". " : " here."),
        state.session.values ? h("button.link", { type: "button", onclick: function () {
          box.close();
          state.values = true;
          frame();
          openLetter(queue, number, changed);
        } }, "Show values") : null),
      letter.fields.length ? h("div.scroll", {}, h("table.cards", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Field"),
        h("th", { scope: "col" }, "In the letter"), letter.met_another_row ? h("th", { scope: "col" }, "The row it met") : null)),
        h("tbody", {}, fieldRows(letter)))) : null]);
    put(box, [h("div.bar.foot", {}, h("button", { type: "button", onclick: function () { box.close(); } }, "Close"),
      state.session.read_only ? null : h("div.right", {},
        h("button.danger", { type: "button", "data-do": "drop", onclick: function () {
          dropLetters(queue, [letter.number], again);
        } }, "Drop…"),
        letter.known ? h("button", { type: "button", "data-do": "edit", onclick: function () {
          box.close();
          editLetter(queue, letter, changed);
        } }, "Edit…") : null,
        h("button.main", { type: "button", "data-do": "retry", onclick: function () {
          retryLetters(queue, [letter.number], again);
        } }, "Try again")))]);
    box.showModal();
  }, told);
}

// One field of the form: what is not touched is not sent.
function fieldInput(f, values) {
  var id = "field " + f.path, long = typeof f.value === "string" && f.value.length > 60;
  var input = h(long ? "textarea" : "input", { id: id, name: f.path, type: long ? null : "text", rows: long ? 3 : null,
    autocomplete: "off", spellcheck: "false", placeholder: f.value === null ? "NULL" : f.given ? "hidden: left as it is" : "not in the letter" });
  if (f.value !== undefined && f.value !== null) {
    input.value = String(f.value);
  }
  var empty = f.nullable ? h("input", { type: "checkbox", "aria-label": f.path + " is NULL" }) : null;
  function note() {
    input.classList.add("dirty");
    values[f.path] = empty && empty.checked ? null : input.value;
    if (empty) input.disabled = empty.checked;
  }
  input.addEventListener("input", note);
  if (empty) empty.addEventListener("change", note);
  return [h("label", { for: id }, f.path, " ", h("span.soft", {}, f.kind)), input,
    empty ? h("label.check", {}, empty, "NULL") : h("span")];
}

function editLetter(queue, letter, changed) {
  var box = dialog(false, "Edit letter " + letter.number), values = {};
  var error = h("p.error", { role: "alert" });
  var operation = h("select", { id: "edit-operation" }, ["", "insert", "update", "delete"].map(function (name) {
    return h("option", { value: name }, name || "as it is: " + letter.operation);
  }));
  var force = h("input", { type: "checkbox", id: "edit-force" });
  function save(then) {
    var body = { queue: queue, number: letter.number, force: force.checked };
    if (operation.value) body.operation = operation.value;
    if (Object.keys(values).length) body.values = values;
    error.textContent = "";
    api("letters/edit", body).then(function () { box.close(); then(); }, function (failure) { error.textContent = failure.message; });
  }
  put(box, [h("form", { onsubmit: function (event) {
    event.preventDefault();
    save(function () { toast("Letter " + letter.number + " is changed. Try it again to apply it."); changed(); });
  } }, h("div.body", {}, h("p.soft", {}, "What you do not touch stays as it is in the letter."),
    h("div.fields", {}, letter.fields.filter(function (f) { return !f.id && f.kind; }).map(function (f) { return fieldInput(f, values); }),
      h("label", { for: "edit-operation" }, "Write"), operation, h("span")),
    h("label.check", {}, force, "Whatever version the row has now"), error),
    h("div.bar.foot", {}, h("button", { type: "button", onclick: function () { box.close(); } }, "Cancel"),
      h("div.right", {}, h("button", { type: "submit", "data-do": "save" }, "Save"),
        h("button.main", { type: "button", "data-do": "save-retry", onclick: function () {
          save(function () { retryLetters(queue, [letter.number], changed); });
        } }, "Save and try again"))))]);
  box.showModal();
}

page("letters", "Dead letters", function (main, rest) {
  var queues = state.session.queues, queue = queues.indexOf(rest[0]) >= 0 ? rest[0] : queues[0];
  var chosen = {}, letters = [], list = h("section.card"), seen = null;
  var retry = h("button", { type: "button", "data-do": "retry-some", onclick: function () {
    retryLetters(queue, numbers(), load);
  } }, "Try again");
  var drop = h("button.danger", { type: "button", "data-do": "drop-some", onclick: function () {
    dropLetters(queue, numbers(), load);
  } }, "Drop…");
  function numbers() { return letters.map(function (l) { return l.number; }).filter(function (n) { return chosen[n]; }); }

  function choose() {
    var n = numbers().length;
    retry.disabled = drop.disabled = n === 0;
    retry.textContent = n ? "Try " + n + " again" : "Try again";
    drop.textContent = n ? "Drop " + n + "…" : "Drop…";
  }

  function row(l) {
    var open = function () { openLetter(queue, l.number, load); };
    return h("tr", {}, state.session.read_only ? null : h("td", {}, h("input", { type: "checkbox", "aria-label": "letter " + l.number,
      "data-key": "choose " + l.number, checked: chosen[l.number] === true,
      onchange: function (event) { chosen[l.number] = event.target.checked; choose(); } })),
      h("td", {}, h("button.link", { type: "button", "data-key": "open " + l.number, "aria-label": "open letter " + l.number,
        onclick: open }, String(l.number))),
      h("td.nowrap", { title: "UTC" }, String(l.at).replace(/\..*/, "")),
      h("td", {}, h("span.tag", {}, l.operation), " ", l.entity, " ", h("span.mono.soft", {}, String(l.entity_id))),
      h("td.text", {}, l.error), h("td.n", { "data-label": "tries" }, String(l.tries)),
      h("td", {}, l.state === "dead" ? null : h("span.tag.warn", {}, l.state)));
  }

  function fill(answer) {
    letters = answer.letters;
    Object.keys(chosen).forEach(function (n) {
      if (!letters.some(function (l) { return String(l.number) === n; })) delete chosen[n];
    });
    choose();
    if (!letters.length) return swap(list, h("p.empty", {}, h("b", {}, "No dead letters"),
      "Everything that was queued could be applied, or waits its turn."));
    var all = h("input", { type: "checkbox", "aria-label": "all letters shown", onchange: function () {
      letters.forEach(function (l) { chosen[l.number] = all.checked; });
      fill(answer);
      list.querySelector("thead input").checked = all.checked;
    } });
    var fixed = state.session.read_only;
    swap(list, h("div.scroll", {}, h("table.cards" + (fixed ? "" : ".pick"), {}, h("thead", {}, h("tr", {},
      fixed ? null : h("th", {}, all),
      ["No.", "Died (UTC)", "Write", "Error"].map(function (t) { return h("th", { scope: "col" }, t); }),
      h("th.n", { scope: "col" }, "Tries"), h("th"))),
      h("tbody", {}, letters.map(row)))),
      letters.length === answer.limit ? h("p.empty", {}, "These are the oldest " + answer.limit + "; there may be more.") : null);
  }

  function load() {
    return api("letters" + query({ queue: queue })).then(fill, function (failure) {
      swap(list, h("p.empty.error", { role: "alert" }, failure.message));
    });
  }

  put(main, [h("div.bar", {}, h("h1", {}, "Dead letters"), queues.length > 1 ? h("select", { "aria-label": "Queue", value: queue,
    onchange: function (event) { location.hash = "#/letters/" + encodeURIComponent(event.target.value); } },
    queues.map(function (name) { return h("option", { value: name, selected: name === queue }, name); })) : null,
    h("div.right", {}, state.session.read_only ? null : [retry, drop], h("button", { type: "button", onclick: load }, "Look again"))), list]);
  choose();
  load();
  // Looks again when their number has changed.
  return { update: function (last) {
    var q = last.queues.list.filter(function (one) { return one.queue === queue; })[0];
    if (q && seen !== null && seen !== q.dead) load();
    seen = q ? q.dead : seen;
  } };
});
]==]
