-- SPDX-License-Identifier: MIT
-- WITNESS: a process is connected to a database server. KEYS: epoch, server. ARGV: what identifies it. When
-- another one was there before, what it had committed last may be gone: a new epoch. Returns the epoch.
local known = call('MGET', KEYS[2])[1]
if known == ARGV[1] then return epoch end
if known then
  epoch = to_bytes('<I8', time[1] * 1000000 + time[2])
  call('SET', KEYS[1], epoch)
end
call('SET', KEYS[2], ARGV[1])
return epoch
