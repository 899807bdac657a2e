-- SPDX-License-Identifier: MIT
-- MARK: after the SQL, before COMMIT. KEYS: epoch, marked, entries. ARGV: transaction (16 bytes),
-- ms until the marks expire, a character an entry, checksums (8 bytes each).
--   u  a row that was as the checksum says     i  a row that was not there     l  a lookup
--   t  a row that only processes cache         c  a row that nobody caches
-- Returns the pending ids that forbid it (nothing is written then; a ? after one of an earlier epoch,
-- which has to be adopted first), or a string: of each entry 1 (it held what the transaction started from:
-- what it leaves may be published) or 0; then of each, as u32, the ms that such a row has left to live.
local tx, ms, kinds, sums = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local entries, states, pending = read(3), {}, {}

local function pending_id(e, s)
  local id = s == 'D' and sub(e, -32) or sub(e, 10, 41)
  return suspect(e) and id .. '?' or id
end

for i = 1, #entries do
  local s = state(entries[i])
  states[i] = s
  if s == 'P' or s == 'Q' or (s == 'D' and #entries[i] > 10) then
    pending[#pending + 1] = pending_id(entries[i], s)
  end
end
if #pending > 0 then return pending end

local function first_marks(e, s)
  local lost = s == 'X' or (s == 'L' and heals(e)) or (s == 'D' and sub(e, 10, 10) == '1')
  return { epoch = epoch, expired = lost, saved = (s == 'V' or s == 'N') and e or '' }
end

local function verify(kind, i, e, s)
  if kind == 117 then return s == 'V' and sub(e, 26, 33) == sub(sums, i * 8 - 7, i * 8) end
  return kind == 105 and (s == nil or s == 'N' or s == 'T' or (s == 'L' and not heals(e)))
end

local NONE_LEFT = to_bytes('<I4', 0)

-- A write is no reason to believe the rest of a row for longer.
local function left(key)
  local most = call('PTTL', key)
  return most > 0 and to_bytes('<I4', math.min(most, 4294967295)) or NONE_LEFT
end

local values, scores, verified, lefts = {}, {}, {}, {}
for i = 1, #entries do
  local kind, e, s, key = byte(kinds, i), entries[i], states[i], KEYS[i + 2]
  verified[i], lefts[i] = '0', NONE_LEFT
  if kind == 116 and s ~= 'M' then
    call('SET', key, 'T' .. epoch, 'PX', ms)
  elseif kind ~= 99 or s == 'M' then
    local m = s == 'M' and expire(open_marks(e)) or first_marks(e, s)
    if s ~= 'M' and verify(kind, i, e, s) then
      verified[i] = '1'
      if kind == 117 then lefts[i] = left(key) end
    end
    local n = #values
    values[n + 1], values[n + 2] = key, close_marks(add_mark(m, tx, now + ms))
    scores[n + 1], scores[n + 2] = now + ms, key
  end
end

for from = 1, #values, 2000 do
  local to = math.min(from + 1999, #values)
  call('MSET', unpack(values, from, to))
  call('ZADD', KEYS[2], unpack(scores, from, to))
end
return table.concat(verified) .. table.concat(lefts)
