-- SPDX-License-Identifier: MIT
-- ENQUEUE: the stream entry and what readers see of it, in one step. KEYS: epoch, what producers
-- sent, stream, entries (each once). ARGV: field of this call (producer:seq), producer, seq, bound
-- of the stream, payload, a character an entry, checksums (8 bytes each), number of fields to
-- forget, these fields, then what the entries need, in order.
--   u  checked update: row      x  checked delete: nothing   i  insert: row
--   U  row nobody caches: row   X  its delete: nothing       l  lookup: changes (+ or -, id)
-- Returns 0 and the id; 1 when the stream is full; 2, a string of reasons (0 none, 1 another row, 2
-- no entry, 3 marked), and for each 1 its entry.
local kinds, sums, forget = ARGV[6], ARGV[7], tonumber(ARGV[8])
local LIST = 8192 -- bytes of a list that is kept up to date; longer ones become changes

local sent = call('HGET', KEYS[2], ARGV[1])
if sent then return { 0, sent } end
if call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then return { 1 } end

local entries, n, valid = read(4), #kinds, 'V' .. epoch
local states = {}

local function live_marks(e) return #expire(open_marks(e)) > 0 end

-- Why an entry other than a valid row forbids the change.
local function judge(kind, i, e, s)
  if s == 'M' then
    if live_marks(e) then return 3 end
    s = 'X'
    states[i] = s
  end
  if kind == 105 then return (s == 'V' or s == 'P') and 1 or 0 end
  if kind ~= 117 and kind ~= 120 then return 0 end
  if s == 'P' then return sub(e, 59, 66) == sub(sums, i * 8 - 7, i * 8) and 0 or 1 end
  return (s == 'Q' or s == 'N') and 1 or 2
end

local reasons, currents, bad = {}, {}, false
for i = 1, n do
  local kind, e, why = byte(kinds, i), entries[i], 0
  if e and sub(e, 1, 9) == valid and (kind == 117 or kind == 120) then
    states[i] = 'V'
    if sub(e, 26, 33) ~= sub(sums, i * 8 - 7, i * 8) then why = 1 end
  elseif e then
    states[i] = state(e)
    why = judge(kind, i, e, states[i])
  elseif kind == 117 or kind == 120 then
    why = 2
  end
  reasons[i] = why
  if why ~= 0 then
    bad = true
    if why == 1 then currents[#currents + 1] = e end
  end
end
if bad then return { 2, table.concat(reasons), unpack(currents) } end

local id = call('XADD', KEYS[3], '*', 'd', ARGV[5], 'p', ARGV[2], 's', ARGV[3], 'e', epoch)
call('HSET', KEYS[2], ARGV[1], id)
if forget > 0 then call('HDEL', KEYS[2], unpack(ARGV, 9, 8 + forget)) end

local dash = string.find(id, '-', 1, true)
local hex = string.format('%016x%016x', sub(id, 1, dash - 1), sub(id, dash + 1))
local pending, unverified = 'P' .. epoch .. hex .. '1', 'P' .. epoch .. hex .. '0'

-- Where an id stands in a list, or would: ids are compared by halves, as 64 bits are no number here.
local function search(list, id8)
  local low, high = from_bytes('<I4I4', id8)
  local from, to = 0, #list / 8
  while from < to do
    local middle = math.floor((from + to) / 2)
    local l, h = from_bytes('<I4I4', list, middle * 8 + 1)
    if h < high or (h == high and l < low) then from = middle + 1 else to = middle end
  end
  return from * 8, sub(list, from * 8 + 1, from * 8 + 8) == id8
end

local function merge(list, changes)
  for at = 1, #changes, 9 do
    local id8 = sub(changes, at + 1, at + 8)
    local before, found = search(list, id8)
    if byte(changes, at) == 43 then
      if not found then list = sub(list, 1, before) .. id8 .. sub(list, before + 1) end
    elseif found then
      list = sub(list, 1, before) .. sub(list, before + 9)
    end
  end
  return list
end

local function defer(e, s, changes)
  local lost = s == 'X' or (s == 'L' and heals(e))
  local parts = { s == 'D' and e or 'D' .. epoch .. (lost and '1' or '0') }
  for at = 1, #changes, 9 do parts[#parts + 1] = sub(changes, at, at + 8) .. hex end
  return table.concat(parts)
end

local function lookup(e, s, changes)
  if s == 'V' and #e <= LIST then return pending .. merge(sub(e, 10), changes) end
  if s == 'P' then
    local head = sub(e, 42, 42) == '1' and pending or unverified
    return head .. merge(sub(e, 43), changes)
  end
  return defer(e, s, changes)
end

local function row(kind, e, s, value)
  if kind == 85 or (kind == 117 and s == 'P' and sub(e, 42, 42) == '0') then
    return unverified .. value
  end
  return pending .. value
end

local out, k, at = {}, 0, 8 + forget
for i = 1, n do
  local kind = byte(kinds, i)
  out[k + 1] = KEYS[i + 3]
  if kind == 120 then
    out[k + 2] = 'Q' .. epoch .. hex .. '1'
  elseif kind == 88 then
    out[k + 2] = 'Q' .. epoch .. hex .. '0'
  else
    at = at + 1
    if kind == 108 then
      out[k + 2] = lookup(entries[i], states[i], ARGV[at])
    else
      out[k + 2] = row(kind, entries[i], states[i], ARGV[at])
    end
  end
  k = k + 2
  if k == 2000 then
    call('MSET', unpack(out, 1, k))
    k = 0
  end
end
if k > 0 then call('MSET', unpack(out, 1, k)) end
return { 0, id }
