-- SPDX-License-Identifier: MIT
-- Renews leases. KEYS: locks. ARGV: owner and ttl in ms of each. Returns 1 or 0 (not its owner) for each.
local call, answers = redis.call, {}
for i, key in ipairs(KEYS) do
  local owner, held = ARGV[2 * i - 1], call('GET', key)
  local ours = held and string.sub(held, 1, #owner) == owner
  answers[i] = ours and call('PEXPIRE', key, ARGV[2 * i]) or 0
end
return answers
