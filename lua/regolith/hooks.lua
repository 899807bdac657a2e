-- SPDX-License-Identifier: MIT
-- Running an entity's hooks. A hook refuses by raising, by returning false, or by nil and a message
-- (and a field's name, if it likes); one that returns nothing agrees.

local errors = require "regolith.err"

local M = {}

local function refusal(T, name, e, message, field)
  local cause = message
  if message == nil then message = "refused" end
  return errors.new("HOOK", string.format("%s of %s: %s", name, T.name, errors.text(message)), {
    hook = name, entity = T.name, field = type(field) == "string" and field or nil, row = e, cause = cause,
  })
end

--- Runs one hook if the type has it: true, or nil and an error with code HOOK.
---@param T regolith.Type
---@param name string
---@param e table entity
---@param session regolith.Session
---@param more? any what else the hook is told
---@return true?
---@return regolith.Err?
function M.run(T, name, e, session, more)
  local hook = T.hooks[name]
  if not hook then return true end
  local ok, answer, message, field = pcall(hook, e, session, more)
  if not ok then return nil, refusal(T, name, e, answer) end
  if answer == false or (answer == nil and message ~= nil) then
    return nil, refusal(T, name, e, message, field)
  end
  return true
end

--- What must agree before a write: the hook of the write itself, then `validate`.
---@param write "insert"|"update"|"delete"
function M.before(T, write, e, session)
  local ok, err = M.run(T, "before_" .. write, e, session)
  if ok and write ~= "delete" then ok, err = M.run(T, "validate", e, session) end
  return ok, err
end

--- Where an entity is after hooks were asked about a write of it: they may have reloaded it, or taken it out of
--- the session, and then nothing is to be written.
---@param e table
---@return integer? place
---@return regolith.Err? err
function M.place_after(T, write, e, session)
  local S, place = session:_care(e)
  if S and (place < 0) == (write == "insert") then return place end
  return nil, refusal(T, "before_" .. write, e, "the entity was written or taken out of the session meanwhile")
end

--- Does anything have to agree before this write?
function M.has_before(T, write)
  return T.hooks["before_" .. write] ~= nil or (write ~= "delete" and T.hooks.validate ~= nil)
end

return M
