-- SPDX-License-Identifier: MIT
-- LIFE: asked on each new connection, and each second. KEYS: epoch, life. The second names the server
-- process and the line of replication that the epoch's data belongs to. Another process has them now
-- (a restart, a replica in its place), or the same one as a primary again: its data may be older than
-- what was read and written before, so that a new epoch begins. Returns the epoch.
local server, replication = call('INFO', 'server'), call('INFO', 'replication')
local policy = string.match(call('INFO', 'memory'), 'maxmemory_policy:(%S+)') or ''
local life = (string.match(server, 'run_id:(%x+)') or '') .. ':'
  .. (string.match(replication, 'master_replid:(%x+)') or '')

if string.find(policy, '^allkeys') then
  return redis.error_reply('EVICTS maxmemory-policy ' .. policy
    .. ' evicts marks and queued writes; use noeviction or a volatile policy')
end
if string.match(replication, 'role:(%a+)') == 'slave' then
  return redis.error_reply('READONLY this server is a replica now')
end
local known = call('MGET', KEYS[2])[1]
if known == life then return epoch end
local fresh = to_bytes('<I8', time[1] * 1000000 + time[2])
if known or fresh ~= epoch then
  -- later than the last one in any case: what was queued since then is told from what was applied by it
  epoch = to_bytes('<I8', math.max(time[1] * 1000000 + time[2], from_bytes('<I8', epoch) + 1))
  call('SET', KEYS[1], epoch)
end
call('SET', KEYS[2], life)
return epoch
