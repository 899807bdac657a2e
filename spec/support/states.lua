-- SPDX-License-Identifier: MIT
-- Every state of an entry met by every command of core/src/cache/scripts, on a real Redis: what becomes
-- of it, as the lines of core/src/cache/states.txt.

local faults = require "support.faults"
local support = require "support.init"

local must = support.must
local M = {}

local root = os.getenv "REGOLITH_ROOT" or "."

local function read(path)
  local file = must(io.open(root .. "/" .. path, "r"))
  local text = file:read "*a"
  file:close()
  return text
end

local function le(v, n)
  local bytes = {}
  for i = 1, n do
    bytes[i] = string.char(v % 256)
    v = math.floor(v / 256)
  end
  return table.concat(bytes)
end

local function from_le(s)
  local v = 0
  for i = #s, 1, -1 do v = v * 256 + s:byte(i) end
  return v
end

-- ---- what entries are made of -------------------------------------------------------------------

local OLD = le(1000000, 8)          -- an epoch long ago
local OLDER = le(500000, 8)
local MINE, OTHER = ("a"):rep(16), ("b"):rep(16)
local TX, UX = ("t"):rep(16), ("u"):rep(16)
local SUM = ("s"):rep(8)
local ROW = ("h"):rep(16) .. SUM .. "row"
local AFTER = ("h"):rep(16) .. ("n"):rep(8) .. "new"
local FAR = 4102444800000           -- ms, in 2100
local function hex(ms) return string.format("%016x%016x", ms, 0) end
local ID7 = le(7, 8)

