-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

describe("hooks", function()
  local world, orm, db
  local calls, behave

  --- A hook that notes its call and does what the test wants.
  local function hook(name)
    return function(e, session)
      calls[#calls + 1] = name
      if behave[name] then return behave[name](e, session) end
    end
  end

  local hooks = {}
  for _, name in ipairs {
    "before_insert", "after_insert", "before_update", "after_update", "before_delete", "after_delete",
    "after_load", "validate",
  } do
    hooks[name] = hook(name)
  end

  local Note = regolith.entity("note", {
    field.string "title" { required = true }, field.uint32 "n",
    hooks = hooks,
  })
  local Plain = regolith.entity("plain", { field.string "text" })

  setup(function()
    world = support.world()
    orm = world:open { Note, Plain }
  end)
  teardown(function() world:close() end)

  before_each(function()
    calls, behave = {}, {}
    db = orm:session()
  end)
  after_each(function() db:close() end)

  it("are asked before and told after each write", function()
    local note = db:new(Note, { title = "a" })
    must(db:flush())
    note.n = 5
    must(db:flush())
    db:delete(note)
    must(db:flush())
    assert.same({
      "before_insert", "validate", "after_insert", "before_update", "validate", "after_update",
      "before_delete", "after_delete",
    }, calls)
  end)

  it("are not asked about what has not changed", function()
    local note = db:new(Note, { title = "a" })
    must(db:flush())
    calls = {}
    note.title = "a"
    must(db:flush())
    assert.same({}, calls)
  end)

  it("are told about loading", function()
    local id = db:new(Note, { title = "a" }).id
    must(db:flush())
    db:clear()
    calls = {}
    behave.after_load = function(note, session)
      assert.equal("a", note.title)
      assert.equal(db, session)
    end
    db:get(Note, id)
    db:get(Note, id)
    assert.same({ "after_load" }, calls)
  end)

  it("that fail to take an entity in leave the session without it", function()
    local first, second = db:new(Note, { title = "a", n = 1 }), db:new(Note, { title = "b", n = 1 })
    must(db:flush())
    local ids = { first.id, second.id }
    db:clear()
    behave.after_load = function(note)
      if note.title == "b" then error({ code = "NOT_MINE" }) end
    end
    for _ = 1, 2 do
      local ok, fault = pcall(db.get, db, Note, ids[2])
      assert.is_false(ok)
      assert.equal("NOT_MINE", fault.code)
      ok, fault = pcall(db.get_many, db, Note, ids)
      assert.is_false(ok)
      assert.equal("NOT_MINE", fault.code)
    end
    behave.after_load = function(note) note.n = 5 end
    assert.equal(5, db:get(Note, ids[2]).n)
    assert.equal("a", db:get(Note, ids[1]).title)
    must(db:flush())
  end)

  it("may change the entity", function()
    behave.before_insert = function(note) note.title = note.title:lower() end
    behave.before_update = function(note) note.n = note.n + 1 end
    local note = db:new(Note, { title = "ABC" })
    must(db:flush())
    note.n = 10
    must(db:flush())
    db:clear()
    note = db:get(Note, note.id)
    assert.same({ "abc", 11 }, { note.title, note.n })
  end)

  it("may make other entities, which are written too", function()
    behave.before_insert = function(note, session) session:new(Plain, { text = note.title }) end
    db:new(Note, { title = "a" })
    assert.equal(2, select(2, db:flush()))
  end)

  it("refuse by raising, by false and by nil with a message", function()
    local refusals = {
      [function() error("no way", 0) end] = "no way",
      [function() return false, "no way" end] = "no way",
      [function() return nil, "no way", "title" end] = "no way",
      [function() return false end] = "refused",
    }
    for refusal, message in pairs(refusals) do
      behave.validate = refusal
      local note = db:new(Note, { title = "a" })
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "HOOK", "validate", "note" }, { err.code, err.hook, err.entity })
      assert.matches(message, err.message)
      assert.equal(note, err.row)
      assert.is_true(db:is_new(note))
      db:discard()
    end
    assert.equal("title", (function()
      behave.validate = function() return nil, "x", "title" end
      db:new(Note, { title = "a" })
      return select(2, db:flush()).field
    end)())
    db:discard()
    assert.is_nil(orm:session():search(Note, "title = 'nobody'"):one())
  end)

  it("stop everything before any SQL", function()
    behave.before_delete = function() error "kept" end
    local note = db:new(Note, { title = "kept" })
    must(db:flush())
    db:new(Note, { title = "other" })
    db:delete(note)
    local counts = support.count(orm, function() assert.is_nil((db:flush())) end)
    assert.equal(0, counts.mysql)
    behave.before_delete = nil
    assert.equal(2, select(2, db:flush()))
  end)

  it("that fail afterwards are reported; the flush stands", function()
    local reported = {}
    local own = world:open({ Note }, { on_error = function(err) reported[#reported + 1] = err end })
    behave.after_insert = function() error("late", 0) end
    local session = own:session()
    local note = session:new(Note, { title = "a" })
    local ok, changes, failures = session:flush()
    assert.same({ true, 1, 1 }, { ok, changes, #failures })
    assert.equal("after_insert", failures[1].hook)
    assert.equal(failures[1], reported[1])
    assert.is_false(session:is_new(note))
    session:close()
    world:shut(own)
  end)

  it("fail with whatever they like, and their reporter may fail too", function()
    local mute = setmetatable({}, { __tostring = function() error "no name" end })
    local reporting = world:open({ Note, Plain }, { on_error = function() error "no reporter" end, schema = false })
    local session = reporting:session()
    behave.before_insert = function() error(mute) end
    session:new(Note, { title = "a" })
    local ok, err = session:flush()
    assert.is_nil(ok)
    assert.same({ "HOOK", "before_insert" }, { err.code, err.hook })
    assert.equal(mute, err.cause)

    local told = 0
    behave.before_insert = nil
    behave.after_insert = function()
      told = told + 1
      error(mute)
    end
    session:new(Note, { title = "b" })
    local n, failures
    ok, n, failures = session:flush()
    assert.same({ true, 2, 2, 2 }, { ok, n, #failures, told })
    local answers = must(session:insert_all(Note, { { title = "c" } }))
    assert.is_true(answers[1].applied)
    assert.equal(mute, answers[1].failures[1].cause)
    behave.after_insert = nil
    told = 0
    assert.is_true(session:transaction(function(tx)
      for _ = 1, 2 do
        tx:commit(function()
          told = told + 1
          error(mute)
        end)
      end
      session:new(Note, { title = "d" })
      return true
    end))
    assert.same({ 2, 2 }, { told, #session:outcome().failures })
    session:close()
  end)

  it("may flush again afterwards, not before", function()
    behave.after_insert = function(note, session)
      session:set(note, { n = 77 })
      behave.after_insert = nil
      must(session:flush())
    end
    local note = db:new(Note, { title = "a" })
    must(db:flush())
    assert.equal(77, orm:session():get(Note, note.id).n)
    behave.before_insert = function(_, session) session:flush() end
    db:new(Note, { title = "b" })
    local _, err = db:flush()
    assert.equal("HOOK", err.code)
    assert.matches("within a hook", err.message)
    db:discard()
  end)

  it("are asked about update and flush_async too", function()
    local note = db:new(Note, { title = "a" })
    must(db:flush_async())
    assert.same({ "before_insert", "validate", "after_insert" }, calls)
    support.drain(orm)
    calls = {}
    behave.before_update = function(shadow) shadow.title = shadow.title .. "!" end
    must(db:update(note, { n = 3 }))
    assert.same({ 3, "a!" }, { note.n, note.title })
    behave.validate = function() return nil, "never" end
    local answer, err = db:update(note, { n = 4 })
    assert.is_nil(answer)
    assert.equal("HOOK", err.code)
    assert.equal(3, note.n)
  end)

  it("without end are stopped", function()
    behave.before_insert = function(_, session) session:new(Note, { title = "again" }) end
    db:new(Note, { title = "a" })
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.matches("without end", err.message)
  end)
end)
