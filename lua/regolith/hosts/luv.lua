-- SPDX-License-Identifier: MIT
-- The host of luv programs: an operation goes to the engine's workers, the coroutine yields, and one
-- poll handle on the engine's descriptor resumes the coroutines whose operations are done. The handle
-- keeps the loop alive only while something is under way.

local errors = require "regolith.err"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err
local DONE = tonumber(C.RG_OP_DONE)
local TAGS = 64

---@class regolith.LuvHost : regolith.Host
---@field engine ffi.cdata* borrowed
---@field notifier ffi.cdata*? made on first use
---@field poll table? its uv_poll_t
---@field waiting table<integer, thread|function> by tag
---@field n integer operations under way
---@field closed boolean? with its orm
local Luv = { blocking = false }
Luv.__index = Luv

local tags = ffi.new("uint32_t[?]", TAGS)

--- The running coroutine, unless it is the main one.
local function running()
  local co, main = coroutine.running()
  if main then return nil end
  return co
end

--- Resumes what is done; the first error is raised when all were resumed.
local function drain(self)
  local fault
  repeat
    local n = C.rg_notifier_drain(self.notifier, tags, TAGS)
    local ready = {}
    for i = 0, n - 1 do
      ready[i + 1] = self.waiting[tags[i]]
      self.waiting[tags[i]] = nil
    end
    for _, waiter in pairs(ready) do
      local ok, why
      if type(waiter) == "thread" then
        ok, why = coroutine.resume(waiter)
        if not ok then why = debug.traceback(waiter, tostring(why)) end
      else
        ok, why = pcall(waiter)
      end
      if not ok then fault = fault or why end
    end
  until n == 0 or not self.notifier
  if fault then error(fault, 0) end
end

local function start(self)
  local notifier = C.rg_notifier_new(self.engine, 0, err)
  if notifier == nil then return nil, errors.from_c(err) end
  local uv = self.uv
  local poll, why = uv.new_poll(C.rg_notifier_fd(notifier))
  if not poll then
    C.rg_notifier_free(notifier)
    return nil, errors.new("LIMIT", "no poll handle for regolith's wake-ups: " .. tostring(why))
  end
  self.notifier, self.poll = ffi.gc(notifier, C.rg_notifier_free), poll
  uv.poll_start(poll, "r", function() drain(self) end)
  uv.unref(poll)
  return notifier
end

local function next_tag(self)
  self.tag = (self.tag + 1) % 4294967296
  return self.tag
end

local function loop_runs(self)
  return self.uv.loop_mode and self.uv.loop_mode() ~= nil
end

--- May an operation wait here? Before the loop runs it blocks, which keeps nobody waiting.
function Luv:may_wait() return running() ~= nil or not loop_runs(self) end

local function run_inline(self, op, timeout_ms)
  if loop_runs(self) then
    return nil, errors.new("MISUSE", "a database operation cannot wait in a callback of the loop; "
      .. "start a coroutine for it: coroutine.wrap(function() ... end)()")
  end
  if C.rg_op_run(op, timeout_ms or 0) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
  return true
end

local function count(self, by)
  self.n = self.n + by
  if not self.poll then return end
  if self.n == 1 and by == 1 then self.uv.ref(self.poll) end
  if self.n == 0 then self.uv.unref(self.poll) end
end

local function closed() return nil, errors.new("CLOSED", "the orm was closed meanwhile") end

---@param op ffi.cdata* rg_op
---@param timeout_ms integer?
---@return true? ok
---@return regolith.Err? err
function Luv:run(op, timeout_ms)
  local co = running()
  if self.closed then return closed() end
  if not co then return run_inline(self, op, timeout_ms) end
  local notifier = self.notifier
  if not notifier then
    local fault
    notifier, fault = start(self)
    if not notifier then return nil, fault end
  end
  if not native.is_yieldable() then
    return nil, errors.new("MISUSE", "a database operation cannot wait below a C function "
      .. "(require, a sort's comparison, string.gsub's function, an iterator of C)")
  end
  local tag = next_tag(self)
  self.waiting[tag] = co
  if C.rg_op_submit(op, notifier, tag, timeout_ms or 0, err) < 0 then
    self.waiting[tag] = nil
    return nil, errors.from_c(err)
  end
  count(self, 1)
  repeat
    coroutine.yield()
    -- whoever resumed it without being asked to: it waits on
  until C.rg_op_phase_of(op) == DONE and self.waiting[tag] == nil or self.closed
  count(self, -1)
  if self.closed then return closed() end
  if C.rg_op_code(op) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
  return true
end

--- Has fn called by the loop when what `tell` arranges comes to pass.
---@param tell fun(notifier: ffi.cdata*, tag: integer): boolean false: it has come to pass already
---@param fn function
---@return table? entry
function Luv:watch(tell, fn)
  local notifier = not self.closed and (self.notifier or start(self))
  if not notifier then return nil end
  local tag = next_tag(self)
  local entry = { fn = fn }
  local weak = setmetatable({ entry = entry }, { __mode = "v" })
  local function call()
    if weak.entry then coroutine.wrap(weak.entry.fn)() end
  end
  self.waiting[tag] = call
  if not tell(notifier, tag) then
    self.waiting[tag] = nil
    call()
  end
  return entry
end

local inherited = {}

--- Coroutines that wait still are resumed with CLOSED.
function Luv:close()
  if C.rg_engine_orphan(self.engine) == 1 then -- the loop's descriptors are the parent's, who waits with them
    self.closed, inherited[#inherited + 1] = true, self.poll
    return
  end
  local notifier, poll, waiting = self.notifier, self.poll, self.waiting
  self.notifier, self.poll, self.waiting, self.closed = nil, nil, {}, true
  if not notifier then return end
  self.uv.poll_stop(poll)
  -- A handle that is being closed when the Lua state ends crashes luv 1.44: without a loop that would see
  -- it closed the collector does it.
  if loop_runs(self) then self.uv.close(poll) end
  C.rg_notifier_close(notifier)
  for _, waiter in pairs(waiting) do
    if type(waiter) == "thread" then coroutine.resume(waiter) end
  end
end

--- Waits that long while others go on; false at once where nobody would.
---@param seconds number
---@return boolean
function Luv:rest(seconds)
  local co, uv = running(), self.uv
  if not co or self.closed or not native.is_yieldable() then return false end
  local timer, over = uv.new_timer(), false
  uv.timer_start(timer, math.ceil(seconds * 1000), 0, function()
    over = true
    uv.close(timer)
    local ok, why = coroutine.resume(co)
    if not ok then error(debug.traceback(co, tostring(why)), 0) end
  end)
  while not over do coroutine.yield() end
  return true
end

local function library() return package.loaded.luv or package.loaded.uv end

local function pause(seconds)
  local uv = library()
  if not uv or not uv.loop_mode or not uv.loop_mode() then return false end
  return Luv.rest({ uv = uv }, seconds)
end

return {
  --- Waits that long if the loop runs; false when it does not.
  pause = pause,
  --- Is this a program with luv in it?
  here = function() return library() ~= nil end,
  ---@param engine ffi.cdata*
  ---@return regolith.Host
  new = function(engine)
    return setmetatable({ engine = engine, uv = library() or require "luv", waiting = {}, tag = 0, n = 0 }, Luv)
  end,
}
