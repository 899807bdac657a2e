-- SPDX-License-Identifier: MIT
-- Where samples are kept: in this process, or in a dictionary that the workers of nginx share. Bounded in
-- either: `keep` slots of `interval_s` seconds.

local figures = require "regolith.console.figures"
local native = require "regolith.native"

local M = {}

-- ---- in this process ----------------------------------------------------------------------------

local Memory = { shared = false }
Memory.__index = Memory

local function after(list, slot, interval_s)
  local found = {}
  for _, point in ipairs(list) do
    if point.t > slot * interval_s then found[#found + 1] = point end
  end
  return found
end

local function push(list, point, keep)
  list[#list + 1] = point
  if #list > keep then table.remove(list, 1) end
end

function Memory:put_point(slot, point)
  point.t = slot * self.interval_s
  push(self.list, point, self.keep)
end

function Memory:points(slot) return after(self.list, slot, self.interval_s) end

function Memory:put_queues(slot, point)
  point.t = slot * self.interval_s
  push(self.queue_list, point, self.keep)
end

function Memory:queue_points(slot) return after(self.queue_list, slot, self.interval_s) end

--- May this process ask how the queues are, for the time of a slot?
function Memory:claim(slot)
  if self.claimed == slot then return false end
  self.claimed = slot
  return true
end

function Memory:last_queues() return self.last end
function Memory:set_last_queues(last) self.last = last end
function Memory:put_state(state) self.state = state end
function Memory:states() return { self.state } end

-- ---- among the workers of nginx -----------------------------------------------------------------

local Shared = { shared = true }
Shared.__index = Shared

local function put(self, key, value)
  self.dict:set("rgc:" .. key, native.json_encode(value), self.keep * self.interval_s)
end

local function get(self, key)
  local text = self.dict:get("rgc:" .. key)
  return text and native.json_decode(text) or nil
end

function Shared:put_point(slot, point)
  point.t = slot * self.interval_s
  put(self, string.format("p:%d:%d", ngx.worker.id() or 0, slot), point)
end

local function slots(self, slot)
  local now = math.floor(os.time() / self.interval_s)
  return math.max(slot + 1, now - self.keep + 1), now
end

function Shared:points(slot)
  local found = {}
  local first, last = slots(self, slot)
  for s = first, last do
    local sum
    for worker = 0, ngx.worker.count() - 1 do
      local point = get(self, string.format("p:%d:%d", worker, s))
      if point then
        sum = sum or { t = point.t }
        figures.add_point(sum, point)
      end
    end
    found[#found + 1] = sum
  end
  return found
end

function Shared:put_queues(slot, point)
  point.t = slot * self.interval_s
  put(self, string.format("q:%d", slot), point)
end

function Shared:queue_points(slot)
  local found = {}
  local first, last = slots(self, slot)
  for s = first, last do found[#found + 1] = get(self, string.format("q:%d", s)) end
  return found
end

function Shared:claim(slot)
  return self.dict:add(string.format("rgc:c:%d", slot), true, self.interval_s * 2) == true
end

function Shared:last_queues() return get(self, "queues") end
function Shared:set_last_queues(last) put(self, "queues", last) end

function Shared:put_state(state)
  put(self, string.format("s:%d", ngx.worker.id() or 0), state)
end

--- Those of workers that are alive, which write them anew every interval_s.
function Shared:states()
  local found, oldest = {}, os.time() - math.max(self.interval_s * 4, 15)
  for worker = 0, ngx.worker.count() - 1 do
    local state = get(self, string.format("s:%d", worker))
    if state and state.at >= oldest then found[#found + 1] = state end
  end
  return found
end

---@param interval_s integer
---@param keep integer
---@param dict table?
function M.new(interval_s, keep, dict)
  local self = { interval_s = interval_s, keep = keep, dict = dict, list = {}, queue_list = {} }
  return setmetatable(self, dict and Shared or Memory)
end

return M
