-- SPDX-License-Identifier: MIT
-- Reads that lock rows until the end of a transaction.

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

describe("a lock", function()
  local world, orm, db, other, a, b

  setup(function()
    world = support.world()
    orm = world:open { Note }
  end)
  teardown(function() world:close() end)
  before_each(function()
    db, other = orm:session(), orm:session()
    a, b = must(db:new(Note, { title = "a", n = 1 })), must(db:new(Note, { title = "b", n = 1 }))
    must(db:flush())
    db:clear()
  end)
  after_each(function()
    must(db:execute "DELETE FROM note")
    must(orm:invalidate(Note))
    db:close()
    other:close()
  end)

  local function titles(list)
    local names = {}
    for i, e in ipairs(list) do names[i] = e.title end
    return table.concat(names, " ")
  end

  it("keeps others from a row until the end; they wait, fail at once, or leave it out", function()
    db:transaction(function()
      assert.equal("a", must(db:get(Note, a.id, { lock = "update" })).title)
      other:transaction({ mark_on_failure = false }, function()
        local e, why = other:get(Note, a.id, { lock = "update", nowait = true })
        assert.is_nil(e)
        assert.equal("DEADLOCK", why.code)
        assert.is_nil((other:get(Note, a.id, { lock = "share", skip_locked = true })))
        assert.equal("b", must(other:get(Note, b.id, { lock = "update", skip_locked = true })).title)
        assert.equal("b", titles(must(other:all_by(Note, "by_n", 1, { lock = "update", skip_locked = true }))))
        assert.equal("b", titles(must(other:search(Note, "n = ? ORDER BY id", 1)
          :lock("update", { skip_locked = true }):all())))
        assert.is_nil((other:by(Note, "title", "a", { lock = "share", skip_locked = true })))
        return true
      end)
    end)
    other:transaction(function() assert.is_not_nil(must(other:get(Note, a.id, { lock = "update", nowait = true }))) end)
  end)

  it("for share lets others read", function()
    db:transaction(function()
      must(db:by(Note, "title", "a", { lock = "share" }))
      other:transaction(function()
        assert.is_not_nil(must(other:get(Note, a.id, { lock = "share", nowait = true })))
        local e, why = other:get(Note, a.id, { lock = "update", nowait = true })
        assert.is_nil(e)
        assert.equal("DEADLOCK", why.code)
      end)
    end)
  end)

  it("brings what is known up to date, so that no step is lost", function()
    local mine = must(db:get(Note, a.id))
    must(other:get(Note, a.id)).n = 41
    must(other:flush())
    assert.equal(1, mine.n)
    must(db:transaction(function()
      local locked = must(db:get(Note, a.id, { lock = "update" }))
      assert.equal(mine, locked)
      locked.n = locked.n + 1
      return true
    end))
    other:clear()
    assert.equal(42, other:get(Note, a.id).n)
  end)

  it("is a conflict with pending changes of a row that has changed", function()
    local mine = must(db:get(Note, a.id))
    must(other:get(Note, a.id)).n = 41
    must(other:flush())
    mine.n = 2
    local ok, e = db:transaction(function() return db:get(Note, a.id, { lock = "update" }) end)
    assert.is_nil(ok)
    assert.equal("CONFLICT", e.code)
    assert.equal(mine, e.row)
    assert.equal(2, mine.n)
    db:discard()
  end)

  it("needs a transaction, and options that make sense", function()
    assert.error_matches(function() db:get(Note, a.id, { lock = "update" }) end, "until the end of a transaction")
    assert.error_matches(function() db:search(Note, "1 = 1"):lock "share" end, "until the end of a transaction")
    assert.error_matches(function() db:by(Note, "title", "a", { lock = "shared" }) end, "did you mean 'share'")
    assert.error_matches(function() db:get(Note, a.id, { nowait = true }) end, "are for a 'lock'")
    db:transaction(function()
      assert.error_matches(function()
        db:get(Note, a.id, { lock = "update", nowait = true, skip_locked = true })
      end, "exclude each other")
    end)
    assert.equal("a", db:get(Note, a.id, {}).title)
  end)

  it("shares out work: each of many takers gets rows of its own", function()
    for i = 1, 6 do must(db:new(Note, { title = "job " .. i, n = 7 })) end
    must(db:flush())
    local takers, taken = {}, {}
    for i = 1, 3 do
      local session = orm:session()
      takers[i] = session
      must(session:begin())
      for _, e in ipairs(must(session:search(Note, "n = 7 ORDER BY id LIMIT 2"):lock("update", { skip_locked = true })
        :all())) do
        assert.is_nil(taken[e.id])
        taken[e.id] = true
        e.n = 8
      end
    end
    for _, session in ipairs(takers) do
      must(session:current():commit())
      session:close()
    end
    assert.equal(6, must(db:search(Note, "n = 8"):count()))
  end)
end)
