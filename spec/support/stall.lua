-- SPDX-License-Identifier: MIT
-- An application whose servers will be stopped: for spec/nginx_stall_spec.lua and scripts/bench/stall.

local regolith = require "regolith"

local M = {}

--- Each page asks a server. What fails is a 503 that says which error it was.
M.APP = [==[
local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", {
  field.string "name", field.uint32 "n" { default = 0 }, cache = { redis = true },
})
local Plain = regolith.entity("plain", { field.string "name" })
local orm = assert(regolith.open(@orm))
local pages = {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end
local function id() return number "id" or math.random(@ids) end
-- Nobody consumes the queue: what is queued stays so, and what is written at once are other rows.
local function id_of_half(first) return number "id" or math.random(@ids / 2) + first end

function pages.redis(db) return db:get(Item, id()) end            -- from Redis
function pages.mysql(db) return db:get(Plain, id()) end           -- from MySQL, which is all there is
function pages.search(db) return db:search(Plain, "name <> ? order by id desc", "x"):page(1, 5) end
function pages.write(db)
  local item, err = db:get(Item, id_of_half(0))
  if not item then return nil, err end
  item.n = item.n + 1
  return db:flush()
end
function pages.queue(db)
  local item, err = db:get(Item, id_of_half(@ids / 2))
  if not item then return nil, err end
  item.n = item.n + 1
  return db:flush_async()
end
function pages.slow(db) return db:query("SELECT SLEEP(?) AS s", number "s") end
-- One of them.
local names = { "redis", "redis", "mysql", "mysql", "search", "write", "queue" }
function pages.any(db) return pages[names[math.random(#names)]](db) end
-- Did Redis have it?
function pages.cached(db)
  local before = orm:counter "regolith_mysql_rows_read_total"
  return tostring(db:get(Item, id()) ~= nil and orm:counter "regolith_mysql_rows_read_total" == before)
end
function pages.connects() return tostring(orm:counter "regolith_mysql_connects_total") end
function pages.busy()
  local busy = 0
  for _, pool in ipairs(assert(orm:health())) do busy = busy + pool.busy end
  return tostring(busy)
end
return { serve = function()
  local db = orm:session()
  local said, err = pages[ngx.var.uri:sub(2)](db)
  db:close()
  if said == nil and err then ngx.status = 503 end
  ngx.say(err and said == nil and err.code .. " " .. tostring(err) or type(said) == "string" and said or "fine")
end }
]==]

M.IDS = 200
--- How long an operation may take there.
M.TIMEOUT_MS = 1000

--- Makes the tables and their rows on these servers; the configuration of the application.
---@param servers Servers
function M.prepare(servers)
  local field = regolith.field
  local Item = regolith.entity("item", {
    field.string "name", field.uint32 "n" { default = 0 }, cache = { redis = true },
  })
  local Plain = regolith.entity("plain", { field.string "name" })
  local orm = servers:open { Item, Plain }
  local db = orm:session()
  for i = 1, M.IDS do
    db:new(Item, { name = "item " .. i })
    db:new(Plain, { name = "plain " .. i })
  end
  assert(db:flush() == true)
  db:close()
  -- Writers hold a connection each while they wait for a Redis that stands still: a fifth of 40 requests in the spec.
  return string.format("{ mysql = %q, redis = %q, entities = { Item, Plain }, timeout_ms = %d }",
    servers:mysql_url "&pool=16", servers:redis_url(), M.TIMEOUT_MS)
end

return M
