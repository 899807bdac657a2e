-- SPDX-License-Identifier: MIT
-- The measurements of scripts/bench/nginx.

local USAGE = [[
usage: scripts/bench/nginx [NAME...] [--json] [--seconds S] [--rounds N] [--workers N] [--connections N,N...]
                           [--free]
  NAME             redis, mysql, process, process_20; all of them by default
  --json           a line of JSON for each, instead of the table
  --seconds S      time of each side in each round, whole seconds [2]
  --rounds N       rounds; the two sides take turns [5]
  --workers N      worker processes of nginx [1]
  --connections L  connections of wrk [1,16,64,256]
  --free           worker and wrk run on whichever core; else a single worker has the first one and wrk the last one

A request is a get by id, of a random row, three fields of which are answered as JSON. "ours" are Regolith in an
nginx; "raw" is what one writes there by hand on cosockets: the Redis client of the distribution, and a MySQL
client of the benchmark's own in the manner of lua-resty-mysql, both with connections that are kept. Requests/s and
latencies in ms are medians of the rounds; "ratio" is ours to raw in requests/s (least, median, most), "bar" what
the median must reach. The process cache is held against the Redis client by hand; in process_20 a request gets
twenty rows, one after the other on both sides.

"nothing" and "nothing_20" answer the same number of rows and ask nobody: what HTTP, nginx' Lua and the JSON cost by
themselves. "most" is the ratio that this would have: a get that takes no time at all could not have more. With one
get a request that is below three, so the bar of five is that of process_20, where the gets are what counts, and holds
where as much is possible at all. Exits with 1 when a bar is not reached.]]

local function usage_error(text)
  io.stderr:write("bench: ", text, "\n", USAGE, "\n")
  os.exit(2)
end

-- ---- options ------------------------------------------------------------------------------------

local opts = { names = {}, seconds = 2, rounds = 5, workers = 1, connections = { 1, 16, 64, 256 }, free = false }

local function whole(name, text)
  local n = tonumber(text)
  if not n or n < 1 or n % 1 ~= 0 then usage_error(name .. " takes a whole number, at least 1") end
  return n
end

local NUMBERS = { ["--seconds"] = "seconds", ["--rounds"] = "rounds", ["--workers"] = "workers" }
local KNOWN = { redis = true, mysql = true, process = true, process_20 = true }

