-- SPDX-License-Identifier: MIT
-- VALUE PUBLISH: after COMMIT. KEYS: ..., entries, or generations of tags. ARGV: transaction (16 bytes),
-- prefix of what values depend on, then for each key: s set, d deleted, g a generation, ms of life (u64), ms
-- that it may be served stale (u64), ids of tags (16 bytes each); and for those that are set the value.
local tx, prefix = ARGV[1], ARGV[2]

local function gone(key, e)
  if not e then redis.pcall('SET', key, 'T', 'PX', 1000) end -- every process is told all the same
  call('DEL', key)
end

local function set(key, ttl, stale, tags, value)
  local parts = {}
  for at = 1, #tags, 16 do
    local id = sub(tags, at, at + 15)
    local g = tag_generation(prefix .. id, ttl + stale)
    if not g then return call('DEL', key) end
    parts[#parts + 1] = id .. g
  end
  settle(key, hold('V', ttl, 0, NO_LEASE, table.concat(parts), value), ttl + stale)
end

-- The mark of this transaction goes: was it the last one, and alone? Others may not have been committed in
-- the order in which they are published: then nobody knows which value is the last one.
local function end_mark(key, e)
  local m = state(e) == 'M' and open_marks(e)
  if not m then return true, false end
  local mine = take_mark(m, tx)
  if #m > 0 then
    spoil(key, m)
    return false
  end
  call('ZREM', KEYS[2], key)
  return true, mine and not m.poison and not m.crowd and m.epoch == epoch
end

local at, entries = 2, read(4)
for i = 1, #entries do
  local key = KEYS[i + 3]
  at = at + 1
  local meta, value = ARGV[at], nil
  local kind = byte(meta)
  local ttl, stale = from_bytes('<I8I8', meta, 2)
  if kind == 115 then
    at = at + 1
    value = ARGV[at]
  end
  local last, alone = end_mark(key, entries[i])
  if last then
    if kind == 103 then call('SET', key, 'V' .. epoch .. next_number(), 'PX', ttl)
    elseif kind == 115 and alone then set(key, ttl, stale, sub(meta, 18), value)
    else gone(key, entries[i]) end
  end
end
return #entries
