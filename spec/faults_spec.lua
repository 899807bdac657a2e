-- SPDX-License-Identifier: MIT
-- What goes wrong while servers are well: time runs out, connections do, others hold the rows, a server
-- refuses. The error says what it was, the session is as it was, and mending it is all that is left.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Team = regolith.entity("team", { field.string "name" { required = true, unique = true } })
local User = regolith.entity("user", {
  field.string "name" { required = true, unique = true, length = 40 },
  field.uint32 "visits",
  field.ref "team" { Team, foreign_key = true },
  field.string "city" { nullable = true }, field.string "zip" { nullable = true },
  unique = { place = { "city", "zip" } },
  cache = true,
  hooks = { validate = function(user) if user.visits == 13 then return false, "unlucky" end end },
})
local Bare = regolith.entity("bare", { field.text "body" { length = 16000000 }, ids = "application" })

describe("faults", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Team, User, Bare }
    must(orm:session():connection(function(conn)
      return conn:execute [[
        CREATE TRIGGER refuse BEFORE UPDATE ON user FOR EACH ROW
        IF NEW.visits = 666 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no such number'; END IF]]
    end))
  end)
  teardown(function() world:close() end)

  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    local admin = orm:session()
    for _, E in ipairs { User, Team, Bare } do
      must(admin:execute("DELETE FROM `" .. E.name .. "`"))
      must(orm:invalidate(E))
    end
    admin:close()
  end)

  describe("a deadline", function()
    local function runs(text)
      local rows = must(world.sql:query([[SELECT COUNT(*) AS n FROM information_schema.processlist
        WHERE db = ? AND info LIKE ? AND id <> CONNECTION_ID()]], world.name, text))
      return rows[1].n > 0
    end

    it("ends a slow statement, on the server too", function()
      local hasty = orm:session { timeout_ms = 600 }
      for i, call in ipairs {
        function() return hasty:query "SELECT SLEEP(20), 'canary-1'" end,
        function() return hasty:search(User, "SLEEP(20) = 'canary-1'"):all() end,
        function() return hasty:connection(function(conn) return conn:query "SELECT SLEEP(20), 'canary-1'" end) end,
        function() return hasty:execute "DO SLEEP(20), 'canary-1'" end, -- for all that is known, it wrote
      } do
        must(db:new(User, { name = "somebody " .. faults.now() })) -- rows to be slow about
        must(db:flush())
        local started = faults.now()
        local v, err = call()
        assert.is_nil(v)
        assert.same(i < 4 and { "TIMEOUT", true } or { "COMMIT_UNKNOWN", false }, { err.code, err.retriable })
        assert.is_true(faults.now() - started < 8)
        faults.await("the end of the statement", function() return not runs "%SLEEP(20)%canary-1%" end, 10)
        assert.equal(1, must(db:query "SELECT 1 AS one")[1].one)
      end
      hasty:close()
    end)

    it("ends the wait for a row that another transaction holds, and nothing is written", function()
      local hasty = orm:session { timeout_ms = 1500 }
      local user = must(hasty:new(User, { name = "held" }))
      must(hasty:flush())
      must(db:connection(function(conn)
        must(conn:execute "BEGIN")
        must(conn:execute("UPDATE user SET visits = 1 WHERE id = ?", user.id))
        user.visits = 5
        local ok, err = hasty:flush()
        assert.is_nil(ok)
        assert.is_true(err.code == "TIMEOUT" or err.code == "DEADLOCK", tostring(err))
        assert.equal(5, user.visits)
        return conn:execute "ROLLBACK"
      end))
      assert.equal(0, orm:session():get(User, user.id).visits)
      must(hasty:flush())
      assert.equal(5, orm:session():get(User, user.id).visits)
      hasty:close()
    end)
  end)

  describe("a pool", function()
    it("that is lent out says so, and serves again when it is given back", function()
      local config = world:config({ User, Team })
      config.mysql = config.mysql .. "&pool=2"
      local small = must(regolith.open(config))
      local a, b, c = small:session(), small:session(), small:session { timeout_ms = 500 }
      must(a:connection(function(first)
        must(first:query "SELECT 1")
        return b:connection(function(second)
          must(second:query "SELECT 1")
          for _, call in ipairs {
            function() return c:query "SELECT 1" end, function() return c:get(User, 1) end,
            function() return c:connection(function() return true end) end,
          } do
            local started = faults.now()
            local v, err = call()
            assert.is_nil(v)
            assert.equal("TIMEOUT", err.code)
            assert.matches("pool 'default': all 2 connections are busy", err.message)
            assert.is_true(faults.now() - started < 5)
          end
          return true
        end)
      end))
      c:close()
      c = small:session()
      assert.equal(1, must(c:query "SELECT 1 AS one")[1].one)
      for _, pool in ipairs(must(small:health())) do assert.equal(0, pool.busy) end
      for _, session in ipairs { a, b, c } do session:close() end
      small:close()
    end)

    it("takes a lent connection back clean, whatever was done with it", function()
      for _, spoil in ipairs {
        "BEGIN", "SET @x = 5", "SET SESSION sql_mode = ''", "SET NAMES latin1", "SET SESSION time_zone = '+05:00'",
        "CREATE TEMPORARY TABLE user (id INT)", "LOCK TABLES team WRITE", "SET SESSION TRANSACTION READ ONLY",
        "SET autocommit = 0",
      } do
        db:connection(function(conn) return conn:execute(spoil) end)
        local user = must(db:new(User, { name = "é " .. spoil:sub(1, 30) }))
        must(db:flush())
        local row = must(db:query([[SELECT @x AS x, @@time_zone AS zone, @@autocommit AS auto,
          @@character_set_client AS client, @@sql_mode LIKE '%STRICT%' AS strict, name FROM user WHERE id = ?]],
          user.id))[1]
        assert.same({ zone = "+00:00", auto = 1, client = "utf8mb4", strict = 1, name = user.name }, row)
      end
    end)

    it("does without connections that the server has closed", function()
      for _ = 1, 3 do
        must(db:query "SELECT 1")
        faults.kill_connections(world)
        local user = must(db:new(User, { name = "u" .. faults.now() }))
        must(db:flush())
        assert.equal(user.name, orm:session():get(User, user.id).name)
      end
    end)
  end)

  describe("a failed flush", function()
    --- Flushes in vain; all that was pending still is, and others see nothing of it.
    local function in_vain(code, check)
      local before = must(world.sql:query("SELECT COUNT(*) AS n FROM `" .. world.name .. "`.user"))[1].n
      for _ = 1, 2 do
        local ok, err = db:flush()
        assert.is_nil(ok)
        assert.equal(code, err.code)
        if check then check(err) end
      end
      assert.equal(before, must(world.sql:query("SELECT COUNT(*) AS n FROM `" .. world.name .. "`.user"))[1].n)
    end

    it("leaves the session as it was, and can be mended", function()
      local old = must(db:new(User, { name = "old" }))
      local gone = must(db:new(User, { name = "gone" }))
      must(db:flush())
      local new = must(db:new(User, { name = "new", visits = 1 }))
      old.visits = 3
      db:delete(gone)

      new.name = ("x"):rep(41)
      in_vain("INVALID", function(err) assert.same({ "name", "user", new }, { err.field, err.entity, err.row }) end)
      new.name, old.visits = "new", 13
      in_vain("HOOK", function(err) assert.same({ "validate", old }, { err.hook, err.row }) end)
      old.visits, new.name = 3, "old"
      in_vain("DUPLICATE_KEY", function(err) assert.same({ "name", 1062 }, { err.index, err.errno }) end)
      new.name, old.visits = "new", 666
      in_vain("CONSTRAINT", function(err) assert.same({ 1644, "45000" }, { err.errno, err.sqlstate }) end)
      old.visits, new.team_id = 3, 123456
      in_vain("FOREIGN_KEY", function(err) assert.equal(1452, err.errno) end)
      new.team_id = nil

      assert.is_true(db:is_new(new))
      assert.same({ 3, "new", 1 }, { old.visits, new.name, new.visits })
      assert.same({ { visits = 0 }, { visits = 3 } }, { db:dirty(old) })
      assert.is_nil((db:get(User, gone.id))) -- still to be deleted
      local other = orm:session()
      assert.equal(0, other:get(User, old.id).visits)
      assert.equal("gone", other:get(User, gone.id).name)
      assert.is_nil((other:by(User, "name", "new")))
      other:close()
      assert.equal(3, select(2, db:flush()))
      assert.same({ true, 0 }, { db:flush() })
      other = orm:session()
      assert.equal(3, other:get(User, old.id).visits)
      assert.is_nil((other:get(User, gone.id)))
      assert.equal(new.id, other:by(User, "name", "new").id)
      other:close()
    end)

    it("names the index: of one column, of several, and the primary key", function()
      must(db:new(User, { name = "a", city = "Ulm", zip = "1" }))
      local b = must(db:new(User, { name = "b", city = "Ulm", zip = "2" }))
      must(db:new(Bare, { id = 5, body = "x" }))
      must(db:flush())
      b.zip = "1"
      local _, err = db:flush()
      assert.same({ "DUPLICATE_KEY", "place", "user" }, { err.code, err.index, err.entity })
      db:discard()
      local twin = must(db:new(Bare, { id = 6, body = "y" }))
      must(orm:session():execute "INSERT INTO bare (id, body) VALUES (6, 'z')")
      _, err = db:flush()
      assert.same({ "DUPLICATE_KEY", "PRIMARY", "bare" }, { err.code, err.index, err.entity })
      db:discard(twin)
      must(db:new(User, { name = "a" }))
      must(db:new(User, { name = "fine" }))
      _, err = db:flush()
      assert.same({ "DUPLICATE_KEY", "name" }, { err.code, err.index })
    end)

    it("of rows that vanished or changed says CONFLICT", function()
      local Versioned = regolith.entity("versioned", { field.uint32 "n", field.uint32 "version" { version = true },
        cache = true })
      local own = world:open { Versioned }
      local a, b = own:session(), own:session()
      local mine = must(a:new(Versioned, { n = 1 }))
      must(a:flush())
      local theirs = must(b:get(Versioned, mine.id))
      mine.n = 2
      must(a:flush())
      theirs.n = 3
      local ok, err = b:flush()
      assert.is_nil(ok)
      assert.same({ "CONFLICT", "versioned", theirs }, { err.code, err.entity, err.row })
      assert.equal(3, theirs.n)
      b:reload(theirs)
      theirs.n = theirs.n + 1
      must(b:flush())
      assert.same({ 3, 3 }, { theirs.n, theirs.version })
      a:delete(mine)
      assert.equal("CONFLICT", select(2, a:flush()).code)
      must(own:session():execute("DELETE FROM versioned WHERE id = ?", mine.id))
      theirs.n = 9
      assert.equal("CONFLICT", select(2, b:flush()).code)
      a:close()
      b:close()
      world:shut(own)
    end)
  end)

  describe("a server's bounds", function()
    it("of packets: what is too large is refused before it is sent or queued", function()
      local limit = must(world.sql:query "SELECT @@GLOBAL.max_allowed_packet AS n")[1].n
      local function set(n)
        must(world.sql:connection(function(conn) return conn:execute("SET GLOBAL max_allowed_packet = " .. n) end))
      end
      set(1048576)
      local small = must(regolith.open(world:config { Team, User, Bare }))
      local ok, fault = pcall(function()
        local session = small:session()
        local big = must(session:new(Bare, { id = 1, body = ("x"):rep(3 * 1048576) }))
        must(session:query "SELECT 1") -- from now on the bound is known
        for _, way in ipairs { "flush", "flush_async", "flush" } do
          local done, err = session[way](session)
          assert.is_nil(done)
          assert.same({ "LIMIT", false, "bare" }, { err.code, err.retriable, err.entity })
          assert.matches("max_allowed_packet", err.message)
          assert.is_true(session:is_new(big))
        end
        session:discard()
        local near = must(session:new(Bare, { id = 2, body = ("z"):rep(1000000) }))
        must(session:flush_async())
        must(session:new(Bare, { id = 20, body = "small" }))
        must(session:flush_async())
        must(session:execute "INSERT INTO bare (id, body) VALUES (2, 'in its way')")
        support.drain(small)
        assert.equal(1, #must(small:dead_letters())) -- it fits there
        must(session:execute("DELETE FROM bare WHERE id = ?", near.id))
        assert.equal(0, must(small:retry "all"))
        assert.equal(1000000, #small:session():get(Bare, 2).body)
        assert.equal("small", small:session():get(Bare, 20).body)
        for i = 3, 9 do must(session:new(Bare, { id = i, body = ("y"):rep(300000) })) end -- many statements then
        must(session:flush())
        assert.equal(300000, #small:session():get(Bare, 9).body)
        assert.is_nil((small:session():get(Bare, big.id)))
        session:close()
      end)
      must(small:drop "all")
      small:close()
      set(limit)
      if not ok then error(fault, 0) end
    end)

    it("of Redis' memory: reads go past it, writes that must tell it are refused", function()
      local redis = faults.redis()
      local user = must(db:new(User, { name = "there", visits = 1 }))
      must(db:flush())
      redis:call("CONFIG", "SET", "maxmemory", "1")
      local ok, fault = pcall(function()
        assert.equal("there", orm:session():get(User, user.id).name)
        must(orm:session():search(User, "1 = 1"):all())
        user.visits = 2
        local done, err = db:flush()
        assert.is_nil(done)
        assert.equal("UNAVAILABLE", err.code)
        done, err = db:flush_async()
        assert.is_nil(done)
        assert.equal("BACKPRESSURE", err.code)
        assert.equal(1, must(db:query("SELECT visits FROM user WHERE id = ?", user.id))[1].visits)
        must(db:execute("UPDATE user SET visits = 5 WHERE id = ?", user.id))
        must(orm:invalidate(User, { user.id }))
        assert.equal(5, orm:session():get(User, user.id).visits)
      end)
      redis:call("CONFIG", "SET", "maxmemory", "0")
      redis:close()
      if not ok then error(fault, 0) end
      must(db:flush())
      assert.equal(2, orm:session():get(User, user.id).visits)
    end)

    it("of writing at all: READ_ONLY", function()
      must(world.sql:connection(function(conn)
        must(conn:execute "CREATE USER IF NOT EXISTS 'reader'@'localhost' IDENTIFIED BY 'x'")
        must(conn:execute("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `" .. world.name .. "`.* TO "
          .. "'reader'@'localhost'"))
        return conn:execute "SET GLOBAL read_only = 1"
      end))
      local config = world:config { Team, User, Bare }
      config.mysql = { socket = os.getenv "REGOLITH_MYSQL_SOCKET", user = "reader", password = "x",
        database = world.name }
      local other = must(regolith.open(config))
      local ok, fault = pcall(function()
        local session = other:session()
        must(session:new(Bare, { id = 1, body = "x" }))
        local done, err = session:flush()
        assert.is_nil(done)
        assert.same({ "READ_ONLY", true }, { err.code, err.retriable })
        must(session:flush_async())
        local consumer = must(other:consumer())
        local applied, why = consumer:step(0)
        assert.is_nil(applied)
        assert.is_true(why.retriable)
        consumer:close()
        session:close()
      end)
      must(world.sql:connection(function(conn)
        must(conn:execute "SET GLOBAL read_only = 0")
        return conn:execute "DROP USER 'reader'@'localhost'"
      end))
      other:close()
      if not ok then error(fault, 0) end
      assert.equal(1, support.drain(orm))
      assert.equal("x", orm:session():get(Bare, 1).body)
    end)
  end)

  describe("handles", function()
    it("that are closed raise, and say which", function()
      local own = must(regolith.open(world:config { Team, User, Bare }))
      local session, consumer = own:session(), must(own:consumer())
      session:close()
      assert.matches("faults_spec.lua:%d+: the session is closed",
        select(2, pcall(function() session:get(User, 1) end)))
      local left = own:session()
      own:close()
      assert.matches("faults_spec.lua:%d+: the orm is closed", select(2, pcall(function() own:session() end)))
      for _, call in ipairs {
        function() return left:get(User, 1) end, function() return left:query "SELECT 1" end,
        function() return left:search(User, "1 = 1"):all() end, function() return consumer:step(0) end,
      } do
        local ok, v, err = pcall(call)
        assert.is_true(not ok or (v == nil and err.code == "CLOSED"), tostring(v) .. tostring(err))
      end
    end)

    it("that nobody holds any more are taken back", function()
      local config = world:config { Team, User, Bare }
      config.mysql = config.mysql .. "&pool=2"
      config.timeout_ms = 2000
      local own = must(regolith.open(config))
      for i = 1, 100 do
        local session = own:session()
        session:new(User, { name = "never flushed" })
        session:get(User, i)
        session:search(User, "1 = 1"):all()
        if i % 10 == 0 then
          must(own:consumer())
          pcall(function() session:connection(function() error "stop" end) end)
          collectgarbage()
        end
      end
      own:close()
      for _ = 1, 3 do
        regolith.open(world:config { Team, User, Bare }):session():get(User, 1)
        collectgarbage()
        collectgarbage()
      end
    end)

    -- Not under AddressSanitizer: a child inherits the locks of its allocator as they are, one of them maybe taken.
    if not support.is_under_asan() then
      it("survive a fork: the child makes connections of its own", function()
        local ok, text = faults.spawn("fork", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
          REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }):wait()
        assert.is_true(ok, text)
        assert.matches("child: 2.*parent: 3", text)
        assert.matches("child has MISUSE: flake: snowflake ids .*parent has a snowflake", text)
      end)
    end
  end)
end)
