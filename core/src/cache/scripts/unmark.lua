-- SPDX-License-Identifier: MIT
-- UNMARK: after ROLLBACK; the cache becomes what it was. KEYS: epoch, marked, entries. ARGV:
-- transaction, twelve bytes an entry (ttl in s of a value and of an absence, and in ms, 0 unknown, what was
-- left of it; u32 each).
local tx, ttls = ARGV[1], ARGV[2]

local function last_mark(key, m, value_s, absent_s, left)
  if m.expired then return expose(key) end
  call('ZREM', KEYS[2], key)
  if m.poison or m.saved == '' then return call('DEL', key) end
  settle(key, m.saved, left > 0 and left or (sub(m.saved, 1, 1) == 'N' and absent_s or value_s) * 1000)
end

local entries = read(3)
for i = 1, #entries do
  local key, e = KEYS[i + 2], entries[i]
  local m = state(e) == 'M' and open_marks(e)
  if m and take_mark(m, tx) then
    if #m > 0 then
      call('SET', key, close_marks(m))
    else
      last_mark(key, m, from_bytes('<I4I4I4', ttls, i * 12 - 11))
    end
  end
end
return #entries
