-- SPDX-License-Identifier: MIT
-- APPLIED: queued writes are in the database now, or never will be. KEYS: epoch, marked, entries.
-- ARGV: ids (32 hex digits each), a character an entry (a applied, d dead), eight bytes an entry
-- (ttl in s of a value and of an absence, u32 each). Returns how many entries are settled.
local ids, kinds, ttls = ARGV[1], ARGV[2], ARGV[3]

-- A later write is queued: when the one it was built on died, its value is not what will be.
local function keep(key, e, dead)
  if dead then distrust(key, e, '0') end
  return 0
end

local function written(key, e, s, dead, value_s, absent_s)
  if dead or sub(e, 42, 42) ~= '1' or sub(e, 2, 9) ~= epoch then
    call('DEL', key)
  elseif s == 'P' then
    settle(key, 'V' .. epoch .. sub(e, 43), (#e > 42 and value_s or absent_s) * 1000)
  else
    settle(key, 'N' .. epoch, absent_s * 1000)
  end
  return 1
end

local entries, n = read(3), 0
for i = 1, #entries do
  local key, e, id = KEYS[i + 2], entries[i], sub(ids, i * 32 - 31, i * 32)
  local s, dead = state(e), byte(kinds, i) == 100
  if s == 'D' then
    n = n + keep_later(key, e, function(other) return later(other, id) end, sub(e, 2, 9))
  elseif s == 'P' or s == 'Q' then
    if later(sub(e, 10, 41), id) then
      n = n + keep(key, e, dead)
    else
      n = n + written(key, e, s, dead, from_bytes('<I4I4', ttls, i * 8 - 7))
    end
  end
end
return n
