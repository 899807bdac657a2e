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

-- Whether a lease that stands in the entry must be filled by a locking read.
local function heals(e) return sub(e, 34, 34) == '1' end

-- A mark was lost here: only a locking read may fill.
local function expose(key)
  call('SET', key, 'X' .. epoch)
  call('ZADD', KEYS[2], now + DAY, key)
end

-- Something of a committed transaction went past this entry: what a queued write made of it cannot
-- be trusted once it is applied.
local function distrust(key, e)
  call('SET', key, sub(e, 1, 41) .. '0' .. sub(e, 43))
end

-- The last word on a key. Without memory for it, no entry is as right.
local function settle(key, e, ms)
  local r = redis.pcall('SET', key, e, 'PX', ms)
  if type(r) == 'table' and r.err then call('DEL', key) end
end
