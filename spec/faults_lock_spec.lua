-- SPDX-License-Identifier: MIT
-- Locks in Redis while holders are killed or stand still, and while Redis goes away and comes back.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local ffi = require "ffi"
local must = support.must

describe("a lock in Redis", function()
  local servers, orm

  setup(function()
    servers = faults.servers "lock"
    orm = must(regolith.open { mysql = servers:mysql_url(), redis = servers:redis_url(), entities = {},
      timeout_ms = 10000, lazy = true })
    servers.orms[1] = orm
  end)
  teardown(function() servers:remove() end)

  local function spawn(...) return faults.spawn("locker", servers:env(), ...) end

  it("passes on when its holder is killed, after its ttl", function()
    local last = 0
    for _ = 1, 3 do
      local holder = spawn("keep", "killed")
      local token = tonumber(holder:await "held (%d+)")
      assert.is_true(token > last)
      assert.is_false((orm:lock "killed"))
      holder:kill()
      local lock = must(orm:lock("killed", { wait_ms = 20000 }))
      assert.is_true(lock.token > token)
      last = lock.token
      assert.is_true(lock:release())
    end
  end)

  it("passes on when its holder stands still beyond the ttl, who knows it at once", function()
    local holder = spawn("keep", "still")
    local token = tonumber(holder:await "held (%d+)")
    ffi.C.kill(holder.pid, 19)
    local lock = must(orm:lock("still", { wait_ms = 20000 }))
    assert.is_true(lock.token > token)
    ffi.C.kill(holder.pid, 18)
    local ok, text = holder:wait()
    assert.is_true(ok, text)
    assert.matches("lost nil LOCK_LOST", text)
    assert.is_true(lock:held())
    assert.is_true(lock:release())
  end)

  it("is kept over a restart of Redis that keeps its data", function()
    local told = false
    local lock = must(orm:lock("restart", { ttl_ms = 30000, on_lost = function() told = true end }))
    servers:kill "redis"
    servers:start()
    assert.is_true(lock:held())
    assert.is_true(lock:extend(20000))
    assert.is_false((orm:lock "restart"))
    assert.is_true(lock:release())
    assert.is_false(told)
    local after = must(orm:lock "restart")
    assert.is_true(after.token > lock.token)
    after:release()
  end)

  it("is lost when Redis loses its data; tokens go on growing", function()
    local told = 0
    local lock = must(orm:lock("flushed", { ttl_ms = 600, on_lost = function() told = told + 1 end }))
    local redis = faults.redis(servers.redis_socket)
    redis:call "FLUSHALL"
    redis:close()
    faults.await("the loss", function() return not lock:held() end)
    assert.equal(1, told)
    local after = must(orm:lock("flushed", { wait_ms = 5000 }))
    assert.is_true(after.token > lock.token)
    local ok, err = lock:release()
    assert.equal("nil LOCK_LOST", tostring(ok) .. " " .. err.code)
    assert.is_true(after:release())
  end)

  it("is lost in time when Redis stands still, and can be had again afterwards", function()
    local lock = must(orm:lock("stalled", { ttl_ms = 500 }))
    servers:stop "redis"
    local before = faults.now()
    faults.await("the loss", function() return not lock:held() end)
    assert.is_true(faults.now() - before < 2)
    local none, err = orm:lock("stalled", { ttl_ms = 300 })
    assert.is_nil(none)
    assert.is_true(err.retriable, tostring(err))
    servers:continue "redis"
    local again = must(orm:lock("stalled", { wait_ms = 10000 }))
    assert.is_true(again.token > lock.token)
    assert.is_true(again:release())
    lock:drop()
  end)

  it("can be given back again, and again, when Redis was away", function()
    local told = false
    local lock = must(orm:lock("leaving", { ttl_ms = 30000, on_lost = function() told = true end }))
    servers:kill "redis"
    for _ = 1, 2 do
      local ok, err = lock:release()
      assert.is_nil(ok)
      assert.same({ "UNAVAILABLE", true }, { err.code, err.retriable })
      assert.is_false(lock:held())
      assert.equal(0, lock:left_ms())
    end
    servers:start()
    local late = must(orm:lock("leaving", { wait_ms = 20000 })) -- the engine has told Redis by itself, or does so now
    assert.is_true(must(lock:release()))
    assert.is_true(late:held())
    assert.is_true(must(late:release()))
    assert.is_false(told)
    assert.error_matches(function() lock:release() end, "has been given back")
  end)

  it("is waited for through a restart of Redis", function()
    local holder = spawn("hold", "through", 1500)
    local token = tonumber(holder:await "held (%d+)")
    local waiter = spawn("hold", "through", 1)
    faults.pause(200)
    servers:kill "redis"
    servers:start()
    local next_token = tonumber(waiter:await "held (%d+)")
    assert.is_true(next_token > token)
    assert.is_true((waiter:wait()))
    assert.is_true((holder:wait()))
  end)
end)
