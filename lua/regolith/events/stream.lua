-- SPDX-License-Identifier: MIT
-- What everything about streams of events stands on: commands of Redis, names and keys, and trimming.
--
-- Keys, P the prefix: "{P}:ev:<stream>" the stream, "{P}:er:<stream>:<group>" letters that are tried again,
-- "{P}:ed:<stream>:<group>" letters, "{P}:ec" counts subscribers.

local errors = require "regolith.err"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err

local M = {}

-- ---- Redis --------------------------------------------------------------------------------------

local cell, cell_len = ffi.new "const char *[1]", ffi.new "size_t[1]"

local function text_at(op, row, col)
  if C.rg_op_cell(op, 0, row, col, cell, cell_len) == C.RG_CELL_NULL then return nil end
  return ffi.string(cell[0], cell_len[0])
end

--- The part of a reply at a row, and the row behind it. Absent values are false.
local function parse(op, row)
  local kind, value = text_at(op, row, 0), text_at(op, row, 1)
  if kind == "i" then return tonumber(value), row + 1 end
  if kind == "n" then return false, row + 1 end
  if kind ~= "a" then return value or "", row + 1 end
  local list, at = {}, row + 1
  for i = 1, tonumber(value) do list[i], at = parse(op, at) end
  return list, at
end

--- One command on the Redis of a queue: its reply, or nil and the error.
function M.redis(orm, queue, ...)
  local op = C.rg_op_redis(orm._engine, queue or "default", err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for i = 1, select("#", ...) do
    local word = tostring((select(i, ...)))
    if C.rg_op_param_string(op, word, #word, err) < 0 then return nil, errors.from_c(err) end
  end
  local ok, fault = orm:_run(op)
  if not ok then return nil, fault end
  local reply = parse(op, 0)
  native.done(op)
  return reply
end

--- Is it an error of Redis with these words?
function M.is_error(fault, word) return fault.message:find(word, 1, true) ~= nil end

-- ---- names --------------------------------------------------------------------------------------

--- A check that raises at the caller of who calls it, or further up.
local function checked(what)
  local expected = what .. "'s name is 1 to 128 letters, digits, '.', '-' and '_'"
  return function(name, level)
    if type(name) ~= "string" or not name:match "^[%w_.-]+$" or #name > 128 then error(expected, level + 1) end
  end
end
M.check_stream, M.check_group = checked "a stream", checked "a group"

function M.key(orm, stream) return "{" .. orm._prefix .. "}:ev:" .. stream end
function M.group_key(orm, what, stream, group)
  return "{" .. orm._prefix .. "}:" .. what .. ":" .. stream .. ":" .. group
end

--- Fields of an entry: "name" -> value of a flat list.
function M.fields(list)
  local fields = {}
  for i = 1, #(list or {}), 2 do fields[list[i]] = list[i + 1] end
  return fields
end

-- ---- trimming -----------------------------------------------------------------------------------

--- KEYS stream. ARGV ms to keep. Removes what every group has done with and is older.
local TRIM = [[
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local ms, seq
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local v = {}
  for i = 1, #g, 2 do v[g[i] ] = g[i + 1] end
  local a, b
  if v.pending > 0 then a, b = parse(redis.call('XPENDING', KEYS[1], v.name)[2])
  else
    a, b = parse(v['last-delivered-id'])
    b = b + 1
  end
  if not ms or a < ms or (a == ms and b < seq) then ms, seq = a, b end
end
if not ms then return 0 end
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[1])
if oldest < ms then ms, seq = oldest, 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', ms, seq))]]

--- Removes from a stream what every group has done with and is older than keep_s: how many entries.
function M.trim(orm, queue, key, keep_s)
  return M.redis(orm, queue, "EVAL", TRIM, 1, key, math.floor(keep_s * 1000))
end

return M
