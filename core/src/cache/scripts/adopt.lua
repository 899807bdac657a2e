-- SPDX-License-Identifier: MIT
-- ADOPT: queued writes of an earlier epoch, after a look at the ledger. KEYS: epoch, marked, entries.
-- ARGV: the epoch that it was in, the ledger's position (32 hex digits). What comes after it is still to
-- be applied and belongs to this epoch now; the rest was applied long ago: Redis had lost that. Returns
-- how many belong to it.
if ARGV[1] ~= epoch then return 0 end
local ledger, entries, n = ARGV[2], read(3), 0

for i = 1, #entries do
  local key, e = KEYS[i + 2], entries[i]
  local s = state(e)
  if s == 'D' and suspect(e) then
    if keep_later(key, e, ledger, epoch) == 0 then n = n + 1 end
  elseif (s == 'P' or s == 'Q') and suspect(e) then
    if later(sub(e, 10, 41), ledger) then
      call('SETRANGE', key, '1', epoch)
      n = n + 1
    else
      call('DEL', key)
    end
  end
end
return n
