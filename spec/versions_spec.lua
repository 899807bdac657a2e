-- SPDX-License-Identifier: MIT
-- Two versions of a program at work at the same time, as while one replaces the other: what they define
-- differs, and neither believes, or leaves behind, what the other would read otherwise.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function ids(list)
  local out = {}
  for i, e in ipairs(must(list)) do out[i] = e.id end
  return out
end

describe("two versions of a program", function()
  local world, orms

  before_each(function() world, orms = support.world(), {} end)
  after_each(function() world:close() end)

  --- A version: its ORM, and what it says of a thing.
  local function version(name, args)
    args[#args + 1] = field.uint32 "a"
    args[#args + 1] = field.uint32 "b"
    local Thing = regolith.entity("thing", args)
    orms[name] = world:open({ Thing }, { schema = next(orms) == nil })
    return orms[name], Thing
  end

  local function listed(orm, Thing, value)
    local db = orm:session()
    local list = ids(db:all_by(Thing, "x", value))
    db:close()
    return list
  end

  local function fill(orm, Thing)
    local db = orm:session()
    for i = 1, 6 do db:new(Thing, { id = i, a = i % 2, b = i % 3 }) end
    must(db:flush())
    db:close()
  end

  local function write(orm, Thing, id, values, way)
    local db = orm:session()
    db:set(must(db:get(Thing, id)), values)
    local ok, err = db[way or "flush"](db)
    db:close()
    return ok, err
  end

  it("do not share lists of an index that is another one under the same name", function()
    local one, One = version("one", { ids = "application", index = { x = { "a", cached = true } }, cache = true })
    fill(one, One)
    assert.same({}, listed(one, One, 2))
    assert.same({ 1, 3, 5 }, listed(one, One, 1))
    local two, Two = version("two", { ids = "application", index = { x = { "b", cached = true } }, cache = true })
    assert.same({ 2, 5 }, listed(two, Two, 2))
    assert.same({ 1, 4 }, listed(two, Two, 1))
    assert.same({ 1, 3, 5 }, listed(one, One, 1))
  end)

  it("count rows of other columns as a miss, and keep each other's", function()
    local one, One = version("one", { ids = "application", cache = { redis = true } })
    must(one:session():connection(function(c)
      return c:execute "ALTER TABLE thing ADD extra VARCHAR(10) NOT NULL DEFAULT ''"
    end))
    local two, Two = version("two", { ids = "application", field.string "extra" { length = 10 },
      cache = { redis = true } })
    fill(one, One)
    for i = 1, 3 do
      must(write(two, Two, 1, { a = 10 + i, extra = "e" .. i }))
      assert.equal(10 + i, one:session():get(One, 1).a)
      must(write(one, One, 1, { a = 20 + i }))
      local row = two:session():get(Two, 1)
      assert.same({ 20 + i, "e" .. i }, { row.a, row.extra })
    end
  end)

  local CONSUMERS = {
    ["lacks the index"] = { cache = true },
    ["has another index of that name"] = { index = { x = { "b", cached = true } }, cache = true },
    ["caches nothing"] = {},
  }

  --- What is queued stays visible until it is applied; then it is the database's, and can be written again.
  local function assert_settled(one, One, consumer, becomes)
    assert.same({ 1, 3, 5 }, listed(one, One, 1))
    must(write(one, One, 1, { a = 0 }, "flush_async"))
    must(write(one, One, 2, { a = 1 }, "flush_async"))
    support.as_redis_answers(one, function() assert.same({ 2, 3, 5 }, listed(one, One, 1)) end)
    support.drain(consumer)
    local function is_known()
      local db = one:session()
      for id = 1, 3 do
        local row = must(db:get(One, id))
        if row.a ~= must(db:reload(row)).a then return db:close() end
      end
      db:close()
      return table.concat(listed(one, One, 1), " ") == table.concat(becomes, " ")
    end
    faults.await("the news of what another process has applied", is_known)
    must(write(one, One, 3, { a = 0 }))
    must(write(one, One, becomes[1], { a = 7 }))
    assert.same({ becomes[1] }, listed(one, One, 7))
    local db = one:session()
    for id = 1, 3 do
      local row = must(db:get(One, id))
      assert.equal(row.a, must(db:reload(row)).a)
    end
    db:close()
  end

  for what, args in pairs(CONSUMERS) do
    it("leave nothing pending where the consumer " .. what, function()
      local one, One = version("one", { ids = "application", index = { x = { "a", cached = true } }, cache = true })
      fill(one, One)
      args.ids = "application"
      local two = version("two", args)
      assert_settled(one, One, two, { 2, 3, 5 })
    end)
  end

  it("leave nothing pending where the consumer has no such entity", function()
    local one, One = version("one", { ids = "application", index = { x = { "a", cached = true } }, cache = true })
    fill(one, One)
    local Other = regolith.entity("other", { field.uint32 "n" })
    local two = world:open({ Other })
    assert_settled(one, One, two, { 1, 3, 5 }) -- dead letters
    assert.equal(2, #must(one:dead_letters()))
  end)

  it("wait for rows that the other has queued, which they cannot read", function()
    local one, One = version("one", { ids = "application", cache = { redis = true } })
    fill(one, One)
    must(one:session():connection(function(c) return c:execute "ALTER TABLE thing ADD extra VARCHAR(10) NULL" end))
    local two, Two = version("two", { ids = "application", field.string "extra" { length = 10, nullable = true },
      cache = { redis = true } })
    must(write(one, One, 1, { a = 7 }, "flush_async"))
    local db = two:session()
    must(db:get(Two, 1)).b = 8
    db._timeout_ms = 1500
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.equal("TIMEOUT", err.code)
    db:close()
    support.drain(one)
    db = two:session()
    must(db:get(Two, 1)).b = 8
    must(db:flush_async())
    support.drain(two)
    local row = must(db:query "SELECT a, b FROM thing WHERE id = 1")[1]
    assert.same({ a = 7, b = 8 }, row)
    db:close()
  end)
end)
