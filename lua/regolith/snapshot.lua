-- SPDX-License-Identifier: MIT
-- What a session knows, as it was when a transaction or a savepoint began, so that a rollback takes it
-- back there: entities, what is pending, and the rows that changes are found against. And the exchange
-- of all that for something empty while a transaction is suspended.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"

local C, ffi, err = native.C, native.ffi, native.err
local HIT = tonumber(C.RG_GET_HIT)

--- An empty table that stays so.
local NOTHING = {}

local M = {}

---@class regolith.Snapshot
---@field at table<integer, table> managed entities by place
---@field new (table|false)[]
---@field n_fresh integer
---@field doomed table<table, integer>
---@field n_doomed integer
---@field values table<table, table> of all of them, by node
---@field cleared boolean? the session was cleared since

local function copy_values(e)
  local values = { id = rawget(e, "id") }
  for _, node in ipairs(record.type_of(e).entity.nodes) do values[node.key] = record.copy(rawget(e, node.key)) end
  return values
end

local function put_values(e, values)
  for _, node in ipairs(record.type_of(e).entity.nodes) do
    local v = values[node.key]
    if not record.same(rawget(e, node.key), v) then rawset(e, node.key, v) end
  end
  rawset(e, "id", values.id)
end

local function copy_list(list)
  local copy = {}
  for key, v in pairs(list) do copy[key] = v end
  return copy
end

--- Takes one.
---@param session regolith.Session
---@return regolith.Snapshot? saved
---@return regolith.Err? err
function M.save(session)
  if C.rg_session_save(session._c, err) < 0 then return nil, errors.from_c(err) end
  local empty = session._top == 0 and session._n_fresh == 0
  local saved = {
    at = empty and NOTHING or {}, new = empty and NOTHING or {}, values = empty and NOTHING or {},
    n_fresh = session._n_fresh, n_doomed = session._n_doomed,
  }
  for place = 1, session._top do
    local e = session._at[place]
    if e then saved.at[place], saved.values[e] = e, copy_values(e) end
  end
  for k = 1, session._n_fresh do
    local e = session._new[k]
    saved.new[k] = e
    if e then saved.values[e] = copy_values(e) end
  end
  saved.doomed = session._n_doomed > 0 and copy_list(session._doomed) or NOTHING
  return saved
end

--- What is known now stands; the last snapshot is forgotten.
function M.drop(session) C.rg_session_unsave(session._c) end

-- ---- back -------------------------------------------------------------------------------------------

local function type_of(session, e) return session._types[record.type_of(e).entity] end

--- Rows of entities on other pools than the transaction's, as they are now: it has not touched them.
local function foreign_rows(session, pool)
  local rows, view = {}, session._view
  for place = 1, session._top do
    local e = session._at[place]
    if e and record.type_of(e).pool ~= pool and C.rg_session_row(session._c, place - 1, view) == HIT then
      rows[e] = tonumber(ffi.cast("intptr_t", view.data))
    end
  end
  return rows
end

--- Puts one entity where it was, or where it was loaded; false when there is nothing to go back to.
local function put_back(session, saved, rows, place, e, flush)
  local view = session._view
  if C.rg_session_row(session._c, place - 1, view) ~= HIT then return false end
  if rows[e] then return rows[e] == tonumber(ffi.cast("intptr_t", view.data)) end
  if saved.values[e] then
    put_values(e, saved.values[e])
  else
    flush.reset(type_of(session, e), e, view.data)
  end
  return true
end

--- Managed entities: those of the snapshot, and those that were loaded since.
local function restore_managed(session, saved, rows)
  local flush = require "regolith.flush"
  local now, top = session._at, session._top
  local at, last = {}, 0
  local function take(place, e)
    if not put_back(session, saved, rows, place, e, flush) then return end
    at[place], last = e, math.max(last, place)
    type_of(session, e).places[rawget(e, "id")] = place
  end
  for place, e in pairs(saved.at) do take(place, e) end
  for place = 1, top do
    local e = now[place]
    if e and not at[place] and not saved.values[e] then take(place, e) end
  end
  session._at, session._top = at, last
end

--- Those that waited to be inserted do so again; on other pools only if they still do.
local function restore_new(session, saved, pool)
  local fresh, new, n = {}, {}, 0
  for k = 1, saved.n_fresh do
    local e = saved.new[k]
    if e and (record.type_of(e).pool == pool or session._fresh[e]) then
      n = n + 1
      fresh[e], new[n] = n, e
      put_values(e, saved.values[e])
      local id = rawget(e, "id")
      if id ~= nil then type_of(session, e).places[id] = -n end
    end
  end
  session._fresh, session._new, session._n_fresh = fresh, new, n
end

--- Takes the session back to the last snapshot, and forgets it.
---@param session regolith.Session
---@param saved regolith.Snapshot
---@param pool integer number of the transaction's pool
function M.restore(session, saved, pool)
  local rows = foreign_rows(session, pool)
  C.rg_session_restore(session._c)
  for _, S in pairs(session._types) do S.places = {} end
  if saved.cleared then
    saved = { at = NOTHING, new = NOTHING, n_fresh = 0, doomed = NOTHING, n_doomed = 0, values = NOTHING }
  end
  restore_managed(session, saved, rows)
  restore_new(session, saved, pool)
  session._doomed, session._n_doomed = saved.n_doomed > 0 and saved.doomed or {}, saved.n_doomed
end

-- ---- suspension -------------------------------------------------------------------------------------

local FIELDS = { "_c", "_types", "_at", "_top", "_fresh", "_new", "_n_fresh", "_doomed", "_n_doomed" }

--- Has the session know nothing: what it knew is handed out.
---@return table? context
---@return regolith.Err? err
function M.suspend(session)
  local c = C.rg_session_beside(session._c, err)
  if c == nil then return nil, errors.from_c(err) end
  local context = {}
  for _, name in ipairs(FIELDS) do context[name] = session[name] end
  session._c, session._types = ffi.gc(c, C.rg_session_free), {}
  session._at, session._top = {}, 0
  session._fresh, session._new, session._n_fresh = {}, {}, 0
  session._doomed, session._n_doomed = {}, 0
  return context
end

--- Takes that back; what was learned meanwhile becomes plain data.
function M.resume(session, context)
  C.rg_session_free(ffi.gc(session._c, nil))
  for _, name in ipairs(FIELDS) do session[name] = context[name] end
end

return M