do
  local i = 1
  while i <= #arg do
    local word = arg[i]
    if word == "--help" or word == "-h" then
      print(USAGE)
      os.exit(0)
    elseif word == "--json" then opts.json = true
    elseif word == "--free" then opts.free = true
    elseif NUMBERS[word] then
      i = i + 1
      opts[NUMBERS[word]] = whole(word, arg[i])
    elseif word == "--connections" then
      i = i + 1
      opts.connections = {}
      for text in (arg[i] or ""):gmatch "[^,]+" do
        opts.connections[#opts.connections + 1] = whole(word, text)
      end
      if #opts.connections == 0 then usage_error(word .. " takes numbers with commas between") end
    elseif KNOWN[word] then opts.names[word] = true
    else usage_error((word:sub(1, 1) == "-" and "unknown option " or "no benchmark is called ") .. word) end
    i = i + 1
  end
end

local root, build = os.getenv "REGOLITH_ROOT", os.getenv "REGOLITH_BUILD_DIR"
if not root or not os.getenv "REGOLITH_MYSQL_SOCKET" then usage_error "start this with scripts/bench/nginx" end

local cjson = require "cjson"
local faults = require "support.faults"
local model = require "model"
local nginx = require "support.nginx"
local support = require "support.init"
local figures_of = require("wrk").figures

local MYSQL, REDIS = os.getenv "REGOLITH_MYSQL_SOCKET", os.getenv "REGOLITH_REDIS_SOCKET"
local DB = os.getenv "REGOLITH_MYSQL_DB"
local USER, PASSWORD = "bench_cosocket", "by hand"
local MOST = math.max(unpack(opts.connections))
local FROM = 16 -- connections from which on the bars count

local PAGES = {
  "ours_redis", "raw_redis", "ours_mysql", "raw_mysql", "ours_process", "ours_process_20", "raw_redis_20", "nothing",
  "nothing_20",
}

local BENCHMARKS = {
  { name = "redis", ours = "ours_redis", raw = "raw_redis", bar = 1, most = "nothing" },
  { name = "mysql", ours = "ours_mysql", raw = "raw_mysql", bar = 1, most = "nothing" },
  { name = "process", ours = "ours_process", raw = "raw_redis", most = "nothing" },
  { name = "process_20", ours = "ours_process_20", raw = "raw_redis_20", bar = 5, most = "nothing_20" },
}

-- ---- the servers and nginx ----------------------------------------------------------------------

local function must_run(command)
  if os.execute(command) ~= 0 then error("it has failed: " .. command, 0) end
end

local function shell(command, ...) return (support.shell(string.format(command, ...))) end

local cores = tonumber(shell("nproc")) or 1
local pinned = opts.workers == 1 and cores > 1 and not opts.free

--- The rows in MySQL, in the cache's entries in Redis, and by hand in Redis.
local function fill()
  local side = string.format("luajit '%s/scripts/bench/side.lua'", root)
  must_run(side .. " schema.apply 0 >/dev/null")
  must_run(string.format("'%s/bench/raw_mysql' fill 0 %d bench_user >/dev/null", build, model.ROWS))
  must_run(side .. " read.redis_fill 1 >/dev/null")
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  local longest = 0
  for i = 1, model.ROWS do
    local r = model.row(i)
    local text = table.concat({ r.email, r.name, r.city, r.state, r.visits, r.points, r.score, r.active and 1 or 0,
      r.credit, r.seen }, "\t")
    longest = math.max(longest, #text)
    local key = "raw:bench_user:" .. i
    file:write(string.format("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", #key, key, #text, text))
  end
  file:close()
  must_run(string.format("redis-cli -s '%s' --pipe <'%s' >/dev/null", REDIS, path))
  os.remove(path)
  local client = shell("command -v mariadb || command -v mysql"):gsub("%s+$", "")
  must_run(string.format([[%s --no-defaults -uroot --socket='%s' -e "CREATE USER '%s'@'localhost' IDENTIFIED %s '%s';
    GRANT SELECT ON %s.* TO '%s'@'localhost'"]], client, MYSQL, USER,
    client:find "mariadb" and "BY" or "WITH mysql_native_password BY", PASSWORD, DB, USER))
  return longest
end

local APP = [[
return require("nginx_app").new {
  mysql_socket = %q, redis_socket = %q, db = %q, user = %q, password = %q, connections = %d,
}]]

local port = 20000 + io.open("/proc/self/stat"):read "*n" % 20000

local function start()
  local server = { "listen 127.0.0.1:" .. port .. " backlog=1024; keepalive_requests 100000000;" }
  for _, page in ipairs(PAGES) do
    server[#server + 1] = string.format("location = /%s { content_by_lua_block { %s() } }", page, page)
  end
  for _, page in ipairs { "check", "ready", "misses" } do
    server[#server + 1] = string.format("location = /%s { content_by_lua_block { app.%s() } }", page, page)
  end
  local pages = {}
  for _, page in ipairs(PAGES) do pages[#pages + 1] = string.format("%s = app.page %q", page, page) end
  local web = nginx.start {
    app = string.format(APP, MYSQL, REDIS, DB, USER, PASSWORD, MOST), workers = opts.workers,
    http = "lua_shared_dict bench 64k;\ninit_worker_by_lua_block { " .. table.concat(pages, " ") .. " app.warm() }",
    server = table.concat(server, "\n"), main = pinned and "worker_cpu_affinity 1;" or nil,
  }
  faults.await("the process caches", function() return tonumber((web:get "ready")) == opts.workers end, 60)
  return web
end

--- All pages answer the same for a row.
local function check(web)
  for _, id in ipairs { 1, 7, model.ROWS } do
    local wanted = { id = id, email = model.row(id).email, visits = model.row(id).visits }
    for i = 1, 5 do
      local page = PAGES[i]
      local text, _, status = web:get(string.format("check?page=%s&id=%d", page, id))
      if status ~= 200 then error(page .. " fails: " .. web:read "error.log":sub(-600), 0) end
      local got = cjson.decode(text)
      for key, value in pairs(wanted) do
        if got[key] ~= value then error(string.format("%s answers %s for row %d", page, text, id), 0) end
      end
    end
  end
end

-- ---- measuring ----------------------------------------------------------------------------------

local function wrk(page, connections, seconds)
  local text = shell("%s wrk --latency -t1 -c%d -d%ds --timeout 10s http://127.0.0.1:%d/%s",
    pinned and "taskset -c " .. cores - 1 or "", connections, seconds, port, page)
  local figures = figures_of(text)
  if not figures or text:find "Non%-2xx" or text:find "Socket errors" then
    error(string.format("/%s with %d connections: %s", page, connections, text), 0)
  end
  return figures
end

local function median(list, key)
  local sorted = {}
  for i, v in ipairs(list) do sorted[i] = key and v[key] or v end
  table.sort(sorted)
  local n = #sorted
  if n % 2 == 1 then return sorted[(n + 1) / 2] end
  return (sorted[n / 2] + sorted[n / 2 + 1]) / 2
end

local function measure(b, connections)
  local ours, raw, ratio, most = {}, {}, {}, {}
  for i = 1, opts.rounds do
    if i % 2 == 1 then ours[i] = wrk(b.ours, connections, opts.seconds) end
    raw[i] = wrk(b.raw, connections, opts.seconds)
    if i % 2 == 0 then ours[i] = wrk(b.ours, connections, opts.seconds) end
    ratio[i] = ours[i].rate / raw[i].rate
    most[i] = wrk(b.most, connections, opts.seconds).rate / raw[i].rate
  end
  local bar = connections >= FROM and b.bar or nil
  local r = {
    name = b.name, connections = connections, unit = "requests/s",
    ours = median(ours, "rate"), raw = median(raw, "rate"),
    ratio_min = math.min(unpack(ratio)), ratio = median(ratio), ratio_max = math.max(unpack(ratio)),
    ours_p50 = median(ours, "p50"), ours_p99 = median(ours, "p99"), raw_p50 = median(raw, "p50"),
    raw_p99 = median(raw, "p99"), bar = bar, rounds = opts.rounds,
    most = median(most),
  }
  if bar then r.pass = r.ratio >= bar end
  return r
end

-- ---- printing -----------------------------------------------------------------------------------

local ROW = "%-10s %5s %9s %9s   %5s %5s %5s   %8s %8s   %8s %8s   %-5s %s"

local function print_row(r)
  if opts.json then return print(cjson.encode(r)) end
  local function text(v, form) return v and string.format(form or "%.2f", v) or "" end
  print(string.format(ROW, r.name, r.connections, text(r.ours, "%.0f"), text(r.raw, "%.0f"), text(r.ratio_min),
    text(r.ratio), text(r.ratio_max), text(r.ours_p50), text(r.ours_p99), text(r.raw_p50),
    text(r.raw_p99), text(r.bar), (r.pass == nil and "" or r.pass and "ok" or "FAIL")
      .. (r.most and string.format("  most %.2f", r.most) or "")))
end

local function print_head(longest)
  local function line(path)
    local file = io.open(path)
    local text = file and file:read "*l" or "?"
    if file then file:close() end
    return text
  end
  local version = support.shell("nginx -v 2>&1", true):match "nginx/%S+" or "nginx"
  local entry = shell("redis-cli -s '%s' strlen '{rg}:e:bench_user:%d'", REDIS, model.ROWS):gsub("%s+$", "")
  local text = {
    os.getenv "REGOLITH_DURABILITY" or "",
    string.format("%s, %d worker%s; %s, JIT %s", version, opts.workers, opts.workers == 1 and "" or "s", jit.version,
      jit.status() and "on" or "off"),
    string.format("%d s a side, %d rounds; load %s", opts.seconds, opts.rounds,
      line "/proc/loadavg":match "^%S+ %S+ %S+"),
    string.format("a row in Redis: ours %s bytes, by hand at most %d", entry, longest),
    pinned and "nginx' worker on the first core, wrk on the last one, servers on any" or "nothing is pinned",
    string.format("bars at %d connections and more: redis and mysql 1.0 of the same by hand, process_20 5.0 of "
      .. "Redis by hand; most: the ratio of a page that asks nobody", FROM),
  }
  if opts.json then return print(cjson.encode { settings = text }) end
  for _, l in ipairs(text) do print(l) end
  print ""
  print(string.format(ROW, "", "", "requests/s", "", "", "ratio", "", "ours ms", "", "raw ms", "", "", ""))
  print(string.format(ROW, "", "conn", "ours", "raw", "min", "med", "max", "p50", "p99", "p50", "p99", "bar", ""))
end

-- ---- all of it ----------------------------------------------------------------------------------

local function run(web)
  check(web)
  local failed = 0
  for _, connections in ipairs(opts.connections) do
    for _, page in ipairs { "nothing", "nothing_20" } do
      local r = wrk(page, connections, opts.seconds)
      print_row { name = page, connections = connections, ours = r.rate, ours_p50 = r.p50, ours_p99 = r.p99 }
      io.stdout:flush()
    end
  end
  for _, b in ipairs(BENCHMARKS) do
    if not next(opts.names) or opts.names[b.name] then
      wrk(b.ours, MOST, 1) -- connected, compiled
      wrk(b.raw, MOST, 1)
      local misses = web:get "misses"
      for _, connections in ipairs(opts.connections) do
        local r = measure(b, connections)
        if r.pass == false then failed = failed + 1 end
        print_row(r)
        io.stdout:flush()
      end
      if b.name:find "^process" and opts.workers == 1 and web:get "misses" ~= misses then
        error("the process cache did not answer everything", 0)
      end
    end
  end
  return failed
end

local function main()
  local longest = fill()
  print_head(longest)
  local web = start()
  local ok, result = pcall(run, web)
  local stopped, wrong = pcall(web.stop, web)
  if not ok then error(result, 0) end
  if not stopped then error(wrong, 0) end
  return result
end

local ok, result = pcall(main)
if not ok then
  io.stderr:write("bench: ", tostring(result), "\n")
  os.exit(1)
end
os.exit(result == 0 and 0 or 1)
