-- SPDX-License-Identifier: MIT
-- AGREE: what all programs on a prefix must have in common: whether writes of a table go on without Redis.
-- Who reads has to know, or he would believe what such a write has replaced. KEYS: epoch, agreed (hash: table
-- -> policy). ARGV: pairs of a table and a policy. The first one decides; returns 1, or the table that is
-- agreed on otherwise, and how.
local tables, mine = {}, {}
for i = 1, #ARGV, 2 do
  local name, policy = ARGV[i], ARGV[i + 1]
  if mine[name] and mine[name] ~= policy then return { name, mine[name] } end
  if not mine[name] then tables[#tables + 1] = name end
  mine[name] = policy
end
for i = 1, #tables do
  local known = call('HGET', KEYS[2], tables[i])
  if known and known ~= mine[tables[i]] then return { tables[i], known } end
end
for i = 1, #tables do call('HSET', KEYS[2], tables[i], mine[tables[i]]) end
return 1
