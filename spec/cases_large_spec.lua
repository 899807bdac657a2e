-- SPDX-License-Identifier: MIT
-- Many rows in one flush and large values: what is right for one is right for thousands, and costs no
-- more than their number.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local N = 3000
local Item = regolith.entity("item", {
  field.string "name" { unique = true }, field.uint32 "shelf" { index = true, cached = true },
  field.text "text" { length = 4000000 },
  cache = { process = true, redis = true, all = true },
})

describe("thousands of rows", function()
  local world, orm
  setup(function()
    world = support.world()
    orm = world:open { Item }
  end)
  teardown(function() world:close() end)

  local function ids_of(list)
    local ids = {}
    for i, e in ipairs(list) do ids[i] = e.id end
    return ids
  end

  --- Every list and every row is as the model has it: id -> { name, shelf, length of text }.
  local function check(model, what)
    local db, ids, shelves = orm:session(), {}, {}
    for id in pairs(model) do ids[#ids + 1] = id end
    table.sort(ids)
    for _, id in ipairs(ids) do
      local shelf = model[id].shelf
      shelves[shelf] = shelves[shelf] or {}
      table.insert(shelves[shelf], id)
    end
    assert.same(ids, ids_of((db:all(Item))), what)
    for shelf = 0, 6 do assert.same(shelves[shelf] or {}, ids_of((db:all_by(Item, "shelf", shelf))), what) end
    db:clear()
    local list = must(db:get_many(Item, ids))
    assert.equal(#ids, list.n)
    for i, id in ipairs(ids) do
      local wanted = model[id]
      assert.same({ wanted.name, wanted.shelf, wanted.len }, { list[i].name, list[i].shelf, #list[i].text })
    end
    for i = 1, #ids, 500 do assert.equal(ids[i], db:by(Item, "name", model[ids[i]].name).id) end
    db:close()
  end

  for _, way in ipairs { "flush", "flush_async" } do
    it("are inserted, changed and deleted together: " .. way, function()
      math.randomseed(5)
      local db, model, made = orm:session(), {}, {}
      local function settle(what)
        must(db[way](db))
        if way == "flush" then
          check(model, what)
        else
          support.as_redis_answers(orm, function() check(model, what .. ", queued") end)
          support.drain(orm)
          check(model, what .. ", applied")
        end
        must(orm:invalidate(Item))
        check(model, what .. ", from MySQL")
      end
      check(model, "nothing")
      for i = 1, N do
        local values = { name = way .. i, shelf = i % 3, text = ("x"):rep(i % 100) }
        made[i] = must(db:new(Item, values))
        model[made[i].id] = { name = values.name, shelf = values.shelf, len = i % 100 }
      end
      settle "inserted"
      for i = 1, N do
        local e, m = made[i], model[made[i].id]
        if i % 4 == 0 then
          db:delete(e)
          model[e.id], made[i] = nil, nil
        elseif i % 4 == 1 then
          e.shelf, e.name = math.random(0, 6), "renamed " .. i
          m.shelf, m.name = e.shelf, e.name
        elseif i % 4 == 2 then
          e.text = ("y"):rep(i % 200)
          m.len = i % 200
        end
      end
      for i = 1, N / 4 do -- they take the names of those that go
        local values = { name = way .. i * 4, shelf = 6 - i % 3 }
        local e = must(db:new(Item, values))
        made[i * 4] = e
        model[e.id] = { name = values.name, shelf = values.shelf, len = 0 }
      end
      settle "changed"
      for i = 1, N do
        if made[i] then db:delete(made[i]) end
      end
      model = {}
      settle "deleted"
      assert.same({}, must(orm:dead_letters()))
      db:close()
    end)
  end

  it("may hold megabytes each", function()
    local db, made = orm:session(), {}
    for _, way in ipairs { "flush", "flush_async", "flush" } do
      for i = 1, 6 do
        made[i] = made[i] or must(db:new(Item, { name = "large " .. i }))
        made[i].text = string.char(96 + i):rep(3000000 + i + #way)
      end
      must(db[way](db))
      for round = 1, 3 do
        if round == 2 then support.drain(orm) end
        if round == 3 then must(orm:invalidate(Item)) end
        support.as_redis_answers(orm, function()
          local other = orm:session()
          for i = 1, 6 do assert.equal(made[i].text, other:get(Item, made[i].id).text) end
          other:close()
        end)
      end
    end
    for i = 1, 6 do db:delete(made[i]) end
    must(db:flush())
    db:close()
  end)
end)
