-- SPDX-License-Identifier: MIT
-- Writes on condition whose connection is cut before the answer: nothing is made twice, and what cannot be
-- known is said to be unknown.

local faults = require "support.faults"
local shared = require "support.programs.guarded"
local support = require "support.init"

local must = support.must

describe("cas: a connection cut under a statement", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open(shared.list)
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  --- Holds the row's lock, cuts the connection of the process that waits for it, then lets go. What the
  --- process says of its write.
  local function cut(E, id, meanwhile, how)
    local process
    must(db:connection(function(held)
      must(held:execute "BEGIN")
      must(held:execute("UPDATE " .. E.name .. " SET n = n WHERE id = ?", id))
      process = faults.spawn("one_cas", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name },
        E == shared.Plain and "Plain" or "Versioned", id, how)
      local waiting = faults.await("a statement that waits", function()
        local rows = must(db:query("SELECT ID AS id FROM information_schema.processlist WHERE db = ? AND info LIKE ?",
          world.name, "UPDATE `" .. E.name .. "`%"))
        return rows[1] and rows[1].id
      end)
      must(world.sql:connection(function(other) return other:execute("KILL CONNECTION " .. waiting) end))
      if meanwhile then meanwhile(held) end
      must(held:execute "COMMIT")
      return true
    end))
    local ok, text = process:wait(60)
    assert.is_true(ok, text)
    return text
  end

  local function stored(E, id)
    must(db:new(E, { id = id, n = 5 }))
    must(db:flush())
  end

  local function n_of(E, id) return must(db:query("SELECT n FROM " .. E.name .. " WHERE id = ?", id))[1].n end

  it("is unknown when only values are compared", function()
    stored(shared.Plain, 1)
    local text = cut(shared.Plain, 1)
    assert.matches("outcome unknown", text)
    assert.matches("because COMMIT_UNKNOWN", text)
    assert.equal(5, n_of(shared.Plain, 1))
  end)

  it("of what the server computes was not committed: it is made then, once", function()
    stored(shared.Plain, 3)
    assert.matches("outcome applied", cut(shared.Plain, 3, nil, "increment"))
    assert.equal(6, n_of(shared.Plain, 3))
  end)

  it("is settled by the version, and made then", function()
    stored(shared.Versioned, 1)
    assert.matches("outcome applied", cut(shared.Versioned, 1))
    assert.equal(6, n_of(shared.Versioned, 1))
  end)

  it("is unknown when the version has gone on", function()
    stored(shared.Versioned, 2)
    local text = cut(shared.Versioned, 2, function(held)
      must(held:execute "UPDATE versioned SET v = v + 1, n = 50 WHERE id = 2")
    end)
    assert.matches("outcome unknown", text)
    assert.equal(50, n_of(shared.Versioned, 2))
  end)
end)
