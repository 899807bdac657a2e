-- SPDX-License-Identifier: MIT
-- Gives locks back, and tells who waits. KEYS: locks, which are channels as well. ARGV: owner of each.
-- Returns 1 or 0 (not its owner) for each.
local call, answers = redis.call, {}
for i, key in ipairs(KEYS) do
  local held = call('GET', key)
  local ours = held and string.sub(held, 1, #ARGV[i]) == ARGV[i]
  answers[i] = ours and call('DEL', key) or 0
  if ours then call('PUBLISH', key, 'free') end
end
return answers
