-- SPDX-License-Identifier: MIT
-- Ids of new entities, from blocks that the engine reserves. Who could have none when it was made (the
-- server is down, the schema is not there yet) gets one in the flush, or is why the flush fails: it is
-- not lost.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"

local C, ffi, err = native.C, native.ffi, native.err
local rawget, rawset = rawget, rawset
local id_out = ffi.new "double[1]"

local M = {}

--- Sources of ids that give one before the row is written.
M.KINDS = { block = true, snowflake = true }

--- The next id from the block in memory, reserving another block when it is used up.
---@param session regolith.Session
---@param number integer of the engine's type
---@return number? id
---@return regolith.Err? err
function M.next_id(session, number)
  local engine = session._orm._engine
  for _ = 1, 100 do
    local rc = C.rg_engine_next_id(engine, number, id_out, err)
    if rc == 1 then return id_out[0] end
    if rc < 0 then return nil, errors.from_c(err) end
    local op, fault = session:_own(C.rg_op_reserve(engine, number, 0, err))
    if not op then return nil, fault end
    local ok
    ok, fault = session:_run(op, 4)
    if not ok then return nil, fault end
  end
  return nil, errors.new("LIMIT", "ids are used up faster than they are reserved; raise id_block")
end

--- Has the next flush allot the entity's id.
---@param session regolith.Session
---@param e table
---@param number integer of the engine's type
---@param why regolith.Err
function M.later(session, e, number, why)
  session._waiting = session._waiting or {}
  session._waiting[e] = { number = number, why = why }
end

--- Gives those that wait their ids.
---@param session regolith.Session
---@return true? ok
---@return regolith.Err? err names the entity
function M.all(session)
  if not session._waiting then return true end
  for e, wanted in pairs(session._waiting) do
    local k = session._fresh[e]
    if k and rawget(e, "id") == nil then
      local id, fault = M.next_id(session, wanted.number)
      if not id then
        fault.row = e
        return nil, fault
      end
      rawset(e, "id", id)
      session._types[record.type_of(e).entity].places[id] = -k
    end
  end
  return true
end

return M
