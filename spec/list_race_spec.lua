-- SPDX-License-Identifier: MIT
-- Cached lists (all, of an index, of a reference, of a unique value and its absence) when a writer dies at
-- any step, its marks expire, and readers fill meanwhile. Races at random are those of nemesis_spec.

local faults = require "support.faults"
local list_acts = require "support.list_acts"
local support = require "support.init"

local must = support.must
local MARK_MS = 400
local WRITTEN, COMMITTED, PUBLISHED, UNDONE = 12, 14, 15, 16 -- kill points
local CONSUMED = { ADVANCED = 7, COMMITTED = 8, TOLD = 9 }

describe("cached lists", function()
  local world, orm, Box, Item, a, b

  setup(function()
    world = support.world()
    Box, Item = list_acts.entities { redis = true }
    orm = world:open({ Box, Item }, { mark_ms = MARK_MS })
    local db = orm:session()
    a, b = must(db:new(Box, { name = "a" })), must(db:new(Box, { name = "b" }))
    must(db:flush())
    a, b = a.id, b.id
    db:close()
  end)
  teardown(function() world:close() end)

  local function ids(list)
    local words = {}
    for i, e in ipairs(list) do words[i] = e.id end
    return table.concat(words, " ")
  end

  --- Every list, as the caches say.
  local function cached()
    local db = orm:session()
    local out = { all = ids(must(db:all(Item))), a = ids(must(db:all_by(Item, "box", a))),
      b = ids(must(db:all_by(Item, "box", b))) }
    for slot = 1, 3 do
      local e, err = db:by(Item, "slot", slot)
      must(e or not err, err)
      out[slot] = ids { e }
    end
    db:close()
    return out
  end

  --- Every list, as the database says.
  local function stored()
    local db = orm:session()
    local function query(where, ...)
      return ids(must(db:query("SELECT id FROM item WHERE " .. where .. " ORDER BY id", ...)))
    end
    local out = { all = query "1 = 1", a = query("box_id = ?", a), b = query("box_id = ?", b) }
    for slot = 1, 3 do out[slot] = query("slot = ?", slot) end
    db:close()
    return out
  end

  --- Nothing of a dead process is at work in the database.
  local function settled()
    return must(world.sql:query([[SELECT COUNT(*) AS n FROM information_schema.innodb_trx t
      JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?]], world.name))[1].n == 0
  end

  local function from_cache()
    return support.count(orm, cached).mysql == 0
  end

  local function warm()
    faults.await("lists from the cache", from_cache)
    assert.same(stored(), cached())
  end

  --- Has a process do something, and die at a step; the lists are right at once, and stay so.
  local function die_at(step, ...)
    warm()
    local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name, MARK_MS = MARK_MS, REGOLITH_KILL_POINT = step .. ":1" }
    local process = faults.spawn("lister", env, ...)
    local text
    faults.await("its end", function()
      if process:running() then return false end
      text = process:output()
      os.remove(process.path)
      return true
    end)
    assert.equal("", text) -- it did not come to its end
    faults.await("the end of its transaction", settled)
    local before = stored()
    assert.same(before, cached())
    assert.same(before, cached())
    faults.await("lists from the cache again", from_cache)
    assert.same(before, cached())
    assert.same(before, stored())
    return before
  end

  local function id_of(list, i)
    local words = {}
    for word in list:gmatch "%d+" do words[#words + 1] = tonumber(word) end
    return words[i or 1]
  end

  --- Two rows in box a, of slots 1 and 2.
  local function begin_anew()
    local db = orm:session()
    must(db:execute "DELETE FROM item")
    must(orm:invalidate(Item))
    must(db:new(Item, { box = a, slot = 1 }))
    must(db:new(Item, { box = a, slot = 2 }))
    must(db:flush())
    db:close()
    return stored()
  end

  it("are as the database holds them when a writer dies at any step", function()
    for step = WRITTEN, PUBLISHED do
      local before = begin_anew()
      local committed = step >= COMMITTED
      local function check(after, ...)
        for i = 1, select("#", ...) do
          local list = select(i, ...)
          assert.equal(committed, before[list] ~= after[list], "list " .. list)
        end
        before = after
      end
      check(die_at(step, "insert", b, 3), "all", "b", 3)
      check(die_at(step, "move", id_of(before[1]), b, 1), "a", "b")
      check(die_at(step, "delete", id_of(before[2])), "all", "a", 2)
    end
  end)

  it("are as before when a writer dies between ROLLBACK and what it should tell then", function()
    local before = begin_anew()
    assert.same(before, die_at(UNDONE, "move", id_of(before[2]), b, 1, "rollback"))
  end)

  it("show what is queued, whenever who applies it dies", function()
    for _, step in pairs(CONSUMED) do
      local db = orm:session()
      local item = must(db:new(Item, { box = a }))
      must(db:flush())
      warm()
      item.box = b
      must(db:flush_async())
      local gone = must(db:new(Item, { box = a }))
      must(db:flush_async())
      db:delete(gone)
      must(db:flush_async())
      local function check()
        support.as_redis_answers(orm, function()
          local now = cached()
          assert.is_nil((" " .. now.a .. " "):find(" " .. item.id .. " ", 1, true))
          assert.is_truthy((" " .. now.b .. " "):find(" " .. item.id .. " ", 1, true))
          assert.is_nil((" " .. now.all .. " "):find(" " .. gone.id .. " ", 1, true))
        end)
      end
      check()
      local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
        REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = step .. ":1" }
      local process = faults.spawn("lister", env, "consume")
      faults.await("the end of a consumer", function() return not process:running() end)
      os.remove(process.path)
      check()
      support.drain(orm)
      check()
      assert.same(stored(), cached())
      assert.same(stored(), cached())
      db:close()
    end
  end)
end)
