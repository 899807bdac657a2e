-- SPDX-License-Identifier: MIT
-- Marks of open transactions: an M entry as a table and back.

local function open_marks(e)
  local flags, n = byte(e, 10), from_bytes('<I2', e, 11)
  local m = {
    epoch = sub(e, 2, 9),
    poison = flags % 2 == 1,
    expired = flags % 4 >= 2,
    crowd = flags % 8 >= 4,
    saved = sub(e, 13 + 24 * n),
  }
  for i = 1, n do
    local at = 24 * i - 11
    m[i] = { tx = sub(e, at, at + 15), deadline = (from_bytes('<I8', e, at + 16)) }
  end
  return m
end

local function close_marks(m)
  local flags = (m.poison and 1 or 0) + (m.expired and 2 or 0) + (m.crowd and 4 or 0)
  local parts = { 'M', m.epoch, to_bytes('<I1I2', flags, #m) }
  for i = 1, #m do parts[#parts + 1] = m[i].tx .. to_bytes('<I8', m[i].deadline) end
  parts[#parts + 1] = m.saved
  return table.concat(parts)
end

-- Removes marks past their deadline: their writers may still commit, so what was saved is void.
local function expire(m)
  for i = #m, 1, -1 do
    if m[i].deadline <= now then
      table.remove(m, i)
      m.expired, m.poison, m.saved, m.changed = true, true, '', true
    end
  end
  return m
end

-- Adds the mark of a transaction, or gives it a new deadline.
local function add_mark(m, tx, deadline)
  for i = 1, #m do
    if m[i].tx == tx then
      m[i].deadline = deadline
      return m
    end
  end
  m.crowd = m.crowd or #m > 0
  m[#m + 1] = { tx = tx, deadline = deadline }
  return m
end

-- Removes the mark of one transaction; false when it is gone already.
local function take_mark(m, tx)
  for i = 1, #m do
    if m[i].tx == tx then
      table.remove(m, i)
      return true
    end
  end
  return false
end
