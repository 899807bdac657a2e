-- SPDX-License-Identifier: MIT
-- "did you mean ...?": the nearest of the known names.

local M = {}

--- Edits (insert, delete, replace, swap neighbours) between two short words.
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name that is nearest to word, if any is near.
---@param word any
---@param names table<string, any> set, or list of names
---@return string?
function M.nearest(word, names)
  if type(word) ~= "string" or #word > 64 then return nil end
  local best, least
  local function try(name)
    if type(name) ~= "string" then return end
    local d = distance(word:lower(), name:lower())
    local near = d <= math.max(1, math.floor(math.min(#word, #name) / 3))
    if near and (not least or d < least or (d == least and name < best)) then best, least = name, d end
  end
  for key, value in pairs(names) do
    try(type(key) == "string" and key or value)
  end
  return best
end

--- " (did you mean 'x'?)" or "".
---@param word any
---@param names table
---@return string
function M.hint(word, names)
  local name = M.nearest(word, names)
  return name and string.format(" (did you mean '%s'?)", name) or ""
end

return M
