-- SPDX-License-Identifier: MIT
-- A flush_async of entities of several MySQL pools, which have a queue each: all of it is queued, or nothing.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function entity(name, pool)
  return regolith.entity(name, {
    field.string "name" { nullable = true, unique = true }, field.uint32 "n", cache = true, mysql = pool,
  })
end

local Here = entity("here", nil)
local There = entity("there", "other")

-- What only processes cache is compared with what is there when it is queued.
local function kept(name, pool)
  return regolith.entity(name, {
    field.uint32 "n", field.uint32 "v" { version = true }, cache = { process = true }, mysql = pool,
  })
end

local HereKept = kept("here_kept", nil)
local ThereKept = kept("there_kept", "other")
local all = { Here, There, HereKept, ThereKept }

describe("a queued flush of several pools", function()
  local world, second, orm, db

  local function open(more)
    local config = world:config(all, more)
    config.mysql = { default = world.mysql_url(world.name), other = world.mysql_url(second.name) }
    local made = must(regolith.open(config))
    must(made:schema_apply { destructive = true })
    world.orms[#world.orms + 1] = made
    return made
  end

  setup(function()
    world, second = support.world(), support.world()
    orm = open()
  end)
  teardown(function()
    world:close()
    second:close()
  end)
  before_each(function() db = orm:session() end)

  local function drain()
    local n = 0
    for _, queue in ipairs { "default", "other" } do n = n + support.drain(orm, { queue = queue }) end
    return n
  end

  after_each(function()
    db:close()
    drain()
    local admin = orm:session()
    for _, E in ipairs(all) do
      must(orm:drop("all", E.mysql))
      must(admin:delete_all(E, must(admin:search(E, "1 = 1"):ids())))
    end
    admin:close()
  end)

  local function lengths()
    local list = {}
    for _, queue in ipairs(must(orm:queues())) do list[#list + 1] = queue.queue .. " " .. queue.length end
    table.sort(list)
    return table.concat(list, ", ")
  end

  local function seen(E, id) return orm:session():get(E, id) ~= nil end

  for _, pair in ipairs { { Here, There }, { There, Here } } do
    local First, Second = pair[1], pair[2]

    it("is not queued in part when " .. Second.name .. " is refused, and can be mended", function()
      db:new(Second, { name = "taken" })
      must(db:flush())
      faults.await("a lookup that knows it", function()
        return support.count(orm, function()
          assert.truthy(orm:session():by(Second, "name", "taken"))
        end).mysql == 0
      end)
      local old = db:new(First, { name = "old", n = 1 })
      must(db:flush())
      old.n = 2
      local a, b = db:new(First, { name = "free" }), db:new(Second, { name = "taken" })
      local ok, err = db:flush_async()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "name", Second.name }, { err.code, err.index, err.entity })
      assert.equal("default 0, other 0", lengths())
      assert.same({ false, false, true, true }, { seen(First, a.id), seen(Second, b.id), db:is_new(a), db:is_new(b) })
      assert.equal(1, orm:session():get(First, old.id).n)
      b.name = "mended"
      ok, err = db:flush_async()
      assert.same({ true, 3 }, { ok, err })
      assert.equal("default 1, other 1", lengths())
      assert.equal(3, drain())
      for _, queue in ipairs { "default", "other" } do assert.equal(0, #must(orm:dead_letters(queue))) end
      assert.equal(2, orm:session():search(First, "1 = 1"):count())
      assert.equal("mended", orm:session():get(Second, b.id).name)
    end)
  end

  it("is not queued in part when one queue is full", function()
    local bounded = open { queues = { other = { max_len = 1 } } }
    local session = bounded:session()
    session:new(There, { name = "first" })
    must(session:flush_async())
    local a, b = session:new(Here, { name = "a" }), session:new(There, { name = "b" })
    local ok, err = session:flush_async()
    assert.is_nil(ok)
    assert.equal("BACKPRESSURE", err.code)
    assert.equal("default 0, other 1", lengths())
    assert.is_false(seen(Here, a.id))
    assert.equal(1, drain())
    must(session:flush_async())
    assert.equal(2, drain())
    assert.same({ true, true }, { seen(Here, a.id), seen(There, b.id) })
    session:close()
  end)

  it("goes to MySQL as a whole when a queue without room has it so", function()
    local bounded = open { queues = { other = { max_len = 1, when_full = "sync" } } }
    local session = bounded:session()
    session:new(There, { name = "first" })
    must(session:flush_async())
    session:new(Here, { name = "a" })
    session:new(There, { name = "b" })
    must(session:flush_async())
    assert.equal("default 0, other 1", lengths())
    assert.equal(1, orm:session():search(Here, "name = 'a'"):count())
    assert.equal(1, orm:session():search(There, "name = 'b'"):count())
    session:close()
  end)

  --- A row in each pool, read by db and changed there.
  local function changed(...)
    local list = {}
    for i, E in ipairs { ... } do list[i] = db:new(E, { n = 1 }) end
    must(db:flush_async()) -- now Redis has the script
    drain()
    db:close()
    db = orm:session()
    for i, E in ipairs { ... } do list[i] = db:get(E, list[i].id) end
    for _, e in ipairs(list) do e.n = 2 end
    return list
  end

  --- How often each command or script was sent, and what came of it.
  local function queue()
    local sent = {}
    orm:log(function(event) sent[event.op] = (sent[event.op] or 0) + 1 end, { redis = true })
    local ok, err = db:flush_async()
    orm:log(nil)
    return sent, ok, err
  end

  it("asks each queue once beforehand, and looks at each row once", function()
    local list = changed(HereKept, ThereKept)
    for i, E in ipairs { HereKept, ThereKept } do must(orm:invalidate(E, { list[i].id })) end
    local sent, ok = queue()
    assert.same({ true, 4, 2 }, { ok, sent.enqueue, sent.GET })
    assert.equal("default 1, other 1", lengths())
    assert.equal(2, drain())
    for i, E in ipairs { HereKept, ThereKept } do assert.equal(2, orm:session():get(E, list[i].id).n) end
  end)

  it("asks nothing beforehand when all of it is of one pool", function()
    changed(Here)
    assert.equal(1, queue().enqueue)
    assert.equal(1, drain())
  end)

  for _, pair in ipairs { { HereKept, ThereKept }, { ThereKept, HereKept } } do
    it("queues nothing when a row of " .. pair[2].name .. " is not as it was read", function()
      local list = changed(pair[1], pair[2])
      local other = orm:session()
      other:get(pair[2], list[2].id).n = 7
      must(other:flush())
      local sent, ok, err = queue()
      assert.same({ nil, "CONFLICT", pair[2].name }, { ok, err.code, err.entity })
      assert.is_true((sent.enqueue or 0) <= 1)
      assert.equal("default 0, other 0", lengths())
      assert.same({ 1, 7 }, { orm:session():get(pair[1], list[1].id).n, orm:session():get(pair[2], list[2].id).n })
      db:discard(list[2])
      must(db:flush_async())
      assert.equal(1, drain())
      assert.equal(2, orm:session():get(pair[1], list[1].id).n)
      other:close()
    end)
  end
end)
