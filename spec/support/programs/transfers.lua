-- SPDX-License-Identifier: MIT
-- Moves amounts between accounts, each with its entry, in transactions that deadlock with those of others.
--   transfers.lua SEED TIMES ACCOUNTS
-- Says "done MADE TRIES CALLBACKS COMPENSATIONS".

local faults = require "support.faults"
local regolith = require "regolith"

local field = regolith.field
local seed, times, accounts = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])

local Account = regolith.entity("account", {
  field.int64 "balance",
  ids = "application",
  cache = { process = true, redis = true },
})
local Entry = regolith.entity("entry", { field.int64 "amount", cache = { redis = true, queries = true } })
local orm = assert(regolith.open { entities = { Account, Entry }, lazy = true, timeout_ms = 30000 })

math.randomseed(seed)
local db, made, tries, callbacks, compensations = orm:session(), 0, 0, 0, 0

local function transfer(from, to, amount)
  return db:transaction({ retry = 1000, isolation = seed % 2 == 0 and "READ_COMMITTED" or nil }, function(tx)
    tries = tries + 1
    tx:commit(function() callbacks = callbacks + 1 end)
    tx:compensate(function() compensations = compensations + 1 end)
    local payer, err = db:get(Account, from, { lock = "update" })
    if not payer then return nil, err end
    payer.balance = payer.balance - amount
    assert(db:flush())
    local payee
    payee, err = db:get(Account, to, { lock = "update" })
    if not payee then return nil, err end
    payee.balance = payee.balance + amount
    assert(db:new(Entry, { amount = amount }))
    return true
  end)
end

assert(orm:connect())
print "ready"
io.stdout:flush()
local redis = faults.redis(os.getenv("REGOLITH_REDIS_URL"):match "unix://([^?]+)")
faults.await("the start", function() return redis:call("GET", "{" .. os.getenv "REGOLITH_PREFIX" .. "}:go") end)
for i = 1, times do
  local from, to = math.random(accounts), math.random(accounts - 1)
  if to >= from then to = to + 1 end
  assert(transfer(from, to, math.random(100)))
  made = made + 1
  if i % 10 == 0 then db:clear() end
end
db:close()
orm:close()
print("done", made, tries, callbacks, compensations)
