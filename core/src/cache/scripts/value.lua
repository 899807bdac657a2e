-- SPDX-License-Identifier: MIT
-- What the scripts of value caches share (cache/value.h has the layout; bytes here count from 1).
-- KEYS: epoch, marked, counter, entries. The counter orders leases and the deletion of tags.

-- The state of an entry, V N L; nil: none, or of another epoch.
local function kind(e)
  local s = e and sub(e, 1, 1)
  if (s == 'V' or s == 'N') and #e >= 54 and sub(e, 2, 9) == epoch then return s end
  if s == 'L' and #e == 41 and sub(e, 2, 9) == epoch then return s end
end

local function next_number() return to_bytes('<I8', call('INCR', KEYS[3])) end

-- A tag's generation, made when there is none; it outlives what carries it.
local function tag_generation(key, life)
  local d = call('GET', key)
  if state(d) == 'V' and #d == 17 then
    if call('PTTL', key) < life then call('PEXPIRE', key, life * 2 + 60000) end
    return sub(d, 10, 17), false
  end
  local fresh = next_number()
  call('SET', key, 'V' .. epoch .. fresh, 'PX', life * 2 + 60000)
  return fresh, true
end

-- An entry that holds a value.
local function hold(s, ttl, took, lease, deps, value)
  return s .. epoch .. to_bytes('<I8I4', now + ttl, took) .. lease .. string.char(#deps / 24) .. deps .. value
end

local NO_LEASE = string.rep('\0', 32)
