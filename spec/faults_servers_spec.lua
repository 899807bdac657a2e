-- SPDX-License-Identifier: MIT
-- Servers that are down, refuse, or are killed at work: what was acknowledged is there, what was not is
-- told apart, and all goes on when they are back.

local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Plain = regolith.entity("plain", { field.string "name" { required = true } })
local Cached = regolith.entity("cached", { field.string "name" { required = true, unique = true }, cache = true })
local ENTITIES = { Plain, Cached, shared.Line, shared.Counter }

describe("a server", function()
  local servers

  setup(function() servers = faults.servers "servers" end)
  teardown(function() servers:remove() end)
  before_each(function() servers:start() end)

  --- Calls fn until it works; anything but a refusal for now is an error.
  local function until_it_works(what, fn)
    return faults.await(what, function()
      local v, err = fn()
      if v == nil then
        assert.is_true(err.retriable, tostring(err))
        assert.is_truthy(err.code == "UNAVAILABLE" or err.code == "TIMEOUT", tostring(err))
      end
      return v
    end)
  end

  for which, pool in pairs { mysql = "pool 'default'", redis = "Redis pool default" } do
    it("may be down when the orm is opened: " .. which, function()
      servers:open(ENTITIES):close()
      servers:kill(which)
      local config = { mysql = servers:mysql_url(), redis = servers:redis_url(), entities = ENTITIES,
        timeout_ms = 2000 }
      config.lazy = false
      local orm, err = regolith.open(config)
      assert.is_nil(orm)
      assert.equal("UNAVAILABLE", err.code)
      assert.is_true(err.retriable)
      assert.is_truthy(err.message:find(pool, 1, true), err.message)
      config.lazy = true
      orm = must(regolith.open(config))
      local db = orm:session()
      local started = faults.now()
      if which == "mysql" then
        for _, call in ipairs {
          function() return db:get(Plain, 1) end,
          function()
            local e = db:new(Plain, { name = "x" }) -- has no id yet
            local ok, why = db:flush()
            assert.is_true(db:is_new(e))
            db:discard()
            return ok, why
          end,
          function() return db:search(Plain, "1 = 1"):all() end, function() return db:query "SELECT 1" end,
          function() return db:connection(function() return true end) end, function() return orm:schema_diff() end,
          function() return db:by(Cached, "name", "x") end, function() return db:all(Cached) end,
          function() return orm:consumer():step(0) end, function() return orm:dead_letters() end,
        } do
          local v, fault = call()
          assert.is_nil(v)
          assert.equal("UNAVAILABLE", fault.code)
        end
      else
        local e = must(db:new(Cached, { name = "x" }))
        assert.is_nil((db:get(Cached, 123456))) -- past Redis
        local ok, fault = db:flush()
        assert.is_nil(ok)
        assert.equal("UNAVAILABLE", fault.code)
        assert.is_true(db:is_new(e)) -- as it was
        ok, fault = db:flush_async()
        assert.is_nil(ok)
        assert.equal("UNAVAILABLE", fault.code)
        db:discard()
        must(db:new(Plain, { name = "needs no Redis" }))
        must(db:flush())
        assert.equal(0, db:search(Cached, "name = 'x'"):count())
      end
      assert.is_true(faults.now() - started < 8)
      local health = must(orm:health())
      for _, state in ipairs(health) do assert.equal(state.kind ~= which, state.ok) end
      servers:start()
      until_it_works("the first write", function()
        local rows, late = db:query "SELECT 1 AS one"
        if not rows then return nil, late end
        assert.equal(1, #rows)
        local e, fault = db:new(Cached, { name = "back " .. which })
        if not e then return nil, fault end
        local ok, why = db:flush()
        if not ok then db:discard() end
        return ok, why
      end)
      assert.equal("back " .. which, orm:session():by(Cached, "name", "back " .. which).name)
      for _, state in ipairs(must(orm:health())) do assert.is_true(state.ok) end
      db:close()
      orm:close()
    end)
  end

  it("that forgets a connection is asked again on another one", function()
    local orm = servers:open(ENTITIES)
    local db = orm:session()
    local e = must(db:new(Cached, { name = "patient" }))
    must(db:flush())
    for _ = 1, 3 do
      servers:kill "mysql"
      servers:start()
      until_it_works("a read", function() return orm:session():query "SELECT 1" end)
      must(orm:invalidate(Cached))
      assert.equal("patient", orm:session():get(Cached, e.id).name)
    end
    db:close()
    orm:close()
  end)

  --- What a writer said: ids by word.
  local function outcomes(text)
    local said = { ok = {}, no = {}, maybe = {} }
    for word, id in text:gmatch "(%a+) (%d+)[^\n]*\n" do table.insert(said[word], tonumber(id)) end
    return said
  end

  local function rows_of(orm)
    local rows, n = {}, 0
    for _, row in ipairs(must(orm:session():query "SELECT id, n FROM line")) do
      assert.equal(row.id * 3, row.n)
      rows[row.id] = true
      n = n + 1
    end
    return rows, n
  end

  local function check(orm, said)
    local rows, n = rows_of(orm)
    for _, id in ipairs(said.ok) do assert.is_true(rows[id], id .. " was acknowledged and is lost") end
    for _, id in ipairs(said.no) do assert.is_nil(rows[id], id .. " was refused and is there") end
    assert.is_true(n <= #said.ok + #said.maybe + 1) -- the last one was killed before it could say
    local db = orm:session()
    for id in pairs(rows) do -- the caches say the same
      assert.equal(id * 3, must(db:get(shared.Line, id)).n)
    end
    for _, list in ipairs { said.no, said.maybe } do
      for _, id in ipairs(list) do
        local found, err = db:get(shared.Line, id)
        assert.is_nil(err)
        if (found ~= nil) ~= (rows[id] ~= nil) then
          error(string.format("%d: MySQL has %s, the caches %s", id, tostring(rows[id]), tostring(found)))
        end
      end
    end
    db:close()
  end

  --- How often it has said that.
  local function told(process, pattern) return select(2, process:output():gsub(pattern, "")) end

  local function work(process, more)
    local before = told(process, "ok ")
    faults.await("work to go on", function() return told(process, "ok ") > before + more end)
  end

  --- Waits until it was told for certain that nothing was written.
  local function refusal(process)
    local before = told(process, "no %d")
    faults.await("a refusal", function() return told(process, "no %d") > before end)
  end

  --- Ids that nobody has used: a writer that was killed may have left marks on others.
  local first_id = 1
  local function ids()
    first_id = first_id + 1000000
    return first_id
  end

  for _, which in ipairs { "mysql", "redis" } do
    it("may be killed while flushes are under way: " .. which, function()
      local orm = servers:open(ENTITIES)
      must(orm:session():execute "DELETE FROM line")
      must(orm:invalidate(shared.Line))
      local writer = faults.spawn("load", servers:env(), "flush", ids())
      for _ = 1, 4 do
        work(writer, 30)
        servers:kill(which)
        refusal(writer)
        servers:start()
      end
      work(writer, 30)
      writer:signal "KILL"
      local _, text = writer:wait()
      local said = outcomes(text)
      assert.is_true(#said.ok > 100 and #said.no > 0, text)
      check(orm, said)
      orm:close()
    end)
  end

  it("that stands still runs into deadlines, and is used again afterwards", function()
    local orm = servers:open(ENTITIES)
    local db, hasty = orm:session(), orm:session { timeout_ms = 400 }
    local e = must(db:new(Cached, { name = "still" }))
    must(db:flush())
    local same = faults.await("the row", function() return hasty:get(Cached, e.id) end)
    for _, which in ipairs { "mysql", "redis" } do
      servers:stop(which)
      local started = faults.now()
      local found, err
      if which == "mysql" then found, err = hasty:query "SELECT 1" else
        same.name = same.name .. "x"
        found, err = hasty:flush()
      end
      servers:continue(which)
      assert.is_nil(found)
      assert.is_true(err.code == "TIMEOUT" or err.code == "UNAVAILABLE", tostring(err))
      assert.is_true(faults.now() - started < 3)
      hasty:discard()
      until_it_works("the next call", function() return db:query "SELECT 1" end)
    end
    until_it_works("a write", function()
      e.name = "moving"
      local ok, err = db:flush()
      if not ok then db:discard() end
      return ok, err
    end)
    assert.equal("moving", orm:session():by(Cached, "name", "moving").name)
    hasty:close()
    db:close()
    orm:close()
  end)

  it("that knows another password says so without telling it", function()
    local orm = servers:open(ENTITIES)
    must(orm:session():connection(function(conn)
      must(conn:execute "CREATE USER IF NOT EXISTS 'app'@'localhost' IDENTIFIED BY 'right-canary'")
      return conn:execute "GRANT SELECT ON regolith_test.* TO 'app'@'localhost'"
    end))
    local redis = faults.redis(servers.redis_socket)
    must(redis:call("CONFIG", "SET", "requirepass", "right-canary"))
    local function open(mysql, redis_password)
      return regolith.open {
        mysql = { socket = servers.mysql_socket, user = "app", database = "regolith_test", password = mysql },
        redis = { socket = servers.redis_socket, password = redis_password }, entities = ENTITIES, lazy = false,
      }
    end
    for _, case in ipairs {
      { "wrong-canary", "right-canary", 1045 }, { nil, "right-canary", 1045 }, { "right-canary", "wrong-canary" },
      { "right-canary", nil },
    } do
      local found, err = open(case[1], case[2])
      assert.is_nil(found)
      assert.equal("ACCESS", err.code)
      assert.is_false(err.retriable)
      assert.equal(case[3], err.errno)
      assert.is_nil(tostring(err):find("canary", 1, true))
    end
    local other = must(open("right-canary", "right-canary"))
    local db = other:session()
    local ok, err = db:execute "INSERT INTO plain (id, name) VALUES (1, 'x')"
    assert.is_nil(ok)
    assert.equal("ACCESS", err.code)
    db:close()
    other:close()
    must(redis:call("CONFIG", "SET", "requirepass", ""))
    redis:close()
    orm:close()
  end)

  it("without the database or the table says which", function()
    local _, err = regolith.open { mysql = servers:mysql_url():gsub("regolith_test", "nowhere_at_all"),
      redis = servers:redis_url(), entities = ENTITIES, lazy = false }
    assert.same({ "SCHEMA", 1049 }, { err.code, err.errno })
    assert.matches("nowhere_at_all", err.message)
    local Missing = regolith.entity("missing", { field.string "name" { unique = true }, cache = true,
      ids = "snowflake" })
    local orm = must(regolith.open { mysql = servers:mysql_url(), redis = servers:redis_url(), entities = { Missing } })
    local db = orm:session()
    db:new(Missing, { name = "x" })
    for _, call in ipairs {
      function() return db:flush() end, function() return db:get(Missing, 5) end, function() return db:all(Missing) end,
      function() return db:by(Missing, "name", "y") end, function() return db:search(Missing, "1 = 1"):count() end,
    } do
      local v, fault = call()
      assert.is_nil(v)
      assert.same({ "SCHEMA", "missing", 1146, "42S02" }, { fault.code, fault.entity, fault.errno, fault.sqlstate })
    end
    must(orm:schema_apply())
    must(db:flush())
    assert.equal("x", orm:session():by(Missing, "name", "x").name)
    db:close()
    orm:close()
  end)
end)
