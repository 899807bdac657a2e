-- SPDX-License-Identifier: MIT
-- Unique values of queued writes: the second one is refused at once, and the value is free again
-- whatever becomes of the first.

local regolith = require "regolith"
local support = require "support.init"
local faults = require "support.faults"

local must = support.must
local Counter = require("support.programs.shared").Counter
local field = regolith.field

for _, partitions in ipairs { 1, 4 } do
  describe("a unique value that is queued, with " .. partitions .. " partitions", function()
    local world, orm, db
    local Tag = regolith.entity("tag", {
      field.string "name" { unique = true, nullable = true, length = 50 }, field.uint32 "a", field.uint32 "b",
      unique = { pair = { "a", "b" } }, cache = { redis = true },
    })
    local Plain = regolith.entity("plain", { field.string "name" { unique = true, length = 50 } })

    setup(function()
      world = support.world()
      orm = world:open({ Tag, Plain, Counter }, { queues = partitions })
    end)
    teardown(function() world:close() end)
    local n = 0
    before_each(function() db = orm:session() n = n + 10 end)
    after_each(function()
      db:close()
      support.drain(orm)
      must(orm:drop "all")
    end)

    local function tag(name, a, b)
      n = n + 1
      return db:new(Tag, { name = name, a = a or n, b = b or n })
    end

    local function refused(index, e)
      local ok, err = db:flush_async()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", index, "tag" }, { err.code, err.index, err.entity })
      assert.equal(e, err.row)
      db:discard()
    end

    it("is refused to a second insert, which names the index", function()
      tag "first"
      must(db:flush_async())
      refused("name", tag "first")
      tag("pair1", 7, 8)
      must(db:flush_async())
      refused("pair", tag("pair2", 7, 8))
      support.drain(orm)
      assert.same({}, must(orm:dead_letters()))
      db:new(Plain, { name = "x" })
      must(db:flush_async())
      db:new(Plain, { name = "x" })
      local _, err = db:flush_async()
      assert.equal("DUPLICATE_KEY", err.code)
    end)

    it("is refused to an update, and NULL is nobody's", function()
      local one, two = tag "one", tag "two"
      must(db:flush_async())
      two.name = "one"
      refused("name", two)
      one.name, two.name = nil, nil
      must(db:flush_async())
      support.drain(orm)
      assert.same({}, must(orm:dead_letters()))
    end)

    it("is free once another update has replaced it, or a delete has freed it", function()
      local old = tag "old"
      must(db:flush_async())
      old.name = "new"
      must(db:flush_async())
      local heir = tag "old"
      must(db:flush_async())
      db:delete(heir)
      must(db:flush_async())
      tag "old"
      must(db:flush_async())
      refused("name", tag "new")
      support.drain(orm)
      assert.same({}, must(orm:dead_letters()))
    end)

    it("is refused to two rows of one flush, which is left as it was", function()
      tag "both"
      local second = tag "both"
      refused("name", second)
      tag("x", 7, 9)
      refused("pair", tag("y", 7, 9))
      local one, two = tag "one of", tag "two of"
      must(db:flush_async())
      one.name, two.name = "same", "same"
      local _, err = db:flush_async()
      assert.same({ "DUPLICATE_KEY", "name" }, { err.code, err.index })
      assert.matches("two rows of the flush", err.message)
      two.name = "another"
      must(db:flush_async())
      tag(nil)
      tag(nil) -- NULL is nobody's
      must(db:flush_async())
      support.drain(orm)
      assert.same({}, must(orm:dead_letters()))
      assert.equal(one.id, orm:session():by(Tag, "name", "same").id)
    end)

    it("may change hands within one flush", function()
      local a, b = tag "a", tag "b"
      must(db:flush_async())
      db:delete(a)
      b.name = "a"
      must(db:flush_async())
      support.drain(orm)
      assert.same({}, must(orm:dead_letters()))
      assert.equal(b.id, orm:session():by(Tag, "name", "a").id)
    end)

    it("is free when its write became a dead letter, and when that is dropped", function()
      local id = 800000 + n
      must(db:execute("INSERT INTO tag (id, name, a, b) VALUES (?, 'theirs', ?, 1)", id, id))
      tag "theirs"
      must(db:flush_async())
      refused("name", tag "theirs")
      assert.equal(1, support.drain(orm))
      local letter = must(orm:dead_letters())[1]
      assert.equal(1062, letter.errno)
      must(db:execute("DELETE FROM tag WHERE id = ?", id))
      tag "theirs" -- the value is nobody's now
      must(db:flush_async())
      support.drain(orm)
      must(orm:drop(letter.number))
      assert.same({}, must(orm:dead_letters()))
    end)

    it("is not kept by a producer or a consumer that died", function()
      db:new(Counter, { tag = "orphan" })
      must(db:flush_async())
      local consumer = faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = "8:1" })
      faults.await("its death after the COMMIT", function() return not consumer:running() end)
      consumer:kill()
      support.drain(orm) -- settles what the dead one has not told
      must(db:execute "DELETE FROM counter")
      must(orm:invalidate(Counter))
      db:new(Counter, { tag = "orphan" })
      must(db:flush_async())
      assert.equal(1, support.drain(orm))
      assert.same({}, must(orm:dead_letters()))
      for _, queue in ipairs(must(orm:queues())) do assert.equal(0, queue.length) end
    end)
  end)
end

describe("a unique value that is queued", function()
  it("stays taken when Redis is killed, until its write is applied", function()
    local servers = faults.servers "unique"
    local orm = servers:open({ Counter }, { queues = 2 })
    local db = orm:session()
    db:new(Counter, { tag = "kept" })
    must(db:flush_async())
    servers:kill "redis"
    servers:start()
    db:new(Counter, { tag = "kept" })
    local err
    faults.await("an answer", function()
      local ok
      ok, err = db:flush_async()
      return not ok and err.code == "DUPLICATE_KEY"
    end)
    assert.equal("tag", err.index)
    db:discard()
    assert.equal(1, support.drain(orm))
    must(db:execute "DELETE FROM counter")
    db:new(Counter, { tag = "kept" })
    must(db:flush_async())
    assert.equal(1, support.drain(orm))
    assert.same({}, must(orm:dead_letters()))
    db:close()
    servers:remove()
  end)
end)
