-- SPDX-License-Identifier: MIT
-- SWEEP: marks past their deadline, found through the set of marked keys. KEYS: epoch, marked,
-- entries that are due. Marks become X; what stayed X for a day goes: no COMMIT is under way that
-- long. Returns how many entries had marks that expired.
local function due(key)
  local score = call('ZSCORE', KEYS[2], key)
  return score and tonumber(score) <= now
end

local function sweep_marks(key, e)
  local m = expire(open_marks(e))
  if #m == 0 then
    expose(key)
  else
    if m.changed then call('SET', key, close_marks(m)) end
    call('ZADD', KEYS[2], m[1].deadline, key)
  end
  return m.changed and 1 or 0
end

local function sweep(key, e)
  local s = state(e)
  if s == 'M' then return sweep_marks(key, e) end
  if s == 'L' and heals(e) and from_bytes('<I8', e, 26) > now then return 0 end
  if s == 'X' or (s == 'L' and heals(e)) then call('DEL', key) end
  call('ZREM', KEYS[2], key)
  return 0
end

local entries, n = read(3), 0
for i = 1, #entries do
  if due(KEYS[i + 2]) then n = n + sweep(KEYS[i + 2], entries[i]) end
end
return n
