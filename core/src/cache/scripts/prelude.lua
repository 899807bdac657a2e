-- SPDX-License-Identifier: MIT
-- What every cache script begins with: the clock, the epoch, and what an entry is worth. The byte
-- offsets are those of cache.h (here from 1). KEYS[1] is the epoch, KEYS[2] the set of marked keys.
if redis.replicate_commands then redis.replicate_commands() end
local sub, byte, call = string.sub, string.byte, redis.call
local to_bytes, from_bytes = struct.pack, struct.unpack
local DAY = 86400000

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = call('MGET', KEYS[1])[1]
if not epoch or #epoch ~= 8 then
  epoch = to_bytes('<I8', time[1] * 1000000 + time[2])
  call('SET', KEYS[1], epoch)
end

-- Values of KEYS[first] and later; a key of another type reads as none.
local function read(first)
  local n = #KEYS
  if n < first then return {} end
  if n - first < 1000 then return call('MGET', unpack(KEYS, first, n)) end
  local all = {}
  for from = first, n, 1000 do
    local some = call('MGET', unpack(KEYS, from, math.min(from + 999, n)))
    for i = 1, #some do all[#all + 1] = some[i] end
  end
  return all
end

-- The state of an entry; nil: none, or of another epoch. What cannot be told may have been a mark.
local function state(e)
  if not e then return nil end
  local s, n = sub(e, 1, 1), #e
  if s == 'V' or s == 'N' then return sub(e, 2, 9) == epoch and s or nil end
  if s == 'P' or s == 'Q' then return n >= 42 and s or nil end
  if s == 'L' then return n == 34 and s or 'X' end
  if s == 'M' then return n >= 12 and n >= 12 + 24 * from_bytes('<I2', e, 11) and s or 'X' end
  if s == 'D' then return n >= 10 and (n - 10) % 41 == 0 and s or 'X' end
  return (s == 'X' or s == 'T') and s or nil
end

-- An epoch begins when Redis has lost its data, and maybe marks of transactions that are open: until
-- none of those can be, only locking reads fill.
local YOUNG = 60000
local young = now - from_bytes('<I8', epoch) / 1000 < YOUNG

-- Whether a lease stands where a mark was lost: without it the entry is exposed again.
local function heals(e) return sub(e, 34, 34) == '1' end

-- A queued write that was written in an earlier epoch may have been applied since: Redis came back
-- with older data. Who asks the ledger may adopt it.
local function suspect(e) return sub(e, 2, 9) ~= epoch end

-- A mark was lost here: only a locking read may fill. The time tells one exposure from the next.
local function expose(key)
  call('SET', key, 'X' .. epoch .. to_bytes('<I8', time[1] * 1000000 + time[2]))
  call('ZADD', KEYS[2], now + DAY, key)
end

-- What a queued write made of this entry cannot become valid once it is applied ('0'); or is not even
-- what it will leave ('2'), as something of a committed transaction went past it: void.
local function distrust(key, e, flag)
  if sub(e, 42, 42) == '2' then return end
  call('SET', key, sub(e, 1, 41) .. flag .. sub(e, 43))
end

-- The last word on a key. Without memory for it, no entry is as right.
local function settle(key, e, ms)
  local r = redis.pcall('SET', key, e, 'PX', ms)
  if type(r) == 'table' and r.err then call('DEL', key) end
end

-- Stream ids, as 32 hex digits: does a come after b? Of ids of another partition (the first four digits
-- of the second half) nothing is known: they do.
local function later(a, b)
  if a == b then return false end
  if sub(a, 17, 20) ~= sub(b, 17, 20) then return true end
  local x, y = tonumber(sub(a, 1, 16), 16) or 0, tonumber(sub(b, 1, 16), 16) or 0
  if x ~= y then return x > y end
  return (tonumber(sub(a, 17), 16) or 0) > (tonumber(sub(b, 17), 16) or 0)
end

-- Leaves those of a D entry's changes that come after an id (comes_after tells), as written in the epoch
-- given; 1 when none is left.
local function keep_later(key, e, comes_after, written)
  local left = {}
  for at = 11, #e, 41 do
    if comes_after(sub(e, at + 9, at + 40)) then left[#left + 1] = sub(e, at, at + 40) end
  end
  if #left > 0 then
    call('SET', key, 'D' .. written .. sub(e, 10, 10) .. table.concat(left))
    return 0
  end
  if sub(e, 10, 10) == '1' then expose(key) else call('DEL', key) end
  return 1
end
