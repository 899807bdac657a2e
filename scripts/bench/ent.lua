-- SPDX-License-Identifier: MIT
-- Runs the two sides of scripts/bench/ent in turns and prints the table. Arguments: seconds, rounds.

local seconds, rounds = tonumber(arg[1]), tonumber(arg[2])
local root = os.getenv "REGOLITH_ROOT"

local function rate(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  local ops, took = text:match "ops=([%d.]+) seconds=([%d.]+)"
  if not ops then error("it has failed: " .. command, 0) end
  return tonumber(ops) / tonumber(took)
end

local function ours(side)
  return rate(string.format("luajit '%s/scripts/bench/side.lua' %s %g", root, side, seconds))
end
local function node(words) return rate(string.format("node '%s/scripts/bench/ent.js' %s", root, words)) end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

ours "schema.apply" -- answers like the others
assert(os.execute(string.format("'%s/bench/raw_mysql' fill 0 20000 bench_changed >/dev/null",
  os.getenv "REGOLITH_BUILD_DIR")) == 0, "the table cannot be filled")
node "fill"
print(string.format("%-26s %12s %12s %8s", "rows/s", "regolith", "ent's SQL", "ratio"))
for _, what in ipairs { "update", "load" } do
  for _, n in ipairs { 1, 10, 100 } do
    local a, b, ratio = {}, {}, {}
    for i = 1, rounds do
      a[i] = ours((what == "update" and "cas.rows_" or "cas.load_") .. n)
      b[i] = node(string.format("%s %d %g", what, n, seconds))
      ratio[i] = a[i] / b[i]
    end
    local name = what == "update" and "compare-and-set, " .. n or "load by id, " .. n
    print(string.format("%-26s %12.0f %12.0f %8.2f", name, median(a), median(b), median(ratio)))
    io.stdout:flush()
  end
end
