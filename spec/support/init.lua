-- SPDX-License-Identifier: MIT
-- What specs stand on: a database and a Redis prefix of their own on the private servers, sessions
-- and ORMs that are closed afterwards, and the check that nothing is left behind.
--
--   local world = require("support.init").world()      in setup
--   local orm = world:open({ User }, { ... })          schema applied
--   world:close()                                      in teardown

local regolith = require "regolith"

local M = {
  --- LuaJIT's own; specs see busted's.
  assert = assert,
}

--- What plain `assert` is where busted has put its own in its place: gives the values back, or raises
--- with the error's text.
function M.must(...)
  local v, e = ...
  if not v then error(tostring(e or "assertion failed"), 2) end
  return ...
end
local must = M.must

local function need(name)
  return (must(os.getenv(name), name .. " is not set: run the specs with scripts/test specs"))
end

--- Do the specs run under AddressSanitizer?
function M.is_under_asan() return (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) ~= nil end

--- Runs a shell command; its output. What loads this module itself (`own`) keeps the sanitizer that is
--- preloaded, other programs are spared it.
function M.shell(command, own)
  local before = own and "" or "env -u LD_PRELOAD "
  local pipe = must(io.popen(before .. "sh -c '" .. command:gsub("'", "'\\''") .. "' 2>&1"))
  local text = pipe:read "*a"
  local ok = pipe:close()
  return text, ok
end

--- Has a symbolic link point there, in place of what it pointed to.
function M.link(target, link) M.shell(string.format("ln -sfn '%s' '%s'", target, link)) end

--- One command to the private Redis; the lines of its answer.
function M.redis(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = "'" .. tostring((select(i, ...))) .. "'" end
  local lines = {}
  local text = M.shell("redis-cli -s '" .. need "REGOLITH_REDIS_SOCKET" .. "' " .. table.concat(words, " "))
  for line in text:gmatch "[^\n]+" do
    lines[#lines + 1] = line
  end
  return lines
end

local unique = 0

--- A name nobody else uses.
local function new_name()
  unique = unique + 1
  local pid = io.open("/proc/self/stat"):read "*n"
  return string.format("rgspec_%d_%d_%d", pid, os.time() % 100000, unique)
end

--- A statement that a pool's connections do not take: on a connection of its own.
local function administer(self, text)
  must(self.sql:connection(function(conn) return conn:execute(text) end))
end

---@class World
---@field name string of the database, and the Redis prefix
---@field orms table[]
local World = {}
World.__index = World

function M.world()
  local self = setmetatable({ name = new_name(), orms = {} }, World)
  self.admin = must(regolith.open { mysql = World.mysql_url(need "REGOLITH_MYSQL_DB"), entities = {} })
  self.sql = self.admin:session()
  administer(self, "CREATE DATABASE `" .. self.name .. "` CHARACTER SET utf8mb4")
  return self
end

function World.mysql_url(database, more)
  return string.format("mysql+unix://%s?user=root&db=%s%s", need "REGOLITH_MYSQL_SOCKET", database, more or "")
end

function World.redis_url(more)
  return string.format("redis+unix://%s%s", need "REGOLITH_REDIS_SOCKET", more or "")
end

--- The options of an ORM in this world.
function World:config(entities, more)
  local config = {
    mysql = self.mysql_url(self.name), redis = self.redis_url(), prefix = self.name, entities = entities,
    timeout_ms = 10000, process_cache = { apart = true }, -- each stands for a process of its own
  }
  for option, v in pairs(more or {}) do config[option] = v end
  return config
end

--- An ORM with its tables made. `schema = false` leaves the tables out, `redis = false` Redis.
function World:open(entities, more)
  local config = self:config(entities, more)
  local schema = config.schema
  config.schema = nil
  if config.redis == false then config.redis = nil end
  local orm = must(regolith.open(config))
  self.orms[#self.orms + 1] = orm
  if schema ~= false then must(orm:schema_apply { destructive = true }) end
  return orm
end

--- Closes one ORM before the world ends.
function World:shut(orm)
  for i, own in ipairs(self.orms) do
    if own == orm then table.remove(self.orms, i) break end
  end
  orm:close()
end

local mariadb

--- Whether the server is a MariaDB; else it is a MySQL.
function M.is_mariadb()
  if mariadb == nil then
    local orm = must(regolith.open { mysql = World.mysql_url(need "REGOLITH_MYSQL_DB"), entities = {} })
    mariadb = must(orm:session():query "SELECT VERSION() AS v")[1].v:find "MariaDB" ~= nil
    orm:close()
  end
  return mariadb
end

--- Counts the statements and commands that fn causes: by source and, upper case, by first word.
function M.count(orm, fn)
  local counts = { mysql = 0, redis = 0, process = 0, texts = {} }
  orm:log(function(event)
    counts[event.source] = counts[event.source] + 1
    if event.source == "mysql" then counts.texts[#counts.texts + 1] = event.text end
  end, { mysql = true, redis = true, process = true, values = true })
  local ok, err = pcall(fn)
  orm:log(nil)
  if not ok then error(err, 0) end
  return counts
end

--- How often reads went past Redis, as they do when it does not answer within a quarter of a second.
local function bypasses(orm)
  return orm:counter "regolith_redis_cache_bypasses_total" + orm:counter "regolith_values_bypasses_total"
end

M.bypasses = bypasses

--- Runs fn, which reads and expects what Redis has. Once more when it failed and a read of it went past Redis; what
--- fails though Redis has answered fails at once. Gives what fn gave.
function M.as_redis_answers(orm, fn)
  local ok, got
  M.eventually(function()
    local before = bypasses(orm)
    ok, got = pcall(fn)
    return ok or bypasses(orm) == before
  end, 20)
  if not ok then error(got, 0) end
  return got
end

--- How often something was dropped from a process cache or kept out of it: news that came late, a Redis that did.
local function disturbances(orms)
  local n = 0
  for _, orm in ipairs(orms) do
    for _, sign in ipairs { "process_cache_invalidations", "process_cache_clears", "redis_cache_bypasses" } do
      n = n + orm:counter("regolith_" .. sign .. "_total")
    end
  end
  return n
end

--- Holds what act gives against check, when the process caches of the orms, the first of which is open, kept all
--- meanwhile; else calls `again`, if there is one, and does it anew.
function M.in_peace(orms, act, check, again)
  must(M.eventually(function()
    local was, before = orms[1]:stats().coherent, disturbances(orms)
    local got, more = act()
    if was and orms[1]:stats().coherent and disturbances(orms) == before then
      check(got, more)
      return true
    end
    if again then again() end
  end, 30), "the process caches were never left in peace")
end

--- How the statements begin that fn causes: their first words.
function M.statements(orm, fn)
  local words = {}
  for i, text in ipairs(M.count(orm, fn).texts) do words[i] = text:match "^%a+" end
  return table.concat(words, " ")
end

--- Waits until fn gives something true.
function M.eventually(fn, seconds)
  local ffi = require "ffi"
  ffi.cdef "int poll(void *fds, unsigned long n, int timeout_ms);"
  local deadline = os.time() + (seconds or 5)
  repeat
    local v = fn()
    if v then return v end
    ffi.C.poll(nil, 0, 20)
  until os.time() > deadline
  return fn()
end

--- Waits until no connection to a world's database has an open transaction; what the server tells of
--- them is a little old.
function M.no_transactions(world)
  local function count()
    return #must(world.sql:query([[SELECT t.trx_id FROM information_schema.innodb_trx t
      JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?]], world.name))
  end
  must(M.eventually(function() return count() == 0 end), "a transaction was left open on the server")
