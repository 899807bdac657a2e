-- SPDX-License-Identifier: MIT
-- ENQUEUE: the stream entry and what readers see of it, in one step. KEYS: epoch, what producers
-- sent, stream, entries (each once). ARGV: field of this call (producer:seq), producer, seq, bound
-- of the stream, payload, a character an entry, checksums (8 bytes each), the stream id that the
-- caller would like ('' none), the epoch that it knows, number of fields to forget, 1 when rows are
-- large, field of the queue's number of partitions, that number as the caller knows it, the stream's
-- partition (four hex digits), names of the lookups, for the stream's entry, the fields to forget, then
-- what the entries need, in order.
--   u  checked update     x  checked delete     i  insert     U  X  the same of rows nobody caches:
--      the P or Q entry as it will be if the caller's id and epoch are accepted
--   l  lookup: changes (+ or -, id)     k  the same of a unique index
-- Every byte of a string costs time here (it is hashed), so entries come ready made and are patched
-- when they have to be.
-- Without a payload nothing is queued: it tells only whether it would be.
-- Returns 0, the id, the clock in us and the epoch; 1 when the stream is full; 2, a string of reasons
-- (0 none, 1 another row, 2 no entry or one to be adopted, 3 marked or void), and for each 1 its
-- entry; 3 and the number of partitions, when entries wait in another number of them; 4 and the number
-- of the entry of a unique value that another row has, or is queued to get; 5 when such an entry has to
-- be adopted first.
local kinds, sums, forget = ARGV[6], ARGV[7], tonumber(ARGV[10])
local NOTHING = string.rep('\0', 8)
local LIST = 8192 -- bytes of a list that is kept up to date; longer ones become changes

local n_parts, part, names = tonumber(ARGV[13]), ARGV[14], ARGV[15]
local known = call('HMGET', KEYS[2], ARGV[1], ARGV[12])
if known[1] then
  call('HSET', KEYS[2], ARGV[1], known[1]) -- who waits for replicas waits for a write of this connection
  return { 0, known[1], 0, epoch }
end

