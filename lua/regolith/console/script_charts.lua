-- SPDX-License-Identifier: MIT
-- The console's script: lines over time, and small ones. Read by eye, by pointer, by arrow keys, and as text.
return [==[
// ---- charts ----

function nice(v) {
  if (!(v > 0)) return 1;
  var p = Math.pow(10, Math.floor(Math.log10(v))), f = v / p;
  return (f <= 1 ? 1 : f <= 2 ? 2 : f <= 2.5 ? 2.5 : f <= 5 ? 5 : 10) * p;
}

// Points of a range with a value each, those of a gap apart.
function runs(points, get, from, gap) {
  var all = [], run = null, last = null;
  points.forEach(function (p) {
    var v = p.t >= from ? get(p) : null;
    if (v === null || v === undefined || !isFinite(v)) return;
    if (!run || p.t - last > gap) all.push(run = []);
    run.push({ t: p.t, v: v });
    last = p.t;
  });
  return all;
}

// Where the charts begin: so far back, but not before there are points.
function beginning(now) {
  var first = Math.min(state.points.length ? state.points[0].t : now, state.queuePoints.length ? state.queuePoints[0].t : now);
  return Math.max(now - state.range, Math.min(first, now - 60));
}

function path(run, x, y) {
  var d = run.map(function (p, i) { return (i ? "L" : "M") + x(p.t).toFixed(1) + " " + y(p.v).toFixed(1); }).join("");
  return run.length === 1 ? d + "h0.1" : d;
}

function closest(points, t) {
  return points.reduce(function (best, p) { return !best || Math.abs(p.t - t) < Math.abs(best.t - t) ? p : best; }, null);
}

// options: title, format(v), series() -> [{ name, get(point) }], points(), most (of the axis), least (of its top)
function chart(options) {
  var svg = s("svg", { role: "img", tabindex: 0 });
  var keys = h("div.keys"), at = h("span.at");
  var el = h("section.card.chart", {}, h("div.head", {}, h("h3", {}, options.title), at), keys, svg);
  var now = null, cursor = null, size = 0;

  function draw() {
    var W = Math.max(el.clientWidth - 30, 200), H = 132, L = 44, R = 8, T = 9, B = 19;
    var series = options.series(), from = beginning(now), range = now - from, gap = Math.max(state.session.interval_s * 3.5, 12);
    var points = options.points().filter(function (p) { return p.t >= from; });
    var lines = series.map(function (one) { return runs(points, one.get, from, gap); });
    var top = options.least || 0;
    lines.forEach(function (all) { all.forEach(function (run) { run.forEach(function (p) { top = Math.max(top, p.v); }); }); });
    top = options.most || nice(top);
    function x(t) { return L + (t - from) / range * (W - L - R); }
    function y(v) { return H - B - Math.min(v / top, 1) * (H - T - B); }

    size = W;
    svg.textContent = "";
    svg.setAttribute("viewBox", "0 0 " + W + " " + H);
    [0, 0.5, 1].forEach(function (part) {
      put(svg, [s("line.grid", { x1: L, x2: W - R, y1: y(top * part), y2: y(top * part) }),
        s("text.axis", { x: L - 7, y: y(top * part) + 3.5, "text-anchor": "end" }, options.format(top * part))]);
    });
    for (var i = 0; i <= 3; i++) {
      put(svg, [s("text.axis", { x: x(from + range * i / 3), y: H - 4,
        "text-anchor": i === 0 ? "start" : i === 3 ? "end" : "middle" }, (range < 600 ? clock : hour)(from + range * i / 3))]);
    }
    lines.forEach(function (all, k) {
      all.forEach(function (run) {
        var d = path(run, x, y);
        if (k === 0 && run.length > 1) {
          put(svg, [s("path.area.c0", { d: d + "L" + x(run[run.length - 1].t) + " " + y(0) + "L" + x(run[0].t) + " " + y(0) + "Z" })]);
        }
        put(svg, [s("path.line.c" + k + (k ? ".s" + k : ""), { d: d })]);
      });
    });
    var point = cursor === null ? points[points.length - 1] : closest(points, cursor);
    if (cursor !== null && point) {
      put(svg, [s("line.cross", { x1: x(point.t), x2: x(point.t), y1: T, y2: H - B })]);
      series.forEach(function (one, k) {
        var v = one.get(point);
        if (v !== null && v !== undefined) put(svg, [s("circle.knob.c" + k, { cx: x(point.t), cy: y(v), r: 3.5 })]);
      });
    }
    keys.textContent = "";
    series.forEach(function (one, k) {
      var v = point ? one.get(point) : null;
      put(keys, [h("span.key.c" + k + (k ? ".s" + k : ""), {}, h("i"), one.name, " ",
        h("b", {}, v === null || v === undefined ? "–" : options.format(v)))]);
    });
    at.textContent = points.length ? (cursor !== null && point ? "at " + clock(point.t) : "") : "no points yet";
    svg.setAttribute("aria-label", options.title + ": " + series.map(function (one, k) {
      var values = [].concat.apply([], lines[k]).map(function (p) { return p.v; });
      if (!values.length) return one.name + " has no points yet";
      return one.name + " is " + options.format(values[values.length - 1]) + ", at most " +
        options.format(Math.max.apply(null, values)) + ", at least " + options.format(Math.min.apply(null, values));
    }).join("; ") + ", in the last " + duration(range * 1000));
  }

  function move(event) {
    var box = svg.getBoundingClientRect();
    var from = beginning(now);
    cursor = from + ((event.clientX - box.left) / box.width * size - 44) / (size - 52) * (now - from);
    draw();
  }
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", function () { cursor = null; draw(); });
  svg.addEventListener("blur", function () { cursor = null; draw(); });
  svg.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") cursor = null;
    else if (!step) return;
    else cursor = Math.min(Math.max((cursor === null ? now : cursor) + step * state.session.interval_s, beginning(now)), now);
    event.preventDefault();
    draw();
  });
  return { el: el, draw: draw, update: function (time) { now = time; draw(); } };
}

// A line as tall as a word.
function spark(points, get, now, most) {
  var svg = s("svg", { viewBox: "0 0 120 26", preserveAspectRatio: "none", "aria-hidden": "true" });
  var from = beginning(now), all = runs(points, get, from, Math.max(state.session.interval_s * 3.5, 12));
  var top = most || 0;
  all.forEach(function (run) { run.forEach(function (p) { top = Math.max(top, p.v); }); });
  all.forEach(function (run) {
    var d = path(run, function (t) { return (t - from) / (now - from) * 120; },
      function (v) { return 24 - (top > 0 ? v / top : 0) * 21; });
    put(svg, [s("path.line.c0", { d: d, "vector-effect": "non-scaling-stroke" })]);
  });
  return svg;
}

// A part of a whole as a bar.
function gauge(part, whole, kind) {
  var width = whole > 0 ? Math.min(part / whole, 1) * 100 : 0;
  return h("span.gauge", { "aria-hidden": "true" }, s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none" },
    s("rect.fill" + (kind ? "." + kind : ""), { width: width, height: 8 })));
}
]==]
