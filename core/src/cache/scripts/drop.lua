-- SPDX-License-Identifier: MIT
-- DROP: forgets entries, so that every process does: the database was written past them. KEYS: epoch,
-- marked, entries. Well-formed pending ones stay, though void: what the queue will do is known only by
-- the database from now on. Open transactions keep their marks but not the value they would restore.
-- Returns how many values went.
local function pending(e, s)
  return (s == 'P' or s == 'Q') and string.find(sub(e, 10, 41), '^%x+$') ~= nil
end

local function poison(key, e)
  local m = open_marks(e)
  m.poison, m.saved = true, ''
  call('SET', key, close_marks(m))
end

-- A key that was not there is announced as well: types without a Redis cache have none. Without memory
-- for that, one that is there can still go.
local function forget(key, e)
  local r = redis.pcall('SET', key, 'T' .. epoch, 'PX', 1000)
  if type(r) ~= 'table' or not r.err then return end
  if not e then call('SET', key, 'T' .. epoch, 'PX', 1000) end -- fails as well, and says why
  call('DEL', key)
end

local entries, dropped = read(3), 0
for i = 1, #entries do
  local key, e = KEYS[i + 2], entries[i]
  local s = state(e)
  if s == 'M' then
    poison(key, e)
  elseif s == 'X' or (s == 'L' and heals(e)) then
    expose(key)
  elseif s == 'D' then
    call('SET', key, e) -- changes of a list, which go on top of the database: only announced
  elseif pending(e, s) then
    if sub(e, 42, 42) ~= '2' then dropped = dropped + 1 end
    distrust(key, e, '2')
  else
    forget(key, e)
    if s == 'V' or s == 'N' then dropped = dropped + 1 end
  end
end
return dropped
