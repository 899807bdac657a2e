-- SPDX-License-Identifier: MIT
-- VALUE SET: sets entries, whatever they hold; leases on them are void. What a transaction that is being
-- committed sets or deletes stays marked: its word is the last one. ARGV: ms of life, ms that they may be
-- served stale, ids of tags (16 bytes each), their prefix, then the values.
-- Returns the clock in ms and the tags with generations.
local ttl, stale, tags = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local parts, deleted = {}, false
for at = 1, #tags, 16 do
  local id = sub(tags, at, at + 15)
  local g = tag_generation(ARGV[4] .. id, ttl + stale)
  if g then parts[#parts + 1] = id .. g else deleted = true end
end
local deps = table.concat(parts)

local full
local function set(key, value)
  if deleted then return call('DEL', key) end
  local r = redis.pcall('SET', key, hold('V', ttl, 0, NO_LEASE, deps, value), 'PX', ttl + stale)
  if type(r) == 'table' and r.err then -- without room for the new value the old one is no longer right
    call('DEL', key)
    full = r
  end
end

for i = 4, #KEYS do
  local head = redis.pcall('GETRANGE', KEYS[i], '0', '0') == 'M'
  local marked, m = is_marked(KEYS[i], head and call('GET', KEYS[i]))
  if marked then spoil(KEYS[i], m) else set(KEYS[i], ARGV[i + 1]) end
end
return full or { now, deps }
