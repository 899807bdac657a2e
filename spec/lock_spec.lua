-- SPDX-License-Identifier: MIT
-- Locks between processes: who has one, how it goes, what its owner is told, and that tokens only grow.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must

local function lock_of(orm, name, opts)
  local lock, err = orm:lock(name, opts)
  return (must(lock, err))
end

describe("orm:lock", function()
  local world, one, two

  setup(function()
    world = support.world()
    one, two = world:open({}, { schema = false }), world:open({}, { schema = false })
  end)
  teardown(function() world:close() end)

  local function key(name) return "{" .. world.name .. "}:lock:" .. name end

  it("is one owner's at a time, and tokens grow over all names", function()
    local a = lock_of(one, "job")
    assert.is_true(a:held())
    assert.is_true(a:left_ms() > 5000 and a:left_ms() < 10000)
    assert.is_false((two:lock "job"))
    assert.is_false((one:lock "job")) -- not even for the same orm
    local other = lock_of(two, "other")
    assert.is_true(other.token > a.token)
    assert.is_true(a:release())
    assert.is_false(a:held())
    assert.equal(0, a:left_ms())
    local b = lock_of(two, "job")
    assert.is_true(b.token > other.token)
    b:release()
    other:release()
    assert.same({ "0" }, support.redis("EXISTS", key "job"))
  end)

  it("runs a function with it and gives it back whatever happens", function()
    local said = one:lock("f", { ttl_ms = 5000 }, function(lock)
      assert.is_true(lock:held())
      assert.is_false((two:lock("f")))
      return "said"
    end)
    assert.equal("said", said)
    assert.has_error(function() one:lock("f", function() error("oops", 0) end) end, "oops")
    assert.is_true(one:lock("f", function(lock) return lock:release() end))
    assert.is_true(lock_of(two, "f"):release())
  end)

  it("says what is wrong with what it is given", function()
    assert.has_error(function() one:lock "" end, "lock: a lock's name is a string of 1 to 512 bytes")
    assert.has_error(function() one:lock("x", { tll_ms = 1000 }) end,
      "lock: unknown option 'tll_ms' (did you mean 'ttl_ms'?)")
    assert.has_error(function() one:lock("x", { ttl_ms = 1 }) end, "lock: option 'ttl_ms' must be at least 50")
    local lock, err = one:lock("x", { redis = "elsewhere" })
    assert.is_nil(lock)
    assert.equal("INVALID redis", err.code .. " " .. err.field)
    lock = lock_of(one, "x")
    lock:release()
    assert.has_error(function() lock:release() end, "the lock has been given back")
  end)

  it("is renewed while it is held, or by hand, or not", function()
    local taken = faults.now()
    local auto = lock_of(one, "auto", { ttl_ms = 1500 })
    local manual = lock_of(one, "manual", { ttl_ms = 300, renew = false })
    local bounded = lock_of(one, "bounded", { ttl_ms = 300, max_ms = 500 })
    local long = lock_of(one, "long", { ttl_ms = 1500, renew = false })
    assert.is_true(long:extend(60000))
    assert.is_true(long:left_ms() > 50000)
    local lost = {}
    local function on_lost(l) lost[#lost + 1] = l.name end
    local told = lock_of(one, "told", { ttl_ms = 300, renew = false, on_lost = on_lost })
    faults.await("the end of leases", function() return not manual:held() and not bounded:held() end)
    faults.await("word of it", function() return not told:held() end)
    faults.await("the time that the others were taken for", function() return faults.now() > taken + 2 end)
    assert.is_false(told:held())
    assert.same({ "told" }, lost)
    local ok, err = manual:extend()
    assert.equal("nil LOCK_LOST", tostring(ok) .. " " .. err.code)
    ok, err = manual:release()
    assert.equal("nil LOCK_LOST", tostring(ok) .. " " .. err.code)
    assert.is_true(auto:held())
    assert.is_true(auto:release())
    assert.is_true(long:release())
    bounded:drop()
    told:drop()
  end)

  it("is nobody else's to give back", function()
    local a = lock_of(one, "mine", { ttl_ms = 200, renew = false })
    faults.await("the end of the lease", function() return not a:held() end)
    local b = must(two:lock("mine", { wait_ms = 5000 }))
    assert.is_true(b.token > a.token)
    local ok, err = a:release()
    assert.equal("nil LOCK_LOST", tostring(ok) .. " " .. err.code)
    assert.is_true(b:extend())
    assert.is_true(b:release())
  end)

  it("is told of by Redis to who waits, without asking again and again", function()
    local holder = faults.spawn("locker", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, "hold", "queue", 1500)
    local token = tonumber(holder:await "held (%d+)")
    local before = two:counter "regolith_redis_commands_total"
    local lock = must(two:lock("queue", { wait_ms = 20000 }))
    assert.is_true(lock.token > token)
    -- a try, the subscription, a try after it, one after the word
    assert.is_true(two:counter "regolith_redis_commands_total" - before <= 8)
    assert.is_true(lock:release())
    assert.is_true((holder:wait()))
  end)

  it("ends with its handle, with its orm, and is not a child's", function()
    lock_of(one, "gone")
    collectgarbage()
    collectgarbage()
    must(two:lock("gone", { wait_ms = 5000 })):release()
    local three = must(regolith.open(world:config({})))
    lock_of(three, "closed")
    local went = three:lock "went"
    three:close()
    assert.is_false(went:held())
    assert.has_error(function() went:extend() end)
    for _, name in ipairs { "closed", "went" } do lock_of(two, name, { wait_ms = 5000 }):release() end -- of 10000
  end)

  it("goes from one to the next of many who wait", function()
    local processes = {}
    for i = 1, 4 do
      processes[i] = faults.spawn("locker", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, "turns", "turns", 25)
    end
    local tokens, n = {}, 0
    for _, process in ipairs(processes) do
      local ok, text = process:wait(60)
      assert.is_true(ok, text)
      for token in text:gmatch "held (%d+)" do
        assert.is_nil(tokens[token])
        tokens[token] = true
        n = n + 1
      end
      assert.is_nil(text:match "overlap")
    end
    assert.equal(100, n)
    assert.same({ "100" }, support.redis("GET", world.name .. ":turns:n"))
  end)
end)

describe("orm:advisory_lock", function()
  local world, one, two

  setup(function()
    world = support.world()
    one, two = world:open({}, { schema = false }), world:open({}, { schema = false })
  end)
  teardown(function() world:close() end)

  local function name_of(name) return world.name .. "." .. name end

  it("is one owner's at a time, on a connection of its own", function()
    local name = name_of "job"
    local a = must(one:advisory_lock(name))
    assert.is_true(a:held())
    assert.is_true(a:check())
    local started = faults.now()
    assert.is_false((two:advisory_lock(name)))
    assert.is_false((two:advisory_lock(name, { timeout_ms = 300 })))
    assert.is_true(faults.now() - started >= 0.25)
    assert.equal(1, one:health()[1].busy)
    assert.is_true(a:release())
    assert.is_false(a:held())
    assert.equal(0, one:health()[1].busy)
    assert.has_error(function() a:release() end, "the lock has been given back")
    assert.equal(7, two:advisory_lock(name, function(lock)
      assert.is_true(lock:held())
      assert.is_false((one:advisory_lock(name)))
      return 7
    end))
    assert.is_true(must(one:advisory_lock(name)):release())
  end)

  it("takes names of any length, and tells long ones apart", function()
    local long = name_of(("\195\164"):rep(100))
    local a = must(one:advisory_lock(long .. "1"))
    local b = must(two:advisory_lock(long .. "2"))
    assert.is_false((two:advisory_lock(long .. "1")))
    assert.is_true(a:check() and b:check())
    a:release()
    b:release()
  end)

  it("is lost with its connection, and its owner is told", function()
    local name = name_of "lost"
    local a = must(one:advisory_lock(name))
    faults.kill_connections(world)
    assert.is_false(a:held())
    local b = must(two:advisory_lock(name, { timeout_ms = 5000 }))
    local ok, err = a:release()
    assert.equal("nil LOCK_LOST", tostring(ok) .. " " .. err.code)
    assert.is_true(b:check())
    assert.is_true(b:release())
  end)

  it("ends with its handle", function()
    local name = name_of "handle"
    must(one:advisory_lock(name))
    collectgarbage()
    collectgarbage()
    must(two:advisory_lock(name, { timeout_ms = 5000 })):release()
    must(two:advisory_lock(name)):drop()
    must(one:advisory_lock(name, { timeout_ms = 5000 })):release()
  end)

  it("ends with a process that is killed", function()
    local name = name_of "killed"
    local holder = faults.spawn("locker", { REGOLITH_MYSQL_URL = world.mysql_url(world.name) }, "advisory", name)
    holder:await "held true"
    assert.is_false((one:advisory_lock(name)))
    holder:kill()
    assert.is_true(must(one:advisory_lock(name, { timeout_ms = 20000 })):release())
  end)
end)
