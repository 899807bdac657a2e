-- SPDX-License-Identifier: MIT
-- What is queued of rows that Redis does not keep: by() finds it whatever the entity caches, and get() when the
-- process caches it.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function entity(name, cache)
  return regolith.entity(name, {
    field.string "name" { required = true, unique = true },
    field.uint32 "n" { index = true, cached = true },
    field.uint32 "m",
    field.ref "other" { name },
    cache = cache,
  })
end

local Bare = entity("bare", false)
local Kept = entity("kept", { process = true })

describe("queued writes", function()
  local world, orm, beside

  setup(function()
    world = support.world()
    orm = world:open { Bare, Kept }
    beside = world:open({ Bare, Kept }, { schema = false })
  end)
  teardown(function() world:close() end)
  after_each(function()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, E in ipairs { Bare, Kept } do
      must(admin:execute("DELETE FROM `" .. E.name .. "`"))
      must(orm:invalidate(E))
    end
    admin:close()
  end)

  --- "name n m" of what a session that knows nothing finds.
  local function found(by_orm, E, how, value)
    local db = by_orm:session()
    local e, fault
    if how == "get" then e, fault = db:get(E, value) else e, fault = db:by(E, "name", value) end
    must(not fault, fault)
    local text = e and string.format("%s %d %d", e.name, e.n, e.m)
    db:close()
    return text
  end

  --- Both processes find that: the one that wrote last at once, the other one hears of it a moment later.
  local function both_find(expected, E, how, value, writer)
    local hearer = writer == beside and orm or beside
    writer = writer or orm
    support.as_redis_answers(writer, function() assert.equal(expected, found(writer, E, how, value)) end)
    support.eventually(function() return found(hearer, E, how, value) == expected end)
    support.as_redis_answers(hearer, function() assert.equal(expected, found(hearer, E, how, value)) end)
  end

  for _, E in ipairs { Bare, Kept } do
    it("are found by a unique value, also when they change other fields, " .. E.name, function()
      local db = orm:session()
      local e = db:new(E, { name = "x", n = 1, m = 1 })
      must(db:flush())
      both_find("x 1 1", E, "by", "x")
      e.n = 2
      must(db:flush_async())
      both_find("x 2 1", E, "by", "x")
      e.m = 2
      must(db:flush_async())
      both_find("x 2 2", E, "by", "x")
      db:delete(e)
      must(db:flush_async())
      both_find(nil, E, "by", "x")
      support.drain(orm)
      both_find(nil, E, "by", "x")
      db:close()
    end)

    it("keep what others have queued for other fields of the row, " .. E.name, function()
      local db, late = orm:session(), beside:session()
      local e = db:new(E, { name = "x", n = 1, m = 1 })
      must(db:flush())
      local f = must(late:get(E, e.id))
      e.name, e.n = "y", 2
      must(db:flush_async())
      f.m = 3
      must(late:flush_async())
      both_find(nil, E, "by", "x", beside)
      both_find("y 2 3", E, "by", "y", beside)
      f.m = 4
      must(late:flush_async())
      both_find("y 2 4", E, "by", "y", beside)
      support.drain(orm)
      both_find("y 2 4", E, "by", "y")
      both_find(nil, E, "by", "x")
      db:close()
      late:close()
    end)

    it("of a row that is queued to go are refused, " .. E.name, function()
      local db, late = orm:session(), beside:session()
      local e = db:new(E, { name = "x", n = 1, m = 1 })
      must(db:flush())
      local f = must(late:get(E, e.id))
      db:delete(e)
      must(db:flush_async())
      f.m = 3
      local ok, fault = late:flush_async()
      assert.is_nil(ok)
      assert.equal("CONFLICT", fault.code)
      support.drain(orm)
      assert.equal(0, #must(orm:dead_letters()))
      db:close()
      late:close()
    end)
  end

  it("have their ids, also where nobody caches the rows", function()
    local db = orm:session()
    local e = db:new(Bare, { name = "x", n = 1, m = 1 })
    must(db:flush_async())
    local late = beside:session()
    late:new(Bare, { id = e.id, name = "y" })
    local ok, fault = late:flush_async()
    assert.is_nil(ok)
    assert.same({ "DUPLICATE_KEY", "PRIMARY" }, { fault.code, fault.index })
    db:delete(e)
    must(db:flush_async())
    must(late:flush_async()) -- it is free again
    both_find("y 0 0", Bare, "by", "y")
    support.drain(orm)
    assert.equal(0, #must(orm:dead_letters()))
    both_find("y 0 0", Bare, "by", "y")
    db:close()
    late:close()
  end)

  it("are read at once where the process caches the row", function()
    local db = orm:session()
    local first = db:new(Kept, { name = "x", n = 1, m = 1 })
    both_find(nil, Kept, "get", first.id)
    must(db:flush_async())
    both_find("x 1 1", Kept, "get", first.id)
    local second = db:new(Kept, { name = "z", n = 1, m = 1, other = first })
    must(db:flush_async())
    first.n = 5
    must(db:flush_async())
    both_find("x 5 1", Kept, "get", first.id)
    local other = beside:session()
    support.as_redis_answers(beside, function()
      other:clear()
      assert.equal(5, must(other:get(Kept, second.id)).other.n)
    end)
    local some = must(other:get_many(Kept, { first.id, 4711, second.id }))
    assert.same({ first.id, nil, second.id }, { some[1].id, some[2], some[3].id })
    other:close()
    db:delete(second)
    must(db:flush_async())
    both_find(nil, Kept, "get", second.id)
    assert.is_nil(orm:session():get(Kept, second.id, { strict = true }))
    support.drain(orm)
    both_find("x 5 1", Kept, "get", first.id)
    both_find(nil, Kept, "get", second.id)
    db:close()
  end)

  it("show no value that was replaced before they were queued", function()
    local db, late = orm:session(), beside:session()
    local e = db:new(Kept, { name = "x", n = 1, m = 1 })
    must(db:flush())
    local f = must(late:get(Kept, e.id))
    e.name, e.n = "y", 2
    must(db:flush())
    both_find("y 2 1", Kept, "get", e.id)
    f.m = 7
    must(late:flush_async())
    both_find("y 2 7", Kept, "get", e.id, beside)
    both_find("y 2 7", Kept, "by", "y")
    both_find(nil, Kept, "by", "x")
    support.drain(orm)
    both_find("y 2 7", Kept, "get", e.id)
    db:close()
    late:close()
  end)

  it("are read again after a Redis that came too late to tell of them", function()
    local db = orm:session()
    local e = db:new(Kept, { name = "x", n = 1, m = 1 })
    must(db:flush())
    e.n = 2
    must(db:flush_async())
    local other, redis = world:open({ Kept }, { schema = false }), faults.redis()
    faults.await("a process cache that keeps", function()
      return support.count(other, function() found(other, Kept, "get", 4711) end).redis == 0
    end)
    redis:call("CLIENT", "PAUSE", "400", "ALL")
    assert.matches("^x [12] 1$", (found(other, Kept, "get", e.id))) -- of MySQL, past Redis
    redis:call "PING" -- it is over
    faults.await("Redis to be asked", function()
      return support.count(other, function() found(other, Kept, "get", 4712) end).mysql == 0 -- has been kept meanwhile
    end)
    assert.equal("x 2 1", found(other, Kept, "get", e.id))
    redis:close()
    db:close()
    world:shut(other)
  end)

  it("that become dead letters are read no more", function()
    local db = orm:session()
    must(db:execute "INSERT INTO kept (id, name) VALUES (900001, 'taken')")
    local e = db:new(Kept, { name = "taken", n = 1, m = 1 })
    must(db:flush_async())
    both_find("taken 1 1", Kept, "get", e.id)
    support.drain(orm)
    assert.equal(1, #must(orm:dead_letters()))
    both_find(nil, Kept, "get", e.id)
    both_find("taken 0 0", Kept, "by", "taken")
    db:close()
  end)
end)
