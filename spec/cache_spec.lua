-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function define(cache)
  return regolith.entity("item", {
    field.string "name" { unique = true, required = true },
    field.uint32 "kind",
    field.uint32 "n",
    index = { by_kind = { "kind", cached = true } },
    cache = cache,
  })
end

--- The process cache is in use once its connection for invalidations stands, which the first read asks for.
local function wait_for_coherence(orm, entity)
  must(support.eventually(function()
    orm:session():get(entity, 1)
    return orm:stats().coherent
  end))
end

local VARIANTS = {
  ["process and Redis"] = { process = true, redis = true, all = true },
  ["process alone"] = { process = true, all = true },
  ["Redis alone"] = { redis = true, all = true },
}

for label, cache in pairs(VARIANTS) do
  describe("cache: " .. label, function()
    local world, orm, db
    local Item = define(cache)

    setup(function()
      world = support.world()
      orm = world:open { Item }
      if cache.process then wait_for_coherence(orm, Item) end
    end)
    teardown(function() world:close() end)

    before_each(function() db = orm:session() end)
    after_each(function()
      db:close()
      local admin = orm:session()
      must(admin:execute "DELETE FROM item")
      must(orm:invalidate(Item))
      admin:close()
    end)

    --- MySQL statements that fn causes in a session of its own.
    local function sql_of(fn)
      local session = orm:session()
      local counts = support.count(orm, function() fn(session) end)
      session:close()
      return counts.mysql
    end

    --- It takes no SQL, once the reads (and an invalidation that is on its way) have warmed the caches.
    local function settles(fn)
      assert.is_true(support.eventually(function() return sql_of(fn) == 0 end))
    end

    local function new_items(n, kind)
      local items = {}
      for i = 1, n do items[i] = db:new(Item, { name = (kind or 0) .. "-" .. i, kind = kind }) end
      must(db:flush())
      return items
    end

    it("answers the second read without SQL", function()
      local id = new_items(1)[1].id
      must(orm:session():get(Item, id))
      settles(function(session) assert.equal("0-1", session:get(Item, id).name) end)
      settles(function(session) assert.equal(1, #session:get_many(Item, { id })) end)
    end)

    it("remembers what is not there", function()
      assert.is_nil((orm:session():get(Item, 123456)))
      settles(function(session) assert.is_nil((session:get(Item, 123456))) end)
      assert.is_nil((orm:session():by(Item, "name", "nobody")))
      settles(function(session) assert.is_nil((session:by(Item, "name", "nobody"))) end)
      local item = db:new(Item, { name = "nobody" })
      must(db:flush())
      assert.equal(item.id, orm:session():by(Item, "name", "nobody").id)
    end)

    it("shows a flushed write at once", function()
      local item = new_items(1)[1]
      must(orm:session():get(Item, item.id))
      item.n = 7
      must(db:flush())
      assert.equal(7, orm:session():get(Item, item.id).n)
      db:delete(item)
      must(db:flush())
      assert.is_nil((orm:session():get(Item, item.id)))
    end)

    it("keeps a failed flush out of the caches", function()
      local items = new_items(2)
      must(orm:session():get(Item, items[1].id))
      items[1].n = 5
      items[2].name = items[1].name
      assert.is_nil((db:flush()))
      assert.equal(0, orm:session():get(Item, items[1].id).n)
      assert.equal(items[2].id, orm:session():by(Item, "name", "0-2").id)
    end)

    it("answers index lookups without SQL and keeps both lists right when a row moves", function()
      local items = new_items(3, 1)
      local session = orm:session()
      assert.equal(3, #session:all_by(Item, "by_kind", 1))
      assert.equal(0, #session:all_by(Item, "by_kind", 2))
      settles(function(s) assert.equal(3, #s:all_by(Item, "by_kind", 1)) end)
      settles(function(s) assert.equal(0, #s:all_by(Item, "by_kind", 2)) end)
      items[1].kind = 2
      must(db:flush())
      assert.equal(2, #orm:session():all_by(Item, "by_kind", 1))
      assert.equal(1, #orm:session():all_by(Item, "by_kind", 2))
    end)

    it("answers all() without SQL, an empty one too", function()
      assert.same({}, (orm:session():all(Item)))
      settles(function(s) assert.same({}, (s:all(Item))) end)
      local items = new_items(4)
      db:delete(items[2])
      must(db:flush())
      local list, total = orm:session():all(Item)
      assert.equal(3, total)
      assert.same({ items[1].id, items[3].id, items[4].id }, { list[1].id, list[2].id, list[3].id })
      settles(function(s) assert.equal(3, #s:all(Item)) end)
    end)

    it("frees a unique value that was renamed away", function()
      local item = new_items(1)[1]
      assert.equal(item.id, orm:session():by(Item, "name", "0-1").id)
      item.name = "new"
      must(db:flush())
      assert.is_nil((orm:session():by(Item, "name", "0-1")))
      assert.equal(item.id, orm:session():by(Item, "name", "new").id)
    end)

    it("drops what it is told to drop", function()
      local items = new_items(2)
      must(orm:session():get_many(Item, { items[1].id, items[2].id }))
      must(db:execute("UPDATE item SET n = 99"))
      assert.is_true(must(orm:invalidate(Item, { items[1].id })) >= 0)
      assert.equal(99, orm:session():get(Item, items[1].id).n)
      must(orm:invalidate "item")
      assert.equal(99, orm:session():get(Item, items[2].id).n)
      assert.matches("an entity is expected", select(2, pcall(orm.invalidate, orm, "itme")))
      assert.matches("takes a list of ids", select(2, pcall(orm.invalidate, orm, Item, 1)))
      for _, id in ipairs { 0, -1, 1.5, "1" } do
        assert.matches("ids are whole numbers", select(2, pcall(orm.invalidate, orm, Item, { id })))
      end
    end)

    it("tells other processes that nothing of an entity holds", function()
      local other = world:open({ Item }, { schema = false })
      if cache.process then wait_for_coherence(other, Item) end
      local item = new_items(1)[1]
      support.redis("DEL", "{" .. world.name .. "}:e:item:" .. item.id) -- what the flush has left there for a second
      settles(function() must(orm:session():get(Item, item.id)) end)
      assert.is_true(support.eventually(function()
        return support.count(other, function() must(other:session():get(Item, item.id)) end).mysql == 0
      end))
      must(db:execute("UPDATE item SET n = 99"))
      must(orm:invalidate(Item))
      assert.is_true(support.eventually(function() return other:session():get(Item, item.id).n == 99 end))
      world:shut(other)
    end)

    it("fills again when Redis has been emptied", function()
      local item = new_items(1)[1]
      support.redis "FLUSHDB"
      assert.equal("0-1", orm:session():get(Item, item.id).name)
      assert.equal(item.id, orm:session():by(Item, "name", "0-1").id)
    end)

    it("tells other processes", function()
      local other = world:open({ Item }, { schema = false })
      local item = new_items(1)[1]
      assert.equal(0, other:session():get(Item, item.id).n)
      item.n = 8
      must(db:flush())
      assert.equal(8, support.eventually(function()
        local n = other:session():get(Item, item.id).n
        return n == 8 and n
      end))
      world:shut(other)
    end)
  end)
end
