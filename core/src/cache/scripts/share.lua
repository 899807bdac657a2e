-- SPDX-License-Identifier: MIT
-- SHARE: which partitions of a queue a consumer holds from now on. KEYS: epoch, what producers sent,
-- leases (hash: partition -> "owner deadline connection"), members (sorted set by deadline). ARGV:
-- owner, ms that leases last (0: it leaves), field of the number of partitions, that number as it is
-- configured, then pairs of a partition and the connection to MySQL that works on it. Each member may
-- hold its part, evenly; what is over goes to others.
-- Returns the number of partitions, then for each that is held: its number, 1 when it was taken just
-- now, and the connection of who held it before (0 none).
local owner, ms = ARGV[1], tonumber(ARGV[2])
local n = math.max(tonumber(call('HGET', KEYS[2], ARGV[3]) or 1), tonumber(ARGV[4]))

local function parse(lease)
  local who, deadline, connection = string.match(lease or '', '^(%S+) (%d+) (%d+)$')
  return who, tonumber(deadline), connection
end

local connections = {}
for i = 5, #ARGV, 2 do connections[tonumber(ARGV[i])] = ARGV[i + 1] end

local leases = {}
for p = 0, n - 1 do leases[p + 1] = p end
leases = call('HMGET', KEYS[3], unpack(leases))

if ms == 0 then
  call('ZREM', KEYS[4], owner)
  for p = 0, n - 1 do
    if parse(leases[p + 1]) == owner then call('HDEL', KEYS[3], p) end
  end
  return { n }
end

call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
call('ZADD', KEYS[4], now + ms, owner)
local members, rank = call('ZRANGE', KEYS[4], 0, -1), 0
table.sort(members)
for i = 1, #members do
  if members[i] == owner then rank = i end
end
local share = math.floor(n / #members) + (rank <= n % #members and 1 or 0)

local out, held = { n }, 0
local function hold(p, fresh, connection)
  local own = fresh and '0' or connections[p] or connection
  call('HSET', KEYS[3], p, owner .. ' ' .. string.format('%.0f', now + ms) .. ' ' .. own)
  held = held + 1
  out[#out + 1], out[#out + 2], out[#out + 3] = p, fresh and 1 or 0, tonumber(connection)
end

for p = 0, n - 1 do
  local who, _, connection = parse(leases[p + 1])
  if who == owner then
    if held < share then hold(p, false, connection) else call('HDEL', KEYS[3], p) end
  end
end
for p = 0, n - 1 do
  local who, deadline, connection = parse(leases[p + 1])
  if who ~= owner and (not who or deadline <= now) and held < share then hold(p, true, connection or '0') end
end
call('PEXPIRE', KEYS[3], 86400000)
call('PEXPIRE', KEYS[4], 86400000)
return out
