-- SPDX-License-Identifier: MIT
-- What every way to write on a condition tells: the same event as a flush would, when it was made and only
-- then; and the hooks around it, in order.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must, field = support.must, regolith.field
local trail = {}

local function note(name)
  return function(_, _, answer) trail[#trail + 1] = answer and name .. ":" .. answer.outcome or name end
end

local Member = regolith.entity("member", {
  field.string "name" { required = true, unique = true },
  field.uint32 "n",
  field.json "tags" { nullable = true },
  field.uint32 "v" { version = true },
  cache = { redis = true },
  events = { members = true },
  hooks = {
    before_insert = note "before_insert", after_insert = note "after_insert",
    before_update = note "before_update", after_update = note "after_update",
    before_delete = note "before_delete", after_delete = note "after_delete",
    validate = note "validate", on_conflict = note "on_conflict",
  },
})

describe("cas events and hooks:", function()
  local world, orm, db, other, redis

  setup(function()
    world = support.world()
    orm = world:open { Member }
    redis = faults.redis()
  end)
  teardown(function()
    redis:close()
    world:close()
  end)
  before_each(function() db, other = orm:session(), orm:session() end)
  after_each(function()
    db:close()
    other:close()
  end)

  local function relay()
    faults.await("an empty outbox", function()
      must(orm:relay())
      return must(other:query "SELECT COUNT(*) AS n FROM _regolith_outbox")[1].n == 0
    end)
  end

  --- Events of one row, without its id.
  local function told(id)
    relay()
    local list = {}
    for _, entry in ipairs(must(redis:call("XRANGE", orm:stream_key "members", "-", "+"))) do
      local body = regolith.json_decode(entry[2][4])
      if body.id == id then
        body.id, body.entity = nil, nil
        list[#list + 1] = body
      end
    end
    return list
  end

  local count = 0

  --- A stored row, and the same in the other session.
  local function stored(n)
    count = count + 1
    local e = must(db:new(Member, { name = "m" .. count, n = n or 1 }))
    must(db:flush())
    trail = {}
    return e, must(other:get(Member, e.id))
  end

  --- What somebody else does to a row; no part of the trail.
  local function meanwhile(twin, changes)
    local kept = trail
    trail = {}
    must(other:update(twin, changes))
    trail = kept
  end

  local function last(id)
    local list = told(id)
    return list[#list], #list
  end

  --- Ways to set n to 7 where n is 1: each answers whether it was made.
  local updates = {
    ["update"] = function(e) return must(db:update(e, { n = 7 }, { cas = { n = 1 } })).applied end,
    ["update of names"] = function(e) return must(db:update(e, { n = 7 }, { cas = { "n" } })).applied end,
    ["update by shorthand"] = function(e) return must(db:update(e, { n = 7 }, { cas = "changes" })).applied end,
    ["update by version"] = function(e) return must(db:update(e, { n = 7 }, { cas = "version" })).applied end,
    ["update by the server"] = function(e)
      return must(db:update(e, { n = regolith.increment(6) }, { cas = { n = 1 } })).applied
    end,
    ["a guarded increment"] = function(e)
      return must(db:update(e, { n = regolith.increment(6, { max = 7 }) })).applied
    end,
    ["compare_and_set"] = function(e) return (db:compare_and_set(e, { n = 7 }, { n = 1 })) end,
    ["update_changed"] = function(e) return (db:update_changed(e, { n = 7 }, { cas = "changes" })) end,
    ["update_all"] = function(e) return must(db:update_all { { e, { n = 7 }, cas = { n = 1 } } })[1].applied end,
    ["read_modify_write"] = function(e, clash)
      return must(db:read_modify_write(e, function(it)
        if clash then meanwhile(clash, { n = 40 + it.n }) end
        return { n = 7 }
      end, { tries = 1 })).applied
    end,
    ["upsert"] = function(e) return must(db:upsert(Member, { name = e.name, n = 7 }, { cas = { n = 1 } })).applied end,
  }

  for name, update in pairs(updates) do
    it(name .. " tells what a flush would tell, when it was made", function()
      local model = stored()
      model.n = 7
      must(db:flush())
      assert.same({ "before_update", "validate", "after_update" }, trail)
      local wanted = last(model.id)
      local e = stored()
      assert.is_truthy(update(e))
      local event, n = last(e.id)
      assert.equal(2, n)
      if name:find "server" or name:find "increment" then wanted.values.v, event.values.v = nil, nil end
      table.sort(wanted.changed)
      table.sort(event.changed)
      assert.same(wanted, event)
      assert.equal(3, #trail)
      assert.same({ "before_update", "validate" }, { trail[1], trail[2] })
      assert.matches("^after_update", trail[3])
    end)

    it(name .. " tells nothing when it was not made, but the hook on_conflict", function()
      local e, twin = stored()
      if name == "read_modify_write" then
        assert.is_falsy(update(e, twin))
      else
        meanwhile(twin, { n = 3 })
        assert.is_falsy(update(e))
      end
      assert.same({ "before_update", "validate", "on_conflict:conflict" }, trail)
      assert.equal(2, #told(e.id))
    end)
  end

  it("an update that says nothing of conditions tells the same", function()
    local e = stored()
    assert.is_true(must(db:update(e, { n = 7 })).changed)
    assert.same({ "before_update", "validate", "after_update" }, trail)
    assert.same({ "n", "v" }, last(e.id).changed)
  end)

  it("nothing is told of what is as expected and stays", function()
    local e = stored()
    assert.is_true(must(db:update(e, { n = 1 }, { cas = { n = 1 } })).unchanged)
    assert.same({ "before_update", "validate" }, trail)
    assert.equal(1, #told(e.id))
  end)

  it("deletes tell when they were made", function()
    local one, two, three = stored(), stored(), stored()
    must(other:update(must(other:get(Member, two.id)), { n = 2 }))
    trail = {}
    assert.is_true(must(db:delete(one, { cas = { n = 1 } })).applied)
    assert.is_true(must(db:delete(two, { cas = { n = 1 } })).conflict)
    assert.is_true(must(db:delete_all(Member, { three.id, 4711000 }))[1].applied)
    assert.same({ "before_delete", "after_delete:applied", "before_delete", "on_conflict:conflict", "before_delete",
      "after_delete:applied" }, trail)
    assert.equal("delete", last(one.id).kind)
    assert.equal("update", last(two.id).kind)
    assert.equal("delete", last(three.id).kind)
  end)

  it("inserts tell when they were made", function()
    local taken = stored()
    local answers = must(db:insert_all(Member, { { name = "fresh", n = 1 }, { name = taken.name, n = 1 } }))
    assert.is_true(answers[1].applied)
    assert.equal("DUPLICATE_KEY", answers[2].err.code)
    assert.same({ "before_insert", "validate", "before_insert", "validate", "after_insert:applied" }, trail)
    assert.equal("insert", last(answers[1].entity.id).kind)
    trail = {}
    local made = must(db:upsert(Member, { name = "upserted", n = 2 }))
    assert.is_true(made.inserted)
    assert.same({ "before_insert", "validate", "after_insert" }, trail)
    local event, n = last(made.entity.id)
    assert.same({ "insert", 2, 1 }, { event.kind, event.values.n, n })
    trail = {}
    local found, was_made = db:insert_if_missing(Member, { name = "upserted", n = 9 })
    assert.same({ made.entity.id, false }, { found.id, was_made })
    assert.same({}, trail)
    local missing = must(db:insert_if_missing(Member, { name = "missing", n = 3 }))
    assert.same({ "before_insert", "validate", "after_insert" }, trail)
    assert.equal(1, #told(missing.id))
  end)

  it("writes of one row each tell, in their order", function()
    local e = stored()
    local answers = must(db:update_all { { e, { n = 2 }, cas = { n = 1 } }, { e, { n = 3 }, cas = { n = 1 } },
      { e, { n = 4 }, cas = { n = 2 } } })
    assert.same({ "applied", "conflict", "applied" },
      { answers[1].outcome, answers[2].outcome, answers[3].outcome })
    local list = told(e.id)
    assert.same({ 1, 2, 4 }, { list[1].values.n, list[2].values.n, list[3].values.n })
    assert.equal(3, #list)
  end)

  it("all of a flush on a condition, or none of it", function()
    local e, twin = stored()
    local bystander = stored()
    e.n, bystander.n = 5, 5
    meanwhile(twin, { n = 2 })
    assert.equal("CONFLICT", select(2, db:flush { cas = "changes" }).code)
    assert.equal(2, #told(e.id))
    assert.equal(1, #told(bystander.id))
    db:discard(e)
    must(db:reload(e))
    e.n = 5
    must(db:flush { cas = "changes" })
    assert.same({ 5, 5 }, { last(e.id).values.n, last(bystander.id).values.n })
  end)

  it("with the transaction that they are part of, or not at all", function()
    local e = stored()
    must(db:transaction(function()
      assert.is_true(must(db:update(e, { n = 2 }, { cas = { n = 1 } })).applied)
      assert.equal(1, #told(e.id))
      return true
    end))
    assert.equal(2, last(e.id).values.n)
    db:transaction(function(tx)
      must(db:update(e, { n = 3 }, { cas = { n = 2 } }))
      must(db:update_all { { e, { n = 4 }, cas = { n = 3 } } })
      tx:rollback_only()
    end)
    assert.equal(2, #told(e.id))
  end)

  it("of a queued flush once it is applied, and nothing of a dead letter", function()
    local e, twin = stored()
    e.n = 7
    must(db:flush_async { cas = "changes" })
    assert.same({ "before_update", "validate", "after_update" }, trail)
    assert.equal(1, #told(e.id))
    support.drain(orm)
    local event = last(e.id)
    assert.same({ "update", 7 }, { event.kind, event.values.n })
    must(other:reload(twin))
    e.n = 8
    must(db:flush_async { cas = "changes" })
    must(orm:session():execute("UPDATE member SET n = 50 WHERE id = ?", e.id))
    support.drain(orm)
    assert.equal(2, #told(e.id))
    must(orm:drop "all")
  end)
end)
