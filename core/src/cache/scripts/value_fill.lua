-- SPDX-License-Identifier: MIT
-- VALUE FILL: what was loaded under a lease; refused when the lease is gone, as after a set or a
-- deletion, or when one of its tags was deleted since. KEYS: ..., one entry. ARGV: token, V or N, ms of
-- life, ms that it may be served stale, ms that loading took, r when what it depends on comes with
-- generations (24 bytes each), t when as ids of tags (16 bytes each), these, their prefix, the value.
-- Returns 1 or 0, the clock in ms, and what it depends on with generations.
local token, s, ttl, stale = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = KEYS[4]
local e = call('GET', key)
local k = kind(e)

local function give_back()
  if k == 'L' then call('DEL', key) else call('SETRANGE', key, 21, NO_LEASE) end
  return { 0, now, '' }
end

local leased = k and sub(e, k == 'L' and 10 or 22, k == 'L' and 25 or 37) == token
if not leased then return { 0, now, '' } end
local number = from_bytes('<I8', e, k == 'L' and 34 or 46)

local deps = ARGV[7]
if ARGV[6] == 't' then
  local parts = {}
  for at = 1, #deps, 16 do
    local id = sub(deps, at, at + 15)
    local g, made = tag_generation(ARGV[8] .. id, ttl + stale)
    if not g or (not made and from_bytes('<I8', g) > number) then return give_back() end
    parts[#parts + 1] = id .. g
  end
  deps = table.concat(parts)
end
settle(key, hold(s, ttl, tonumber(ARGV[5]), NO_LEASE, deps, ARGV[9]), ttl + stale)
return { 1, now, deps }
