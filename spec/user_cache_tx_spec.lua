-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Note = regolith.entity("note", {
  field.string "text" { required = true }, cache = { redis = true, queries = true },
})
local Cache = regolith.cache("cache", { process = false })

describe("a user cache in a transaction", function()
  local world, orm, db, mine, others

  setup(function()
    world = support.world()
    orm = world:open({ Note }, { caches = { Cache } })
  end)
  teardown(function() world:close() end)
  before_each(function()
    db = orm:session()
    mine, others = db:cache(Cache), orm:cache(Cache)
    must(others:delete_many { "a", "b", "c", "d" })
    must(others:set("a", "old"))
  end)
  after_each(function() db:close() end)

  it("shows what it sets to itself alone, until the COMMIT", function()
    must(db:transaction(function()
      must(mine:set("a", "new"))
      must(mine:set_many { b = { 1 }, c = 3 })
      must(mine:delete "c")
      assert.equal("new", (mine:get "a"))
      assert.same({ 1 }, (mine:get "b"))
      assert.is_nil((mine:get "c"))
      assert.same({ a = "new", b = { 1 } }, must(mine:get_many { "a", "b", "c", "d" }))
      assert.equal("old", (others:get "a"))
      assert.is_nil((others:get "b"))
      return true
    end))
    assert.same({ a = "new", b = { 1 } }, must(others:get_many { "a", "b", "c" }))
  end)

  it("leaves everything as it was after a rollback", function()
    assert.is_nil((db:transaction(function()
      must(mine:set("a", "new"))
      must(mine:delete "a")
      must(mine:set("b", 1))
      must(db:new(Note, { text = "x" }))
      must(db:flush())
      assert.equal("old", (others:get "a"))
      return nil, "no"
    end)))
    assert.equal("old", (others:get "a"))
    assert.equal("old", (mine:get "a"))
    assert.is_nil((mine:get "b"))
  end)

  it("forgets what a savepoint did that was rolled back, and keeps the rest", function()
    must(db:transaction(function()
      must(mine:set("a", 1))
      db:transaction({ propagation = "NESTED" }, function()
        must(mine:set("a", 2))
        must(mine:set("b", 2))
        assert.equal(2, (mine:get "a"))
        return nil, "no"
      end)
      assert.equal(1, (mine:get "a"))
      assert.is_nil((mine:get "b"))
      must(db:transaction({ propagation = "NESTED" }, function()
        must(mine:set("c", 3))
        return true
      end))
      assert.equal(3, (mine:get "c"))
      must(mine:set("d", 4))
      return true
    end))
    assert.same({ a = 1, c = 3, d = 4 }, must(others:get_many { "a", "b", "c", "d" }))
  end)

  it("leaves what an independent transaction within did", function()
    db:transaction(function()
      must(mine:set("a", "outer"))
      must(db:transaction({ propagation = "REQUIRES_NEW" }, function()
        assert.equal("old", (mine:get "a"))
        must(mine:set("b", "inner"))
        return true
      end))
      assert.equal("inner", (others:get "b"))
      assert.equal("outer", (mine:get "a"))
      return nil, "no"
    end)
    assert.same({ a = "old", b = "inner" }, must(others:get_many { "a", "b" }))
  end)

  it("deletes by tag with the COMMIT", function()
    must(others:set("b", 1, { tags = { "t" } }))
    must(db:transaction(function()
      must(mine:set("c", 1, { tags = { "t" } }))
      must(mine:delete_tag "t")
      must(mine:set("d", 1, { tags = { "t" } }))
      assert.same({ d = 1 }, must(mine:get_many { "b", "c", "d" }))
      assert.equal(1, (others:get "b"))
      return true
    end))
    assert.same({ d = 1 }, must(others:get_many { "b", "c", "d" }))
  end)

  it("keeps what it loads to itself: it may rest on what is not committed", function()
    db:transaction(function()
      local note = must(db:new(Note, { text = "uncommitted" }))
      must(db:flush())
      assert.equal("uncommitted", (mine:get_or_load("b", function() return note.text end)))
      return nil, "no"
    end)
    assert.is_nil((others:get "b"))
    assert.equal("old", must(db:transaction(function()
      return (mine:get_or_load("a", function() return "loaded" end))
    end)))
  end)

  it("searches past the cache, and fills nothing", function()
    must(db:new(Note, { text = "committed" }))
    must(db:flush())
    local function count(session) return must(session:search(Note, "1 = 1"):cached(60):count()) end
    local before = count(orm:session())
    db:transaction(function()
      must(db:new(Note, { text = "uncommitted" }))
      must(db:flush())
      assert.equal(before + 1, count(db))
      assert.equal(before, count(orm:session()))
      return nil, "no"
    end)
    assert.equal(before, count(orm:session()))
    assert.equal(before, count(db))
  end)
end)
