-- SPDX-License-Identifier: MIT
-- Reading by more than the usual rules. With a lock, inside a transaction: rows come from MySQL and stay
-- as they are until its end. Strictly: past the process cache. An entity that is known already is brought
-- up to date; one with pending changes is in conflict when its row has changed.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"

local C, ffi, err = native.C, native.ffi, native.err
local HIT = tonumber(C.RG_GET_HIT)
local CACHED, STRICT = tonumber(C.RG_OP_GET_CACHED), tonumber(C.RG_OP_GET_STRICT)
local MODES = { share = 1, update = 2 }
local NOWAIT, SKIP = 4, 8
local u64p = ffi.typeof "const uint64_t *"

local M = {
  --- What calls that may lock take.
  OPTIONS = { lock = options.one_of("share", "update"), nowait = options.boolean, skip_locked = options.boolean },
}

--- The engine's number for a lock; 0: none is asked for. Raises outside a transaction.
---@param session regolith.Session
---@param T regolith.Type
---@param opts { lock: "share"|"update"?, nowait: boolean?, skip_locked: boolean? }
---@param what string
---@param level integer
---@return integer
function M.number(session, T, opts, what, level)
  if not opts.lock then
    if opts.nowait or opts.skip_locked then
      error(what .. ": 'nowait' and 'skip_locked' are for a 'lock'", level + 1)
    end
    return 0
  end
  if opts.nowait and opts.skip_locked then
    error(what .. ": 'nowait' and 'skip_locked' exclude each other", level + 1)
  end
  if T.shards then error(what .. ": rows of an entity with shards cannot be locked", level + 1) end
  local scope = session._pools and session._pools[T.pool]
  if not (scope and scope._tx) then
    error(what .. ": a lock lasts until the end of a transaction; there is none", level + 1)
  end
  return MODES[opts.lock] + (opts.nowait and NOWAIT or 0) + (opts.skip_locked and SKIP or 0)
end

--- Has an operation lock what it reads.
---@return true? ok
---@return regolith.Err? err
function M.apply(op, number)
  if number == 0 or C.rg_op_lock_rows(op, number, err) >= 0 then return true end
  return nil, errors.from_c(err)
end

--- Brings a known entity up to date with the row in the view.
local function refresh(self, S, e, place)
  local flush = require "regolith.flush"
  local view, slot = self._view, self._view.slot
  local same = C.rg_session_same(self._c, place - 1, slot) == 1
  local columns, fault = not same and flush.changed_columns(self, S, e, place) or nil, nil
  if not same and not columns then return nil, fault end
  if same or #columns > 0 then C.rg_session_repin(self._c, slot, nil) end
  if same then return true end
  if #columns > 0 then
    return nil, errors.new("CONFLICT", string.format("%s %.0f has pending changes, and has changed since it was read",
      S.T.name, e.id), { entity = S.T.name, row = e })
  end
  C.rg_session_row(self._c, slot, view)
  flush.move(self, S, e, place, view)
  flush.reset(S, e, view.data)
  return true
end

--- Row i of a locking operation as an entity; nil when there is none, or nil and the error.
---@return table? entity
---@return regolith.Err? err
function M.row(self, S, op, i)
  local view = self._view
  if C.rg_op_row(op, i, self._c, view) ~= HIT then return nil end
  local id = tonumber(ffi.cast(u64p, view.data + S.id_at)[0])
  local place = S.places[id]
  if not place then return self:_adopt(S, id, view) end
  local e = place > 0 and self._at[place] or self._new[-place]
  if place < 0 then
    C.rg_session_repin(self._c, view.slot, nil)
    return e
  end
  local ok, fault = refresh(self, S, e, place)
  if not ok then return nil, fault end
  return self._doomed[e] == nil and e or nil
end

--- Rows first..last of a locking operation.
---@return table[]? list
---@return regolith.Err? err
function M.rows(self, S, op, first, last)
  local list = {}
  for i = first, last do
    local e, fault = M.row(self, S, op, i)
    if fault then return nil, fault end
    list[#list + 1] = e
  end
  return list
end

local GET = { strict = options.boolean }
for name, check in pairs(M.OPTIONS) do GET[name] = check end

--- session:get with options.
---@return table? entity
---@return regolith.Err? err
function M.get(self, S, id, opts)
  opts = options.require("get", opts, GET, 4)
  local number = M.number(self, S.T, opts, "get", 3)
  if number == 0 and not opts.strict then return self:get(S.T.entity, id) end
  if id < 1 or id > 9007199254740992 then return nil end
  local type_number = S.number or require("regolith.shards").number(S.shards, id)
  if not type_number then return nil end
  local whom = number == 0 and STRICT or CACHED
  local op, fault = self:_own(C.rg_op_get(self._orm._engine, type_number, whom, err))
  if not op then return errors.results(fault) end
  if C.rg_op_add_id(op, id, err) < 0 then return errors.fail(err) end
  local ok
  ok, fault = M.apply(op, number)
  if ok then ok, fault = self:_run(op, 3) end
  if not ok then return errors.results(fault) end
  local e
  e, fault = M.row(self, S, op, 0)
  native.done(op)
  if fault then return errors.results(fault) end
  return e
end


return M
