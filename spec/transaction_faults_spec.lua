-- SPDX-License-Identifier: MIT
-- Transactions whose connection, server, cache or process dies at any of their steps: the rows are all
-- there or none, the caches agree, exactly one list of callbacks runs, and only when the outcome is known.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local with_snapshots = support.is_mariadb() and it or pending
local field, must, raise = regolith.field, support.must, support.assert

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  field.int32 "n",
  cache = { process = true, redis = true },
})

describe("a transaction", function()
  local world, orm, db, proxy

  setup(function()
    world = support.world()
    orm = world:open { Note }
    local session = orm:session()
    session:new(Note)
    session:close()
    proxy = faults.proxy()
  end)
  teardown(function()
    proxy:stop()
    world:close()
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    if rawget(db, "_scopes") == nil then
      must(db:execute "DELETE FROM note")
      must(orm:invalidate(Note))
    end
    db:close()
    support.no_transactions(world)
    for _, pool in ipairs(must(orm:health())) do
      if pool.kind == "mysql" then assert.equal(0, pool.busy) end
    end
  end)

  local function titles()
    local list = {}
    for i, row in ipairs(must(world.sql:query("SELECT title FROM `" .. world.name .. "`.note ORDER BY id"))) do
      list[i] = row.title
    end
    return table.concat(list, " ")
  end

  local function connection() return must(db:query "SELECT CONNECTION_ID() AS id")[1].id end

  local function kill(id)
    must(world.sql:connection(function(conn) return conn:execute("KILL " .. id) end))
    faults.await("the end of connection " .. id, function()
      return #must(world.sql:query("SELECT id FROM information_schema.processlist WHERE id = ?", id)) == 0
    end)
  end

  --- Runs a transaction with callbacks; `step` is called before each of its steps with its name.
  local function run(step, ran)
    return pcall(db.transaction, db, function(tx)
      tx:commit(function() ran[#ran + 1] = "commit" end)
      tx:compensate(function() ran[#ran + 1] = "compensate" end)
      local id = connection()
      step("first", id)
      raise(db:new(Note, { title = "a" }))
      raise(db:flush())
      step("second", id)
      db:transaction({ propagation = "NESTED" }, function()
        raise(db:new(Note, { title = "b" }))
        raise(db:flush())
        step("nested", id)
      end)
      step("savepoint left", id)
      raise(db:new(Note, { title = "c" }))
      raise(db:flush())
      step("last", id)
      return "done"
    end)
  end

  for _, at in ipairs { "first", "second", "nested", "savepoint left", "last" } do
    it("is rolled back when its connection is killed: " .. at, function()
      local ran = {}
      local ok, e, why = run(function(name, id) if name == at then kill(id) end end, ran)
      local fault = ok and why or e
      assert.is_true(not ok or e == nil, "it was committed")
      assert.equal("UNAVAILABLE", (fault.cause or fault).code, tostring(fault))
      assert.same({ "compensate" }, ran)
      assert.equal("rolled_back", db:outcome().state)
      assert.equal("", titles())
      ran = {}
      assert.is_true(run(function() end, ran)) -- the session is as it was
      assert.same({ "commit" }, ran)
      assert.equal("a b c", titles())
    end)
  end

  local through, session

  local function say(word) proxy:say(word) end

  --- Each test has a session whose orm reaches MySQL by way of the proxy; more: further options of its pool.
  local function through_proxy(more)
    before_each(function()
      say "pass"
      through = world:open({ Note }, {
        mysql = proxy:url(world.name, more), schema = false,
      })
      session = through:session()
    end)
    after_each(function()
      say "pass"
      session:close()
      world:shut(through)
    end)
  end

  describe("whose COMMIT has no answer", function()
    through_proxy ""

    --- What it returned, the callbacks that ran, and what was made.
    local function commit(word, resolve)
      local ran, made = {}, nil
      local ok, e = session:transaction({ resolve = resolve }, function(tx)
        made = must(session:new(Note, { title = "new" }))
        must(session:flush())
        tx:commit(function() ran[#ran + 1] = "commit" end)
        tx:compensate(function() ran[#ran + 1] = "compensate" end)
        say(word)
        return "done"
      end)
      return ok, e, ran, made.id
    end

    it("is committed when the server did it", function()
      local ok, _, ran, id = commit "after"
      assert.equal("done", ok)
      assert.same({ "commit" }, ran)
      assert.equal("committed", session:outcome().state)
      assert.equal("new", titles())
      assert.equal("new", db:get(Note, id).title)
    end)

    it("is rolled back when the server did not", function()
      assert.is_nil(db:get(Note, 1))
      local ok, e, ran, id = commit "before"
      assert.is_nil(ok)
      assert.equal("UNAVAILABLE", e.code)
      assert.same({ "compensate" }, ran)
      assert.equal("rolled_back", session:outcome().state)
      assert.equal("", titles())
      assert.is_nil(db:get(Note, id))
    end)

    it("stays unknown without evidence: no callback runs, and caches ask MySQL", function()
      for _, word in ipairs { "after", "before" } do
        local ok, e, ran, id = commit(word, false)
        assert.is_nil(ok)
        assert.equal("COMMIT_UNKNOWN", e.code)
        assert.same({}, ran)
        assert.equal("unknown", session:outcome().state)
        local row = db:get(Note, id)
        assert.equal(word == "after" and "new" or nil, row and row.title)
        say "pass"
      end
      must(orm:invalidate(Note))
    end)
  end)

  describe("whose COMMIT", function()
    through_proxy "&pool=1"

    it("is rejected by the server is rolled back, and its caches are as they were (26)", function()
      local a = must(session:new(Note, { title = "a", n = 1 }))
      must(session:flush())
      must(db:get(Note, a.id))
      -- a deadlock is certain; after an error while committing somebody has to look what became of it
      for number, code in pairs { [1213] = "DEADLOCK", [1180] = "UNAVAILABLE" } do
        local ran, tries = {}, 0
        say("reject " .. number)
        local ok, e = session:transaction(function(tx)
          tries = tries + 1
          a.n = 2
          must(session:flush())
          tx:commit(function() ran[#ran + 1] = "commit" end)
          tx:compensate(function() ran[#ran + 1] = "compensate" end)
          return true
        end)
        assert.is_nil(ok)
        assert.equal(code, e.code)
        assert.equal(1, tries)
        assert.same({ "compensate" }, ran)
        assert.equal("rolled_back", session:outcome().state)
        assert.equal(1, a.n)
        say "pass"
        db:clear()
        assert.equal(1, db:get(Note, a.id).n)
      end
      must(session:transaction(function() -- on the same connection, or one that has taken its place
        a.n = 3
        return true
      end))
      assert.equal(3, must(db:reload(must(db:get(Note, a.id)))).n)
    end)

    it("or anything before it loses its connection is made as a whole or not at all", function()
      local lost = 0
      for _, when in ipairs { "before", "after" } do
        local n, whole = 0, 0
        repeat
          n = n + 1
          local ran, name = {}, when .. n
          say(string.format("cut %d %s", n, when))
          local ok, done = pcall(session.transaction, session, { resolve = true }, function(tx)
            tx:commit(function() ran[#ran + 1] = "commit" end)
            tx:compensate(function() ran[#ran + 1] = "compensate" end)
            raise(session:new(Note, { title = name }))
            raise(session:flush())
            session:transaction({ propagation = "NESTED" }, function()
              raise(session:new(Note, { title = name }))
              raise(session:flush())
            end)
            raise(session:new(Note, { title = name }))
            return "done"
          end)
          say "pass"
          -- while the pool finds its server dead nothing is sent, and nothing is cut
          faults.await("a connection", function() return (session:query "SELECT 1") end)
          local state, rows = session:outcome().state, must(db:search(Note, "title = ?", name):count())
          if ok and done == "done" then
            assert.same({ "committed", 3, { "commit" } }, { state, rows, ran }, name)
            whole = whole + 1
          else
            assert.same({ "rolled_back", 0, { "compensate" } }, { state, rows, ran }, name)
            whole, lost = 0, lost + 1
            session:discard()
          end
          support.no_transactions(world)
        until whole == 3 -- what is cut now comes after the end
        assert.is_true(n > 8 and n < 60, "cut " .. n .. " times")
      end
      assert.is_true(lost > 10, lost .. " lost")
    end)

    it("is rejected as a deadlock is tried again with all that comes before it", function()
      local tries = 0
      say "reject 1213"
      must(session:transaction({ retry = 3 }, function()
        tries = tries + 1
        if tries == 3 then say "pass" end
        must(session:new(Note, { title = "try " .. tries }))
        return true
      end))
      assert.equal(3, tries)
      assert.equal("try 3", titles())
    end)

    it("has no answer before the deadline is over in that time, and settled (24b)", function()
      for _, resolve in ipairs { true, false } do
        local ran, id = {}, nil
        local started = faults.now()
        local ok, e = session:transaction({ timeout_ms = 1500, resolve = resolve }, function(tx)
          id = must(session:new(Note, { title = "late" })).id
          must(session:flush())
          tx:commit(function() ran[#ran + 1] = "commit" end)
          tx:compensate(function() ran[#ran + 1] = "compensate" end)
          say "hold"
          return "done"
        end)
        say "pass"
        assert.is_true(faults.now() - started < 10)
        if resolve then
          assert.equal("done", ok)
          assert.same({ "commit" }, ran)
          assert.equal("committed", session:outcome().state)
        else
          assert.is_nil(ok)
          assert.equal("COMMIT_UNKNOWN", e.code)
          assert.same({}, ran)
          assert.equal("unknown", session:outcome().state)
        end
        assert.equal("late", must(db:get(Note, id)).title)
      end
    end)
  end)

  it("drops what old ones have left for those who would ask, and waits for nobody", function()
    must(db:transaction({ resolve = true }, function()
      must(db:new(Note, { title = "a" }))
      return true
    end))
    local busy = orm:session()
    must(busy:begin { resolve = true })
    must(busy:new(Note, { title = "not committed" }))
    must(busy:flush())
    -- a row of one that is under way, and is the first that is not old
    must(busy:execute "INSERT INTO _regolith_tx (txid, at) VALUES (X'01', NOW() - INTERVAL 23 HOUR)")
    must(db:execute "INSERT INTO _regolith_tx (txid, at) VALUES (X'02', NOW() - INTERVAL 25 HOUR)")
    for _ = 1, 256 do -- one of them does
      must(db:transaction({ resolve = true }, function() return db:execute "UPDATE note SET n = 1 WHERE id = 0" end))
    end
    assert.equal(0, #must(db:query "SELECT 1 FROM _regolith_tx WHERE at < NOW() - INTERVAL 1 DAY"))
    assert.is_true(#must(db:query "SELECT 1 FROM _regolith_tx") >= 256)
    must(busy:current():rollback())
    busy:close()
  end)

  with_snapshots("is rolled back when a statement of it had the server end it, whoever swallows that (25)", function()
    local a, ran = must(db:new(Note, { title = "a", n = 1 })), {}
    must(db:flush())
    local other = orm:session()
    local ok, e = db:transaction({ isolation = "SNAPSHOT" }, function(tx)
      tx:commit(function() ran[#ran + 1] = "commit" end)
      tx:compensate(function() ran[#ran + 1] = "compensate" end)
      must(db:new(Note, { title = "lost" }))
      must(other:get(Note, a.id)).n = 5
      must(other:flush())
      a.n = 2
      assert.is_nil((db:flush()))
      assert.is_nil((db:execute "UPDATE note SET n = 7"))
      return "fine"
    end)
    assert.is_nil(ok)
    assert.equal("UNEXPECTED_ROLLBACK", e.code)
    assert.equal("DEADLOCK", e.cause.code)
    assert.same({ "compensate" }, ran)
    assert.equal("a", titles())
    other:close()
    db:discard()
  end)

  it("is undone when its process is killed", function()
    local process = faults.spawn("open_transaction", {
      REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name,
    })
    process:await "flushed"
    process:kill()
    support.no_transactions(world)
    assert.equal("", titles())
  end)
end)

describe("a transaction whose servers die", function()
  local servers, orm, db

  setup(function()
    servers = faults.servers "transaction"
    orm = servers:open({ Note })
  end)
  teardown(function() servers:remove() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  it("is rolled back without Redis, and goes through when it is back", function()
    local ran = {}
    local function try()
      return db:transaction({ timeout_ms = 3000 }, function(tx)
        must(db:new(Note, { title = "a" }))
        must(db:flush())
        tx:compensate(function() ran[#ran + 1] = "compensate" end)
        return true
      end)
    end
    assert.is_true(try())
    servers:kill "redis"
    local ok, e = try()
    assert.is_nil(ok)
    assert.is_truthy(e.code == "UNAVAILABLE" or e.code == "REDIS" or e.code == "TIMEOUT", tostring(e))
    assert.same({ "compensate" }, ran)
    servers:start()
    faults.await("Redis", function() return (try()) end)
    assert.equal(2, must(db:search(Note, "1 = 1"):count()))
  end)

  it("is gone with MySQL, and its session can begin another", function()
    local ok, e = pcall(db.transaction, db, function()
      must(db:new(Note, { title = "lost" }))
      must(db:flush())
      servers:kill "mysql"
      assert.is_nil((db:query "SELECT 1"))
      must(db:query "SELECT 1")
    end)
    assert.is_false(ok)
    assert.equal("rolled_back", db:outcome().state, tostring(e))
    servers:start()
    faults.await("MySQL", function() return (db:query "SELECT 1") end)
    assert.equal(0, must(db:search(Note, "title = 'lost'"):count()))
    must(db:transaction(function()
      must(db:new(Note, { title = "found" }))
      return true
    end))
    assert.equal(1, must(db:search(Note, "title = 'found'"):count()))
  end)
end)
