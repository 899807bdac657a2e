-- SPDX-License-Identifier: MIT
-- The query log: what the engine collected with an operation, handed to the application's function.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"

local C, ffi = native.C, native.ffi

---@class regolith.LogEvent
---@field source "mysql"|"redis"|"process"
---@field op string
---@field pool string?
---@field text string
---@field started number seconds since 1970
---@field duration number seconds
---@field rows number?
---@field error string?

local SOURCES = { [1] = "mysql", [2] = "redis", [4] = "process" }
local OPTIONS = { mysql = options.boolean, redis = options.boolean, process = options.boolean,
  values = options.boolean, handler = options.func }

local M = { OPTIONS = OPTIONS }

local slot = ffi.new "rg_log_event"

local function text(p)
  if p == nil then return nil end
  return ffi.string(p)
end

local function read_event()
  return {
    source = SOURCES[tonumber(slot.source)],
    op = text(slot.op), pool = text(slot.pool), text = text(slot.text) or "",
    started = slot.started, duration = slot.duration,
    rows = slot.rows >= 0 and slot.rows or nil,
    error = text(slot.error),
  }
end

--- What the handler raises is not the caller's, whose operation is done. It may end the log, or close the orm.
local function tell(orm, events)
  local handler, on_error = orm._log, orm._on_error
  for _, event in ipairs(events) do
    if rawget(orm, "_log") ~= handler then return end
    local ok, raised = pcall(handler, event)
    if not ok then
      errors.report(on_error, errors.new("HOOK", "log: " .. errors.text(raised), { hook = "log", cause = raised }))
    end
  end
end

--- Hands over the events of an operation that has run.
---@param orm regolith.Orm
---@param op ffi.cdata*
function M.drain(orm, op)
  local events, i = {}, 0
  while C.rg_op_event(op, i, slot) == 1 do
    i = i + 1
    events[i] = read_event()
  end
  tell(orm, events)
end

--- Hands over the events of reads that needed no operation.
---@param orm regolith.Orm
---@param session ffi.cdata*
function M.drain_session(orm, session)
  local op = C.rg_session_events(session)
  if op == nil then return end
  op = ffi.gc(op, C.rg_op_free)
  M.drain(orm, op)
end

--- Checks the options of orm:log; the mask and whether values are shown.
---@return integer mask
---@return integer values
function M.mask(given)
  local opts = options.require("log", given, OPTIONS, 4)
  local any = opts.mysql ~= nil or opts.redis ~= nil or opts.process ~= nil
  local mask = 0
  if opts.mysql or not any then mask = mask + 1 end
  if opts.redis or not any then mask = mask + 2 end
  if opts.process then mask = mask + 4 end
  return mask, opts.values and 1 or 0
end

return M
