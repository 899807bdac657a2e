-- SPDX-License-Identifier: MIT
-- Secrets: passwords and the values of sensitive columns show in no error, log, listing or metric.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local CANARY = "canary7f3a"

local Account = regolith.entity("account", {
  field.string "name" { required = true, unique = true, length = 40 },
  field.string "token" { sensitive = true, nullable = true, unique = true, length = 40 },
  field.enum "grade" { "low", "high", sensitive = true, nullable = true },
  field.uint8 "pin" { sensitive = true, nullable = true },
  field.set "flags" { "a", "b", sensitive = true },
  field.date "born" { sensitive = true, nullable = true },
  field.decimal "salary" { sensitive = true, nullable = true, precision = 6 },
  field.json "notes" { sensitive = true }, field.blob "key" { sensitive = true },
  index = { by_pin = { "pin", cached = true } },
  cache = true,
})

--- Everything that a value says of itself, to any depth.
local function text_of(v, seen)
  seen = seen or {}
  if type(v) ~= "table" or seen[v] then return tostring(v) end
  seen[v] = true
  local parts = { tostring(v) }
  for k, inner in pairs(v) do parts[#parts + 1] = tostring(k) .. "=" .. text_of(inner, seen) end
  return table.concat(parts, "\n")
end

local function clean(what, text)
  local at = text:lower():find("canary", 1, true)
  if at then error(what .. " shows a secret: " .. text:sub(math.max(at - 60, 1), at + 40), 2) end
end

--- An error without the entity it is about, which its owner has anyway.
local function said(err)
  local row = err.row
  err.row = nil
  local text = text_of(err)
  err.row = row
  return text
end

describe("a secret", function()
  local world, orm, db
  local events

  setup(function()
    world = support.world()
    orm = world:open { Account }
  end)
  teardown(function() world:close() end)

  before_each(function()
    db = orm:session()
    events = {}
    orm:log(function(event) events[#events + 1] = event end, { mysql = true, redis = true, process = true })
  end)
  after_each(function()
    orm:log(nil)
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    must(world.sql:connection(function(conn) return conn:execute("DELETE FROM `" .. world.name .. "`.account") end))
    must(orm:invalidate(Account))
  end)

  local function account(values)
    values.name = values.name or "n" .. faults.now()
    return must(db:new(Account, values))
  end

  it("of a sensitive column is in no error of a value", function()
    local wrong = {
      token = { CANARY .. ("x"):rep(40), CANARY .. "\255" }, grade = { CANARY }, pin = { CANARY, 300, -7 },
      flags = { { CANARY }, CANARY }, born = { CANARY, "2026-02-30" }, salary = { CANARY, "1234567.891" },
      notes = { { [CANARY] = 0 / 0 }, CANARY .. "\255" },
    }
    for name, values in pairs(wrong) do
      for _, v in ipairs(values) do
        for _, way in ipairs { "flush", "flush_async" } do
          account { [name] = v }
          local ok, err = db[way](db)
          assert.is_nil(ok)
          assert.same({ "INVALID", name }, { err.code, err.field })
          clean(name, said(err))
          if type(v) == "number" or v == "2026-02-30" or v == "1234567.891" then
            assert.is_nil(err.message:find(tostring(v), 1, true), err.message)
          end
          db:discard()
        end
      end
    end
    local found, err = db:by(Account, "token", CANARY .. "\255")
    assert.is_nil(found)
    clean("a lookup", said(err))
  end)

  it("of a sensitive column is in no error of the server", function()
    account { token = CANARY }
    must(db:flush())
    account { token = CANARY }
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.same({ "DUPLICATE_KEY", "token" }, { err.code, err.index })
    clean("DUPLICATE_KEY", said(err))
    db:discard()
    for _, call in ipairs {
      function() return db:query("SELECT * FROM account WHERE nothing = ? AND token = ?", 1, CANARY) end,
      function() return db:execute("INSERT INTO account (id, token, notes, flags) VALUES (5, ?, 'x', '')", CANARY) end,
      function() return db:execute("UPDATE account SET pin = ?", CANARY) end,
      function() return db:execute("UPDATE account SET born = ?", CANARY) end,
      function() return db:execute("UPDATE account SET `grade` = ?", CANARY) end,
      function() return db:query("SELECT ? FROM", CANARY) end,
      function() return db:query("SELEKT '" .. CANARY .. "'") end,
      function() return db:search(Account, "token = ? AND nothing", CANARY):all() end,
      function() return db:query("SELECT CAST(? AS DATE) + INTERVAL ? DAY", CANARY, CANARY) end,
      function() return db:execute("SELECT 1 INTO @x FROM account WHERE JSON_EXTRACT(?, ?)", CANARY, CANARY) end,
    } do
      local v, fault = call()
      if v == nil then clean("an error", said(fault)) end
    end
  end)

  it("is in no event of the log: values only when asked for, sensitive ones not even then", function()
    local function work()
      local a = account { name = "open1 " .. faults.now(), token = CANARY, notes = { CANARY }, key = CANARY }
      must(db:flush())
      account { name = "open2 " .. faults.now(), token = CANARY .. 2 }
      account { name = "open3 " .. faults.now(), token = CANARY .. 3 }
      must(db:flush())
      a.token = CANARY .. "changed"
      must(db:flush())
      a.key = CANARY .. "queued"
      must(db:flush_async())
      support.drain(orm)
      local other = orm:session()
      other:get(Account, a.id)
      other:by(Account, "token", CANARY .. "changed")
      other:by(Account, "token", CANARY .. "nobody")
      must(orm:invalidate(Account))
      other:clear()
      other:by(Account, "token", CANARY .. "changed")
      db:delete(a)
      must(db:flush())
      other:close()
    end
    work()
    must(db:query("SELECT '" .. CANARY .. "' AS a, \"" .. CANARY .. "\" AS b, ? AS c", CANARY))
    db:search(Account, "token = '" .. CANARY .. "' /* x */ AND name <> ?", CANARY):all()
    assert.is_true(#events > 20)
    for _, event in ipairs(events) do clean("an event", text_of(event)) end
    must(world.sql:connection(function(conn) return conn:execute("DELETE FROM `" .. world.name .. "`.account") end))
    must(orm:invalidate(Account))
    events = {}
    orm:log(function(event) events[#events + 1] = event end, { mysql = true, values = true })
    work()
    for _, event in ipairs(events) do clean("an event with values", text_of(event)) end
  end)

  it("of a sensitive column is in no listing of dead letters", function()
    must(db:execute([[INSERT INTO account (id, name, token, notes, flags, `key`)
      VALUES (900001, 'taken', ?, '[]', '', '')]], CANARY))
    account { name = "other", token = CANARY, notes = { CANARY }, key = CANARY, grade = "high", pin = 99,
      salary = "77.50" }
    must(db:flush_async())
    account { name = "taken", token = CANARY .. 2 }
    must(db:flush_async())
    support.drain(orm)
    local letters = must(orm:dead_letters())
    assert.equal(2, #letters)
    clean("the list", text_of(letters))
    for _, letter in ipairs(letters) do
      local full = must(orm:dead_letter(letter.number))
      clean("a letter", text_of(full))
      assert.is_string(full.values.name)
      assert.is_nil(text_of(full.values):find("high", 1, true))
      assert.is_nil(text_of(full.values):find("77.50", 1, true))
      assert.equal(1, must(orm:retry(letter.number)) - 1)
    end
    for _, row in ipairs(must(db:query "SELECT error FROM _regolith_dead")) do clean("its row", row.error) end
    clean("the queues", text_of(must(orm:queues())))
    clean("the metrics", orm:metrics())
    for _, event in ipairs(events) do clean("an event", text_of(event)) end
  end)

  it("of a pool is in nothing that can be printed", function()
    local user = "'teller'@'localhost'"
    must(world.sql:connection(function(conn)
      must(conn:execute("CREATE USER " .. user .. " IDENTIFIED BY '" .. CANARY .. "'"))
      return conn:execute("GRANT ALL ON `" .. world.name .. "`.* TO " .. user)
    end))
    finally(function()
      must(world.sql:connection(function(conn) return conn:execute("DROP USER " .. user) end))
    end)
    local function open(more)
      local config = {
        mysql = "mysql+unix://teller:" .. CANARY .. "@" .. os.getenv "REGOLITH_MYSQL_SOCKET" .. "?db=" .. world.name,
        redis = { socket = os.getenv "REGOLITH_REDIS_SOCKET" }, entities = { Account },
      }
      for k, v in pairs(more or {}) do config[k] = v end
      return regolith.open(config)
    end
    local own = must(open())
    clean("the orm", text_of(own))
    clean("a session", text_of(own:session()))
    clean("health", text_of(must(own:health())))
    clean("stats", text_of(own:stats()))
    clean("metrics", own:metrics())
    own:close()
    for _, more in ipairs {
      { lazy = false, mysql = "mysql://app:" .. CANARY .. "@127.0.0.1:1/db" },
      { mysql = "mysql://app:" .. CANARY .. "@:x/db" },
      { mysql = "mysql://app:" .. CANARY .. "%zz@host/db" }, { mysql = "mysqlx://app:" .. CANARY .. "@host/db" },
      { mysql = { host = "h", pasword = CANARY, db = "d" } },
      { mysql = { host = "h", password = { CANARY }, db = "d" } },
      { redis = "redis://:" .. CANARY .. "@127.0.0.1:1", lazy = false }, { redis = "redis://:" .. CANARY .. "@host/x" },
      { redis = { socket = os.getenv "REGOLITH_REDIS_SOCKET", password = CANARY }, lazy = false },
      { mysql = { socket = os.getenv "REGOLITH_MYSQL_SOCKET", user = "nobody", password = CANARY, db = world.name },
        lazy = false },
    } do
      local found, err = open(more)
      assert.is_nil(found)
      clean("an error of open", said(err))
    end
  end)
end)
