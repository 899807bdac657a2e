-- SPDX-License-Identifier: MIT
-- VALUE TAG: deletes everything that carries the tags. KEYS: ..., tags. ARGV: ms that no lease outlives.
-- What is being loaded now must find the new generation when it is filled.
-- Where a transaction is about to delete them as well, nothing has them until it has.
for i = 4, #KEYS do
  local marked, m = is_marked(KEYS[i], call('GET', KEYS[i]))
  if marked then
    spoil(KEYS[i], m)
  else
    call('SET', KEYS[i], 'V' .. epoch .. next_number(), 'PX', tonumber(ARGV[1]))
  end
end
return #KEYS - 3
