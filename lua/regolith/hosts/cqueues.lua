-- SPDX-License-Identifier: MIT
-- The host of cqueues programs: an operation goes to the engine's workers, the coroutine waits for a
-- condition, and one coroutine a controller (the pump) polls the engine's descriptor while something is
-- under way, and signals what is done. It ends with the last of them, so that loops end.

local errors = require "regolith.err"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err
local DONE = tonumber(C.RG_OP_DONE)
local TAGS = 64

---@class regolith.CqueuesPump what one controller waits with
---@field notifier ffi.cdata*
---@field waiting table<integer, table> by tag: conditions, or what to call
---@field n integer operations and watches under way
---@field runs boolean

---@class regolith.CqueuesHost : regolith.Host
---@field engine ffi.cdata* borrowed
---@field pumps table<userdata, regolith.CqueuesPump> by controller; weak
---@field closed boolean? with its orm
local Cqueues = { blocking = false }
Cqueues.__index = Cqueues

local tags = ffi.new("uint32_t[?]", TAGS)

local function drain(pump)
  repeat
    local n = C.rg_notifier_drain(pump.notifier, tags, TAGS)
    for i = 0, n - 1 do
      local entry = pump.waiting[tags[i]]
      pump.waiting[tags[i]] = nil
      if entry then
        entry.done = true
        entry.cond:signal()
      end
    end
  until n == 0
end

local function run_pump(self, pump)
  local readable = { pollfd = C.rg_notifier_fd(pump.notifier), events = "r" }
  while pump.n > 0 and not pump.closed do
    self.cqueues.poll(readable, pump.stop)
    if not pump.closed then drain(pump) end
  end
  pump.runs = false
end

--- The pump of the running controller; runs while it is wanted.
local function pump_of(self, controller)
  local pump = self.pumps[controller]
  if not pump then
    local notifier = C.rg_notifier_new(self.engine, 0, err)
    if notifier == nil then return nil, errors.from_c(err) end
    pump = { notifier = ffi.gc(notifier, C.rg_notifier_free), waiting = {}, n = 0, runs = false,
      stop = self.condition.new() }
    self.pumps[controller] = pump
  end
  return pump
end

local function want(self, controller, pump)
  pump.n = pump.n + 1
  if pump.runs then return end
  pump.runs = true
  controller:wrap(run_pump, self, pump)
end

local function unwant(pump)
  pump.n = pump.n - 1
  if pump.n == 0 then pump.stop:signal() end
end

--- May an operation wait here? Outside of a controller it blocks, which keeps nobody waiting.
function Cqueues.may_wait() return true end

--- Waits that long while others go on; false at once where nobody would.
---@param seconds number
---@return boolean
function Cqueues:rest(seconds)
  if not self.cqueues.running() or not native.is_yieldable() then return false end
  self.cqueues.sleep(seconds)
  return true
end

local function next_tag(self)
  self.tag = (self.tag + 1) % 4294967296
  return self.tag
end

---@param op ffi.cdata* rg_op
---@param timeout_ms integer?
---@return true? ok
---@return regolith.Err? err
function Cqueues:run(op, timeout_ms)
  if self.closed then return nil, errors.new("CLOSED", "the orm was closed meanwhile") end
  local controller = self.cqueues.running()
  if not controller then
    if C.rg_op_run(op, timeout_ms or 0) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
    return true
  end
  if not native.is_yieldable() then
    return nil, errors.new("MISUSE", "a database operation cannot wait below a C function "
      .. "(require, a sort's comparison, string.gsub's function, an iterator of C)")
  end
  local pump, fault = pump_of(self, controller)
  if not pump then return nil, fault end
  local tag, entry = next_tag(self), { cond = self.condition.new() }
  pump.waiting[tag] = entry
  if C.rg_op_submit(op, pump.notifier, tag, timeout_ms or 0, err) < 0 then
    pump.waiting[tag] = nil
    return nil, errors.from_c(err)
  end
  want(self, controller, pump)
  while not (entry.done and C.rg_op_phase_of(op) == DONE) and not pump.closed do entry.cond:wait() end
  unwant(pump)
  if pump.closed then return nil, errors.new("CLOSED", "the orm was closed meanwhile") end
  if C.rg_op_code(op) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
  return true
end

--- Has fn called, in a coroutine of the running controller, when what `tell` arranges comes to pass. That
--- waits until the result is collected. Outside of a controller nothing is called.
---@param tell fun(notifier: ffi.cdata*, tag: integer): boolean false: it has come to pass already
---@param fn function
---@return table? entry
function Cqueues:watch(tell, fn)
  local controller = self.cqueues.running()
  local pump = controller and not self.closed and pump_of(self, controller)
  if not pump then return nil end
  local tag, entry = next_tag(self), { cond = self.condition.new() }
  pump.waiting[tag] = entry
  if not tell(pump.notifier, tag) then entry.done = true end
  want(self, controller, pump)
  controller:wrap(function()
    while not entry.done and not entry.over and not pump.closed do entry.cond:wait() end
    unwant(pump)
    if entry.done then fn() end
  end)
  entry.cancel = function()
    entry.over = true
    entry.cond:signal()
  end
  return entry
end

--- Coroutines that wait still go on with CLOSED.
function Cqueues:close()
  self.closed = true
  if C.rg_engine_orphan(self.engine) == 1 then return end -- the controller's descriptors are the parent's
  for controller, pump in pairs(self.pumps) do
    self.pumps[controller] = nil
    pump.closed = true
    for _, entry in pairs(pump.waiting) do entry.cond:signal() end
    pump.stop:signal()
    C.rg_notifier_close(pump.notifier) -- the pump polls its descriptor still
  end
end

return {
  --- Waits that long if a controller runs; false when none does.
  ---@param seconds number
  pause = function(seconds)
    local cqueues = package.loaded.cqueues
    if not cqueues or not cqueues.running() then return false end
    cqueues.sleep(seconds)
    return true
  end,
  --- Is this a program with cqueues in it?
  here = function() return package.loaded.cqueues ~= nil end,
  ---@param engine ffi.cdata*
  ---@return regolith.Host
  new = function(engine)
    return setmetatable({
      engine = engine, cqueues = require "cqueues", condition = require "cqueues.condition",
      pumps = setmetatable({}, { __mode = "k" }), tag = 0,
    }, Cqueues)
  end,
}
