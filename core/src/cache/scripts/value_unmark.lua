-- SPDX-License-Identifier: MIT
-- VALUE UNMARK: after ROLLBACK. KEYS: ..., entries and generations of tags. ARGV: transaction (16 bytes).
local tx = ARGV[1]

local function restore(key, m)
  call('ZREM', KEYS[2], key)
  local left = m.saved ~= '' and from_bytes('<I8', m.saved) - now or 0
  if m.poison or m.expired or left <= 0 then return call('DEL', key) end
  settle(key, sub(m.saved, 9), left)
end

local entries = read(4)
for i = 1, #entries do
  local key, e = KEYS[i + 3], entries[i]
  local m = state(e) == 'M' and open_marks(e)
  if m and take_mark(m, tx) then
    if #m > 0 then call('SET', key, close_marks(m)) else restore(key, m) end
  end
end
return #entries
