-- SPDX-License-Identifier: MIT
-- Many rows by id: the servers are asked first, and take their time while the tables are made.

local faults = require "support.faults"
local native = require "regolith.native"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local C, field = native.C, regolith.field
local MANY = 40

local function note(name, cache)
  return regolith.entity(name, {
    field.string "text" { length = 100 },
    field.uint32 "n",
    field.bool "odd",
    field.string "more" { length = 20, nullable = true },
    field.struct "place" { field.double "x", field.double "y" { nullable = true } },
    cache = cache,
    hooks = { after_load = function(e, db) if db.loaded then db.loaded[#db.loaded + 1] = e.id end end },
  })
end

local Notes = {
  none = note("many_none", false),
  redis = note("many_redis", { redis = true }),
  both = note("many_both", { redis = true, process = true }),
}

describe("many by id", function()
  local world, orm, proxy, by_proxy, ids

  local function fill(E)
    local db, list = orm:session(), {}
    for i = 1, MANY do
      list[i] = must(db:new(E, { text = "note " .. i, n = i, odd = i % 2 == 1, more = i % 3 == 0 and "more" or nil,
        place = { x = i / 2, y = i % 5 == 0 and i or nil } }))
    end
    must(db:flush())
    for i = 1, MANY do list[i] = list[i].id end
    db:close()
    return list
  end

  setup(function()
    world = support.world()
    orm = world:open { Notes.none, Notes.redis, Notes.both }
    proxy = faults.proxy()
    by_proxy = world:open({ Notes.none, Notes.redis }, { mysql = proxy:url(world.name), schema = false })
    ids = {}
    for name, E in pairs(Notes) do ids[name] = fill(E) end
  end)
  teardown(function()
    world:close()
    proxy:stop()
  end)

  local function check(list, wanted)
    for i = 1, MANY do
      local e = list[i]
      assert.same({ id = wanted[i], text = "note " .. i, n = i, odd = i % 2 == 1, more = i % 3 == 0 and "more" or nil,
        place = { x = i / 2, y = i % 5 == 0 and i or nil } }, setmetatable(e, nil))
    end
  end

  --- Were the servers asked before the operation ran?
  local function asks(with, E, list)
    local op = must(C.rg_op_get(with._engine, with._types[E].number, 0, native.err))
    for _, id in ipairs(list) do C.rg_op_add_id(op, id, native.err) end
    local asked = C.rg_op_ask(op, 0)
    return asked == 1, op
  end

  local function are_asked(with, E, list)
    local asked, op = asks(with, E, list)
    C.rg_op_free(op)
    return asked
  end

  for _, name in ipairs { "none", "redis", "both" } do
    local E = Notes[name]

    it("gives every row as it is, whether the servers were asked before or not: " .. name, function()
      for round = 1, 3 do
        local db = orm:session()
        check(must(db:get_many(E, ids[name])), ids[name])
        if round < 3 then must(orm:invalidate(E, ids[name])) end
      end
    end)

    it("knows absent, repeated and known ones: " .. name, function()
      for _ = 1, 2 do
        local db = orm:session()
        local known, wanted = must(db:get(E, ids[name][3])), {}
        rawset(db, "loaded", {})
        for i = 1, MANY do
          wanted[#wanted + 1] = ids[name][i]
          wanted[#wanted + 1] = 900000000 + i
          wanted[#wanted + 1] = ids[name][1]
        end
        local list = must(db:get_many(E, wanted))
        assert.equal(3 * MANY, list.n)
        for i = 1, MANY do
          assert.equal("note " .. i, list[3 * i - 2].text)
          assert.is_nil(list[3 * i - 1])
          assert.equal(list[1], list[3 * i])
        end
        assert.equal(known, list[7])
        assert.equal(MANY - 1, #db.loaded)
      end
    end)
  end

  it("asks before it makes the tables, where servers can be asked that way", function()
    for _, name in ipairs(support.is_mariadb() and { "redis", "none" } or { "redis" }) do
      faults.await("a question: " .. name, function() -- but once a second, when Redis is asked who it is
        must(orm:session():get_many(Notes[name], ids[name]))
        return are_asked(orm, Notes[name], ids[name])
      end)
    end
  end)

  it("asks nothing before for a query log, which tells how long each took, nor in a transaction", function()
    faults.await("one command", function() -- but once a second, when Redis is asked who it is
      return support.count(orm, function()
        assert.is_false(are_asked(orm, Notes.redis, ids.redis))
        must(orm:session():get_many(Notes.redis, ids.redis))
      end).redis == 1
    end)
    assert.equal(1, support.count(orm, function() must(orm:session():get_many(Notes.none, ids.none)) end).mysql)
    local db = orm:session()
    local _, fault = db:transaction(function()
      must(db:execute("UPDATE `many_none` SET `text` = 'mine' WHERE id = ?", ids.none[2]))
      assert.equal("mine", must(db:get_many(Notes.none, ids.none))[2].text)
      return nil, "back"
    end)
    assert.equal("back", fault)
  end)

  it("asks for what is in the caches by then: a write in between is not lost", function()
    for _, name in ipairs { "redis", "none" } do
      local E = Notes[name]
      must(orm:session():get_many(E, ids[name]))
      local db = orm:session()
      local e = must(db:get(E, ids[name][5]))
      e.n = e.n + 1000
      must(db:flush())
      assert.equal(1005, must(orm:session():get_many(E, ids[name]))[5].n)
      e.n = 5
      must(db:flush())
    end
  end)

  it("leaves connections fit for use when nobody takes the answer", function()
    for _, name in ipairs { "redis", "none" } do
      for _ = 1, 20 do
        must(orm:session():get_many(Notes[name], ids[name]))
        local _, op = asks(orm, Notes[name], ids[name])
        C.rg_op_free(op)
        check(must(orm:session():get_many(Notes[name], ids[name])), ids[name])
      end
    end
    for _, pool in ipairs(must(orm:health())) do
      assert.is_true(pool.ok)
      assert.is_true(pool.busy <= 1, pool.kind .. " has lent " .. pool.busy) -- to the question itself
      assert.is_true(pool.idle <= 2, pool.kind .. " keeps " .. pool.idle)
    end
  end)

  it("is answered when the connection is cut at any point", function()
    local name = "none"
    for _, when in ipairs { "before", "after" } do
      for n = 1, 3 do
        proxy:say "pass"
        must(by_proxy:session():get_many(Notes[name], ids[name]))
        must(by_proxy:session():get_many(Notes[name], ids[name]))
        proxy:say(("cut %d %s"):format(n, when))
        for _ = 1, n do
          local list, fault = by_proxy:session():get_many(Notes[name], ids[name])
          if list then check(list, ids[name]) else assert.equal("UNAVAILABLE", fault.code) end
        end
        proxy:say "pass"
        check(must(by_proxy:session():get_many(Notes[name], ids[name])), ids[name])
      end
    end
  end)

  it("is answered when Redis has closed the connections, and when it holds them up", function()
    local name = "redis"
    for _ = 1, 5 do
      must(orm:session():get_many(Notes[name], ids[name]))
      support.redis("CLIENT", "KILL", "TYPE", "normal")
      check(must(orm:session():get_many(Notes[name], ids[name])), ids[name])
    end
    support.redis("CLIENT", "PAUSE", "700")
    check(must(orm:session():get_many(Notes[name], ids[name])), ids[name])
  end)

  it("ends by its deadline, and the next one is answered", function()
    local db = orm:session()
    must(orm:session():get_many(Notes.none, ids.none))
    must(db:connection(function(conn)
      must(conn:execute "LOCK TABLES `many_none` WRITE")
      local started = faults.now()
      local list, fault = orm:session({ timeout_ms = 300 }):get_many(Notes.none, ids.none)
      assert.is_nil(list)
      assert.equal("TIMEOUT", fault.code)
      assert.is_true(faults.now() - started < 5)
      must(conn:execute "UNLOCK TABLES")
      return true
    end))
    check(must(orm:session():get_many(Notes.none, ids.none)), ids.none)
  end)
end)