local function marks(flags, list, saved)
  local parts = { "M", OLD, string.char(flags), le(#list, 2) }
  for _, m in ipairs(list) do parts[#parts + 1] = m[1] .. le(m[2], 8) end
  return table.concat(parts) .. saved
end

local V = "V" .. OLD .. ROW

--- Names and bytes of the states. ' of an earlier epoch; ~ past its deadline; P Q D: flag; L: flag;
--- M: whose marks, then p poison x expired c crowd, s something saved.
M.STATES = {
  { "-", false },
  { "V", V }, { "V'", "V" .. OLDER .. ROW },
  { "N", "N" .. OLD }, { "N'", "N" .. OLDER },
  { "P1", "P" .. OLD .. hex(5) .. "1" .. ROW }, { "P0", "P" .. OLD .. hex(5) .. "0" .. ROW },
  { "P2", "P" .. OLD .. hex(5) .. "2" .. ROW }, { "P1'", "P" .. OLDER .. hex(5) .. "1" .. ROW },
  { "Q1", "Q" .. OLD .. hex(5) .. "1" }, { "Q2", "Q" .. OLD .. hex(5) .. "2" },
  { "Q1'", "Q" .. OLDER .. hex(5) .. "1" },
  { "D0", "D" .. OLD .. "0+" .. ID7 .. hex(5) }, { "D1", "D" .. OLD .. "1+" .. ID7 .. hex(5) },
  { "D0'", "D" .. OLDER .. "0+" .. ID7 .. hex(5) },
  { "L0", "L" .. OLD .. MINE .. le(FAR, 8) .. "0" }, { "L0~", "L" .. OLD .. MINE .. le(1, 8) .. "0" },
  { "L1", "L" .. OLD .. MINE .. le(FAR, 8) .. "1" }, { "L2", "L" .. OLD .. MINE .. le(FAR, 8) .. "2" },
  { "L0'", "L" .. OLDER .. MINE .. le(FAR, 8) .. "0" },
  { "Mts", marks(0, { { TX, FAR } }, V) }, { "Mt", marks(0, { { TX, FAR } }, "") },
  { "Mt~s", marks(0, { { TX, 1 } }, V) },
  { "Mtps", marks(1, { { TX, FAR } }, V) }, { "Mtx", marks(3, { { TX, FAR } }, "") },
  { "Mus", marks(0, { { UX, FAR } }, V) }, { "Mtucs", marks(4, { { TX, FAR }, { UX, FAR } }, V) },
  { "X", "X" .. OLD }, { "T", "T" .. OLD },
  { "?", "M" .. OLD .. "\0\9\9" },
}

local function name_of_marks(e, now)
  local n = from_le(e:sub(11, 12))
  if #e < 12 + 24 * n then return "?" end
  local text, flags = { "M" }, e:byte(10)
  for i = 1, n do
    local at = 13 + 24 * (i - 1)
    text[#text + 1] = e:sub(at, at) .. (from_le(e:sub(at + 16, at + 23)) <= now and "~" or "")
  end
  if flags % 2 == 1 then text[#text + 1] = "p" end
  if flags % 4 >= 2 then text[#text + 1] = "x" end
  if flags >= 4 then text[#text + 1] = "c" end
  if #e > 12 + 24 * n then text[#text + 1] = "s" end
  return table.concat(text)
end

--- The name of what stands there now.
local function name_of(e, now)
  if not e then return "-" end
  local s, epoch = e:sub(1, 1), e:sub(2, 9)
  local aged = epoch == OLDER and "'" or ""
  if s == "V" or s == "N" then
    return s .. (s == "V" and e:sub(10) == AFTER and "*" or "") .. aged
  end
  if s == "P" or s == "Q" then
    local later = e:sub(10, 41) ~= hex(5) and "+" or ""
    return s .. e:sub(42, 42) .. later .. aged
  end
  if s == "D" then return "D" .. e:sub(10, 10) .. ((#e - 10) / 41 > 1 and "+" or "") .. aged end
  if s == "L" then
    local past = from_le(e:sub(26, 33)) <= now and "~" or ""
    return "L" .. e:sub(34, 34) .. (e:sub(10, 25) == OTHER and "+" or "") .. past .. aged
  end
  if s == "M" then return name_of_marks(e, now) end
  return s
end

-- ---- commands -----------------------------------------------------------------------------------

local ttls = le(600, 4) .. le(10, 4)

local function enqueue(kind, value, ready)
  return "enqueue", { "f", "producer", "1", "1000", "payload", kind, SUM, "", OLD, "0", "0", "n", "1", "0000", "",
    ready or value }
end

--- Name, then what is sent: script, arguments; `young` when the epoch began just now.
M.COMMANDS = {
  { "lease", function() return "lease", { OTHER, "60000", "0" } end, reply = function(r) return r[2]:sub(1, 1) end },
  { "lease!", function() return "lease", { OTHER, "60000", "0" } end, young = true,
    reply = function(r) return r[2]:sub(1, 1) end },
  { "fill", function() return "fill", { "0", "60000", "9000", "v", MINE, AFTER } end },
  { "fill&", function() return "fill", { "1", "60000", "9000", "v", MINE, AFTER } end },
  { "fill-", function() return "fill", { "1", "60000", "9000", "v", OTHER, AFTER } end },
  { "unlease", function() return "unlease", { MINE } end },
  { "mark", function() return "mark", { TX, "60000", "u", SUM } end,
    reply = function(r) return type(r) == "table" and "pending" or r:sub(1, 1) end },
  { "mark/i", function() return "mark", { TX, "60000", "i", SUM } end,
    reply = function(r) return type(r) == "table" and "pending" or r:sub(1, 1) end },
  { "publish", function() return "publish", { TX, "v" .. le(600, 4) .. le(0, 4), AFTER } end },
  { "publish-", function() return "publish", { TX, "d" .. le(600, 4) .. le(0, 4) } end },
  { "unmark", function() return "unmark", { TX, ttls .. le(0, 4) } end },
  { "drop", function() return "drop", {} end },
  { "queue/u", function() return enqueue("u", "P" .. OLD .. hex(9) .. "1" .. AFTER) end,
    reply = function(r) return r[1] == 2 and r[2] end },
  { "queue/i", function() return enqueue("i", "P" .. OLD .. hex(9) .. "1" .. AFTER) end,
    reply = function(r) return r[1] == 2 and r[2] end },
  { "queue/x", function() return enqueue("x", "Q" .. OLD .. hex(9) .. "1") end,
    reply = function(r) return r[1] == 2 and r[2] end },
  { "queue/l", function() return enqueue("l", "+" .. ID7) end, reply = function(r) return r[1] == 2 and r[2] end },
  { "applied", function() return "applied", { hex(5), "a", ttls } end },
  { "earlier", function() return "applied", { hex(4), "a", ttls } end },
  { "dead", function() return "applied", { hex(5), "d", ttls } end },
  { "adopt", function() return "adopt", { OLD, hex(4) } end },
  { "forget", function() return "adopt", { OLD, hex(5) } end },
  { "sweep", function() return "sweep", {} end },
}

-- ---- the walk -----------------------------------------------------------------------------------

local Walk = {}
Walk.__index = Walk

local function text_of(script)
  local folder = "core/src/cache/scripts/"
  return read(folder .. "prelude.lua") .. read(folder .. "marks.lua") .. read(folder .. script .. ".lua")
end

--- Sets the stage; the key's own scores are those of one that is due.
function Walk:set(state, young)
  local r = self.redis
  r:call("DEL", self.key, self.mz, self.ps, self.stream)
  local epoch = OLD
  if young then
    local time = r:call "TIME"
    epoch = le(tonumber(time[1]) * 1000000, 8)
  end
  r:call("SET", self.ep, epoch)
  local e = state[2]
  if e and young then e = e:sub(1, 1) .. (e:sub(2, 9) == OLD and epoch or OLDER) .. e:sub(10) end
  if e then
    r:call("SET", self.key, e)
    r:call("ZADD", self.mz, "1", self.key)
  end
  return epoch
end

--- One cell: the state after it, with the reply where that says more.
function Walk:meet(state, command)
  local r = self.redis
  local epoch = self:set(state, command.young)
  local script, argv = command[2]()
  local keys = script == "enqueue" and { self.ep, self.ps, self.stream, self.key } or { self.ep, self.mz, self.key }
  local words = { "EVAL", self.texts[script], #keys }
  for _, word in ipairs(keys) do words[#words + 1] = word end
  for _, word in ipairs(argv) do words[#words + 1] = word end
  local answer, fault = r:call(unpack(words))
  if fault then error(script .. " on " .. state[1] .. ": " .. fault) end
  local after = r:call("GET", self.key)
  if after and command.young then
    after = after:sub(1, 1) .. (after:sub(2, 9) == epoch and OLD or after:sub(2, 9)) .. after:sub(10)
  end
  local time = r:call "TIME"
  local name = name_of(after, tonumber(time[1]) * 1000)
  local exposed_again = name == "X" and state[1] == "X" -- it may hold more than its name
  if after == (state[2] or nil) or exposed_again then name = "=" end
  local reply = command.reply and command.reply(answer)
  return name .. (reply and ":" .. reply or "")
end

--- The table: a line a state, a column a command.
---@return string[] lines
function M.table()
  local prefix = "{rgstates" .. tostring(os.time()) .. "}"
  local self = setmetatable({ redis = faults.redis(), texts = {} }, Walk)
  for _, name in ipairs { "ep", "mz", "ps" } do self[name] = prefix .. ":" .. name end
  self.key, self.stream = prefix .. ":e:t:1", prefix .. ":q"
  for _, command in ipairs(M.COMMANDS) do
    local script = command[2]()
    self.texts[script] = self.texts[script] or text_of(script)
  end
  local rows = { { "" } }
  for _, command in ipairs(M.COMMANDS) do table.insert(rows[1], command[1]) end
  for _, state in ipairs(M.STATES) do
    local row = { state[1] }
    for _, command in ipairs(M.COMMANDS) do row[#row + 1] = self:meet(state, command) end
    rows[#rows + 1] = row
  end
  self.redis:call("DEL", self.key, self.mz, self.ps, self.stream, self.ep)
  self.redis:close()
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do row[i] = cell .. (" "):rep(widths[i] - #cell) end
    lines[#lines + 1] = (table.concat(row, "  "):gsub(" +$", ""))
  end
  return lines
end

--- The lines of the documented table.
function M.documented()
  local lines = {}
  for line in read("core/src/cache/states.txt"):gmatch "[^\n]+" do
    if not line:match "^#" then lines[#lines + 1] = line end
  end
  return lines
end

return M
