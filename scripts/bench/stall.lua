-- SPDX-License-Identifier: MIT
-- The measurements of scripts/bench/stall.

local faults = require "support.faults"
local nginx = require "support.nginx"
local stall = require "support.stall"
local support = require "support.init"

local seconds = tonumber(arg[1]) or 5
local port = 20000 + io.open("/proc/self/stat"):read "*n" % 20000

local servers = faults.servers "stall"
local web = nginx.start {
  app = stall.APP:gsub("@ids", tostring(stall.IDS)), orm = stall.prepare(servers),
  server = "listen 127.0.0.1:" .. port .. ";",
}

local UNITS = { us = 0.001, ms = 1, s = 1000, m = 60000 }
local function time_of(text)
  local n, unit = text:match "^([%d.]+)(%a+)$"
  return tonumber(n) * UNITS[unit]
end

--- p50 and p99 in ms, requests/s, of a page under so many connections.
local function wrk(page, connections, time)
  local text = support.shell(string.format("wrk --latency -t1 -c%d -d%gs --timeout 30s http://127.0.0.1:%d/%s",
    connections, time, port, page))
  return time_of(text:match "\n%s+50%%%s+(%S+)"), time_of(text:match "\n%s+99%%%s+(%S+)"),
    tonumber(text:match "Requests/sec:%s+(%S+)")
end

local function load(page, connections, time)
  support.shell(string.format("wrk --latency -t1 -c%d -d%gs --timeout 30s http://127.0.0.1:%d/%s >%s/load.out 2>&1 &",
    connections, time, port, page, web.folder))
end

local base
local function measure(name)
  local p50, p99, rate = wrk("ping", 8, seconds)
  base = base or p99
  print(string.format("%-46s p50 %8.3f ms   p99 %8.3f ms   %6.2f of undisturbed   %8.0f/s", name, p50, p99, p99 / base,
    rate))
end

wrk("any", 16, 1) -- everything is connected
print(string.format("a location that needs no server, 8 connections, %g s each:", seconds))
measure "undisturbed"
measure "undisturbed, once more"
load("any", 32, seconds + 2)
faults.pause(500)
measure "beside a load of 32 connections on the servers"
faults.pause(2500)

local N = 200
local function stand_still()
  servers:stop "mysql"
  servers:stop "redis"
  load("any", 64, seconds + 2)
  faults.pause(500)
  for i = 1, N do
    support.shell(string.format("curl -s -o %s/a%d -w '%%{http_code} %%{time_total}' http://127.0.0.1:%d/any "
      .. ">%s/time%d 2>&1 &", web.folder, i, port, web.folder, i))
  end
  measure "beside 64 + 200 requests while both stand still"
end
stand_still()
local ended, worst, codes = 0, 0, {}
for i = 1, N do
  local text = faults.await("the end of a request", function()
    local said = web:read("time" .. i)
    return said:find "%d %d" and said
  end)
  local took = tonumber(text:match "%s([%d.]+)$")
  local code = web:read("a" .. i):match "^[%u_]+" or "fine"
  ended, worst = ended + 1, math.max(worst, took)
  codes[code] = (codes[code] or 0) + 1
end
local said = {}
for code, n in pairs(codes) do said[#said + 1] = n .. " " .. code end
print(string.format("%d of %d requests ended, the last after %.2f s (deadline %.2f s): %s", ended, N, worst,
  stall.TIMEOUT_MS / 1000, table.concat(said, ", ")))
local started = faults.now()
servers:continue "mysql"
servers:continue "redis"
faults.await("recovery", function()
  for _, page in ipairs { "redis", "mysql", "search", "write", "queue" } do
    local _, _, status = web:get(page)
    if status ~= 200 then return false end
  end
  return true
end)
print(string.format("all pages are well %.2f s after both go on; the worker is the same", faults.now() - started))
faults.pause(2000)
load("slow?s=20", 64, seconds + 2)
faults.pause(500)
measure "beside 64 statements that take long"
faults.await("idle pools", function() return web:get "busy" == "0" end)
web:stop()
servers:remove()
