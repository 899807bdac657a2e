-- SPDX-License-Identifier: MIT
-- What a process of a nemesis run does to items: rows that come and go, and move between boxes and slots, so
-- that lists of them change all the time. What it did is written down, for support/list_history.
-- Lines: "O number id I|U|D base box slot t" a write begins (slot 0: none; base: the version it stands on),
-- "P number version t ok|fail|info way" it ended; "L all|box|slot key t0 t1 id:version,..." a list was read.

local faults = require "support.faults"
local regolith = require "regolith"
local field = regolith.field

local M = { BOXES = 8, SLOTS = 12 }
local FEW, MANY = 30, 60

--- The entities, cached as a process wants them.
function M.entities(cache)
  cache.all = true
  local Box = regolith.entity("box", { field.string "name" })
  local Item = regolith.entity("item", {
    field.ref "box" { Box, index = true, cached = true }, field.uint32 "slot" { nullable = true, unique = true },
    field.uint32 "version" { version = true }, cache = cache,
  })
  return Box, Item
end

--- Errors after which it is certain that nothing was written.
local CERTAIN = { CONFLICT = true, DUPLICATE_KEY = true, DEADLOCK = true, PENDING = true }

local now = faults.now

---@class ListActs
---@field Item regolith.Entity
---@field history file*
---@field boxes integer[] their ids
---@field async boolean some writes are queued
---@field number integer of the last write
local Acts = {}
Acts.__index = Acts

function M.new(Item, history, boxes, seed, async)
  return setmetatable({ Item = Item, history = history, boxes = boxes, async = async, number = seed * 1000000 }, Acts)
end

local function noted(list)
  local words = {}
  for i, e in ipairs(list) do words[i] = string.format("%d:%d", e.id, e.version) end
  return table.concat(words, ",")
end

--- Reads a list and writes down what it saw.
function Acts:list(db, kind, key)
  local began = now()
  local list, err
  if kind == "all" then
    list, err = db:all(self.Item)
  elseif kind == "box" then
    list, err = db:all_by(self.Item, "box", key)
  else
    local e
    e, err = db:by(self.Item, "slot", key)
    list = { e }
    if not e and err then list = nil end
  end
  if not list then return nil, err end
  self.history:write(string.format("L %s %d %.6f %.6f %s\n", kind, key, began, now(), noted(list)))
  return list
end

function Acts:read(db)
  local which = math.random(4)
  if which == 1 then return self:list(db, "all", 0) end
  if which == 2 then return self:list(db, "slot", math.random(M.SLOTS)) end
  return self:list(db, "box", self.boxes[math.random(#self.boxes)])
end

-- ---- writing ------------------------------------------------------------------------------------

--- Slots change in flushes only: whether one is taken is known when they are flushed.
local function draw(self, e, way)
  e.box = self.boxes[math.random(#self.boxes)]
  if way == "flush_async" then return end
  e.slot = math.random(3) > 1 and math.random(M.SLOTS) or regolith.null
end

local function change(self, db, list, way)
  local kind = #list < FEW and "I" or #list > MANY and "D" or ({ "I", "U", "U", "U", "D" })[math.random(5)]
  if kind == "I" then
    local e = db:new(self.Item, { box = self.boxes[math.random(#self.boxes)] })
    if not e.id then -- none is to be had while the server is down
      db:discard(e)
      return
    end
    draw(self, e, way)
    return kind, e, 0
  end
  local e = list[math.random(#list)]
  local base = e.version
  if kind == "U" then draw(self, e, way) else db:delete(e) end
  return kind, e, base
end

--- A flush in a transaction, which may be rolled back at its end.
local function flush_inside(db)
  local undo = math.random(3) == 1
  return db:transaction(function()
    local ok, err = db:flush()
    if not ok then return nil, err end
    if undo then return nil, "undone" end
    return true
  end)
end

local function outcome_of(ok, err)
  if ok then return "ok" end
  if err == "undone" then return "fail" end
  return type(err) == "table" and CERTAIN[err.code] and "fail" or "info"
end

function Acts:write(db)
  local way = self.async and math.random(3) == 1 and "flush_async" or "flush"
  local list = self:list(db, "all", 0)
  if not list then return end
  local kind, e, base = change(self, db, list, way)
  if not e then return end
  self.number = self.number + 1
  local slot = e.slot
  if slot == nil or slot == regolith.null then slot = 0 end
  local box = e.box_id
  self.history:write(string.format("O %d %d %s %d %d %d %.6f\n", self.number, e.id, kind, base, box, slot, now()))
  local ok, err
  if way == "flush_async" then ok, err = db:flush_async()
  elseif math.random(2) == 1 then ok, err = flush_inside(db)
  else ok, err = db:flush() end
  local outcome = outcome_of(ok, err)
  local version = outcome == "ok" and kind ~= "D" and e.version or 0
  self.history:write(string.format("P %d %d %.6f %s %s\n", self.number, version, now(), outcome, way))
end

return M