-- Another number of partitions: rows would change partitions, and overtake themselves, unless all
-- that was queued is applied.
local recorded = tonumber(known[2] or 1)
if recorded ~= n_parts then
  local number = tonumber(part, 16)
  local base = number == 0 and KEYS[3] or sub(KEYS[3], 1, -2 - #tostring(number))
  for p = 0, recorded - 1 do
    local stream = p == 0 and base or base .. ':' .. p
    if call('XLEN', stream) > 0 then return { 3, recorded } end
  end
end
if call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then return { 1 } end

local function try(add, id)
  if names == '' then return add('XADD', KEYS[3], id, 'd', ARGV[5], 'p', ARGV[2], 's', ARGV[3], 'e', epoch) end
  return add('XADD', KEYS[3], id, 'd', ARGV[5], 'p', ARGV[2], 's', ARGV[3], 'e', epoch, 'k', names)
end

-- The caller's id when it is the newest and not ahead of the clock, else the server's own.
local function add(id)
  local ms = tonumber(string.match(id, '^(%d+)-')) or now + 3
  if ms <= now + 2 then
    local r = try(redis.pcall, id)
    if type(r) == 'string' then return r end
  end
  return try(call, '*')
end

local values_at = 15 + forget

-- The entry, and that it is there.
local function queue()
  local id = add(ARGV[8])
  call('HSET', KEYS[2], ARGV[1], id)
  if recorded ~= n_parts then call('HSET', KEYS[2], ARGV[12], n_parts) end
  if forget > 0 then call('HDEL', KEYS[2], unpack(ARGV, 16, values_at)) end
  return id
end

local n, states, entries = #kinds, {}, {}
local asks = ARGV[5] == '' -- whether it would be queued
local yes = { 0, '0-0', time[1] * 1000000 + time[2], epoch }
if n == 0 and asks then return yes end
if n == 0 then return { 0, queue(), time[1] * 1000000 + time[2], epoch } end

-- Of large rows only what decides is read: state, flag and checksum.
local function glance(i)
  local key = KEYS[i + 3]
  local e = redis.pcall('GETRANGE', key, '0', '65')
  if type(e) ~= 'string' or e == '' then return false end
  local s = sub(e, 1, 1)
  if s == 'M' or byte(kinds, i) == 108 or byte(kinds, i) == 107 then return call('GET', key) end
  return e
end

local large = ARGV[11] == '1'
if large then
  for i = 1, n do entries[i] = glance(i) end
else
  entries = read(4)
end

local function live_marks(e) return #expire(open_marks(e)) > 0 end

local function void(e) return byte(e, 42) == 50 end

-- Why an entry forbids the change; 0: it does not.
local function judge(kind, i, e, s)
  if s == 'M' then
    if live_marks(e) then return 3 end
    s = 'X'
    states[i] = s
  end
  if kind == 105 then return (s == 'V' or (s == 'P' and not suspect(e))) and 1 or 0 end
  local row = kind == 117 or kind == 120
  if not row and kind ~= 85 and kind ~= 88 then return 0 end
  if s == 'P' or s == 'Q' then
    if suspect(e) then return row and 2 or 0 end
    if void(e) then return row and 3 or 0 end
  end
  -- of rows that Redis does not cache only what is queued is known; one that goes may come again
  if not row and s ~= 'P' and (s ~= 'Q' or sub(sums, i * 8 - 7, i * 8) == NOTHING) then return 0 end
  local at = s == 'V' and 26 or s == 'P' and 59
  if at then return sub(e, at, at + 7) == sub(sums, i * 8 - 7, i * 8) and 0 or 1 end
  return (s == 'Q' or s == 'N') and 1 or 2
end

-- The id that changes of a unique value bring; of several the last counts.
local function takes(changes)
  for at = #changes - 8, 1, -9 do
    if byte(changes, at) == 43 then return sub(changes, at + 1, at + 8) end
  end
end

local function leaves(changes, id8)
  for at = 1, #changes, 9 do
    if byte(changes, at) == 45 and sub(changes, at + 1, at + 8) == id8 then return true end
  end
end

-- A unique value is of one row: will it be another one's? What waits is told by the entry itself, so
-- that the value is free again whatever becomes of it; and what the database holds, where it is valid.
local function is_taken(e, s, changes)
  local id8, holds = takes(changes), {}
  if not id8 then return false end
  if s == 'V' or (s == 'P' and sub(e, 42, 42) == '1') then
    for at = s == 'V' and 10 or 43, #e, 8 do holds[sub(e, at, at + 7)] = true end
  elseif s == 'D' then
    for at = 11, #e, 41 do holds[sub(e, at + 1, at + 8)] = byte(e, at) == 43 end
  end
  for other, there in pairs(holds) do
    if there and other ~= id8 and not leaves(changes, other) then return true end
  end
  return false
end

local reasons, currents, bad = {}, {}, false
for i = 1, n do
  local kind, e, why = byte(kinds, i), entries[i], 0
  if e then
    -- the two usual cases first
    local first = byte(e)
    if first == 86 and kind == 117 and sub(e, 2, 9) == epoch then
      states[i] = 'V'
      if sub(e, 26, 33) ~= sub(sums, i * 8 - 7, i * 8) then why = 1 end
    elseif first == 80 and kind == 117 then
      states[i] = 'P'
      if byte(e, 42) ~= 49 or suspect(e) then
        why = judge(kind, i, e, 'P')
      elseif sub(e, 59, 66) ~= sub(sums, i * 8 - 7, i * 8) then
        why = 1
      end
    else
      local s = state(e)
      states[i] = s
      why = judge(kind, i, e, s)
      if kind == 107 and why == 0 and takes(ARGV[values_at + i]) then
        if (s == 'P' or s == 'D') and suspect(e) then return { 5 } end
        if is_taken(e, states[i], ARGV[values_at + i]) then return { 4, i } end
      end
    end
  elseif kind == 117 or kind == 120 then
    why = 2
  end
  reasons[i] = why
  if why ~= 0 then
    bad = true
    if why == 1 then currents[#currents + 1] = large and call('GET', KEYS[i + 3]) or e end
  end
end
if bad then return { 2, table.concat(reasons), unpack(currents) } end
if asks then return yes end

local id = queue()

local dash = string.find(id, '-', 1, true)
local hex = string.format('%016x%s%012x', sub(id, 1, dash - 1), part, sub(id, dash + 1))
local pending, unverified = 'P' .. epoch .. hex .. '1', 'P' .. epoch .. hex .. '0'
local as_sent = id == ARGV[8] and epoch == ARGV[9]

-- Where an id stands in a list, or would: compared by halves, as 64 bits are no number here.
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

-- An id as a number, which is exact: ids stay below 2^53.
local function number(id8)
  local low, high = from_bytes('<I4I4', id8)
  return high * 4294967296 + low
end

-- The same as merge in one pass over the list; of two changes of an id the later one counts.
local function merge_many(list, changes)
  local enters, ids, bytes, out, k = {}, {}, {}, {}, 1
  for at = 1, #changes, 9 do enters[sub(changes, at + 1, at + 8)] = byte(changes, at) == 43 end
  for id8, enter in pairs(enters) do
    if enter then
      local value = number(id8)
      ids[#ids + 1], bytes[value] = value, id8
    end
  end
  table.sort(ids)
  for at = 1, #list, 8 do
    local id8 = sub(list, at, at + 7)
    local value = number(id8)
    while ids[k] and ids[k] < value do
      out[#out + 1] = bytes[ids[k]]
      k = k + 1
    end
    if ids[k] == value then k = k + 1 end
    if enters[id8] ~= false then out[#out + 1] = id8 end
  end
  for i = k, #ids do out[#out + 1] = bytes[ids[i]] end
  return table.concat(out)
end

local function merge(list, changes)
  if #changes > 9 * 32 then return merge_many(list, changes) end
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

-- Of several partitions none can tell when the others' changes are applied: each is kept by itself.
local function lookup(e, s, changes)
  if n_parts > 1 then return defer(e, s, changes) end
  if s == 'V' and #e <= LIST then return pending .. merge(sub(e, 10), changes) end
  if s == 'P' then
    if void(e) or suspect(e) then return 'P' .. epoch .. hex .. '2' end
    local head = sub(e, 42, 42) == '1' and pending or unverified
    return head .. merge(sub(e, 43), changes)
  end
  return defer(e, s, changes)
end

-- What a ready made entry must be corrected in, after it is set.
local patches = {}
local function patch(i, kind)
  local first = (kind == 120 or kind == 88) and 'Q' or 'P'
  local flag = (kind == 85 or kind == 88) and '0' or '1'
  if states[i] == 'P' or states[i] == 'Q' then
    local before = sub(entries[i], 42, 42)
    if before == '2' or (kind == 117 and before == '0') then flag = before end
  end
  if not as_sent or flag ~= '1' then
    patches[#patches + 1] = { KEYS[i + 3], first .. epoch .. hex .. flag }
  end
end

local out, k = {}, 0
for i = 1, n do
  local kind = byte(kinds, i)
  out[k + 1] = KEYS[i + 3]
  if kind == 108 or kind == 107 then
    out[k + 2] = lookup(entries[i], states[i], ARGV[values_at + i])
  else
    out[k + 2] = ARGV[values_at + i]
    if not as_sent or states[i] == 'P' or states[i] == 'Q' then patch(i, kind) end
  end
  k = k + 2
  if k == 2000 then
    call('MSET', unpack(out, 1, k))
    k = 0
  end
end
if k > 0 then call('MSET', unpack(out, 1, k)) end
for i = 1, #patches do call('SETRANGE', patches[i][1], '0', patches[i][2]) end
return { 0, id, time[1] * 1000000 + time[2], epoch }
