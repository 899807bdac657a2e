-- SPDX-License-Identifier: MIT
-- VALUE MARK: what a transaction will set and delete, before its COMMIT. KEYS: ..., entries and generations
-- of tags. ARGV: transaction (16 bytes), ms until the marks expire, a character an entry: m marked, t only
-- processes keep it. What was there is kept for a rollback, with the time until which it would have stayed.
local tx, ms, kinds = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local function to_save(key, e)
  local s = state(e)
  if s ~= 'V' and s ~= 'N' then return '' end
  local left = call('PTTL', key)
  return to_bytes('<I8', now + (left > 0 and left or DAY)) .. e
end

local entries = read(4)
for i = 1, #entries do
  local key, e = KEYS[i + 3], entries[i]
  if byte(kinds, i) == 116 then
    call('SET', key, 'T' .. epoch, 'PX', ms)
  else
    local m = state(e) == 'M' and expire(open_marks(e)) or { epoch = epoch, saved = to_save(key, e) }
    call('SET', key, close_marks(add_mark(m, tx, now + ms)))
    call('ZADD', KEYS[2], now + ms, key)
  end
end
return #entries
