-- SPDX-License-Identifier: MIT
-- What the command line prints: aligned tables, one line that moves on a terminal and plain lines
-- elsewhere, failures on stderr.

local M = {}

local function terminal()
  local ok, term = pcall(require, "term")
  return ok and term.isatty(io.stderr)
end

local lost

--- To stdout. What cannot be written is told at the end: see flush.
function M.write(...)
  local ok, why = io.stdout:write(...)
  if not ok then lost = lost or why end
end

--- Sees to it that all has been written; nil and why not.
---@return boolean? ok
---@return string? why
function M.flush()
  local ok, why = io.stdout:flush()
  if not ok then lost = lost or why end
  if lost then return nil, lost end
  return true
end

function M.line(...) M.write(string.format(...), "\n") end

function M.error(text)
  M.finish()
  io.stderr:write("regolith: ", text, "\n")
end

local moving = false

--- Progress: replaces itself on a terminal, is a line of its own elsewhere.
---@param text string
function M.progress(text)
  if terminal() then
    io.stderr:write("\r\27[K", text)
    moving = true
  else
    io.stderr:write(text, "\n")
  end
  io.stderr:flush()
end

--- On a terminal: shows what is short-lived; elsewhere nothing.
function M.tick(text)
  if terminal() then M.progress(text) end
end

--- Ends the line that moves.
function M.finish()
  if moving then io.stderr:write "\n" end
  moving = false
end

local function text_of(v)
  if v == nil then return "" end
  if type(v) == "number" and v == math.floor(v) then return string.format("%.0f", v) end
  return (tostring(v):gsub("[%c]", " "))
end

--- Rows as a table with aligned columns.
---@param names string[]
---@param rows table[]
function M.table(names, rows)
  local widths, lines = {}, { {} }
  for i, name in ipairs(names) do
    widths[i], lines[1][i] = #name, name
  end
  for _, row in ipairs(rows) do
    local line = {}
    for i, name in ipairs(names) do
      line[i] = text_of(row[name])
      widths[i] = math.max(widths[i], #line[i])
    end
    lines[#lines + 1] = line
  end
  for _, line in ipairs(lines) do
    for i = 1, #names - 1 do line[i] = line[i] .. string.rep(" ", widths[i] - #line[i]) end
    M.write((table.concat(line, "  "):gsub(" +$", "")), "\n")
  end
end

return M
