-- SPDX-License-Identifier: MIT
-- What a session knows, as it was when a transaction or a savepoint began, so that a rollback takes it
-- back there: entities, what is pending, and the rows that changes are found against. And the exchange
-- of all that for something empty while a transaction is suspended.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"
local shards = require "regolith.shards"

local C, ffi, err = native.C, native.ffi, native.err
local HIT = tonumber(C.RG_GET_HIT)

--- An empty table that stays so.
local NOTHING = {}

local M = {}

---@class regolith.Snapshot
---@field number integer of the engine's half
---@field at table<integer, table> managed entities by place
---@field new (table|false)[]
---@field n_fresh integer
---@field doomed table<table, integer>
---@field expected table? of the next flush
---@field values table<table, table> of all of them, by node
---@field cleared boolean? the session was cleared since

--- The values of an entity, by node.
---@param e table
---@return table
function M.copy_values(e)
  local values = { id = rawget(e, "id") }
  for _, node in ipairs(record.type_of(e).entity.nodes) do values[node.key] = record.copy(rawget(e, node.key)) end
  return values
end

--- Gives an entity those values again.
---@param e table
---@param values table
function M.put_values(e, values)
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
  local number = C.rg_session_save(session._c, err)
  if number < 0 then return nil, errors.from_c(err) end
  local empty = session._top == 0 and session._n_fresh == 0
  local saved = {
    at = empty and NOTHING or {}, new = empty and NOTHING or {}, values = empty and NOTHING or {},
    number = number, n_fresh = session._n_fresh, expected = nil, doomed = NOTHING, cleared = nil,
  }
  if session._expected then saved.expected = copy_list(session._expected) end
  if session._n_doomed > 0 then saved.doomed = copy_list(session._doomed) end
  if empty then return saved end
  for place = 1, session._top do
    local e = session._at[place]
    if e then saved.at[place], saved.values[e] = e, M.copy_values(e) end
  end
  for k = 1, session._n_fresh do
    local e = session._new[k]
    saved.new[k] = e
    if e then saved.values[e] = M.copy_values(e) end
  end
  return saved
end

--- What is known now stands; the snapshot is forgotten.
function M.drop(session, saved) C.rg_session_unsave(session._c, saved.number) end

-- ---- back -------------------------------------------------------------------------------------------

local function type_of(session, e) return session._types[record.type_of(e).entity] end

--- Number of the pool that an entity is on: of its shard, when it has any.
local function pool_of(session, e)
  local T, id = record.type_of(e), rawget(e, "id")
  if not T.shards then return T.pool end
  local number = type(id) == "number" and shards.number(T.shards, id)
  return number and C.rg_engine_type_pool(session._orm._engine, number)
end

--- Has entities on other pools than the transaction's keep the rows that they have now: it has not touched
--- them.
local function keep_others(session, saved, pool)
  local others = {}
  for place = 1, session._top do
    local e = session._at[place]
    if e and pool_of(session, e) ~= pool then
      others[e] = true
      if C.rg_session_keep(session._c, saved.number, place - 1, err) < 0 then error(errors.from_c(err), 0) end
    end
  end
  return others
end

--- Puts one entity where it was, or where it was loaded; false when there is nothing to go back to.
local function put_back(session, saved, place, e, flush)
  local view = session._view
  if C.rg_session_row(session._c, place - 1, view) ~= HIT then return false end
  if saved.values[e] then
    M.put_values(e, saved.values[e])
  else
    flush.reset(type_of(session, e), e, view.data)
  end
  return true
end

--- Managed entities: those of the snapshot, and those that were loaded since; others as they are.
local function restore_managed(session, saved, pool, others)
  local flush = require "regolith.flush"
  local now, top = session._at, session._top
  local at, last = {}, 0
  local function take(place, e)
    if not others[e] and not put_back(session, saved, place, e, flush) then return end
    at[place], last = e, math.max(last, place)
    type_of(session, e).places[rawget(e, "id")] = place
  end
  for place, e in pairs(saved.at) do
    if pool_of(session, e) == pool then take(place, e) end
  end
  for place = 1, top do
    local e = now[place]
    if e and (others[e] or (not at[place] and not saved.values[e])) then take(place, e) end
  end
  session._at, session._top = at, last
end

--- Deletions that wait: of the transaction's pool those of the snapshot, of others those of now.
local function restore_doomed(session, saved, pool)
  local doomed, most = {}, 0
  local function take(list, own)
    for e, k in pairs(list) do
      if (pool_of(session, e) == pool) == own then
        doomed[e] = k
        most = math.max(most, k)
      end
    end
  end
  take(saved.doomed, true)
  take(session._doomed, false)
  session._doomed, session._n_doomed = doomed, most
end

--- Those that waited to be inserted do so again; on other pools only if they still do.
local function restore_new(session, saved, pool)
  local fresh, new, n = {}, {}, 0
  for k = 1, saved.n_fresh do
    local e = saved.new[k]
    if e and (pool_of(session, e) == pool or session._fresh[e]) then
      n = n + 1
      fresh[e], new[n] = n, e
      M.put_values(e, saved.values[e])
      local id = rawget(e, "id")
      if id ~= nil then type_of(session, e).places[id] = -n end
    end
  end
  session._fresh, session._new, session._n_fresh = fresh, new, n
end

--- Takes the session back to the snapshot, and forgets it.
---@param session regolith.Session
---@param saved regolith.Snapshot
---@param pool integer number of the transaction's pool
function M.restore(session, saved, pool)
  local others = keep_others(session, saved, pool)
  C.rg_session_restore(session._c, saved.number)
  for _, S in pairs(session._types) do S.places = {} end
  if saved.cleared then
    saved = { at = NOTHING, new = NOTHING, n_fresh = 0, doomed = NOTHING, values = NOTHING }
  end
  restore_managed(session, saved, pool, others)
  restore_new(session, saved, pool)
  restore_doomed(session, saved, pool)
  session._expected = saved.expected
end

-- ---- suspension -------------------------------------------------------------------------------------

local FIELDS = { "_c", "_types", "_at", "_top", "_fresh", "_new", "_n_fresh", "_doomed", "_n_doomed", "_expected",
  "_waiting" }

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
  session._expected, session._waiting = nil, nil
  return context
end

--- Takes that back; what was learned meanwhile becomes plain data.
function M.resume(session, context)
  C.rg_session_free(ffi.gc(session._c, nil))
  for _, name in ipairs(FIELDS) do session[name] = context[name] end
end

return M
