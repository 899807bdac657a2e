-- SPDX-License-Identifier: MIT
-- What transactions send, and when: counted statements, and what travels together. What opens a transaction
-- goes with the first statement in it; the proxy sees to it that a client that waits for an answer in between
-- gets none.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must
local on_mariadb = support.is_mariadb() and it or pending

local Note = regolith.entity("note", { field.string "title" { length = 80, unique = true }, field.int32 "n" })
local Cached = regolith.entity("cached", {
  field.string "title" { length = 80 },
  cache = { process = true, redis = true },
})

describe("the cost of a transaction", function()
  local world, orm, db, proxy, warm_id

  setup(function()
    world = support.world()
    proxy = faults.proxy()
    world:open({ Note, Cached })
    orm = world:open({ Note, Cached }, {
      mysql = proxy:url(world.name, "&pool=2"), schema = false,
    })
  end)
  teardown(function()
    proxy:stop()
    world:close()
  end)
  local function say(word) proxy:say(word) end

  before_each(function()
    say "pass"
    db = orm:session()
    must(db:new(Note, { title = "warm" })) -- its statement is prepared, its ids are there
    local cached = must(db:new(Cached, { title = "warm" }))
    must(db:flush())
    warm_id = cached.id
    db:clear()
  end)
  after_each(function()
    say "pass"
    db:close()
    must(world.sql:query("DELETE FROM `" .. world.name .. "`.note"))
    support.no_transactions(world)
  end)

  local function titles()
    local list = {}
    local from = "`.note WHERE title <> 'warm' ORDER BY id"
    local rows = must(world.sql:query("SELECT title FROM `" .. world.name .. from))
    for i, row in ipairs(rows) do list[i] = row.title end
    return table.concat(list, " ")
  end

  --- What fn has sent: the first words of its statements.
  local function statements(fn) return support.statements(orm, fn) end

  --- What fn has sent, and whether each opening came with a statement ("together"), or waited for its answer.
  local function travels(fn)
    local from = #proxy:output()
    say "together"
    local sent = statements(fn)
    say "pass"
    local seen = {}
    for word in proxy:output():sub(from + 1):gmatch "%a+" do seen[#seen + 1] = word end
    return sent, table.concat(seen, " ")
  end

  local function note(title) return must(db:new(Note, { title = title })) end
  local function insert(title)
    return function()
      note(title)
      return true
    end
  end

  on_mariadb("of one insert is two round trips", function()
    local sent, seen = travels(function() must(db:transaction(insert "a")) end)
    assert.equal("BEGIN INSERT COMMIT", sent)
    assert.equal("together", seen)
    assert.equal("a", titles())
  end)

  on_mariadb("sends its isolation and its access along, too", function()
    local id = note("a").id
    must(db:flush())
    for expected, options in pairs {
      ["SET BEGIN SELECT COMMIT"] = { isolation = "SERIALIZABLE" }, ["START SELECT COMMIT"] = { read_only = true },
      ["SET START SELECT COMMIT"] = { isolation = "READ_COMMITTED", read_only = true },
    } do
      local sent, seen
      for _ = 1, 2 do -- the first time the statement is prepared
        db:clear()
        sent, seen = travels(function()
          assert.equal("a", must(db:transaction(options, function() return must(db:get(Note, id)).title end)))
        end)
        assert.equal(expected, sent)
      end
      assert.equal("together", seen)
    end
  end)

  on_mariadb("takes a savepoint, a statement of the application and many rows along", function()
    for what, body in pairs {
      ["BEGIN SAVEPOINT INSERT COMMIT"] = function()
        return db:transaction({ propagation = "NESTED" }, insert "s")
      end,
      ["BEGIN DO COMMIT"] = function() return db:execute "DO 1" end,
      ["BEGIN INSERT COMMIT"] = function()
        note "m1"
        note "m2"
        return true
      end,
    } do
      local sent, seen = travels(function() must(db:transaction(body)) end)
      assert.equal(what, sent)
      assert.equal("together", seen, what)
    end
  end)

  it("is nothing for a joined scope, however it joins", function()
    for _, mode in ipairs { "REQUIRED", "SUPPORTS", "MANDATORY" } do
      assert.equal("BEGIN INSERT INSERT COMMIT", statements(function()
        must(db:transaction(function()
          note(mode .. 1)
          must(db:flush())
          for _ = 1, 3 do must(db:transaction({ propagation = mode }, function() return true end)) end
          return db:transaction({ propagation = mode }, insert(mode .. 2))
        end))
      end))
    end
  end)

  it("is nothing before the first statement, nor for a transaction without any", function()
    assert.equal("", statements(function()
      local tx = must(db:begin())
      must(tx:commit())
      tx = must(db:begin { isolation = "SERIALIZABLE", read_only = true })
      tx:rollback()
      for _, mode in ipairs { "NESTED", "REQUIRES_NEW", "NOT_SUPPORTED" } do
        must(db:transaction(function() return db:transaction({ propagation = mode }, function() return true end) end))
      end
      db:transaction(function(scope)
        scope:rollback_only()
        return true
      end)
      pcall(db.transaction, db, function() error "no" end)
    end))
    faults.await("a transaction that reads from the caches alone", function()
      db:clear()
      return statements(function()
        assert.equal("warm", db:transaction(function() return must(db:get(Cached, warm_id)).title end))
      end) == ""
    end)
  end)

  it("goes on when its first statement fails, as it is open all the same", function()
    note "taken"
    must(db:flush())
    local failed
    assert.equal("BEGIN INSERT INSERT COMMIT", statements(function()
      must(db:transaction(function()
        local other = note "taken"
        local _, fault = db:flush()
        failed = fault.code
        db:discard(other)
        note "later"
        return true
      end))
    end))
    assert.equal("DUPLICATE_KEY", failed)
    assert.equal("taken later", titles())
    assert.equal("BEGIN INSERT ROLLBACK", statements(function()
      local ok, fault = db:transaction(insert "taken")
      assert.is_nil(ok)
      assert.equal("DUPLICATE_KEY", fault.code)
    end))
    db:discard()
    assert.equal("taken later", titles())
  end)

  it("prepares its first statement in the transaction", function()
    local fresh = orm:session()
    must(fresh:execute "DO 1")
    assert.equal("BEGIN SELECT UPDATE COMMIT", statements(function()
      must(fresh:transaction(function()
        local warm = must(fresh:search(Note, "title = ?", "warm"):all())[1]
        warm.n = 7
        return true
      end))
    end))
    fresh:close()
  end)

  on_mariadb("with a beginning that the server refuses is an error, and nobody uses the connection again", function()
    local ran = {}
    say "refuse 1047"
    local ok, fault = db:transaction(function(tx)
      tx:commit(function() ran[#ran + 1] = "commit" end)
      tx:compensate(function() ran[#ran + 1] = "compensate" end)
      return db:query "SELECT 1"
    end)
    say "pass"
    assert.is_nil(ok)
    assert.equal(1047, fault.errno, tostring(fault))
    assert.same({ "compensate" }, ran)
    db:discard()
    db:clear()
    must(db:transaction(insert "found"))
    assert.equal("found", titles():match "found")
  end)

  on_mariadb("says that what was sent with a refused beginning may have been done", function()
    say "refuse 1047"
    local ok, fault = db:transaction(insert "alone")
    say "pass"
    assert.is_nil(ok)
    assert.equal("COMMIT_UNKNOWN", fault.code, tostring(fault))
    faults.await("what was sent with it", function() return titles() == "alone" end) -- no server does that
    db:discard()
    must(db:transaction(insert "found"))
    assert.equal("alone found", titles())
  end)

  it("is all or nothing wherever its connection is cut", function()
    for _, when in ipairs { "before", "after" } do
      for n = 1, 4 do
        say(string.format("cut %d %s", n, when))
        local ok, fault = db:transaction({ resolve = false }, insert "cut")
        say "pass"
        local there = titles()
        if ok then
          assert.equal("cut", there)
        elseif fault.code ~= "COMMIT_UNKNOWN" then
          assert.equal("", there)
        end
        db:clear()
        must(world.sql:query("DELETE FROM `" .. world.name .. "`.note WHERE title = 'cut'"))
        must(db:transaction(insert "whole")) -- on another connection
        assert.equal("whole", titles())
        must(world.sql:query("DELETE FROM `" .. world.name .. "`.note WHERE title = 'whole'"))
        db:clear()
      end
    end
  end)
end)
