-- SPDX-License-Identifier: MIT
-- The console's script, first part: elements, numbers, requests, dialogs, the frame around the pages.
return [==[
// What is shown is made of elements and text only; nothing here takes text for HTML.
var SVG = "http://www.w3.org/2000/svg";
var KEY = "regolith-console " + location.pathname;
var state = { token: null, session: null, values: false, paused: false, points: [], queuePoints: [], last: null,
  view: null, timer: null, failed: null, range: 900 };

function put(parent, children) {
  children.forEach(function (child) {
    if (child === null || child === undefined || child === false) return;
    if (Array.isArray(child)) put(parent, child);
    else parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  });
  return parent;
}

// An element: h("p.soft", { title: "x", onclick: f }, "text", other)
function h(what, attributes) {
  var words = what.split("."), el = document.createElement(words[0] || "div");
  if (words.length > 1) el.className = words.slice(1).join(" ");
  Object.keys(attributes || {}).forEach(function (name) {
    var v = attributes[name];
    if (v === null || v === undefined || v === false) return;
    if (name.slice(0, 2) === "on") el.addEventListener(name.slice(2), v);
    else if (name === "value" || name === "checked" || name === "disabled") el[name] = v;
    else el.setAttribute(name, v === true ? "" : v);
  });
  return put(el, Array.prototype.slice.call(arguments, 2));
}

function s(what, attributes) {
  var words = what.split("."), el = document.createElementNS(SVG, words[0]);
  if (words.length > 1) el.setAttribute("class", words.slice(1).join(" "));
  Object.keys(attributes || {}).forEach(function (name) { el.setAttribute(name, attributes[name]); });
  return put(el, Array.prototype.slice.call(arguments, 2));
}

// Other children, with the focus where it was.
function swap(parent) {
  var on = document.activeElement;
  var key = on && parent.contains(on) ? on.getAttribute("data-key") : null;
  parent.textContent = "";
  put(parent, Array.prototype.slice.call(arguments, 1));
  if (!key) return;
  var again = Array.prototype.filter.call(parent.querySelectorAll("[data-key]"), function (el) {
    return el.getAttribute("data-key") === key;
  })[0];
  if (again) again.focus();
}

// ---- numbers ----

function number(n) {
  var a = Math.abs(n);
  if (a >= 1e9) return (n / 1e9).toFixed(1) + " G";
  if (a >= 1e6) return (n / 1e6).toFixed(1) + " M";
  if (a >= 1e4) return (n / 1e3).toFixed(1) + " k";
  if (a >= 100 || n % 1 === 0) return String(Math.round(n));
  return n.toFixed(a >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}
function exact(n) { return String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f"); }
function duration(ms) {
  if (ms < 1) return ms > 0 ? number(ms) + " ms" : "0 s";
  if (ms < 1000) return Math.round(ms) + " ms";
  if (ms < 60000) return number(ms / 1000) + " s";
  if (ms < 3600000) return number(Math.round(ms / 6000) / 10) + " min";
  if (ms < 172800000) return number(Math.round(ms / 360000) / 10) + " h";
  return number(Math.round(ms / 8640000) / 10) + " d";
}
function millis(ms) { return ms >= 1000 ? number(ms / 1000) + " s" : number(ms) + " ms"; }
function bytes(n) {
  if (n >= 1073741824) return number(n / 1073741824) + " GiB";
  if (n >= 1048576) return number(n / 1048576) + " MiB";
  return n >= 1024 ? number(n / 1024) + " KiB" : n + " B";
}
function percent(part, whole) { return whole > 0 ? (part / whole * 100) : null; }
function ratio(part, whole) {
  var p = percent(part, whole);
  return p === null ? "–" : (p >= 99.95 || p < 0.05 ? p.toFixed(0) : p.toFixed(1)) + " %";
}
function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}
function hour(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}
function words(n, one, many) { return exact(n) + " " + (n === 1 ? one : many); }

// ---- requests ----

function Failure(status, error) {
  this.status = status; this.code = error.code; this.message = error.message || error.code; this.field = error.field;
}

// The token goes in a header, which no other page can make a browser send; never in an address.
function api(path, body, token) {
  var request = { method: body ? "POST" : "GET", cache: "no-store", credentials: "same-origin", redirect: "error",
    headers: { "X-Regolith-Token": token || state.token } };
  if (body) {
    request.headers["Content-Type"] = "application/json";
    if (state.values) body.show_values = true;
    request.body = JSON.stringify(body);
  } else if (state.values) {
    path += (path.indexOf("?") < 0 ? "?" : "&") + "values=1";
  }
  return fetch("api/" + path, request).catch(function () {
    throw new Failure(0, { code: "AWAY", message: "the server does not answer" });
  }).then(function (answer) {
    return answer.json().catch(function () { return {}; }).then(function (value) {
      if (answer.ok) return value;
      var failure = new Failure(answer.status, value.error || { code: "HTTP " + answer.status });
      if (answer.status === 401 && !token) signOut("The token is not valid any more.");
      throw failure;
    });
  });
}

function query(values) {
  return "?" + Object.keys(values).filter(function (name) { return values[name] !== undefined && values[name] !== null; })
    .map(function (name) { return name + "=" + encodeURIComponent(values[name]); }).join("&");
}

// ---- messages and dialogs ----

var toastTimer;
function toast(text) {
  var live = document.getElementById("live");
  live.textContent = text;
  live.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(function () { live.classList.remove("on"); }, 5000);
}
function told(failure) { toast(failure.message || String(failure)); }

var dialogs = 0;
function dialog(small, title) {
  var id = "dialog" + (++dialogs), box = h("dialog" + (small ? ".small" : ""), { "aria-labelledby": id });
  box.title_id = id;
  box.addEventListener("close", function () { box.remove(); });
  document.body.appendChild(box);
  put(box, [h("div.bar", {}, h("h2", { id: id }, title))]);
  return box;
}

// Asks before something is done; calls then() when it is wanted.
function confirmed(title, text, label, danger, then) {
  var box = dialog(true, title);
  put(box, [h("div.body", {}, h("p", {}, text)), h("div.bar.foot", {}, h("div.right", {},
    h("button", { type: "button", onclick: function () { box.close(); } }, "Cancel"),
    h(danger ? "button.danger" : "button.main", { type: "button", "data-do": "confirm", onclick: function () {
      box.close();
      then();
    } }, label)))]);
  box.showModal();
}

// ---- the frame ----

var PAGES = [];
function page(name, title, open) { PAGES.push({ name: name, title: title, open: open }); }

function mark() {
  return s("svg", { width: 20, height: 20, viewBox: "0 0 16 16", "aria-hidden": "true" },
    s("rect.mark", { width: 16, height: 16, rx: 4, fill: "var(--accent)" }),
    s("path", { d: "M3 5h10M3 8h7M3 11h9", stroke: "var(--card)", "stroke-width": 1.9, "stroke-linecap": "round" }));
}

function routeOf() {
  var words = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return { name: words[0] || "overview", rest: words.slice(1) };
}

function frame() {
  var top = document.getElementById("top"), route = routeOf();
  var dead = state.last ? state.last.queues.list.reduce(function (n, q) { return n + q.dead; }, 0) : 0;
  var well = wellness(), old = top.querySelector("nav"), left = old ? old.scrollLeft : 0;
  top.hidden = false;
  swap(top, h("div.brand", {}, mark(), state.session.title),
    h("nav", { "aria-label": "Pages" }, PAGES.filter(function (p) {
      return state.session.redis || p.name !== "events";
    }).map(function (p) {
      return h("a", { href: "#/" + p.name, "data-key": "nav " + p.name,
        "aria-current": route.name === p.name ? "page" : null }, p.title,
        p.name === "letters" && dead > 0 ? h("span.count", { title: "dead letters" }, number(dead)) : null);
    })),
    h("div.tools", {}, h("span.state", { title: well.title }, h("span.dot" + (well.kind ? "." + well.kind : "")),
      h("span.word", {}, well.text)),
      state.session.values ? h("button.ghost", { type: "button", "aria-pressed": String(state.values), "data-key": "values",
        title: "Values of rows are hidden unless this is on", onclick: toggleValues },
        state.values ? "Hide values" : "Show values") : null,
      h("button.ghost.hide-small", { type: "button", "aria-pressed": String(state.paused), "data-key": "pause",
        onclick: function () { state.paused = !state.paused; frame(); if (!state.paused) tick(); } },
        state.paused ? "Go on" : "Pause"),
      h("button.ghost", { type: "button", "data-key": "out", onclick: function () { signOut(); } }, "Sign out")));
  top.querySelector("nav").scrollLeft = left;
}

function toggleValues() {
  state.values = !state.values;
  frame();
  show();
}

// One word for all: what is wrong, if anything is.
function wellness() {
  if (state.failed) return { kind: "bad", text: "No answer", title: state.failed };
  var last = state.last, faults = [];
  if (!last) return { kind: "", text: "…", title: "" };
  last.pools.forEach(function (p) { if (p.ok === false) faults.push(p.kind + " " + p.name + " is down"); });
  if (last.health_error) faults.push(last.health_error);
  if (last.queues.error) faults.push("queues: " + last.queues.error);
  if (!last.coherent) faults.push("the process caches are not coherent: they are passed by");
  if (faults.length) return { kind: "bad", text: faults.length === 1 ? "A problem" : faults.length + " problems",
    title: faults.join("; ") };
  var paused = last.queues.list.filter(function (q) { return q.paused; }).length;
  if (paused) return { kind: "warn", text: words(paused, "queue", "queues") + " paused", title: "" };
  return { kind: "good", text: "All well", title: "every server answers" };
}

function show() {
  var route = routeOf(), found = PAGES.filter(function (p) { return p.name === route.name; })[0] || PAGES[0];
  var main = document.getElementById("main");
  main.textContent = "";
  document.title = found.title + " – " + state.session.title;
  state.view = found.open(main, route.rest) || {};
  frame();
  var current = document.querySelector("nav [aria-current]");
  if (current) current.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (state.last && state.view.update) state.view.update(state.last);
}

function merge(list, more, keep) {
  more.forEach(function (point) {
    while (list.length && list[list.length - 1].t >= point.t) list.pop();
    list.push(point);
  });
  while (list.length > keep) list.shift();
}

// Asks how things are, and again in a while; one request at a time, none while nobody looks.
function tick() {
  clearTimeout(state.timer);
  if (!state.token) return;
  var n = state.points.length, m = state.queuePoints.length;
  var since = Math.min(n ? state.points[n - 1].t : 0, m ? state.queuePoints[m - 1].t : 0);
  api("overview" + query({ since: Math.max(since - state.session.interval_s, 0) })).then(function (last) {
    state.failed = null;
    merge(state.points, last.points, last.keep);
    merge(state.queuePoints, last.queue_points, last.keep);
    state.last = last;
  }, function (failure) { state.failed = failure.message; }).then(function () {
    if (!state.token) return;
    frame();
    if (state.last && state.view && state.view.update) state.view.update(state.last);
    clearTimeout(state.timer);
    if (!state.paused && !document.hidden) state.timer = setTimeout(tick, state.session.interval_s * 1000);
  });
}

// ---- signing in ----

function signOut(why) {
  state.token = state.session = state.last = state.view = null;
  state.points = []; state.queuePoints = []; state.values = false; state.failed = null;
  try { sessionStorage.removeItem(KEY); } catch (e) { /* there is none */ }
  clearTimeout(state.timer);
  Array.prototype.forEach.call(document.querySelectorAll("dialog"), function (box) { box.close(); });
  document.getElementById("top").hidden = true;
  login(why);
}

function enter(token) {
  return api("session", null, token).then(function (session) {
    state.token = token; state.session = session;
    // Of this tab only, gone with it. A cookie would be sent by the browser for whoever asks; this is not.
    try { sessionStorage.setItem(KEY, token); } catch (e) { /* signed in until the page is left */ }
    show();
    tick();
  });
}

function login(why) {
  var main = document.getElementById("main"), error = h("p.error", { role: "alert" }, why || "");
  var input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false",
    "aria-describedby": "token-help" });
  var button = h("button.main", { type: "submit" }, "Sign in");
  main.textContent = "";
  put(main, [h("div.card.login", {}, h("div.brand", {}, mark(), h("h1", {}, document.title)),
    h("form", { onsubmit: function (event) {
      event.preventDefault();
      button.disabled = true;
      enter(input.value.trim()).catch(function (failure) {
        button.disabled = false;
        error.textContent = failure.status === 401 ? "This is not the token." : failure.message + ".";
        input.select();
      });
    } }, h("label", { for: "token" }, "Token"), input,
      h("p.soft", { id: "token-help" }, "As the server was given it. It stays in this tab and is sent in a header only."),
      error, button))]);
  input.focus();
}

function start() {
  var token = null;
  try { token = sessionStorage.getItem(KEY); } catch (e) { /* none */ }
  window.addEventListener("hashchange", function () { if (state.session) show(); });
  document.addEventListener("visibilitychange", function () { if (!document.hidden && !state.paused && state.session) tick(); });
  if (!token) return login();
  enter(token).catch(function (failure) { login(failure.status === 401 ? "" : failure.message + "."); });
}
]==]
