-- SPDX-License-Identifier: MIT
-- VALUE UNLEASE: a load failed. ARGV: token.
local entries = read(4)
for i = 1, #entries do
  local e, key = entries[i], KEYS[i + 3]
  local k = kind(e)
  if k == 'L' and sub(e, 10, 25) == ARGV[1] then call('DEL', key) end
  if (k == 'V' or k == 'N') and sub(e, 22, 37) == ARGV[1] then call('SETRANGE', key, 21, NO_LEASE) end
end
return #entries
