-- SPDX-License-Identifier: MIT
-- UNLEASE: a load failed. KEYS: epoch, marked, entries. ARGV: tokens (16 bytes each).
local entries = read(3)
for i = 1, #entries do
  local e, key = entries[i], KEYS[i + 2]
  if state(e) == 'L' and #e == 34 and sub(e, 10, 25) == sub(ARGV[1], i * 16 - 15, i * 16) then
    if heals(e) then expose(key) else call('DEL', key) end
  end
end
return #entries
