-- SPDX-License-Identifier: MIT
-- VALUE DELETE: entries go, and the leases on them; every process is told, of keys that were not there
-- as well: hence the SET. Returns how many values went.
local entries, n = read(4), 0
for i = 1, #entries do
  local k = kind(entries[i])
  if k == 'V' then n = n + 1 end
  if not entries[i] then redis.pcall('SET', KEYS[i + 3], 'T', 'PX', 1000) end
  call('DEL', KEYS[i + 3])
end
return n
