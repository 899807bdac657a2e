-- SPDX-License-Identifier: MIT
-- Runs the benchmarks and prints what came of them. Started by scripts/bench/run.

local USAGE = [[
usage: scripts/bench/run [NAME...] [--json] [--seconds S] [--rounds N] [--long]
  NAME         a benchmark, or the beginning of the names of some; all of them by default
  --json       a line of JSON for each, instead of the table
  --seconds S  time of each side in each round [1]
  --rounds N   rounds; the two sides take turns [5]
  --long       the memory benchmarks over a million operations instead of 200,000

Each benchmark compares Regolith, from Lua with the JIT on, with hand-written code: "ours" and "raw" are
medians, "ratio" is ours to raw (least, median, most; more than 1: better than raw), "bar" what the median
must reach. Exits with 1 when one does not.

environment:
  REGOLITH_RUN_DIR    where the servers' data goes for the time of the run]]

local function usage_error(text)
  io.stderr:write("bench: ", text, "\n", USAGE, "\n")
  os.exit(2)
end

-- ---- options ------------------------------------------------------------------------------------

local function number_option(i, least)
  local n = tonumber(arg[i + 1])
  if not n or n < least then usage_error(arg[i] .. " takes a number, at least " .. least) end
  return n
end

local function parse()
  local opts, i = { names = {}, seconds = 1, rounds = 5, ops = 200000 }, 1
  while i <= #arg do
    local word = arg[i]
    if word == "--help" or word == "-h" then
      print(USAGE)
      os.exit(0)
    elseif word == "--json" then opts.json = true
    elseif word == "--long" then opts.ops = 1000000
    elseif word == "--seconds" then
      opts.seconds = number_option(i, 0.01)
      i = i + 1
    elseif word == "--rounds" then
      opts.rounds = math.floor(number_option(i, 1))
      i = i + 1
    elseif word:sub(1, 1) == "-" then usage_error("unknown option " .. word)
    else opts.names[#opts.names + 1] = word end
    i = i + 1
  end
  return opts
end

local opts = parse()
local root, build = os.getenv "REGOLITH_ROOT", os.getenv "REGOLITH_BUILD_DIR"
if not root or not os.getenv "REGOLITH_MYSQL_SOCKET" then usage_error "start this with scripts/bench/run" end

--- Those whose name is one given, or begins with it.
local function choose(all)
  if #opts.names == 0 then return all end
  local chosen, used = {}, {}
  for _, name in ipairs(opts.names) do
    local exact = false
    for _, b in ipairs(all) do exact = exact or b.name == name end
    for _, b in ipairs(all) do
      local fits = exact and b.name == name or not exact and b.name:sub(1, #name) == name
      if fits and not chosen[b] then
        chosen[b], used[name] = true, true
      end
    end
    if not used[name] and not exact then usage_error("no benchmark is called " .. name) end
  end
  local list = {}
  for _, b in ipairs(all) do if chosen[b] then list[#list + 1] = b end end
  return list
end

-- ---- running ------------------------------------------------------------------------------------

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local context = { seconds = opts.seconds, ops = opts.ops }

function context.ours(side, number)
  return string.format("luajit %s %s %.17g", quote(root .. "/scripts/bench/side.lua"), side, number)
end

function context.raw(program, ...)
  local words = { quote(build .. "/bench/" .. program) }
  for i = 1, select("#", ...) do words[i + 1] = tostring((select(i, ...))) end
  return table.concat(words, " ")
end

--- Runs a command; raises when it does not answer "key=number ...".
function context.run(command)
  local pipe = assert(io.popen(command))
  local text, answer = pipe:read "*a", {}
  pipe:close()
  for key, value in text:gmatch "(%w+)=([%d.]+)" do answer[key] = tonumber(value) end
  if not next(answer) then error("it has failed: " .. command, 0) end
  return answer
end

local function rate(command)
  local answer = context.run(command)
  return answer.ops / answer.seconds
end

--- Runs two commands that measure in turns (clock.lua, raw.h); the rates of both. Both sides have one processor and
--- the servers the others: where one is waked beside its client or on another processor is worth more than what
--- is compared.
local function rates_in_turns(first, second)
  local script = string.format([[
    trap "" PIPE
    last=$(($(nproc) - 1)) own=
    servers() {
      for file in "$(dirname "$REGOLITH_MYSQL_SOCKET")"/mysqld.pid "$(dirname "$REGOLITH_REDIS_SOCKET")"/redis.pid; do
        read -r pid _ <"$file" && taskset -acp "$1" "$pid" >/dev/null
      done
    }
    [ "$last" = 0 ] || { own="taskset -c $last"; servers 0-$((last - 1)); }
    cd "$(mktemp -d)" || exit
    mkfifo a b
    (BENCH_TURN=1 $own %s) 8<a 9>b >first &
    (BENCH_TURN=2 $own %s) 9>a 8<b >second
    wait
    servers "0-$last"
    sed "s/\([a-z]*\)=/first\1=/g" first
    sed "s/\([a-z]*\)=/second\1=/g" second
    rm -rf "$PWD"]], first, second)
  local answer = context.run("sh -c " .. quote(script))
  return answer.firstops / answer.firstseconds, answer.secondops / answer.secondseconds
end

local function side(b, which)
  if b.before and b.before[which] then b.before[which](context) end
  return rate(b[which](context))
end

--- One value of each side, and their ratio where both have run as one; who begins changes from round to round.
local function round(b, number)
  if b.both then
    if b.before and b.before.both then b.before.both(context) end
    local answer = context.run(b.both(context))
    return answer.ours, answer.raw, answer.ratio
  end
  if b.turns then
    for _, which in ipairs { "ours", "raw" } do
      if b.before and b.before[which] then b.before[which](context) end
    end
    return rates_in_turns(b.ours(context), b.raw(context))
  end
  if number % 2 == 1 then
    local ours = side(b, "ours")
    return ours, side(b, "raw")
  end
  local raw = side(b, "raw")
  return side(b, "ours"), raw
end

local function median(list)
  local sorted = { unpack(list) }
  table.sort(sorted)
  local n = #sorted
  if n % 2 == 1 then return sorted[(n + 1) / 2] end
  return (sorted[n / 2] + sorted[n / 2 + 1]) / 2
end

local function measure(b)
  if b.prepare then b.prepare(context) end
  local ours, raw, ratio = {}, {}, {}
  for i = 1, b.rounds or opts.rounds do
    ours[i], raw[i], ratio[i] = round(b, i)
    ratio[i] = ratio[i] or (b.less and raw[i] / ours[i] or ours[i] / raw[i])
  end
  return {
    name = b.name, unit = b.unit, ours = median(ours), raw = median(raw), bar = b.bar, or_rate = b.or_rate,
    ratio_min = math.min(unpack(ratio)), ratio = median(ratio), ratio_max = math.max(unpack(ratio)),
    rounds = #ratio,
  }
end

local function judge(r)
  if r.error then
    r.pass = false
  elseif r.bar then
    r.pass = r.ratio >= r.bar or (r.or_rate ~= nil and r.ours >= r.or_rate)
  end
  return r
end

-- ---- printing -----------------------------------------------------------------------------------

local MARKS = { [true] = "pass", [false] = "FAIL" }

local function bar_text(r)
  if not r.bar then return "-" end
  local text = string.format("%.2f", r.bar)
  return r.or_rate and string.format("%s or %.0f", text, r.or_rate) or text
end

local function number_text(v)
  if v >= 1000 then return string.format("%.0f", v) end
  return string.format("%.1f", v)
end

local HEAD = "%-26s %10s %10s   %5s %5s %5s   %-13s %-7s %s"

local function print_head()
  print(string.format(HEAD, "", "ours", "raw", "min", "ratio", "max", "bar", "unit", ""))
end

local function print_row(r)
  if r.error then return print(string.format("%-26s FAIL %s", r.name, r.error)) end
  print(string.format(HEAD, r.name, number_text(r.ours), number_text(r.raw), string.format("%.2f", r.ratio_min),
    string.format("%.2f", r.ratio), string.format("%.2f", r.ratio_max), bar_text(r), r.unit,
    r.pass == nil and "" or MARKS[r.pass]))
end

local function print_json(r) print(require("cjson").encode(r)) end

local function first_line(path)
  local file = io.open(path)
  local line = file and file:read "*l" or "?"
  if file then file:close() end
  return line
end

--- Where and how this was measured.
local function settings()
  local text = {}
  for _, program in ipairs { "raw_mysql", "raw_redis" } do
    local pipe = assert(io.popen(context.raw(program, "settings")))
    text[#text + 1] = pipe:read "*a":gsub("%s+$", "")
    pipe:close()
  end
  text[#text + 1] = string.format("%s, JIT %s; %.2g s a side, %d rounds; load %s", jit.version,
    jit.status() and "on" or "off", opts.seconds, opts.rounds, first_line "/proc/loadavg":match "^%S+ %S+ %S+")
  return text
end

local function print_settings()
  local text = settings()
  if opts.json then return print_json { settings = text } end
  for _, line in ipairs(text) do print(line) end
  print ""
  print_head()
end

-- ---- all of it ----------------------------------------------------------------------------------

local function main()
  local chosen = choose(require "benchmarks")
  context.run(context.ours("schema.apply", 0))
  print_settings()
  local failed = 0
  for _, b in ipairs(chosen) do
    local ok, result = pcall(measure, b)
    if not ok then result = { name = b.name, error = tostring(result) } end
    judge(result)
    if result.pass == false then failed = failed + 1 end
    if opts.json then print_json(result) else print_row(result) end
    io.stdout:flush()
  end
  os.exit(failed == 0 and 0 or 1)
end

main()
