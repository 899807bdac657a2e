-- SPDX-License-Identifier: MIT
-- How the console looks: stone colours, light and dark; dense on a desk, cards on a phone.
return [==[
:root {
  color-scheme: light dark;
  --ground: #f4f2ec; --card: #fdfcf9; --sunk: #ece9e1; --line: #ddd8cc; --faint: #e8e4da;
  --text: #26241f; --soft: #5f5b51; --accent: #20606b; --accent-ink: #ffffff; --tint: #dfeaea;
  --good: #3f6f3a; --warn: #8a5a00; --bad: #a8321f; --bad-tint: #f7e4df; --warn-tint: #f6ebd2;
  --one: #20606b; --two: #b0652b; --three: #6b5b95; --four: #5b7f3a;
  --shadow: 0 1px 2px rgba(50, 44, 30, .07);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #171614; --card: #201f1c; --sunk: #191815; --line: #38352f; --faint: #2a2824;
    --text: #e7e3d9; --soft: #a8a294; --accent: #7fc0c8; --accent-ink: #10201f; --tint: #24383a;
    --good: #8fbf83; --warn: #e0b25a; --bad: #ef8d77; --bad-tint: #3d231d; --warn-tint: #3a2f18;
    --one: #7fc0c8; --two: #e0a068; --three: #b6a4e0; --four: #a3c77f;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
h1, h2, h3, p, dl, dd, ul { margin: 0; padding: 0; }
h2 { font-size: 15px; font-weight: 650; }
h3 { font-size: 13px; font-weight: 600; }
code, .mono { font-family: var(--mono); font-size: 12.5px; }
a { color: var(--accent); }
:focus { outline: none; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: -999px; top: 4px; background: var(--card); padding: 6px 10px; z-index: 9; }
.skip:focus { left: 8px; }
.plain { padding: 24px; }
.soft { color: var(--soft); }
.quiet { color: var(--soft); font-weight: 400; }
.nowrap { white-space: nowrap; }

/* top */
header {
  position: sticky; top: 0; z-index: 5; background: var(--card); border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; align-items: center; gap: 0 18px; padding: 0 20px;
}
.brand { display: flex; align-items: center; gap: 9px; font-weight: 650; font-size: 15px; padding: 10px 0; }
.brand svg { display: block; }
nav { display: flex; gap: 2px; overflow-x: auto; scrollbar-width: none; align-self: stretch; }
nav::-webkit-scrollbar { display: none; }
nav a {
  color: var(--soft); text-decoration: none; padding: 12px 11px 10px; border-bottom: 2px solid transparent;
  white-space: nowrap; display: flex; align-items: center; gap: 6px;
}
nav a:hover { color: var(--text); }
nav a[aria-current="page"] { color: var(--text); border-bottom-color: var(--accent); font-weight: 600; }
.tools { margin-left: auto; display: flex; align-items: center; gap: 6px; padding: 6px 0; }
.state { display: inline-flex; align-items: center; gap: 7px; color: var(--soft); padding: 0 6px; white-space: nowrap; }
.dot { width: 8px; height: 8px; border-radius: 50%; background: var(--soft); flex: none; }
.dot.good { background: var(--good); } .dot.warn { background: var(--warn); } .dot.bad { background: var(--bad); }
.count {
  background: var(--bad-tint); color: var(--bad); border-radius: 9px; padding: 0 7px; font-size: 12px; font-weight: 600;
}

/* buttons and inputs */
button, select, input, textarea { font: inherit; color: inherit; }
button {
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 4px 11px; cursor: pointer;
  min-height: 30px; white-space: nowrap;
}
button:hover:not(:disabled) { border-color: var(--soft); }
button:disabled { opacity: .5; cursor: default; }
button.main { background: var(--accent); border-color: var(--accent); color: var(--accent-ink); font-weight: 600; }
button.danger { color: var(--bad); border-color: currentColor; }
button.ghost { background: none; border-color: transparent; color: var(--soft); }
button.ghost:hover { color: var(--text); border-color: var(--line); }
button[aria-pressed="true"] { background: var(--warn-tint); border-color: var(--warn); color: var(--warn); }
button.link { background: none; border: 0; padding: 0; min-height: 0; color: var(--accent); text-decoration: underline;
  text-underline-offset: 2px; white-space: normal; text-align: left; }
select, input[type="text"], input[type="password"], textarea {
  background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: 5px 9px; min-height: 32px;
  max-width: 100%;
}
textarea { width: 100%; resize: vertical; font-family: var(--mono); font-size: 12.5px; }
input[type="checkbox"] { width: 16px; height: 16px; accent-color: var(--accent); margin: 0; vertical-align: -3px; }

/* layout */
main { max-width: 1280px; margin: 0 auto; padding: 18px 20px 60px; display: grid; gap: 16px; }
main > * { min-width: 0; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 10px; }
.bar .right { margin-left: auto; display: flex; gap: 8px; align-items: center; flex-wrap: wrap; }
h1 { font-size: 19px; font-weight: 650; letter-spacing: -.01em; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: var(--shadow); }
.card > .bar { padding: 11px 16px; border-bottom: 1px solid var(--faint); }
.note { padding: 10px 14px; border-radius: 8px; background: var(--warn-tint); color: var(--warn); }
.note::first-letter { text-transform: uppercase; }
.note.bad { background: var(--bad-tint); color: var(--bad); }
.note + .note { margin-top: 8px; }
.empty { padding: 34px 16px; text-align: center; color: var(--soft); }
.empty b { display: block; color: var(--text); font-weight: 600; margin-bottom: 3px; }

/* tiles */
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; }
.tile { padding: 12px 14px 10px; display: grid; gap: 1px; position: relative; overflow: hidden; text-align: left;
  text-decoration: none; color: inherit; }
.tile .name { color: var(--soft); font-size: 12.5px; }
.tile .value { font-size: 23px; font-weight: 620; letter-spacing: -.02em; line-height: 1.25; }
.tile .value small { font-size: 13px; font-weight: 450; color: var(--soft); letter-spacing: 0; margin-left: 3px; }
.tile .sub { color: var(--soft); font-size: 12.5px; min-height: 18px; }
.tile svg { display: block; width: 100%; height: 26px; margin-top: 5px; }
.tile.bad .value { color: var(--bad); } .tile.warn .value { color: var(--warn); }
a.tile:hover { border-color: var(--soft); }

/* charts */
.charts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 12px; }
.chart { padding: 11px 14px 8px; min-width: 0; }
.chart .head { display: flex; justify-content: space-between; gap: 14px; align-items: baseline; }
.chart .keys { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12.5px; color: var(--soft); margin: 1px 0 5px; min-height: 18px; }
.key { display: inline-flex; gap: 5px; align-items: center; }
.key b { color: var(--text); font-weight: 600; }
.key i { width: 12px; height: 0; border-top: 2.5px solid var(--c); flex: none; }
.key.s1 i { border-top-style: dashed; } .key.s2 i { border-top-style: dotted; }
.chart .at { font-size: 12px; color: var(--soft); }
.chart svg { display: block; width: 100%; height: 132px; touch-action: pan-y; }
.chart svg:focus-visible { outline-offset: 0; }
.c0 { --c: var(--one); } .c1 { --c: var(--two); } .c2 { --c: var(--three); } .c3 { --c: var(--four); }
.line { fill: none; stroke: var(--c); stroke-width: 1.7; stroke-linejoin: round; stroke-linecap: round; }
.line.s1 { stroke-dasharray: 5 3; } .line.s2 { stroke-dasharray: 1.5 3.5; }
.area { fill: var(--c); opacity: .1; }
.grid { stroke: var(--faint); stroke-width: 1; }
.axis { fill: var(--soft); font-size: 10.5px; }
.cross { stroke: var(--soft); stroke-width: 1; }
.knob { fill: var(--c); stroke: var(--card); stroke-width: 1.5; }

/* tables */
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 7px 12px; border-top: 1px solid var(--faint); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; font-size: 12.5px; border-top: 0; white-space: nowrap; padding: 8px 12px 6px;
  vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 16px; }
