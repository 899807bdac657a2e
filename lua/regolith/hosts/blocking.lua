-- SPDX-License-Identifier: MIT
-- The host of plain luajit programs: an operation runs here and now, on the caller's thread.

local errors = require "regolith.err"
local native = require "regolith.native"

local C = native.C

---@class regolith.Host
---@field blocking boolean
local Blocking = { blocking = true }
Blocking.__index = Blocking

--- Runs an operation to its end.
---@param op ffi.cdata* rg_op in phase NEW
---@param timeout_ms integer? nil: the engine's default
---@return true? ok
---@return regolith.Err? err
function Blocking.run(_, op, timeout_ms)
  if C.rg_op_run(op, timeout_ms or 0) < 0 then return nil, errors.from_c(C.rg_op_error(op)) end
  return true
end

--- May an operation wait here?
function Blocking.may_wait() return true end

--- Others do not go on while one waits.
function Blocking.rest() return false end

function Blocking.close() end

return {
  ---@return regolith.Host
  new = function() return setmetatable({}, Blocking) end,
}
