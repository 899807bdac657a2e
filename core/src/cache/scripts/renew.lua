-- SPDX-License-Identifier: MIT
-- RENEW: a new epoch. KEYS: epoch. Every entry but pending and marked ones counts as none from now.
local fresh = to_bytes('<I8', math.max(time[1] * 1000000 + time[2], from_bytes('<I8', epoch) + 1))
call('SET', KEYS[1], fresh)
return fresh
