-- SPDX-License-Identifier: MIT
-- Reads that may not be older than what is committed, while the process cache is.

local ffi = require "ffi"
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local VARIANTS = {
  ["kept everywhere"] = { process = true, redis = true },
  ["kept in the process"] = { process = true },
}

for label, cache in pairs(VARIANTS) do
  describe("a strict read of rows " .. label, function()
    local world, orm, other
    local Item = regolith.entity("item", { field.uint32 "n", cache = cache })

    setup(function()
      world = support.world()
      orm = world:open { Item }
      other = world:open({ Item }, { schema = false })
      for _, each in ipairs { orm, other } do
        faults.await("coherence", function()
          each:session():get(Item, 999999999) -- of no row that is made later
          return each:stats().coherent
        end)
      end
    end)
    teardown(function() world:close() end)

    it("shows what another process has committed, at once, each time", function()
      local db = other:session()
      local item = must(db:new(Item, { n = 0 }))
      must(db:flush())
      faults.await("the news", function() return orm:session():get(Item, item.id) end)
      for i = 1, 300 do
        must(orm:session():get(Item, item.id)) -- the process cache has it, as it was
        item.n = i
        must(db:flush())
        assert.equal(i, must(orm:session():get(Item, item.id, { strict = true })).n)
      end
      db:delete(item)
      must(db:flush())
      assert.is_nil((orm:session():get(Item, item.id, { strict = true })))
      db:close()
    end)

    it("brings a known entity up to date, and minds its pending changes", function()
      local db, writer = orm:session(), other:session()
      local theirs = must(writer:new(Item, { n = 1 }))
      must(writer:flush())
      local mine = must(db:get(Item, theirs.id))
      theirs.n = 2
      must(writer:flush())
      assert.equal(1, db:get(Item, theirs.id).n)
      assert.equal(mine, must(db:get(Item, theirs.id, { strict = true })))
      assert.equal(2, mine.n)
      mine.n = 9
      assert.equal(mine, must(db:get(Item, theirs.id, { strict = true }))) -- nobody has changed the row
      theirs.n = 3
      must(writer:flush())
      local e, fault = db:get(Item, theirs.id, { strict = true })
      assert.is_nil(e)
      assert.equal("CONFLICT", fault.code)
      assert.equal(9, mine.n)
      assert.is_nil((db:get(Item, 12345678, { strict = true })))
      assert.is_nil((db:get(Item, -1, { strict = true })))
      assert.has_error(function() db:get(Item, 1, { stict = true }) end)
      db:discard()
      db:close()
      writer:close()
    end)
  end)
end

describe("the process cache of a process whose Redis stands still", function()
  local servers
  setup(function() servers = faults.servers "strict" end)
  teardown(function() servers:remove() end)

  it("is not used for longer than a ping's interval and time-out", function()
    local Item = regolith.entity("item", { field.uint32 "n", cache = { process = true, redis = true } })
    local orm = servers:open { Item }
    local db = orm:session()
    local item = must(db:new(Item, { n = 1 }))
    must(db:flush())
    local hits = "regolith_process_cache_hits_total"
    local function is_hit()
      local before, session = orm:counter(hits), orm:session()
      must(session:get(Item, item.id))
      session:close()
      return orm:counter(hits) > before
    end
    faults.await("hits of the process cache", function() return is_hit() and orm:stats().coherent end)
    servers:stop "redis"
    local stopped, last = faults.now(), 0
    while faults.now() - stopped < 4 do
      local view = ffi.new "rg_view" -- a look that asks nobody
      local session = orm:session()
      local now = faults.now() - stopped
      if session._c and require("regolith.native").C.rg_session_peek(session._c, 0, item.id, view) ~= 0 then
        last = now
      end
      session:close()
      faults.pause(10)
    end
    servers:continue "redis"
    assert.is_true(last < 1.5 + 0.5, "last hit after " .. last .. " s") -- half a second for a machine that is busy
    faults.await("hits of the process cache again", is_hit)
    db:close()
  end)
end)

describe("the process cache of a process that stood still", function()
  it("does not answer with what was replaced meanwhile", function()
    local world = support.world()
    local Thing = regolith.entity("thing", { field.uint32 "n", cache = true, ids = "application" })
    local orm = world:open { Thing }
    local db = orm:session()
    local thing = db:new(Thing, { id = 1, n = 1 })
    must(db:flush())
    local process = faults.spawn("stalled", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name })
    process:await "ready"
    process:signal "STOP"
    thing.n = 2
    must(db:flush())
    faults.pause(1700) -- longer than an entry may be old
    local continued = faults.now()
    process:signal "CONT"
    local ok, text = process:wait(20)
    assert.is_true(ok, text)
    local n = 0
    for at, value in text:gmatch "([%d.]+) (%d)\n" do
      if tonumber(at) > continued then
        n = n + 1
        assert.equal("2", value, text)
      end
    end
    assert.is_true(n > 0, text)
    db:close()
    world:close()
  end)
end)
