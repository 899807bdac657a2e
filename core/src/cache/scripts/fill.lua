-- SPDX-License-Identifier: MIT
-- FILL: values read from the database under leases. KEYS: epoch, marked, entries. ARGV: 1 when the
-- read was a locking one, ttl in ms, ttl of absences in ms, a character an entry (v value, n
-- absent, e a value that lives like an absence), tokens (16 bytes each), then the values. Returns how many
-- were refused.
local locking, ttl, absent = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])
local kinds, tokens = ARGV[4], ARGV[5]

local function held(e, token)
  return state(e) == 'L' and sub(e, 10, 25) == token and sub(e, 2, 9) == epoch
    and (locking or sub(e, 34, 34) == '0')
end

local function fill(key, e, value, life)
  if value then settle(key, 'V' .. epoch .. value, life) else settle(key, 'N' .. epoch, absent) end
  if heals(e) then call('ZREM', KEYS[2], key) end
end

local entries, at, refused = read(3), 5, 0
for i = 1, #entries do
  local kind, value = byte(kinds, i), nil
  if kind ~= 110 then
    at = at + 1
    value = ARGV[at]
  end
  if held(entries[i], sub(tokens, i * 16 - 15, i * 16)) then
    fill(KEYS[i + 2], entries[i], value, kind == 101 and absent or ttl)
  else
    refused = refused + 1
  end
end
return refused
