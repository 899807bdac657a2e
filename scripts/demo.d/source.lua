-- SPDX-License-Identifier: MIT
-- Reads a package index: stanzas of "Name: value" lines, one package each.

local M = {}

--- Calls fn with each package's fields and the bytes read so far. Continuation lines are of no interest.
---@param path string
---@param fn fun(fields: table<string, string>, bytes: number)
function M.each(path, fn)
  local fields, bytes = {}, 0
  for line in io.lines(path) do
    bytes = bytes + #line + 1
    if line == "" then
      if fields.Package then fn(fields, bytes) end
      fields = {}
    else
      local name, value = line:match "^([%w-]+):%s*(.-)%s*$"
      if name then fields[name] = value end
    end
  end
  if fields.Package then fn(fields, bytes) end
end

--- Calls fn with each alternative of a relation field: "a (>= 1) | b, c" is a and b of clause 1, c of
--- clause 2.
---@param text string
---@param fn fun(name: string, constraint: string?, clause: integer)
function M.each_relation(text, fn)
  local clause = 0
  for group in text:gmatch "[^,]+" do
    clause = clause + 1
    for item in group:gmatch "[^|]+" do
      local name, rest = item:match "^%s*([^%s(]+)%s*(.-)%s*$"
      if name then fn(name, rest:match "^%((.*)%)$", clause) end
    end
  end
end

return M
