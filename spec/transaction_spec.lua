-- SPDX-License-Identifier: MIT
-- Scopes of transactions: how they begin, join, suspend and end, what the session and its callbacks see
-- of that, and what is refused.

local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  field.int32 "n",
  unique = { title = { "title" } },
  index = { by_n = { "n", cached = true } },
  cache = { process = true, redis = true },
})

describe("transaction", function()
  local world, orm, db, told

  setup(function()
    world = support.world()
    orm = world:open({ Note }, { on_error = function(e) told[#told + 1] = e end })
    local session = orm:session()
    session:new(Note, { title = "reserves ids" })
    session:close()
  end)
  teardown(function() world:close() end)
  before_each(function()
    told = {}
    db = orm:session()
  end)
  after_each(function()
    assert.is_nil(rawget(db, "_scopes"), "the session is still in a transaction")
    must(db:execute "DELETE FROM note")
    must(orm:invalidate(Note))
    db:close()
    support.no_transactions(world)
  end)

  local function note(title, n) return must(db:new(Note, { title = title, n = n or 0 })) end

  --- Titles that others see in MySQL.
  local function titles()
    local list = {}
    for i, row in ipairs(must(world.sql:query("SELECT title FROM `" .. world.name .. "`.note ORDER BY id"))) do
      list[i] = row.title
    end
    return table.concat(list, " ")
  end

  --- How the statements begin that fn causes.
  local function statements(fn) return support.statements(orm, fn) end

  describe("REQUIRED", function()
    it("is one BEGIN and one COMMIT, and returns what the body returned (1)", function()
      local a, b, c
      assert.equal("BEGIN INSERT COMMIT", statements(function()
        a, b, c = db:transaction(function()
          note "one"
          return 1, nil, "three"
        end)
      end))
      assert.same({ 1, nil, "three" }, { a, b, c })
      assert.equal("one", titles())
      assert.is_false(db:in_transaction())
      assert.equal("committed", db:outcome().state)
    end)

    it("rolls back and hands on the very error that was raised (2)", function()
      local cause = { "an error of the application's own" }
      local ok, e = pcall(db.transaction, db, function()
        note "one"
        must(db:flush())
        error(cause)
      end)
      assert.is_false(ok)
      assert.equal(cause, e)
      assert.equal("", titles())
      note "two"
      must(db:flush()) -- by itself again
      assert.equal("two", titles())
    end)

    it("rolls back when the body returns nil and an error", function()
      local ok, why = db:transaction(function()
        note "one"
        return nil, "not today"
      end)
      assert.is_nil(ok)
      assert.equal("not today", why)
      assert.equal("", titles())
      assert.equal("rolled_back", db:outcome().state)
    end)

    it("joins: both are durable when the outer one has ended, without a round trip of its own (3)", function()
      assert.equal("BEGIN INSERT INSERT COMMIT", statements(function()
        db:transaction(function()
          note "a"
          must(db:flush())
          db:transaction(function()
            note "b"
            must(db:flush())
          end)
          assert.equal("", titles())
        end)
      end))
      assert.equal("a b", titles())
    end)

    it("rolls all of it back once when the inner error is not caught (4)", function()
      local ok, e
      assert.equal("BEGIN INSERT INSERT ROLLBACK", statements(function()
        ok, e = pcall(db.transaction, db, function()
          note "a"
          must(db:flush())
          db:transaction(function()
            note "b"
            must(db:flush())
            error("inner", 0)
          end)
        end)
      end))
      assert.is_false(ok)
      assert.equal("inner", e)
      assert.equal("", titles())
    end)

    it("is rolled back at its end when an inner failure was swallowed, with its cause (5)", function()
      local ran = {}
      local ok, e = db:transaction(function(tx)
        note "a"
        tx:commit(function() ran[#ran + 1] = "commit" end)
        tx:compensate(function() ran[#ran + 1] = "compensate" end)
        pcall(db.transaction, db, function() error "inner" end)
        assert.is_true(tx:is_rollback_only())
        return "fine"
      end)
      assert.is_nil(ok)
      assert.equal("UNEXPECTED_ROLLBACK", e.code)
      assert.matches("inner", e.cause)
      assert.same({ "compensate" }, ran)
      assert.equal("", titles())
    end)

    it("goes on when the inner scope asked that its failure do no more (7)", function()
      must(db:transaction(function()
        pcall(db.transaction, db, { mark_on_failure = false }, function()
          note "b"
          error "inner"
        end)
        note "a"
        return true
      end))
      assert.equal("b a", titles())
    end)

    it("sends nothing when the body reads only what is cached", function()
      local a = note "a"
      must(db:flush())
      local id = a.id
      db:clear()
      must(db:get(Note, id))
      db:clear()
      assert.equal("", statements(function()
        assert.equal("a", db:transaction(function()
          return db:transaction(function() return must(db:get(Note, id)).title end)
        end))
      end))
    end)
  end)

  describe("callbacks", function()
    local function run(fails)
      local ran = {}
      local function add(name) return function() ran[#ran + 1] = name end end
      pcall(db.transaction, db, function(tx)
        tx:commit(add "c1")
        tx:compensate(add "k1")
        tx:commit(add "c2")
        tx:compensate(add "k2")
        if fails then error "no" end
      end)
      return table.concat(ran, " ")
    end

    it("run in order at a commit, in reverse at a rollback, never both (29)", function()
      assert.equal("c1 c2", run(false))
      assert.equal("k2 k1", run(true))
    end)

    it("of a joined scope that fails are part of the whole (30)", function()
      local ran = {}
      local function add(name) return function() ran[#ran + 1] = name end end
      local ok, e = db:transaction(function(tx)
        tx:commit(add "c1")
        tx:compensate(add "k1")
        pcall(db.transaction, db, function(inner)
          inner:commit(add "c2")
          inner:compensate(add "k2")
          error "no"
        end)
        tx:commit(add "c3")
      end)
      assert.is_nil(ok)
      assert.equal("UNEXPECTED_ROLLBACK", e.code)
      assert.equal("k2 k1", table.concat(ran, " "))
    end)

    it("outside a transaction run now, or never (31)", function()
      local ran = {}
      assert.is_true(db:commit(function() ran[#ran + 1] = "c" end))
      assert.is_false(db:compensate(function() ran[#ran + 1] = "k" end))
      assert.is_false(db:commit(function() ran[#ran + 1] = "d" end, { only_in_transaction = true }))
      assert.same({ "c" }, ran)
    end)

    it("that fail keep no other from running, and undo nothing (32)", function()
      local ran = {}
      local a = must(db:transaction(function(tx)
        tx:commit(function() error "first" end)
        tx:commit(function() ran[#ran + 1] = "second" end)
        tx:compensate(function() ran[#ran + 1] = "compensate" end)
        return note "a"
      end))
      assert.same({ "second" }, ran)
      assert.equal("a", titles())
      local outcome = db:outcome()
      assert.equal("committed", outcome.state)
      assert.equal(1, #outcome.failures)
      assert.matches("first", outcome.failures[1].message)
      assert.equal(outcome.failures[1], told[1])
      local other = orm:session()
      assert.equal("a", other:get(Note, a.id).title)
      other:close()
    end)

    it("work in transactions of their own (34)", function()
      db:transaction(function(tx)
        note "a"
        tx:commit(function()
          assert.is_false(db:in_transaction())
          db:transaction(function() note "b" end)
          db:transaction({ propagation = "REQUIRES_NEW" }, function() note "c" end)
        end)
      end)
      assert.is_nil(db:outcome().failures)
      assert.equal("a b c", titles())
    end)
  end)

  it("keeps its rows from caches until it has committed, and takes them back (36)", function()
    local other = orm:session()
    local a = note("a", 1)
    must(db:flush())
    assert.equal(1, other:get(Note, a.id).n)
    for _, fails in ipairs { true, false } do
      pcall(db.transaction, db, function()
        a.n = a.n + 10
        must(db:flush())
        db:clear()
        assert.equal(11, db:get(Note, a.id).n)
        assert.equal(1, #must(db:all_by(Note, "by_n", 11)))
        assert.equal(0, #must(db:all_by(Note, "by_n", 1)))
        other:clear()
        assert.equal(1, other:get(Note, a.id).n)
        assert.equal(0, #must(other:all_by(Note, "by_n", 11)))
        if fails then error "no" end
      end)
      db:clear()
      other:clear()
      a = must(db:get(Note, a.id))
      assert.equal(fails and 1 or 11, a.n)
      assert.equal(fails and 1 or 11, other:get(Note, a.id).n)
      assert.equal(fails and 0 or 1, #must(other:all_by(Note, "by_n", 11)))
    end
    other:close()
  end)

  it("takes entities back to what they were, so that it can be tried again", function()
    local kept, doomed = note("kept", 1), note("doomed", 2)
    must(db:flush())
    local new = note("new", 3)
    kept.n = 5 -- not flushed when the transaction begins
    local made, loaded
    local function try(fails)
      return pcall(db.transaction, db, function()
        kept.n = kept.n + 1
        new.title = "newer"
        db:delete(doomed)
        made = note "made"
        must(db:flush())
        kept.n = kept.n + 1
        if fails then error "no" end
      end)
    end
    assert.is_false(try(true))
    assert.equal(5, kept.n)
    assert.equal("new", new.title)
    assert.is_true(db:is_new(new))
    assert.has_error(function() db:is_new(made) end)
    assert.same({ n = 5 }, select(2, db:dirty(kept)))
    assert.equal(doomed, db:get(Note, doomed.id))
    assert.is_true(try(false))
    assert.equal(7, kept.n)
    assert.equal("kept newer made", titles())
    db:clear()
    pcall(db.transaction, db, function()
      loaded = must(db:get(Note, kept.id))
      loaded.n = 100
      must(db:flush())
      error "no"
    end)
    assert.equal(7, loaded.n)
    assert.is_nil((db:dirty(loaded)))
    loaded.n = 8
    must(db:flush())
    assert.equal(8, must(world.sql:query("SELECT n FROM `" .. world.name .. "`.note WHERE id = ?", kept.id))[1].n)
  end)
end)
