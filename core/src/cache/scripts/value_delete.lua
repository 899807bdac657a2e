-- SPDX-License-Identifier: MIT
-- VALUE DELETE: entries go, and the leases on them; every process is told, of keys that were not there
-- as well: hence the SET. Marks of transactions stay. Returns how many values went.
local function delete(key, e)
  local marked, m = is_marked(key, e)
  if marked then return spoil(key, m) end
  if not e then redis.pcall('SET', key, 'T', 'PX', 1000) end
  call('DEL', key)
end

local entries, n = read(4), 0
for i = 1, #entries do
  if kind(entries[i]) == 'V' then n = n + 1 end
  delete(KEYS[i + 3], entries[i])
end
return n