th:last-child, td:last-child { padding-right: 16px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody tr:hover { background: color-mix(in srgb, var(--sunk) 45%, transparent); }
tr.part td { color: var(--soft); font-size: 12.5px; padding-top: 3px; padding-bottom: 3px; border-top: 0; }
td.text { overflow-wrap: anywhere; min-width: 180px; }
.tag { display: inline-block; border-radius: 5px; padding: 0 7px; font-size: 12px; line-height: 19px; background: var(--sunk);
  color: var(--soft); white-space: nowrap; }
.tag.good { color: var(--good); } .tag.bad { background: var(--bad-tint); color: var(--bad); }
.tag.warn { background: var(--warn-tint); color: var(--warn); }
.gauge { display: inline-block; width: 110px; height: 8px; border-radius: 4px; background: var(--sunk); overflow: hidden;
  vertical-align: 0; margin-right: 9px; }
.gauge svg { display: block; width: 100%; height: 100%; }
.fill { fill: var(--one); } .fill.warn { fill: var(--warn); } .fill.bad { fill: var(--bad); }
.sql { font-family: var(--mono); font-size: 12.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
pre { margin: 0; background: var(--sunk); border-radius: 7px; padding: 10px 12px; overflow-x: auto; font-family: var(--mono);
  font-size: 12.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
.change { padding: 12px 16px 14px; border-top: 1px solid var(--faint); display: grid; gap: 8px; }
.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; align-items: start; }
.halves > * { min-width: 0; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; padding: 12px 16px; }
dialog dl.facts { padding: 0; }
dialog td:first-child, dialog th:first-child { padding-left: 0; }
dl.facts dt { color: var(--soft); }
dl.facts dd { overflow-wrap: anywhere; }
.veil { color: var(--soft); letter-spacing: 2px; }
.null { color: var(--soft); font-style: italic; }

/* dialogs */
dialog { border: 1px solid var(--line); border-radius: 12px; background: var(--card); color: var(--text); padding: 0;
  width: min(760px, calc(100vw - 24px)); max-height: calc(100dvh - 40px); box-shadow: 0 18px 60px rgba(0, 0, 0, .28); }
dialog.small { width: min(440px, calc(100vw - 24px)); }
dialog::backdrop { background: rgba(20, 18, 14, .45); }
dialog .bar { padding: 13px 16px; border-bottom: 1px solid var(--faint); }
dialog .foot { border: 0; border-top: 1px solid var(--faint); position: sticky; bottom: 0; background: var(--card); }
dialog .body { padding: 14px 16px; display: grid; gap: 12px; }
dialog .body > * { min-width: 0; }
.fields { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: 8px 12px; align-items: center; }
.fields label { overflow-wrap: anywhere; max-width: 180px; }
.fields input[type="text"], .fields select { width: 100%; }
.fields .dirty { border-color: var(--warn); background: var(--warn-tint); }
.check { display: inline-flex; gap: 7px; align-items: center; }
.login { max-width: 380px; margin: 12vh auto 0; padding: 26px; display: grid; gap: 14px; width: 100%; }
.login form { display: grid; gap: 10px; }
.login input { width: 100%; min-height: 38px; }
.login .main { min-height: 38px; }
.error { color: var(--bad); }
.toast { position: fixed; left: 50%; bottom: 18px; transform: translate(-50%, 30px); opacity: 0; pointer-events: none;
  background: var(--text); color: var(--ground); padding: 9px 16px; border-radius: 8px; max-width: calc(100vw - 32px);
  transition: opacity .15s, transform .15s; z-index: 10; }
.toast.on { opacity: 1; transform: translate(-50%, 0); }
@media (prefers-reduced-motion: reduce) { .toast { transition: none; } }

@media (max-width: 1100px) {
  .tiles { grid-template-columns: repeat(3, 1fr); } .charts { grid-template-columns: 1fr 1fr; }
}
@media (max-width: 760px) {
  body { font-size: 15px; }
  header { padding: 0 12px; gap: 0 4px; }
  .brand { font-size: 14px; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; flex: 1; }
  header .tools { gap: 0; } header .tools button { padding: 4px 8px; font-size: 14px; }
  .state .word { position: absolute; left: -9999px; }
  nav { order: 3; width: 100%; margin: 0 -12px; padding: 0 6px; width: calc(100% + 24px); border-top: 1px solid var(--faint); }
  main { padding: 12px 12px 60px; gap: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .charts, .halves { grid-template-columns: 1fr; gap: 10px; }
  button { min-height: 36px; } select, input[type="text"] { min-height: 38px; }
  .hide-small { display: none; }
  table.cards thead { position: absolute; left: -9999px; }
  table.cards, table.cards tbody { display: block; }
  table.cards tr { display: grid; grid-template-columns: 1fr 1fr; gap: 3px 12px; padding: 11px 14px;
    border-top: 1px solid var(--faint); }
  table.cards tbody tr:first-child { border-top: 0; }
  table.pick tr { grid-template-columns: max-content 1fr; } table.pick td:nth-child(n+3) { grid-column: 1 / -1; }
  table.cards td { display: block; border: 0; padding: 0; min-width: 0; }
  table.cards td.n { text-align: left; }
  table.cards td.wide, table.cards td.text { grid-column: 1 / -1; }
  table.cards td[data-label]:not(:empty)::before { content: attr(data-label) " "; color: var(--soft); font-size: 12.5px; }
  .fields { grid-template-columns: 1fr max-content; } .fields label { grid-column: 1 / -1; max-width: none; }
}
]==]
