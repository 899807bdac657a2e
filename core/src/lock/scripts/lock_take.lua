-- SPDX-License-Identifier: MIT
-- Takes a lock that nobody has. KEYS: the lock, the last token of all locks. ARGV: owner, ttl in ms.
-- Returns 1 and the token, or 0 and how many ms the lease of whoever has it lasts (-1: for ever).
if redis.replicate_commands then redis.replicate_commands() end
local call = redis.call
local held = call('GET', KEYS[1])
if held then
  if string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return { 0, tostring(call('PTTL', KEYS[1])) } end
  -- ours: the answer to the first call was lost
  call('PEXPIRE', KEYS[1], ARGV[2])
  return { 1, string.sub(held, #ARGV[1] + 2) }
end
-- The clock stands in for the counter where Redis has lost it.
local time = call('TIME')
local token = math.max((tonumber(call('GET', KEYS[2]) or 0) or 0) + 1, time[1] * 1000000 + time[2])
local text = string.format('%.0f', token)
call('SET', KEYS[2], text)
call('SET', KEYS[1], ARGV[1] .. ' ' .. text, 'PX', ARGV[2])
return { 1, text }
