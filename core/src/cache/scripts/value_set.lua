-- SPDX-License-Identifier: MIT
-- VALUE SET: sets entries, whatever they hold; leases on them are void. ARGV: ms of life, ms that they
-- may be served stale, ids of tags (16 bytes each), their prefix, then the values.
-- Returns the clock in ms and the tags with generations.
local ttl, stale, tags = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local parts = {}
for at = 1, #tags, 16 do
  local id = sub(tags, at, at + 15)
  parts[#parts + 1] = id .. (tag_generation(ARGV[4] .. id, ttl + stale))
end
local deps = table.concat(parts)
local full
for i = 4, #KEYS do
  local r = redis.pcall('SET', KEYS[i], hold('V', ttl, 0, NO_LEASE, deps, ARGV[i + 1]), 'PX', ttl + stale)
  if type(r) == 'table' and r.err then -- without room for the new value the old one is no longer right
    call('DEL', KEYS[i])
    full = r
  end
end
return full or { now, deps }
