-- SPDX-License-Identifier: MIT
-- What the hooks of a flush have changed, put back when the flush fails: the next one asks them again, and
-- what they add up or make anew is there once. Rows that they have read or written meanwhile stay as they
-- are now, and what they took out of the session stays out.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"
local snapshot = require "regolith.snapshot"

local C, ffi, err = native.C, native.ffi, native.err
local HIT = tonumber(C.RG_GET_HIT)

local M = {}

---@class regolith.Undo
---@field number integer of the engine's half, which keeps the rows apart from others at the same place in memory
---@field values table<table, table> of all entities, by node
---@field rows table<table, ffi.cdata*> what the managed ones came from
---@field doomed table<table, integer>
---@field cleared boolean? the session was emptied since

--- The row that a managed entity comes from now.
local function row_at(session, place)
  if C.rg_session_row(session._c, place - 1, session._view) ~= HIT then return nil end
  return ffi.cast("const uint8_t *", session._view.data)
end

--- Notes how everything is, before the first hook is asked.
---@param session regolith.Session
---@return regolith.Undo? undo
---@return regolith.Err? err
function M.note(session)
  local number = C.rg_session_save(session._c, err)
  if number < 0 then return nil, errors.from_c(err) end
  local undo = { number = number, values = {}, rows = {}, doomed = {}, cleared = nil }
  for place = 1, session._top do
    local e = session._at[place]
    if e then undo.values[e], undo.rows[e] = snapshot.copy_values(e), row_at(session, place) end
  end
  for k = 1, session._n_fresh do
    local e = session._new[k]
    if e then undo.values[e] = snapshot.copy_values(e) end
  end
  for e, k in pairs(session._doomed) do undo.doomed[e] = k end
  return undo
end

--- The flush has been done.
function M.drop(session, undo) C.rg_session_unsave(session._c, undo.number) end

local function put_managed(session, undo, flush)
  for place = 1, session._top do
    local e = session._at[place]
    local S = e and session._types[record.type_of(e).entity]
    local row = e and row_at(session, place)
    if row and not undo.values[e] then
      flush.reset(S, e, row)
    elseif row and row == undo.rows[e] then
      snapshot.put_values(e, undo.values[e])
    end
    if e and session._doomed[e] and not undo.doomed[e] then
      session._doomed[e], S.places[e.id] = nil, place
    end
  end
end

local function put_new(session, undo, flush)
  for k = session._n_fresh, 1, -1 do
    local e = session._new[k]
    if e and undo.values[e] then
      snapshot.put_values(e, undo.values[e])
    elseif e then
      flush.forget(session, session._types[record.type_of(e).entity], e, -k)
    end
  end
end

--- It has failed.
---@param session regolith.Session
---@param undo regolith.Undo
---@param flush table the module that asks: how an entity is given its row's values, and how one is let go
function M.back(session, undo, flush)
  if not undo.cleared then
    put_new(session, undo, flush)
    put_managed(session, undo, flush)
  end
  M.drop(session, undo)
end

return M
