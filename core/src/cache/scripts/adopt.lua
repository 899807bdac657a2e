-- SPDX-License-Identifier: MIT
-- ADOPT: queued writes of an earlier epoch, after a look at the ledger. KEYS: epoch, marked, entries.
-- ARGV: the epoch that it was in, the position of each partition's ledger (32 hex
-- digits each). What comes after it is still to
-- be applied and belongs to this epoch now; the rest was applied long ago: Redis had lost that. Returns
-- how many belong to it.
if ARGV[1] ~= epoch then return 0 end
local ledgers, entries, n = ARGV[2], read(3), 0

-- Of a partition that nobody has told about, it stays.
local function to_come(id)
  local at = tonumber(sub(id, 17, 20), 16) * 32
  return at >= #ledgers or later(id, sub(ledgers, at + 1, at + 32))
end

for i = 1, #entries do
  local key, e = KEYS[i + 2], entries[i]
  local s = state(e)
  if s == 'D' and suspect(e) then
    if keep_later(key, e, to_come, epoch) == 0 then n = n + 1 end
  elseif (s == 'P' or s == 'Q') and suspect(e) then
    if to_come(sub(e, 10, 41)) then
      call('SETRANGE', key, '1', epoch)
      n = n + 1
    else
      call('DEL', key)
    end
  end
end
return n
