-- SPDX-License-Identifier: MIT
-- LEASE: answers by now, or who may fill. KEYS: epoch, marked, entries. ARGV: token, lease in ms,
-- a character an entry: 1 = its value failed the reader's check and may be replaced.
-- Returns the epoch, then for each entry: itself (V N P Q D), or g granted, h granted to a locking
-- read, w leased by somebody else, b bypass.
-- A lease that is lost where a mark was lost must expose the entry again, so it has no TTL ('1'); one of
-- a young epoch is given again as such for as long as that is one ('2').
local token, ms, replace = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local function grant(key, exposed)
  local e = 'L' .. epoch .. token .. to_bytes('<I8', now + ms)
  if exposed then
    call('SET', key, e .. '1')
    call('ZADD', KEYS[2], now + DAY, key)
    return 'h'
  end
  call('SET', key, e .. (young and '2' or '0'), 'PX', ms)
  return young and 'h' or 'g'
end

local function leased(key, e)
  local other = sub(e, 10, 25) ~= token and sub(e, 2, 9) == epoch
  if other and from_bytes('<I8', e, 26) > now then return 'w' end
  return grant(key, heals(e))
end

local function marked(key, e)
  local m = expire(open_marks(e))
  if #m == 0 then return grant(key, true) end
  if m.changed then call('SET', key, close_marks(m)) end
  return 'b'
end

local function answer(key, e, bad)
  local s = state(e)
  if s == 'P' or s == 'Q' or s == 'D' then return e end
  if (s == 'V' or s == 'N') and not bad then return e end
  if s == 'L' then return leased(key, e) end
  if s == 'M' then return marked(key, e) end
  return grant(key, s == 'X')
end

local entries, out = read(3), { epoch }
for i = 1, #entries do
  out[i + 1] = answer(KEYS[i + 2], entries[i], byte(replace, i) == 49)
end
return out
