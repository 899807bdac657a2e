-- SPDX-License-Identifier: MIT
-- Loads what a command works on: a Lua file that returns an orm, a configuration for regolith.open, or
-- a function that gives either.

local orm_module = require "regolith.orm"
local suggest = require "regolith.suggest"

local M = {}

--- Modules beside the file can be required.
local function let_it_require(path)
  local folder = path:match "^(.*)/[^/]*$" or "."
  package.path = folder .. "/?.lua;" .. folder .. "/?/init.lua;" .. package.path
end

---@param path string
---@return regolith.Orm? orm
---@return any why
function M.open(path)
  local chunk, why = loadfile(path)
  if not chunk then return nil, why end
  let_it_require(path)
  local value, fault = chunk(path)
  if type(value) == "function" then value, fault = value() end
  if value == nil then return nil, fault or path .. " returns nothing" end
  if orm_module.is(value) then return value end
  if type(value) ~= "table" then return nil, path .. " must return an orm, a configuration, or a function" end
  local config = { lazy = true } -- a command says itself which server it finds down
  for name, given in pairs(value) do config[name] = given end
  return orm_module.open(config)
end

--- What was raised: misuse is the command line's, whose place in the program nobody wants to know.
---@param raised any
---@return integer code
---@return string text
function M.misuse(raised)
  local text, n = tostring(raised):gsub("^[^\n]*regolith/cli/[%w_]+%.lua:%d+: ", "")
  return n > 0 and 2 or 1, text
end

--- Runs fn(orm) on an application's orm and closes it: the exit code and what went wrong.
---@param path string
---@param fn fun(orm: regolith.Orm): integer?, any
---@return integer code
---@return any fault
function M.with(path, fn)
  local orm, why = M.open(path)
  if not orm then return 1, why end
  local called, code, fault = pcall(fn, orm)
  orm:close()
  if not called then return M.misuse(code) end
  return code or (fault and 1) or 0, fault
end

--- Is there a queue of that name? Else what to say.
---@param orm regolith.Orm
---@param name string
---@return string? fault
function M.no_queue(orm, name)
  local names, known = {}, {}
  for i, pool in ipairs(orm._pools) do names[i], known[pool] = pool, true end
  if known[name] then return nil end
  return string.format("there is no queue '%s'%s; there %s: %s", name, suggest.hint(name, known),
    #names == 1 and "is one" or "are", table.concat(names, ", "))
end

--- Makes args.number a number; "all" stays where that is allowed, nothing stays nothing.
---@param args { number: string|number|nil }
---@param all boolean
---@return boolean ok
function M.read_number(args, all)
  if args.number == nil or (all and args.number == "all") then return true end
  local n = tonumber(args.number)
  if not n or n < 1 or n % 1 ~= 0 then return false end
  args.number = n
  return true
end

return M