end

--- Applies everything that is queued, whoever holds a lease of it.
function M.drain(orm, opts)
  local given = { lease = false }
  for option, v in pairs(opts or {}) do given[option] = v end
  local consumer = must(orm:consumer(given))
  local total = 0
  repeat
    local n = must(consumer:step(0.05))
    total = total + n
  until n == 0
  consumer:close()
  return total
end

--- How many connections to its database there are.
function World:connections()
  local rows = must(self.sql:query("SELECT COUNT(*) AS n FROM information_schema.processlist WHERE db = ?", self.name))
  return rows[1].n
end

--- Removes what the specs made and asserts that closed ORMs hold no connection.
function World:close()
  for _, orm in ipairs(self.orms) do orm:close() end
  self.orms = {}
  collectgarbage() -- sessions that specs let go hold their engine
  collectgarbage()
  local gone = M.eventually(function() return self:connections() == 0 end)
  local left = self:connections()
  administer(self, "DROP DATABASE `" .. self.name .. "`")
  self.sql:close()
  self.admin:close()
  local cli = "redis-cli -s '" .. need "REGOLITH_REDIS_SOCKET" .. "'"
  M.shell(cli .. " --scan --pattern '*" .. self.name .. "*' | xargs -r -d '\\n' " .. cli .. " del")
  must(gone, string.format("%s connections to MySQL are left behind", tostring(left)))
end

World.drop = World.close

--- Runs fn with this world's addresses in the environment.
function World:with_environment(fn)
  local ffi = require "ffi"
  ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"
  local values = {
    REGOLITH_MYSQL_URL = self.mysql_url(self.name), REGOLITH_REDIS_URL = self.redis_url(),
    REGOLITH_PREFIX = self.name,
  }
  local before = {}
  for name, value in pairs(values) do
    before[name] = os.getenv(name) or false
    ffi.C.setenv(name, value, 1)
  end
  local ok, fault = pcall(fn)
  for name, value in pairs(before) do
    if value then ffi.C.setenv(name, value, 1) else ffi.C.unsetenv(name) end
  end
  if not ok then error(fault, 0) end
end

--- A world for those who only need its servers' addresses.
M.database = M.world

return M
