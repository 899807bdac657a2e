-- SPDX-License-Identifier: MIT
-- The measurements of scripts/bench/stall.

local faults = require "support.faults"
local nginx = require "support.nginx"
local stall = require "support.stall"
local support = require "support.init"
local wrk = require "wrk"

local rounds = tonumber(arg[1]) or 10
local port = 20000 + io.open("/proc/self/stat"):read "*n" % 20000
local BAR = 2
local WINDOW_S = 1

local cores = tonumber((support.shell "nproc")) or 1
local servers = faults.servers "stall"
local web = nginx.start {
  app = stall.APP:gsub("@ids", tostring(stall.IDS)), orm = stall.prepare(servers),
  server = "listen 127.0.0.1:" .. port .. ";", main = cores > 1 and "worker_cpu_affinity 1;" or nil,
}

local function command(page, connections, time)
  return string.format("%s wrk --latency -t1 -c%d -d%gs --timeout 30s http://127.0.0.1:%d/%s",
    cores > 1 and "taskset -c " .. cores - 1 or "", connections, time, port, page)
end

--- A window of measuring: p50 and p99 in ms, requests/s.
local function window()
  local text = support.shell(command("ping", 8, WINDOW_S))
  return wrk.figures(text) or error(text, 0)
end

local function load(page, connections, time)
  support.shell(string.format("%s >%s/load.out 2>&1 &", command(page, connections, time), web.folder))
end

local function await_idle()
  faults.await("idle pools", function() return web:get "busy" == "0" end, 60)
end

local function await_well()
  faults.await("recovery", function()
    for _, page in ipairs { "redis", "mysql", "search", "write", "queue" } do
      local _, _, status = web:get(page)
      if status ~= 200 then return false end
    end
    return true
  end, 60)
end

local function stop()
  servers:stop "mysql"
  servers:stop "redis"
end
local function continue()
  servers:continue "mysql"
  servers:continue "redis"
end

-- ---- windows --------------------------------------------------------------------------------------

--- What goes on during a window, and what ends it. Loads begin well before it and end well after it.
local DISTURBANCES = {
  { name = "undisturbed", quiet = true },
  { name = "MySQL and Redis well, 64 requests under way", begin = function() load("any", 64, WINDOW_S + 1) end },
  { name = "undisturbed", quiet = true },
  { name = "both stand still, 64 requests under way",
    begin = function()
      stop()
      load("any", 64, WINDOW_S + 1)
    end, finish = continue },
  { name = "undisturbed", quiet = true },
  { name = "64 statements that take long", begin = function() load("slow?s=20", 64, WINDOW_S + 1) end },
}

local samples, order = {}, {}

local function take(d)
  if d.begin then
    d.begin()
    faults.pause(300)
  end
  local got = window()
  if d.finish then
    faults.pause(1000)
    d.finish()
    await_well()
  elseif not d.quiet then
    faults.pause(1000)
  end
  await_idle()
  if not samples[d.name] then
    samples[d.name] = {}
    order[#order + 1] = d.name
  end
  local list = samples[d.name]
  list[#list + 1] = got
end

local function median(list, key)
  local sorted = {}
  for i, v in ipairs(list) do sorted[i] = v[key] end
  table.sort(sorted)
  local n = #sorted
  return n % 2 == 1 and sorted[(n + 1) / 2] or (sorted[n / 2] + sorted[n / 2 + 1]) / 2, sorted[1], sorted[n]
end

local missed = 0
local function print_windows()
  local base = median(samples.undisturbed, "p99")
  for _, name in ipairs(order) do
    local p99, least, most = median(samples[name], "p99")
    local counts = name:find "still" or name:find "long"
    local ratio = p99 / base
    if counts and ratio > BAR then missed = missed + 1 end
    print(string.format("%-44s p50 %7.3f ms   p99 %7.3f ms (%.3f to %.3f)   %5.2f of undisturbed%s   %7.0f/s", name,
      median(samples[name], "p50"), p99, least, most, ratio,
      counts and string.format(" (bar %.1f: %s)", BAR, ratio <= BAR and "ok" or "FAIL") or "",
      (median(samples[name], "rate"))))
  end
end

local function main()
  window()
  support.shell(command("any", 16, 1)) -- everything is connected
  print(string.format("a location that needs no server, 8 connections; %d rounds of windows of %g s, medians (least to "
    .. "most) of their p99", rounds, WINDOW_S))
  for _ = 1, rounds do
    for _, d in ipairs(DISTURBANCES) do take(d) end
  end
  print_windows()

  local N = 200
  stop()
  for i = 1, N do
    support.shell(string.format("curl -s -o %s/a%d -w '%%{http_code} %%{time_total}' http://127.0.0.1:%d/any "
      .. ">%s/time%d 2>&1 &", web.folder, i, port, web.folder, i))
  end
  local worst, codes = 0, {}
  for i = 1, N do
    local text = faults.await("the end of a request", function()
      local said = web:read("time" .. i)
      return said:find "%d %d" and said
    end)
    worst = math.max(worst, tonumber(text:match "%s([%d.]+)$"))
    local code = web:read("a" .. i):match "^[%u_]+" or "fine"
    codes[code] = (codes[code] or 0) + 1
  end
  local said = {}
  for code, n in pairs(codes) do said[#said + 1] = n .. " " .. code end
  print(string.format("both stand still: all of %d requests ended, the last after %.2f s (deadline %.2f s): %s", N,
    worst, stall.TIMEOUT_MS / 1000, table.concat(said, ", ")))
  local pid, started = web:get "pid", faults.now()
  continue()
  await_well()
  print(string.format("all pages are well %.2f s after both go on; the worker is %s", faults.now() - started,
    web:get "pid" == pid and "the same" or "ANOTHER ONE"))
  await_idle()
end

local ok, why = xpcall(main, debug.traceback)
continue()
local stopped, wrong = pcall(web.stop, web)
servers:remove()
if not ok or not stopped then
  io.stderr:write("stall: ", tostring(not ok and why or wrong), "\n")
  os.exit(1)
end
os.exit(missed == 0 and 0 or 1)
