-- SPDX-License-Identifier: MIT
-- VALUE TAG: deletes everything that carries the tags. KEYS: ..., tags. ARGV: ms that no lease outlives.
-- What is being loaded now must find the new generation when it is filled.
for i = 4, #KEYS do
  call('SET', KEYS[i], 'V' .. epoch .. next_number(), 'PX', tonumber(ARGV[1]))
end
return #KEYS - 3
