-- SPDX-License-Identifier: MIT
-- Updates that are cancelled when nothing differs, and updates that are repeated until they are made.

local assign = require "regolith.assign"
local batch = require "regolith.batch"
local entities = require "regolith.entity"
local errors = require "regolith.err"
local jobs = require "regolith.job"
local native = require "regolith.native"
local options = require "regolith.options"

local C, err = native.C, native.err
local LEAST_PAUSE_MS, MOST_PAUSE_MS = 2, 200

local M = {}

-- ---- what differs -------------------------------------------------------------------------------

--- The names among those given that differ, and the paths of the columns in the order of the schema.
local function reduce(T, changes, changed)
  local names, wanted, paths = {}, {}, {}
  for name in pairs(changes) do
    local any = false
    for _, column in ipairs(assign.columns(T, name, 1)) do
      if changed[column.number] then any, wanted[column] = true, true end
    end
    if any then names[#names + 1] = name end
  end
  for _, column in ipairs(T.entity.columns) do
    if wanted[column] then paths[#paths + 1] = column.path end
  end
  return names, paths
end

local CHANGED = { cas = options.any }

local function update_changed(self, S, e, place, changes, given_cas, level)
  local job = jobs.new()
  jobs.update(self, job, S, e, place, changes, given_cas, level + 1)
  local changed, fault = jobs.changed(self, job)
  if not changed then return errors.results(fault) end
  local names, paths = reduce(S.T, changes, changed)
  if #names == 0 then return nil end
  local fewer = {}
  for _, name in ipairs(names) do fewer[name] = changes[name] end
  local answer
  answer, fault = batch.update(self, S, e, place, fewer, given_cas, false, level + 1)
  if not answer then return errors.results(fault) end
  if answer.err then return errors.results(answer.err) end
  if answer.applied or answer.unchanged then return paths end
  return false
end

-- ---- until it is made ---------------------------------------------------------------------------

--- Decorrelated jitter: up to three times the last pause.
local function next_pause(last)
  return math.min(MOST_PAUSE_MS, LEAST_PAUSE_MS + math.random() * (last * 3 - LEAST_PAUSE_MS))
end

local function pause(self, ms)
  local op, fault = self:_own(C.rg_op_pause(self._orm._engine, ms, err))
  if not op then return nil, fault end
  return self:_run(op, 5)
end

local function now_ms() return C.rg_monotonic_ms() end

local function whole_row(T)
  local names = {}
  for _, column in ipairs(T.entity.columns) do
    if column.args.version then return "version" end
    names[#names + 1] = column.path
  end
  return names
end

local RMW = { tries = options.integer(1, 1000000), deadline_ms = options.integer(1, 4294967295), cas = options.any }

--- The entity to be changed, as the primary has it now.
local function begin(self, what, id, level)
  if not entities.is(what) then
    local S, place = self:_need(what, level + 1)
    if place < 0 then error("a new entity is flushed before it is changed", level + 1) end
    local e, fault = self:reload(what)
    if not e then return nil, fault end
    return S, e
  end
  local S = self:_type(what, level + 1)
  local known = S.places[tonumber(id)] ~= nil
  local e, fault = self:get(what, id)
  if e and known then e, fault = self:reload(e) end
  if fault then return nil, fault end
  return S, e
end

local function gone(tries) return { outcome = "missing", missing = true, changed = false, tries = tries } end

--- One round; with `adopt` the entity takes over the row that a conflict has met.
local function attempt(self, S, e, fn, given_cas, adopt, level)
  local changes = fn(e)
  if changes == nil or changes == false then return { outcome = "unchanged", unchanged = true, changed = false } end
  local _, place = self:_need(e, level + 1)
  local answer, fault = batch.update(self, S, e, place, changes, given_cas, adopt, level + 1)
  if not answer then return nil, fault end
  if answer.failed then return nil, answer.err end
  return answer
end

--- What comes between two rounds: the first conflict has brought the row along; later ones show that
--- it is contended.
local function prepare(self, e, try, ms)
  if try == 1 then return true end
  local ok, fault = pause(self, ms)
  if ok then ok, fault = self:reload(e) end
  return ok, fault
end

local function repeat_until(self, S, e, fn, opts, level)
  local given_cas = opts.cas == nil and whole_row(S.T) or opts.cas
  local tries, give_up_at = opts.tries or 10, opts.deadline_ms and now_ms() + opts.deadline_ms or math.huge
  local last = LEAST_PAUSE_MS
  for try = 1, tries do
    local answer, fault = attempt(self, S, e, fn, given_cas, try == 1, level + 1)
    if not answer then return nil, fault end
    answer.tries = try
    if not answer.conflict or try == tries then return answer end
    last = next_pause(last)
    if now_ms() + (try > 1 and last or 0) >= give_up_at then return answer end
    local ok
    ok, fault = prepare(self, e, try, last)
    if not ok and fault.code == "CONFLICT" then return gone(try) end
    if not ok then return nil, fault end
  end
end

---@param Session table
function M.install(Session)
  --- Writes what differs from the values that were read. The names of the fields written, in the order
  --- of their definition; nil when nothing differs (then nothing is sent); false when the row is gone,
  --- or with `cas` not as expected.
  ---@param e table
  ---@param changes table
  ---@param opts? { cas: table|string|nil }
  ---@return string[]|false|nil names
  ---@return regolith.Err? err
  function Session:update_changed(e, changes, opts)
    local S, place = self:_need(e, 2)
    if place < 0 then error("a new entity is flushed before it is updated", 2) end
    opts = options.require("update_changed", opts, CHANGED)
    return errors.pass(update_changed(self, S, e, place, changes, opts.cas, 2))
  end

  --- Reads the row, has fn(entity) say what is to be changed, and writes that if the row
  --- is still the same (its version, or else all of it); if not, all over again, after a random pause.
  --- fn may be called often. It returns nil to leave the row as it is.
  ---@param what table an entity, or a definition, whose id follows
  ---@param ... any id, fn, options { tries = 10, deadline_ms, cas }
  ---@return regolith.Answer? answer a conflict when it gave up; with `tries`
  ---@return regolith.Err? err
  function Session:read_modify_write(what, ...)
    local id, fn, opts
    if entities.is(what) then id, fn, opts = ... else fn, opts = ... end
    if type(fn) ~= "function" then error("read_modify_write takes a function that returns the changes", 2) end
    opts = options.require("read_modify_write", opts, RMW)
    local S, e = begin(self, what, id, 2)
    if not S then
      if e.code == "CONFLICT" then return gone(0) end
      return errors.results(e)
    end
    if not e then return gone(0) end
    local answer, fault = repeat_until(self, S, e, fn, opts, 2)
    if not answer then return errors.results(fault) end
    return answer
  end
end

return M
