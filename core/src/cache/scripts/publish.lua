-- SPDX-License-Identifier: MIT
-- PUBLISH: after COMMIT. KEYS: epoch, marked, entries. ARGV: transaction, nine bytes an entry (kind, ttl in
-- s as u32, and what was left of the former value's in ms, 0 unknown), then the values. Kinds: v value, n
-- absent, d drop, t tell processes, c nobody caches it.
local tx, meta = ARGV[1], ARGV[2]

-- The mark expired or was lost, or there was none: whatever stands there may be older.
local function late(key, e, s)
  -- what is queued was built on what a locking read found after the COMMIT
  if s == 'P' or s == 'Q' then return distrust(key, e, '0') end
  if s == 'D' or s == 'X' or not e then return end
  if s == 'L' and heals(e) then return expose(key) end
  if s ~= 'M' then return call('DEL', key) end
  local m = open_marks(e)
  m.poison = true
  call('SET', key, close_marks(m))
end

local function last_mark(key, m, kind, ttl, value)
  if m.expired then return expose(key) end
  call('ZREM', KEYS[2], key)
  local plain = not m.poison and not m.crowd and m.epoch == epoch
  if plain and kind == 118 then return settle(key, 'V' .. epoch .. value, ttl) end
  if plain and kind == 110 then return settle(key, 'N' .. epoch, ttl) end
  call('DEL', key)
end

local function publish(key, e, s, kind, ttl, value)
  if kind == 116 and s ~= 'M' and s ~= 'P' and s ~= 'Q' then
    return call('SET', key, 'T' .. epoch, 'PX', 1000)
  end
  local m = s == 'M' and open_marks(e)
  if not m or not take_mark(m, tx) then return late(key, e, s) end
  if #m == 0 then return last_mark(key, m, kind, ttl, value) end
  m.poison = true
  call('SET', key, close_marks(m))
end

local entries, at = read(3), 2
for i = 1, #entries do
  local kind, value = byte(meta, i * 9 - 8), nil
  local ttl, left = from_bytes('<I4I4', meta, i * 9 - 7)
  ttl = ttl * 1000
  if left > 0 and left < ttl then ttl = left end
  if kind == 118 then
    at = at + 1
    value = ARGV[at]
  end
  publish(KEYS[i + 2], entries[i], state(entries[i]), kind, ttl, value)
end
return #entries
