-- SPDX-License-Identifier: MIT
-- Hooks that take entities out of the session, move or write them while these are about to be written: what is
-- written is that entity's row, or nothing.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local behave

local function hook(name)
  return function(e, session)
    local does = behave[name]
    behave[name] = nil -- once
    if does then return does(e, session) end
  end
end

local Note = regolith.entity("note", {
  field.string "name" { required = true, unique = true }, field.uint32 "n",
  cache = { redis = true },
  hooks = {
    before_insert = hook "before_insert", before_update = hook "before_update", before_delete = hook "before_delete",
  },
})

describe("hooks that lead astray", function()
  local world, orm, db, first, second

  setup(function()
    world = support.world()
    orm = world:open { Note }
  end)
  teardown(function() world:close() end)

  before_each(function()
    behave = {}
    local writer = orm:session()
    first, second = writer:new(Note, { name = "first", n = 1 }), writer:new(Note, { name = "second", n = 2 })
    must(writer:flush())
    db = orm:session()
    first = must(db:get(Note, first.id)) -- the one in the first place
  end)
  after_each(function()
    db:close()
    local admin = orm:session()
    must(admin:execute "DELETE FROM note")
    must(orm:invalidate(Note))
    admin:close()
  end)

  --- "name=n" of all rows, by name.
  local function rows()
    local list = {}
    for _, row in ipairs(must(orm:session():query "SELECT name, n FROM note")) do
      list[#list + 1] = row.name .. "=" .. row.n
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  --- Another row is where the entity was.
  local function swap(_, session)
    session:clear()
    must(session:get(Note, second.id))
  end

  local function assert_refused(answer, err)
    local why = type(answer) == "table" and answer.err or err
    assert.is_nil(type(answer) == "table" and answer.applied or nil)
    assert.equal("HOOK", why.code)
    assert.matches("taken out of the session", why.message)
  end

  for way, write in pairs {
    ["update"] = function() return db:update(first, { n = 7 }) end,
    ["update with cas"] = function() return db:update(first, { n = 7 }, { cas = "changes" }) end,
    ["update of a computed value"] = function() return db:update(first, { n = regolith.increment(5) }) end,
    ["update_changed"] = function() return db:update_changed(first, { n = 7 }) end,
    ["update_all"] = function() return must(db:update_all { { first, { n = 7 } } })[1] end,
    ["a deletion in update_all"] = function() return must(db:update_all { { first, delete = true } })[1] end,
    ["delete with cas"] = function() return db:delete(first, { cas = { "n" } }) end,
    ["delete_all"] = function() return must(db:delete_all(Note, { first.id }))[1] end,
  } do
    it("have no other row written: " .. way, function()
      behave.before_update, behave.before_delete = swap, swap
      assert_refused(write())
      assert.equal("first=1 second=2", rows())
      assert.same({ true, 0 }, { db:flush() })
    end)

    it("have the row written where a hook has read it anew: " .. way, function()
      local reload = function(e, session) must(session:reload(session:get(Note, e.id))) end
      behave.before_update, behave.before_delete = reload, reload
      local answer = must(write())
      assert.is_true(answer.applied or answer[1] == "n")
      assert.equal(way:find "^delete" and "second=2" or way:find "deletion" and "second=2"
        or way:find "computed" and "first=6 second=2" or "first=7 second=2", rows())
    end)
  end

  for name, act in pairs {
    discards = function(e, session) session:discard(e) end,
    deletes = function(e, session) session:delete(e) end,
    clears = function(_, session) session:clear() end,
  } do
    it("that " .. name .. " what is to be inserted have it not inserted", function()
      behave.before_insert = act
      local answers = must(db:insert_all(Note, { { name = "third" }, { name = "fourth" } }))
      assert_refused(answers[1])
      assert.equal(name ~= "clears", answers[2].applied or false)
      behave.before_insert = act
      local e, err = db:insert_if_missing(Note, { name = "fifth" })
      assert_refused(e, err)
      behave.before_insert = act
      assert_refused(db:upsert(Note, { name = "fifth", n = 3 }))
      assert.equal("first=1 " .. (name ~= "clears" and "fourth=0 " or "") .. "second=2", rows())
      assert.same({ true, 0 }, { db:flush() })
      assert.is_true(must(db:upsert(Note, { name = "fifth", n = 3 })).inserted)
    end)
  end

  it("that flush what is to be inserted have it inserted once", function()
    behave.before_insert = function(_, session) must(session:flush()) end
    assert_refused(db:insert_if_missing(Note, { name = "third" }))
    assert.equal("first=1 second=2 third=0", rows())
    assert.same({ true, 0 }, { db:flush() })
    local e, made = db:insert_if_missing(Note, { name = "third" })
    assert.equal("third", e.name)
    assert.is_false(made)
  end)
end)
