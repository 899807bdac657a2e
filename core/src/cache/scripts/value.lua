-- SPDX-License-Identifier: MIT
-- What the scripts of value caches share (cache/value.h has the layout; bytes here count from 1).
-- KEYS: epoch, marked, counter, entries. The counter orders leases and the deletion of tags.

-- The state of an entry, V N L; nil: none, of another epoch, or marked.
local function kind(e)
  local s = e and sub(e, 1, 1)
  if (s == 'V' or s == 'N') and #e >= 54 and sub(e, 2, 9) == epoch then return s end
  if s == 'L' and #e == 41 and sub(e, 2, 9) == epoch then return s end
end

local function next_number() return to_bytes('<I8', call('INCR', KEYS[3])) end

-- Is it marked by a transaction that is being committed? Marks past their deadline go: what is not there
-- may be loaded.
local function is_marked(key, e)
  if state(e) ~= 'M' then return false end
  local m = expire(open_marks(e))
  if #m > 0 then return true, m end
  call('ZREM', KEYS[2], key)
  call('DEL', key)
  return false
end

-- Whatever happens to the marks, what stood there before does not come back.
local function spoil(key, m)
  m.poison, m.saved = true, ''
  call('SET', key, close_marks(m))
end

-- A tag's generation, made when there is none; it outlives what carries it. Nil while the tag is being
-- deleted.
local function tag_generation(key, life)
  local d = call('GET', key)
  if is_marked(key, d) then return nil end
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
