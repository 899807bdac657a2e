-- SPDX-License-Identifier: MIT
-- VALUE TAKE: what value caches hold, and who may load what they do not. ARGV: p only look, l lease
-- what is missing or stale; token; lease in ms; how many load times before the end of its life a
-- value counts as stale; ms that a hit gives it again (0: none); prefix of what values depend on; ids
-- (16 bytes each) of what the caller's fill will depend on; how long marks of values stand, ms.
-- Returns the clock in ms, a flag and a generation for each of these ids, then for each entry two:
-- v value, s stale and yours to load, o stale and loaded by somebody else, g yours to load, w loaded
-- by somebody else or about to be committed, b not to be filled, n none; and the entry.
local leases, token, lease_ms = ARGV[1] == 'l', ARGV[2], tonumber(ARGV[3])
local early, sliding, prefix, ids = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local mark_ms = tonumber(ARGV[8])

local function exposed(key)
  expose(key)
  return 'x' .. sub(call('GET', key), 10, 17)
end

-- v and x are generations (x: only a locking read may fill, as in a young epoch), m is being written.
local good = young and 'x' or 'v'
local function generation(key)
  local d = call('GET', key)
  local s = state(d)
  if s == 'V' and #d == 17 then return good .. sub(d, 10, 17) end
  if s == 'X' and #d == 17 then return 'x' .. sub(d, 10, 17) end
  if s == 'M' then
    local m = expire(open_marks(d))
    if #m == 0 then return exposed(key) end
    if m.changed then call('SET', key, close_marks(m)) end
    return 'm' .. to_bytes('<I8', 0)
  end
  if s and s ~= 'T' and s ~= 'V' then return exposed(key) end
  local fresh = next_number()
  call('SET', key, 'V' .. epoch .. fresh, 'PX', DAY)
  return good .. fresh
end

local known = {}
local function current(id)
  if known[id] == nil then
    local d = call('GET', prefix .. id)
    local s = state(d)
    known[id] = (s == 'V' or s == 'X') and #d == 17 and sub(d, 10, 17)
  end
  return known[id]
end

local function deps_hold(e)
  local n = byte(e, 54)
  if #e < 54 + 24 * n then return false end
  for at = 55, 54 + 24 * n, 24 do
    if current(sub(e, at, at + 15)) ~= sub(e, at + 16, at + 23) then return false end
  end
  return true
end

local generations, busy = {}, false
for at = 1, #ids, 16 do
  local g = generation(prefix .. sub(ids, at, at + 15))
  busy = busy or byte(g) == 109
  generations[#generations + 1] = g
end

local number
local function lease()
  number = number or next_number()
  return token .. to_bytes('<I8', now + lease_ms) .. number
end

local function slide(key, e, fresh)
  if fresh - now >= sliding * 0.9 then return e end
  call('SETRANGE', key, 9, to_bytes('<I8', now + sliding))
  call('PEXPIRE', key, sliding)
  return sub(e, 1, 9) .. to_bytes('<I8', now + sliding) .. sub(e, 18)
end

local function of_value(key, e)
  local fresh, took = from_bytes('<I8I4', e, 10)
  if now + took * early < fresh then
    if sliding > 0 then e = slide(key, e, fresh) end
    return 'v', e
  end
  if not leases then
    if now < fresh then return 'v', e end
    return 'n', ''
  end
  if sub(e, 22, 37) ~= token and from_bytes('<I8', e, 38) > now then
    return now < fresh and 'v' or 'o', e
  end
  call('SETRANGE', key, 21, lease())
  return 's', e
end

local function of_none(key, e, k)
  if not leases then return 'n', '' end
  if busy then return 'b', '' end
  if k == 'L' and sub(e, 10, 25) ~= token and from_bytes('<I8', e, 26) > now then return 'w', '' end
  call('SET', key, 'L' .. epoch .. lease(), 'PX', lease_ms)
  return 'g', ''
end

-- A COMMIT takes a moment, as a rule; who has died in it is not waited for.
local function of_mark(m)
  local newest = 0
  for i = 1, #m do newest = math.max(newest, m[i].deadline) end
  if newest - now > mark_ms - 100 then return 'w', '' end
  return leases and 'b' or 'n', ''
end

local entries, out = read(4), { now, table.concat(generations) }
for i = 1, #entries do
  local key, e = KEYS[i + 3], entries[i]
  local k = kind(e)
  local marked, m
  if not k then marked, m = is_marked(key, e) end
  if marked then
    out[#out + 1], out[#out + 2] = of_mark(m)
  elseif (k == 'V' or k == 'N') and deps_hold(e) then
    out[#out + 1], out[#out + 2] = of_value(key, e)
  else
    out[#out + 1], out[#out + 2] = of_none(key, e, k)
  end
end
return out
