-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must

describe("durable callbacks", function()
  local world, orm, ran, worker
  local answer -- what the handler "flaky" does

  local function open(more)
    local config = { callbacks = {
      ["mail.welcome"] = function(payload, callback) ran[#ran + 1] = { payload = payload, callback = callback } end,
      flaky = function(payload, callback)
        ran[#ran + 1] = { payload = payload, callback = callback }
        return answer(payload, callback)
      end,
      elsewhere = true,
    } }
    for option, v in pairs(more or {}) do config[option] = v end
    return world:open({}, config)
  end

  --- What has run, as "n" of each payload in a row.
  local function order()
    local list = {}
    for i, run in ipairs(ran) do list[i] = run.payload.n end
    return table.concat(list, " ")
  end

  local function work(w)
    local total = 0
    repeat
      local n = must((w or worker):step())
      total = total + n
    until n == 0
    return total
  end

  setup(function()
    world = support.world()
    orm = open()
  end)
  teardown(function() world:close() end)
  before_each(function()
    ran, answer = {}, function() end
    worker = orm:callback_worker { first_backoff_ms = 1, max_backoff_ms = 1, max_tries = 3 }
  end)
  after_each(function()
    worker:close()
    local session = orm:session()
    session:execute "DELETE FROM _regolith_callbacks WHERE state <> 'lock'"
    session:close()
  end)

  it("run by name with their payload and an identity of their own", function()
    assert.equal(0, work()) -- nothing was ever written
    local number = must(orm:callback("mail.welcome", { user = 7, n = 1, list = { "a" } }, { key = 7 }))
    assert.is_number(number)
    must(orm:callback("mail.welcome", nil))
    assert.equal(2, work())
    assert.same({ user = 7, n = 1, list = { "a" } }, ran[1].payload)
    assert.same({ "mail.welcome", "7", 1, number }, { ran[1].callback.name, ran[1].callback.key,
      ran[1].callback.tries, ran[1].callback.number })
    assert.matches("^%x+$", ran[1].callback.id)
    assert.is_not.equal(ran[1].callback.id, ran[2].callback.id)
    assert.is_nil(ran[2].payload)
    assert.equal(0, work())
    assert.same({ waiting = 0, dead = 0, oldest_s = 0 }, must(orm:callback_stats()))
  end)

  it("follow a transaction: they are there when it has committed, and only then", function()
    local callbacks = require "regolith.callbacks"
    local session = orm:session()
    for _, ending in ipairs { "ROLLBACK", "COMMIT" } do
      session:connection(function(conn)
        must(conn:execute "START TRANSACTION")
        must(callbacks.add(session, conn, "mail.welcome", { n = ending }))
        assert.equal(0, work())
        return conn:execute(ending)
      end)
    end
    assert.equal(1, work())
    assert.equal("COMMIT", order())
    session:close()
  end)

  it("keep the order of a key, and wait for the one that failed", function()
    local failures = 2
    answer = function(payload)
      if payload.n == 1 and failures > 0 then
        failures = failures - 1
        return nil, "not yet"
      end
    end
    for n = 1, 3 do must(orm:callback("flaky", { n = n }, { key = "k" })) end
    must(orm:callback("flaky", { n = 4 }))
    support.eventually(function()
      work()
      return #ran == 6
    end)
    local of_key = order():gsub(" ?4 ?", " ")
    assert.equal("1 1 1 2 3", (of_key:gsub("^ ", "")))
    assert.equal(3, worker:stats().done + 0 - 1)
  end)

  it("are dead when they have failed too often, hold up those behind, and may be replayed or dropped", function()
    local told
    local own = orm:callback_worker { first_backoff_ms = 1, max_backoff_ms = 1, max_tries = 2,
      on_dead = function(callback) told = callback end }
    answer = function(payload) if payload.n == 1 then error("no such user", 0) end end
    local first = must(orm:callback("flaky", { n = 1 }, { key = "k" }))
    must(orm:callback("flaky", { n = 2 }, { key = "k" }))
    support.eventually(function()
      work(own)
      return must(orm:callback_stats()).dead == 1
    end)
    assert.equal("1 1", order())
    assert.same({ "flaky", "no such user", 2 }, { told.name, told.error, told.tries })
    local letters = must(orm:callbacks { state = "dead" })
    assert.equal(1, #letters)
    assert.same({ first, "k", "no such user", 2 }, { letters[1].number, letters[1].key, letters[1].error,
      letters[1].tries })
    assert.equal(0, work(own)) -- the second waits behind it
    answer = function() end
    assert.equal(1, must(orm:callback_retry(first)))
    assert.equal(2, work(own))
    assert.equal("1 1 1 2", order())
    -- and dropped
    answer = function(payload) if payload.n == 5 then return false end end
    must(orm:callback("flaky", { n = 5 }, { key = "k" }))
    must(orm:callback("flaky", { n = 6 }, { key = "k" }))
    support.eventually(function()
      work(own)
      return must(orm:callback_stats()).dead == 1
    end)
    assert.equal(0, must(orm:callback_drop(first)))
    assert.equal(1, must(orm:callback_drop "all"))
    assert.equal(1, work(own))
    assert.equal(6, ran[#ran].payload.n)
    own:close()
  end)

  it("wait for their time", function()
    must(orm:callback("mail.welcome", { n = 1 }, { delay_ms = 1500 }))
    must(orm:callback("mail.welcome", { n = 2 }))
    assert.equal(1, work())
    assert.equal("2", order())
    assert.equal(1, must(orm:callback_stats()).waiting)
    support.eventually(function() return work() == 1 end)
    assert.equal("2 1", order())
  end)

  it("are left to those who know their name", function()
    must(orm:callback("elsewhere", { n = 1 }))
    assert.equal(0, work())
    assert.equal(1, must(orm:callback_stats()).waiting)
  end)

  it("refuse misuse where it stands", function()
    local function refused(pattern, ...)
      local given, n = { ... }, select("#", ...)
      local ok, fault = pcall(function()
        local number = orm:callback(unpack(given, 1, n))
        return number
      end)
      assert.is_false(ok)
      assert.matches(pattern, fault)
      assert.matches("callbacks_spec", fault)
    end
    refused("did you mean 'mail.welcome'", "mail.welcom", {})
    refused("no JSON", "flaky", { f = function() end })
    refused("option 'key'", "flaky", {}, { key = {} })
    refused("unknown option 'kye'", "flaky", {}, { kye = 1 })
    assert.matches("takes the number", select(2, pcall(orm.callback_drop, orm, "some")))
    local ok, fault = regolith.open(world:config({}, { callbacks = { a = 5 } }))
    assert.is_nil(ok)
    assert.matches("'a' is a number", tostring(fault))
  end)

  -- ---- workers that die ----

  local function env()
    return { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_PREFIX = world.name }
  end

  local function runs()
    return must(world.sql:query("SELECT uid, `key`, n FROM `" .. world.name .. "`.run ORDER BY number"))
  end

  local function count(sql)
    return must(world.sql:query("SELECT COUNT(*) AS n FROM `" .. world.name .. "`." .. sql))[1].n
  end

  it("survive workers that are killed at every moment: each runs, in the order of its key", function()
    local own = world:open({}, { callbacks = { note = true, other = true } })
    local session = own:session()
    must(session:connection(function(conn)
      return conn:execute("CREATE TABLE run (number INT AUTO_INCREMENT PRIMARY KEY, uid CHAR(32), "
        .. "`key` VARCHAR(20), n INT)")
    end))
    local wanted = 0
    local function add(keys)
      for key = 1, keys do
        for _ = 1, 3 do
          wanted = wanted + 1
          must(own:callback(wanted % 5 == 0 and "other" or "note", { n = wanted }, { key = "k" .. key }))
        end
      end
    end
    local deaths = 0
    for round = 1, 4 do
      add(3)
      for _, when in ipairs { "early", "late" } do
        local one = faults.spawn("callbacks", env(), "other", when)
        local two = faults.spawn("callbacks", env(), "-", when)
        faults.await("an end", function()
          return not one:running() or count "_regolith_callbacks WHERE state = 'waiting'" == 0
        end)
        if not one:running() then deaths = deaths + 1 end
        if round % 2 == 0 then faults.pause(round * 7) end
        one:kill()
        two:kill()
        add(1)
      end
    end
    assert.is_true(deaths > 0)
    local last = faults.spawn("callbacks", env(), "-", "-")
    faults.await("all to run", function() return count "_regolith_callbacks WHERE state <> 'lock'" == 0 end)
    last:signal "TERM"
    local ok, text = last:wait()
    assert.is_true(ok)
    assert.matches("ended", text)
    -- at least once, and the first runs of a key in order
    local seen, newest = {}, {}
    for _, run in ipairs(runs()) do
      if not seen[run.uid] then
        seen[run.uid] = true
        assert.is_true(run.n > (newest[run.key] or 0), run.key .. " out of order")
        newest[run.key] = run.n
      end
    end
    local distinct = 0
    for _ in pairs(seen) do distinct = distinct + 1 end
    assert.equal(wanted, distinct)
    session:close()
    world:shut(own)
  end)

  it("that kill each worker are dead after max_tries", function()
    local own = world:open({}, { callbacks = { note = true, other = true } })
    must(own:callback("other", { n = 1, poison = true }, { key = "p" }))
    must(own:callback("note", { n = 2 }, { key = "q" }))
    local deaths = 0
    local function is_done() -- who gives the one up goes on with the other
      local stats = must(own:callback_stats())
      return stats.dead == 1 and stats.waiting == 0
    end
    faults.await("a dead one", function()
      local one = faults.spawn("callbacks", env(), "other", "early")
      faults.await("its end", function() return not one:running() or is_done() end)
      if not one:running() then deaths = deaths + 1 end
      one:kill()
      return is_done()
    end)
    assert.equal(3, deaths)
    assert.matches("every worker", must(own:callbacks { state = "dead" })[1].error)
    world:shut(own)
  end)
end)
