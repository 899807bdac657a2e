-- SPDX-License-Identifier: MIT
-- Propagation, isolation, access and deadlines of transactions: what a scope does with the one that it
-- finds, and what it refuses before its body runs.

local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must
local mariadb = support.is_mariadb()
local with_snapshots = mariadb and it or pending

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  field.int32 "n",
  cache = { process = true, redis = true },
})
local Log = regolith.entity("log", { field.string "text" { length = 80 }, mysql = "logs" })

describe("propagation", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open({ Note, Log }, {
      mysql = { default = world.mysql_url(world.name, "&pool=4"), logs = world.mysql_url(world.name, "&pool=2") },
    })
    local session = orm:session()
    session:new(Note)
    session:new(Log)
    session:close()
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    assert.is_nil(rawget(db, "_scopes"), "the session is still in a transaction")
    must(db:execute "DELETE FROM note")
    must(db:execute "DELETE FROM log")
    must(orm:invalidate(Note))
    db:close()
    support.no_transactions(world)
  end)

  local function note(title, n) return must(db:new(Note, { title = title, n = n or 0 })) end

  local function titles(of)
    local list = {}
    local text = of == "log" and "SELECT text AS title FROM `%s`.log ORDER BY id"
      or "SELECT title FROM `%s`.note ORDER BY id"
    for i, row in ipairs(must(world.sql:query(text:format(world.name)))) do list[i] = row.title end
    return table.concat(list, " ")
  end

  local function stored(id) return must(world.sql:query(
    "SELECT n FROM `" .. world.name .. "`.note WHERE id = ?", id))[1].n end

  --- Runs a transaction that fails at its end.
  local function failing(opts, fn)
    if not fn then opts, fn = {}, opts end
    local ok, e = pcall(db.transaction, db, opts, function(tx)
      fn(tx)
      error("on purpose", 0)
    end)
    assert.is_false(ok)
    assert.equal("on purpose", e)
  end

  local function within(mode, fn) return db:transaction({ propagation = mode }, fn) end

  --- What a refusal raises.
  local function refused(code, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.equal(code, e.code)
    return e
  end

  it("SUPPORTS runs without one, or joins (8)", function()
    within("SUPPORTS", function(tx)
      assert.is_false(tx:in_transaction())
      assert.is_false(db:in_transaction())
      note "a"
      must(db:flush())
      assert.equal("a", titles())
    end)
    failing(function()
      within("SUPPORTS", function(tx)
        assert.is_true(tx:in_transaction())
        note "b"
        must(db:flush())
      end)
    end)
    assert.equal("a", titles())
  end)

  it("MANDATORY and NEVER refuse before the body; who asked may go on (9)", function()
    local ran = false
    refused("MISUSE", within, "MANDATORY", function() ran = true end)
    must(db:transaction(function()
      note "a"
      refused("MISUSE", within, "NEVER", function() ran = true end)
      within("MANDATORY", function() note "b" end)
      return true
    end))
    within("NEVER", function(tx) assert.is_false(tx:in_transaction()) end)
    assert.is_false(ran)
    assert.equal("a b", titles())
  end)

  it("REQUIRES_NEW is independent of the one around it (10, 11)", function()
    local ran = {}
    local function add(name) return function() ran[#ran + 1] = name end end
    failing(function(tx)
      note "outer"
      tx:compensate(add "outer failed")
      within("REQUIRES_NEW", function(inner)
        note "inner"
        inner:commit(add "inner done")
        inner:compensate(add "never")
      end)
      ran[#ran + 1] = "outer goes on"
    end)
    assert.equal("inner", titles())
    assert.same({ "inner done", "outer goes on", "outer failed" }, ran)
    ran = {}
    must(db:transaction(function(tx)
      note "kept"
      pcall(within, "REQUIRES_NEW", function(inner)
        note "lost"
        must(db:flush())
        inner:compensate(add "inner failed")
        error "no"
      end)
      ran[#ran + 1] = "outer goes on"
      assert.is_false(tx:is_rollback_only())
      return true
    end))
    assert.equal("inner kept", titles())
    assert.same({ "inner failed", "outer goes on" }, ran)
  end)

  it("REQUIRES_NEW fails at once at a row that the suspended one has written (13)", function()
    local a = note("a", 1)
    must(db:flush())
    local started = os.time()
    must(db:transaction(function()
      a.n = 2
      must(db:flush())
      local ok, e = within("REQUIRES_NEW", function()
        local same = must(db:get(Note, a.id))
        assert.equal(1, same.n)
        same.n = 3
        return db:flush()
      end)
      assert.is_nil(ok)
      assert.equal("SELF_DEADLOCK", e.code)
      ok, e = within("REQUIRES_NEW", function() return db:get(Note, a.id, { lock = "update" }) end)
      assert.is_nil(ok)
      assert.equal("SELF_DEADLOCK", e.code)
      return true
    end))
    assert.is_true(os.time() - started < 10)
    assert.equal(2, stored(a.id))
  end)

  it("REQUIRES_NEW has a connection kept for it, or is refused at once (14)", function()
    local small = world:open({ Note }, { mysql = world.mysql_url(world.name, "&pool=1"), schema = false })
    local own = small:session()
    local started = os.time()
    must(own:transaction(function()
      own:new(Note, { title = "one" })
      must(own:flush())
      return own:transaction({ propagation = "REQUIRES_NEW" }, function()
        own:new(Note, { title = "two" })
        must(own:flush())
        local ok, e = own:transaction({ propagation = "REQUIRES_NEW" }, function()
          own:new(Note, { title = "three" })
          return own:flush()
        end)
        assert.is_nil(ok)
        assert.equal("LIMIT", e.code)
        return true
      end)
    end))
    assert.is_true(os.time() - started < 8)
    assert.equal("one two", titles())
    own:close()
    world:shut(small)
  end)

  it("what the next flush expects stays with it: put aside, and taken back by a rollback", function()
    local a = note("a", 1)
    must(db:flush())
    local other = orm:session()
    local ok, e = db:transaction({ isolation = "READ_COMMITTED" }, function()
      db:expect(a, { n = 1 })
      within("REQUIRES_NEW", function() note "beside" end)
      must(other:get(Note, a.id)).n = 5
      must(other:flush())
      note "outer"
      return db:flush()
    end)
    assert.is_nil(ok)
    assert.equal("CONFLICT", e.code)
    must(db:reload(a))
    db:expect(a, { n = 5 })
    failing(function()
      a.n = 6
      must(db:flush())
    end)
    must(other:reload(must(other:get(Note, a.id)))).n = 7
    must(other:flush())
    a.n = 8
    ok, e = db:flush()
    assert.is_nil(ok)
    assert.equal("CONFLICT", e.code)
    assert.equal(7, stored(a.id))
    db:discard()
    other:close()
  end)

  it("NOT_SUPPORTED runs beside the one around it (16)", function()
    failing(function(tx)
      note "outer"
      must(db:flush())
      local mine = must(db:query "SELECT CONNECTION_ID() AS id")[1].id
      within("NOT_SUPPORTED", function(inner)
        assert.is_false(inner:in_transaction())
        assert.is_false(db:in_transaction())
        assert.equal(0, #must(db:search(Note, "title = 'outer'"):all()))
        note "beside"
        must(db:flush())
      end)
      assert.is_true(tx:in_transaction())
      assert.equal(mine, must(db:query "SELECT CONNECTION_ID() AS id")[1].id)
    end)
    assert.equal("beside", titles())
  end)

  it("refuses handles and entities of a suspended scope (17)", function()
    db:transaction(function(tx)
      local a = note "a"
      within("REQUIRES_NEW", function()
        for _, method in ipairs { "commit", "compensate", "rollback_only" } do
          assert.has_error(function() tx[method](tx, function() end) end,
            "the scope is suspended: another transaction runs within it")
        end
        assert.error_matches(function() db:delete(a) end, "not in this session")
      end)
      tx:commit(function() end)
    end)
  end)

  it("NESTED goes with the one around it; alone it is one by itself (18)", function()
    failing(function()
      within("NESTED", function() note "inner" end)
      note "outer"
    end)
    assert.equal("", titles())
    local texts = support.count(orm, function() within("NESTED", function() note "alone" end) end).texts
    assert.same({ "BEGIN", "COMMIT" }, { texts[1], texts[#texts] })
    assert.equal(3, #texts)
    assert.equal("alone", titles())
  end)

  it("NESTED is undone by itself, with its callbacks (19)", function()
    local ran = {}
    local function add(name) return function() ran[#ran + 1] = name end end
    local a = note("a", 1)
    must(db:flush())
    must(db:transaction(function(tx)
      tx:commit(add "outer done")
      tx:compensate(add "outer failed")
      a.n = 2
      must(db:flush())
      pcall(within, "NESTED", function(inner)
        inner:commit(add "inner done")
        inner:compensate(add "inner failed")
        a.n = 3
        note "inner"
        must(db:flush())
        error "no"
      end)
      assert.same({ "inner failed" }, ran)
      assert.equal(2, a.n)
      return true
    end))
    assert.same({ "inner failed", "outer done" }, ran)
    assert.equal("a", titles())
    assert.equal(2, stored(a.id))
    db:clear()
    assert.equal(2, db:get(Note, a.id).n)
  end)

  it("NESTED that is rolled back takes the marks with it that were set within", function()
    local e
    must(db:transaction(function(tx)
      note "outer"
      local ok
      ok, e = within("NESTED", function()
        pcall(db.transaction, db, function() error "innermost" end)
        return true
      end)
      assert.is_nil(ok)
      assert.is_false(tx:is_rollback_only())
      return true
    end))
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    assert.equal("outer", titles())
  end)

  it("releases savepoints without a word, and sets them when they are needed", function()
    local words = {}
    for i, text in ipairs(support.count(orm, function()
      db:transaction(function()
        note "a"
        must(db:flush())
        within("NESTED", function()
          within("NESTED", function() note "b" end)
          within("NESTED", function() end)
        end)
      end)
    end).texts) do words[i] = text:match "^%a+" end
    assert.equal("BEGIN INSERT SAVEPOINT INSERT COMMIT", table.concat(words, " "))
    assert.equal("a b", titles())
  end)

  it("refuses a savepoint where nothing can be saved, and words it does not know (21)", function()
    local ok, e = db:transaction(function()
      pcall(db.transaction, db, function() error "inner" end)
      local nested, why = within("NESTED", function() error "never runs" end)
      assert.is_nil(nested)
      assert.equal("MISUSE", why.code)
      assert.matches("inner", why.cause)
    end)
    assert.is_nil(ok)
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    assert.error_matches(function() within("REQUIRE_NEW", function() end) end,
      "propagation' must be .*did you mean 'REQUIRES_NEW'")
    assert.error_matches(function() db:transaction({ isolatoin = "SERIALIZABLE" }, function() end) end,
      "unknown option 'isolatoin'.*'isolation'")
    assert.error_matches(function() db:transaction({ pool = "nowhere" }, function() end) end, "nowhere")
  end)

  it("joins only what is as asked for, unless lenient (22)", function()
    local ok, e = db:transaction({ isolation = "READ_COMMITTED" }, function()
      db:transaction({ isolation = "DEFAULT" }, function() note "a" end)
      db:transaction({ isolation = "READ_COMMITTED" }, function() note "b" end)
      db:transaction({ isolation = "SERIALIZABLE", lenient = true }, function() note "c" end)
      local why = refused("MISUSE", db.transaction, db, { isolation = "SERIALIZABLE" }, function() note "d" end)
      assert.matches("SERIALIZABLE", why.message)
    end)
    assert.is_nil(ok)
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    assert.equal("MISUSE", e.cause.code)
    assert.equal("", titles())
    for _, opts in ipairs { { timeout_ms = 5000 }, { isolation = "READ_COMMITTED" } } do
      db:transaction(function() refused("MISUSE", db.transaction, db, opts, function() end) end)
    end
  end)

  it("joins as strictly by every mode that joins", function()
    local wants = { { isolation = "SERIALIZABLE" }, { timeout_ms = 77 }, { read_only = false } }
    for _, mode in ipairs { "REQUIRED", "SUPPORTS", "MANDATORY", "NESTED" } do
      for _, want in ipairs(wants) do
        local opts, ran = { propagation = mode }, 0
        for name, v in pairs(want) do opts[name] = v end
        local _, e = db:transaction({ isolation = "READ_COMMITTED", read_only = true, timeout_ms = 9000 }, function()
          refused("MISUSE", db.transaction, db, opts, function() ran = ran + 1 end)
        end)
        assert.equal("UNEXPECTED_ROLLBACK", e.code)
        assert.equal(0, ran)
        opts.lenient = true
        assert.equal(1, db:transaction({ isolation = "READ_COMMITTED", read_only = true, timeout_ms = 9000 }, function()
          return db:transaction(opts, function() return 1 end)
        end))
      end
    end
    for _, mode in ipairs { "REQUIRES_NEW", "NOT_SUPPORTED" } do -- has nothing to do with the one around it
      assert.equal(1, db:transaction({ read_only = true }, function()
        return db:transaction({ propagation = mode, read_only = false, isolation = "SERIALIZABLE" }, function()
          note("beside " .. mode)
          must(db:flush())
          return 1
        end)
      end))
    end
    assert.equal("beside REQUIRES_NEW beside NOT_SUPPORTED", titles())
  end)

  it("joins as a reader what writes, not as a writer what only reads (23)", function()
    local _, e = db:transaction({ read_only = true }, function()
      refused("MISUSE", db.transaction, db, { read_only = false }, function() end)
    end)
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    must(db:transaction(function()
      db:transaction({ read_only = true }, function() note "a" end)
      return true
    end))
    assert.equal("a", titles())
    local ok, why = db:transaction({ read_only = true }, function() note "b" end)
    assert.is_nil(ok)
    assert.equal("READ_ONLY", why.code)
    db:discard()
    assert.equal("a", titles())
  end)

  describe("isolation", function()
    it("is of one transaction, not of the connection (24)", function()
      local own = world:open({ Note }, { mysql = world.mysql_url(world.name, "&pool=1"), schema = false })
      local session = own:session()
      must(session:new(Note, { title = "row", n = 1 }))
      must(session:flush())
      --- Does the transaction see what others commit while it runs?
      local function sees(opts)
        return session:transaction(opts, function()
          local before = must(session:query "SELECT n FROM note")[1].n
          must(db:execute "UPDATE note SET n = n + 1")
          return must(session:query "SELECT n FROM note")[1].n > before
        end)
      end
      local levels = { READ_UNCOMMITTED = true, READ_COMMITTED = true, REPEATABLE_READ = false, DEFAULT = false }
      local function snapshots() return must(session:query "SELECT @@innodb_snapshot_isolation AS v")[1].v end
      local usual = mariadb and snapshots() -- off in 10.11, on in 11.8
      if mariadb then levels.SNAPSHOT = false end
      for name, does in pairs(levels) do
        assert.equal(does, sees { isolation = name }, name)
        assert.is_false(sees {})
        if mariadb then assert.equal(usual, snapshots()) end
      end
      local texts = support.count(own, function()
        session:transaction({ isolation = "SERIALIZABLE" }, function() must(session:query "SELECT 1") end)
        session:transaction(function() must(session:query "SELECT 1") end)
      end).texts
      assert.same({ "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN", "SELECT 1", "COMMIT", "BEGIN", "SELECT 1",
        "COMMIT" }, texts)
      session:close()
      world:shut(own)
    end)

    if not mariadb then
      it("SNAPSHOT is refused where there is none", function()
        local ok, e = db:transaction({ isolation = "SNAPSHOT" }, function() return true end)
        assert.is_nil(ok)
        assert.equal("INVALID: this server has no isolation SNAPSHOT", tostring(e))
      end)
    end

    with_snapshots("SNAPSHOT refuses to write over what others have changed since", function()
      local a = note("a", 1)
      must(db:flush())
      local other = orm:session()
      local tries = 0
      local ok, e = db:transaction({ isolation = "SNAPSHOT" }, function()
        tries = tries + 1
        must(other:get(Note, a.id)).n = 5
        must(other:flush())
        a.n = a.n + 1
        return db:flush()
      end)
      assert.is_nil(ok)
      assert.equal("DEADLOCK", e.code)
      assert.equal(1, tries)
      assert.equal(1, a.n)
      assert.equal(5, stored(a.id))
      other:close()
    end)

    it("REPEATABLE_READ reads past the caches, from its own view", function()
      local a = note("a", 1)
      must(db:flush())
      local other = orm:session()
      db:clear()
      db:transaction({ isolation = "REPEATABLE_READ" }, function()
        must(db:query "SELECT COUNT(*) FROM note")
        must(other:get(Note, a.id)).n = 2
        must(other:flush())
        assert.equal(1, db:get(Note, a.id).n)
      end)
      db:clear()
      assert.equal(2, db:get(Note, a.id).n)
      other:close()
    end)
  end)

  it("ends when its time is over, even if nobody minds (24b)", function()
    local ok, e = db:transaction({ timeout_ms = 1000 }, function()
      note "a"
      must(db:flush())
      local rows, why = db:query "SELECT SLEEP(5)"
      assert.is_nil(rows)
      assert.equal("TIMEOUT", why.code)
      assert.equal("TIMEOUT", select(2, db:query "SELECT 1").code)
      return "swallowed"
    end)
    assert.is_nil(ok)
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    assert.equal("TIMEOUT", e.cause.code)
    db:discard()
    ok, e = db:transaction({ timeout_ms = 1000 }, function()
      note "b"
      must(db:flush())
      require("support.faults").pause(1020)
    end)
    assert.is_nil(ok)
    assert.equal("TIMEOUT", e.code)
    db:discard()
    assert.equal("", titles())
  end)

  with_snapshots("retries the whole body after a deadlock, from where the session began", function()
    local a = note("a", 1)
    must(db:flush())
    local other, tries = orm:session(), 0
    local result = must(db:transaction({ isolation = "SNAPSHOT", retry = 5 }, function()
      tries = tries + 1
      local mine = must(db:get(Note, a.id))
      if tries < 3 then
        must(other:get(Note, a.id)).n = 10 * tries
        must(other:flush())
      end
      mine.n = must(db:reload(mine)).n + 1
      local made = note("made " .. tries)
      support.assert(db:flush())
      return made.title
    end))
    assert.equal("made 3", result)
    assert.equal(3, tries)
    assert.equal(21, stored(a.id))
    assert.equal("a made 3", titles())
    other:close()
  end)

  it("is on one pool: others commit by themselves (48)", function()
    local ran = {}
    failing(function(tx)
      note "a"
      must(db:new(Log, { text = "kept" }))
      must(db:flush())
      assert.equal("kept", titles "log")
      db:transaction({ pool = "logs" }, function(logs)
        must(db:new(Log, { text = "too" }))
        logs:commit(function() ran[#ran + 1] = "logs" end)
      end)
      tx:commit(function() ran[#ran + 1] = "never" end)
    end)
    assert.same({ "logs" }, ran)
    assert.equal("", titles())
    assert.equal("kept too", titles "log")
    local kept, too = must(db:search(Log, "text = 'kept'"):one()), must(db:search(Log, "text = 'too'"):one())
    failing(function()
      note "b"
      kept.text = "changed"
      db:delete(too)
      must(db:flush())
    end)
    assert.equal("changed", titles "log")
    assert.is_nil((db:dirty(kept)))
    assert.is_nil((db:get(Log, too.id)))
    kept.text = "changed again"
    must(db:flush())
    assert.equal("changed again", titles "log")
  end)

  it("belongs to the coroutine that began it, until another adopts it (46)", function()
    local one, two, handle = orm:session(), orm:session(), nil
    local function body(session, title, fails)
      return coroutine.create(function()
        return session:transaction(function(tx)
          handle = tx
          must(session:new(Note, { title = title }))
          must(session:flush())
          coroutine.yield()
          if fails then return nil, "fails" end
          return true
        end)
      end)
    end
    local a, b = body(one, "a", true), body(two, "b")
    coroutine.resume(b)
    coroutine.resume(a)
    assert.error_matches(function() one:get(Note, 1) end, "transaction of another coroutine")
    assert.error_matches(function() one:transaction(function() end) end, "transaction of another coroutine")
    assert.error_matches(function() handle:commit(function() end) end, "transaction of another coroutine")
    assert.is_nil(select(2, coroutine.resume(a)))
    assert.is_true(select(2, coroutine.resume(b)))
    assert.equal("b", titles())
    local tx = must(one:begin())
    local done = coroutine.wrap(function()
      tx:adopt()
      must(one:new(Note, { title = "handed over" }))
      return tx:commit()
    end)()
    assert.is_true(done)
    assert.equal("b handed over", titles())
    one:close()
    two:close()
  end)

  describe("by hand", function()
    it("is ended by commit or rollback, once", function()
      local tx = must(db:begin { isolation = "READ_COMMITTED" })
      assert.equal(tx, db:current())
      note "a"
      assert.is_true(tx:commit())
      for _, method in ipairs { "commit", "rollback", "compensate" } do
        assert.has_error(function() tx[method](tx) end, "the transaction's scope has ended")
      end
      tx = must(db:begin())
      note "b"
      must(db:flush())
      assert.is_true(tx:rollback())
      assert.equal("a", titles())
    end)

    it("does not end while a scope within it is open", function()
      local tx = must(db:begin())
      local inner = must(db:begin { propagation = "NESTED" })
      assert.has_error(function() tx:commit() end, "a scope that was begun within this one has not ended")
      note "inner"
      inner:commit()
      note "outer"
      tx:commit()
      assert.equal("inner outer", titles())
      local ok, e = pcall(db.transaction, db, function()
        must(db:begin { propagation = "NESTED" })
        must(db:begin { propagation = "REQUIRES_NEW" })
        note "lost"
        must(db:flush())
      end)
      assert.is_false(ok)
      assert.equal("MISUSE", e.code)
      assert.equal("inner outer", titles())
    end)

    it("on two pools end in any order, each where it began", function()
      local a, log = note("a", 1), must(db:new(Log, { text = "log" }))
      must(db:flush())
      for _, first in ipairs { "rollback", "commit" } do
        local one = must(db:begin())
        a.n = 2
        must(db:flush())
        local two = must(db:begin { pool = "logs" })
        log.text, a.n = "changed", 3
        must(db:flush())
        assert.is_true(one[first](one))
        assert.equal(first == "commit" and 3 or 1, a.n)
        assert.equal("changed", log.text)
        assert.is_true(two:rollback())
        assert.equal("log", log.text)
        assert.equal(first == "commit" and 3 or 1, a.n)
        assert.is_nil((db:dirty(a)))
        assert.is_nil((db:dirty(log)))
        assert.equal(first == "commit" and 3 or 1, stored(a.id))
      end
      assert.equal("log", titles "log")
    end)

    it("do not end within what has suspended another since they began", function()
      must(db:begin())
      note "one"
      local logs = must(db:begin { pool = "logs" })
      local new = must(db:begin { propagation = "REQUIRES_NEW" })
      note "three"
      assert.error_matches(function() logs:commit() end, "suspended another since this one began has not ended")
      assert.is_true(new:commit())
      assert.is_true(logs:commit())
      assert.is_true(db:current():commit())
      assert.equal("one three", titles()) -- ids are allotted in that order
    end)

    it("does not outlive the function within which it was begun, on whatever pool", function()
      local ok, e = pcall(db.transaction, db, function()
        must(db:begin { pool = "logs" })
        must(db:new(Log, { text = "lost" }))
      end)
      assert.is_false(ok)
      assert.equal("MISUSE", e.code)
      assert.equal("", titles "log")
    end)

    it("of a callback does not outlive it where a suspended one goes on", function()
      local handle
      must(db:transaction(function()
        note "outer"
        must(db:flush())
        within("REQUIRES_NEW", function(inner)
          note "inner"
          inner:commit(function()
            handle = must(db:begin())
            must(db:new(Note, { title = "lost" }))
            must(db:flush())
          end)
        end)
        assert.has_error(function() handle:commit() end, "the transaction's scope has ended")
        return true
      end))
      assert.equal("outer inner", titles())
    end)

    it("is rolled back and its connection closed when nobody holds it any more", function()
      local before = orm:counter "regolith_leaked_handles_total"
      do
        local lost = orm:session()
        must(lost:begin())
        must(lost:new(Note, { title = "lost" }))
        must(lost:flush())
      end
      collectgarbage()
      collectgarbage()
      assert.equal(before + 1, orm:counter "regolith_leaked_handles_total")
      support.no_transactions(world)
      assert.equal("", titles())
      for _, pool in ipairs(must(orm:health())) do assert.equal(0, pool.busy) end
    end)

    it("is closed at once when its request has ended without it", function()
      local lost, before = orm:session(), orm:counter "regolith_leaked_handles_total"
      lost:begin()
      must(lost:new(Note, { title = "lost" }))
      must(lost:flush())
      must(lost:begin { propagation = "REQUIRES_NEW" })
      must(lost:new(Note, { title = "lost, too" }))
      must(lost:flush())
      lost:_abandon() -- as regolith.nginx does in the log phase
      for _, pool in ipairs(must(orm:health())) do assert.equal(0, pool.busy) end
      assert.equal(before + 2, orm:counter "regolith_leaked_handles_total")
      support.no_transactions(world)
      assert.equal("", titles())
    end)

    it("ends quietly when its own scope asked for a rollback", function()
      local answer = db:transaction(function(tx)
        note "a"
        tx:rollback_only()
        return "answer"
      end)
      assert.equal("answer", answer)
      assert.equal("rolled_back", db:outcome().state)
      assert.equal("", titles())
      local ok, e = db:transaction(function()
        db:transaction(function(inner) inner:rollback_only "enough" end)
      end)
      assert.is_nil(ok)
      assert.equal("enough", e.cause)
    end)

    it("refuses what has no place in it", function()
      local tx = must(db:begin())
      assert.error_matches(function() db:close() end, "in a transaction")
      assert.error_matches(function() db:flush_async() end, "flush_async has no part in a transaction")
      tx:rollback()
      assert.error_matches(function() db:begin { retry = 2 } end, "only a function can be run again")
      db:transaction(function(inner)
        assert.error_matches(function() inner:commit() end, "ends with its function")
        local ok, e = db:execute "CREATE TABLE other (id INT)"
        assert.is_nil(ok)
        assert.is_truthy(e.code)
      end)
    end)
  end)

  it("says what to do instead", function()
    local says = assert.error_matches
    says(function() db:transaction({ retry = 1 }) end, "takes options %(or none%), then a function")
    says(function() db:begin(function() end) end, "begin takes no function: transaction does")
    says(function() db:commit() end, "what ends a transaction is the handle .*tx:commit%(%)")
    says(function() db:begin { pool = "log" } end, "no MySQL pool \"log\" %(did you mean 'logs'%?%)")
    local tx = must(db:begin())
    says(function() tx:flush() end, "tx has no 'flush': .* db:flush%(...%) is part of it")
    says(function() tx:rolback() end, "tx has no 'rolback' %(did you mean 'rollback'%?%)")
    says(function() db:close() end, "end that first, by tx:commit%(%) or tx:rollback%(%)")
    assert.matches("begun and ended by its own calls", select(2, db:execute "COMMIT").message)
    assert.matches("begun and ended by its own calls", select(2, db:execute "SAVEPOINT a").message)
    tx:rollback()
  end)

  it("is let go with a session whose coroutine has ended without ending it", function()
    local lost, handle = orm:session(), nil
    coroutine.wrap(function()
      handle = must(lost:begin())
      must(lost:new(Note, { title = "lost" }))
      must(lost:flush())
    end)()
    assert.error_matches(function() lost:get(Note, 1) end, "coroutine that has ended; tx:adopt%(%) .* db:close%(%)")
    handle:adopt()
    must(lost:new(Note, { title = "found" }))
    assert.is_true(handle:commit())
    assert.equal("lost found", titles())
    coroutine.wrap(function()
      must(lost:begin())
      must(lost:new(Note, { title = "dropped" }))
      must(lost:flush())
    end)()
    lost:close()
    assert.error_matches(function() lost:get(Note, 1) end, "closed")
    support.no_transactions(world)
    for _, pool in ipairs(must(orm:health())) do assert.equal(0, pool.busy) end
    assert.equal("lost found", titles())
  end)

  it("hands the options of flush_async on where there is no transaction", function()
    within("SUPPORTS", function()
      note "queued"
      assert.error_matches(function() db:flush_async { durability = "fasst" } end, "did you mean 'fast'")
      db:discard()
    end)
  end)

  it("makes any function transactional", function()
    local add = regolith.transactional({ isolation = "READ_COMMITTED" }, function(session, title, fails)
      session:new(Note, { title = title })
      must(session:flush())
      if fails then error("fails", 0) end
      return title
    end)
    assert.equal("a", add(db, "a"))
    assert.has_error(function() add(db, "b", true) end, "fails")
    local service = { db = db }
    service.note = regolith.transactional(function(self, title)
      assert.is_true(self.db:in_transaction())
      return must(self.db:new(Note, { title = title })).title
    end)
    assert.equal("c", service:note "c")
    assert.equal("a c", titles())
    assert.error_matches(function() add("a") end, "called with a session")
  end)
end)
